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
    /// What it can be run as: `wasi:http/incoming-handler` (of WASI 0.3 `wasi:http/handler`), `wasi:cli/run`.
    #[serde(default)]
    pub worlds: Vec<String>,
    /// What it needs that is off unless a node's operator switches it on: `wasi-0.3`.
    #[serde(default)]
    pub features: Vec<String>,
    /// What it wants from the host.
    #[serde(default)]
    pub imports: Vec<String>,
}
