//! What would come of something: what is asked, and a fleet that is written down.

use std::collections::BTreeMap;

use dunlin_model::{
    AppSpec, DurationMs, Name, NamespaceSpec, NodeId, Overcommit, Resources, Revision, WorkloadName,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is to be looked at: all of it happens at once, on a copy of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Simulate {
    /// Nodes that fall silent.
    pub lose_nodes: Vec<NodeId>,
    /// Zones all of whose nodes fall silent: the nodes with this label `zone`.
    pub lose_zones: Vec<String>,
    /// Nodes that are drained.
    pub drain_nodes: Vec<NodeId>,
    /// Apps that are deployed. Their components need not be there.
    pub deploy: Vec<AppSpec>,
    /// Services that get another number of allocations.
    pub scale: Vec<Scale>,
    /// How many allocations each service gets, in per cent of what it has; rounded up. A service that runs everywhere
    /// stays as it is, and so do those of `deploy` and `scale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_percent: Option<u32>,
    /// For how long it is looked ahead at most, in milliseconds of the fleet's time; an hour if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_ms: Option<DurationMs>,
}

/// A service that gets another number of allocations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Which.
    pub workload: WorkloadName,
    /// How many.
    pub allocations: u32,
}

/// A fleet written down: as it is, or as somebody imagines it. It is enough to tell what would be decided on it.
///
/// It holds the specs of all apps, with the variables that their guests see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetSnapshot {
    /// How patient it is with silent nodes.
    #[serde(default)]
    pub profile: SnapshotProfile,
    /// Its nodes.
    pub nodes: Vec<SnapshotNode>,
    /// Its namespaces of which something was said.
    #[serde(default)]
    pub namespaces: BTreeMap<Name, NamespaceSpec>,
    /// Its apps.
    #[serde(default)]
    pub apps: Vec<SnapshotApp>,
    /// Where what runs is. What is not said here is placed before anything else is looked at.
    #[serde(default)]
    pub allocations: Vec<SnapshotAllocation>,
    /// The runs of its jobs that go on.
    #[serde(default)]
    pub runs: Vec<SnapshotRun>,
}

/// How patient a fleet is with silent nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotProfile {
    /// Machines on one reliable network.
    Lan,
    /// Machines behind flaky links.
    #[default]
    Edge,
    /// Machines that are out of reach for hours.
    Dark,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotNode {
    /// Its name.
    pub node: NodeId,
    /// What guests may use on it.
    pub capacity: Resources,
    /// What operators say about it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many it has of each countable resource.
    #[serde(default)]
    pub resources: BTreeMap<String, u32>,
    /// How much of its capacity batch work may reserve, in per cent.
    #[serde(default)]
    #[schema(value_type = u32)]
    pub batch_overcommit: Overcommit,
    /// Whether nothing new goes there.
    #[serde(default)]
    pub cordoned: bool,
    /// Whether it is lost.
    #[serde(default)]
    pub lost: bool,
}

/// An app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotApp {
    /// Its newest revision.
    pub revision: Revision,
    /// What it should be.
    pub spec: AppSpec,
}

/// An allocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotAllocation {
    /// Of what.
    pub workload: WorkloadName,
    /// Of which revision.
    pub revision: Revision,
    /// Where.
    pub node: NodeId,
    /// On how many items of a job it works; zero for a service.
    #[serde(default)]
    pub items: u32,
}

/// What is left of the runs of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRun {
    /// Of which job.
    pub workload: WorkloadName,
    /// How many items wait for somebody to work on them.
    pub waiting_items: u32,
}
