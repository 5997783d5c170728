//! What a guest may touch beyond computing. Everything is denied unless it stands here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Name;

/// What one workload is granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Capabilities {
    /// Where it may send HTTP requests: `https://api.example.com`, `http://*.example.org:8080`.
    pub outbound_http: Vec<String>,
    /// Where it may open TCP connections: `host:port`.
    pub sockets: Vec<String>,
    /// What it finds in `wasi:config`.
    pub config: BTreeMap<String, String>,
    /// Folders of its node which it sees, by the path at which it sees them.
    pub folders: BTreeMap<String, FolderGrant>,
    /// The path at which it sees a scratch folder, empty at the start of each instance and bounded by
    /// `limits.scratch`.
    pub scratch: Option<String>,
}

/// A folder which a node's operator offers, as one workload sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FolderGrant {
    /// The name under which the node's config offers it.
    pub folder: Name,
    /// Whether the guest may write; the node's config must allow that, too.
    #[serde(default)]
    pub writable: bool,
}
