//! The fleet in one line.

use dunlin_model::{ClusterId, Term};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The fleet in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FleetStatus {
    /// Which fleet.
    pub cluster: ClusterId,
    /// The term of its coordinator.
    pub term: Term,
    /// The version of its coordinator.
    pub version: String,
    /// How many nodes are heard of.
    pub nodes_alive: u32,
    /// How many nodes have joined.
    pub nodes: u32,
    /// How many apps are deployed.
    pub apps: u32,
}
