//! The fleet in one line, and the brake: a mass loss is no mass move.

use dunlin_model::{ClusterId, Term, Timestamp};
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
    /// Where the API of the coordinator in charge is, where there may be several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_charge: Option<String>,
    /// How many nodes are heard of.
    pub nodes_alive: u32,
    /// How many nodes have joined.
    pub nodes: u32,
    /// How many apps are deployed.
    pub apps: u32,
    /// The zones whose lost nodes are not replaced, as many were lost at once.
    #[serde(default)]
    pub held_zones: Vec<HeldZone>,
    /// Why nothing is decided, if that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
}

/// That nothing is decided until an operator says so: the coordinator's store is older than what the fleet obeys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recovery {
    /// When that was found out, or the backup was taken.
    pub since_ms: Timestamp,
    /// Why.
    pub reason: String,
    /// The highest term that agents were heard to have obeyed; zero if none was heard yet.
    pub highest_term: Term,
}

/// A zone whose lost nodes are not replaced, as many were lost at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldZone {
    /// The label `zone` of its nodes; empty for those without it, which are a zone of their own.
    pub zone: String,
    /// How many of its nodes are lost.
    pub lost: u32,
    /// How many nodes it has.
    pub nodes: u32,
}

/// What was let go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BrakeReleased {
    /// The zones that were held.
    pub held_zones: Vec<HeldZone>,
    /// How many lost nodes had waited for their work to be replaced, those of no held zone included.
    pub nodes: u32,
}
