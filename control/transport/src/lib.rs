//! The wire: QUIC endpoints, identities and the way a node joins.
