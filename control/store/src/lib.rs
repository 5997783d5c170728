//! Durable changes and component bytes.
