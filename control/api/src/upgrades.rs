//! Upgrades: agents become another program, ring by ring.

use std::collections::BTreeMap;

use dunlin_model::{Architecture, Digest, NodeId, Program, Timestamp, UpgradePlan};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A wish that agents become these programs, which the coordinator has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartUpgrade {
    /// One for each architecture: `x86_64`, `aarch64`.
    #[schema(value_type = BTreeMap<String, Program>)]
    pub programs: BTreeMap<Architecture, Program>,
    /// How it goes over the fleet.
    #[serde(default)]
    pub plan: UpgradePlan,
}

/// How the last upgrade stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpgradeStatus {
    /// Counts the upgrades of the fleet.
    pub number: u64,
    /// How it stands.
    pub state: UpgradeState,
    /// Why it was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The programs by architecture; none for what is installed on the machines.
    #[schema(value_type = BTreeMap<String, String>)]
    pub programs: BTreeMap<Architecture, Digest>,
    /// How it goes over the fleet.
    pub plan: UpgradePlan,
    /// At which of the plan's rings it is, from 1.
    pub ring: u32,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: Timestamp,
    /// How many nodes have it.
    pub done: u32,
    /// All nodes, in order of name.
    pub nodes: Vec<UpgradeNode>,
}

/// How an upgrade stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeState {
    /// It goes over the fleet.
    Running,
    /// No further node is told.
    Stopped,
    /// All nodes have it that were there; who comes is told too.
    Done,
}

/// How an upgrade stands on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpgradeNode {
    /// Which.
    pub node: NodeId,
    /// How it stands there.
    pub state: UpgradeNodeState,
    /// Which program of the fleet it is, as it last said; absent if it is what is installed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub program: Option<Digest>,
    /// The version that it last said it is; empty if it never reported.
    pub version: String,
    /// Why it is not what it was to become.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How an upgrade stands on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeNodeState {
    /// It has become it.
    Done,
    /// It was told.
    Told,
    /// It could not, and is what it was.
    Failed,
    /// It was not told yet.
    Waiting,
    /// It takes no programs from the fleet, or there is none for it.
    Apart,
}
