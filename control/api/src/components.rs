//! Components: the answer to an upload.

use dunlin_model::{Bytes, Digest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What admission found out about a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComponentInfo {
    /// Which.
    pub digest: Digest,
    /// How large.
    pub size: Bytes,
    /// What it can be run as: `wasi:http/incoming-handler`, `wasi:cli/run`.
    #[serde(default)]
    pub worlds: Vec<String>,
    /// What it wants from the host.
    #[serde(default)]
    pub imports: Vec<String>,
}
