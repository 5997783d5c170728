//! The public HTTP API: its types, its paths and a typed client.
//!
//! Everything is JSON under `/v1` with a bearer token, except the bytes of components and inputs, and the log
//! stream, which is one JSON value per line. Errors are always `application/problem+json`: [`Problem`].
//! Quantities are bare numbers in their base unit; names, ids and digests are text.
//!
//! Not here: the server (`control/coordinator`), which serves the OpenAPI document made from these types.

mod apps;
mod client;
mod components;
mod fleet;
mod jobs;
mod logs;
mod namespaces;
mod nodes;
pub mod paths;
mod problem;
mod rollouts;
mod secrets;
mod simulations;
mod tokens;
mod traps;
mod upgrades;

pub use apps::{
    AllocationState, AllocationStatus, AppList, AppStatus, DeployQuery, Deployed, ScheduleStatus,
    ServiceOrJob, WorkloadStatus,
};
pub use client::{
    Client, ClientConfig, ClientConfigError, ClientError, Download, LogStream, MAX_ANSWER, Relay, Relayed,
};
pub use components::ComponentInfo;
pub use fleet::{BrakeReleased, FleetStatus, HeldZone, Recovery};
pub use jobs::{
    ItemPage, ItemStatus, ItemsQuery, MAX_INPUT_TEXT, MAX_ITEM_PAGE, RunList, RunStarted, RunState,
    RunStatus, RunsQuery, StartRun,
};
pub use logs::{LogLine, LogsQuery};
pub use namespaces::{NamespaceList, NamespaceStatus};
pub use nodes::{CordonNode, NodeList, NodeState, NodeStatus};
pub use problem::{CONTENT_TYPE_PROBLEM, Problem, code};
pub use rollouts::{RevisionList, RevisionState, RevisionStatus, Rollback, RolloutStatus};
pub use secrets::{SecretList, SecretStatus, SetSecret};
pub use simulations::{
    FleetSnapshot, Scale, Simulate, SnapshotAllocation, SnapshotApp, SnapshotNode, SnapshotProfile,
    SnapshotRun,
};
pub use tokens::{CreateJoinToken, JoinTokenCreated};
pub use traps::{TrapList, TrapsQuery};
pub use upgrades::{StartUpgrade, UpgradeNode, UpgradeNodeState, UpgradeState, UpgradeStatus};
