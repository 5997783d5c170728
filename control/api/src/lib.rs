//! The public HTTP API: its types, its OpenAPI document and a typed client.
