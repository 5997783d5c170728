//! Apps: what is deployed, and how it stands.

use dunlin_model::{
    AllocationId, AppName, Bytes, Digest, Fuel, Limits, Name, NodeId, ObservedState, Revision, RouteSpec,
    RunId, Schedule, Timestamp, Want,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::RolloutStatus;

/// How an app is deployed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeployQuery {
    /// Whether what it newly wants is accepted, where its namespace asks.
    #[serde(default)]
    pub accept: bool,
}

/// The answer to a deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deployed {
    /// The app's revision from now on.
    pub revision: Revision,
    /// Whether this deploy made it; a deploy of what is already there changes nothing.
    pub changed: bool,
    /// What its workloads may do or have now and could not before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wants: Vec<Want>,
}

/// All apps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppList {
    /// In order of name.
    pub apps: Vec<AppStatus>,
}

/// How one app stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppStatus {
    /// Which.
    pub name: AppName,
    /// The revision that should run.
    pub revision: Revision,
    /// The revision which that restores, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<Revision>,
    /// The passage to it, as long as that goes on or has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Its workloads, in order of name.
    pub workloads: Vec<WorkloadStatus>,
}

/// How one workload stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkloadStatus {
    /// Which, within its app.
    pub name: Name,
    /// Service or job.
    pub kind: ServiceOrJob,
    /// How many allocations should run.
    pub desired: u32,
    /// How many run.
    pub running: u32,
    /// Why not all run, and what smallest change would help; absent if nothing waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// Which requests reach it.
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
    /// What it may use at most.
    pub limits: Limits,
    /// What it runs.
    pub component: Digest,
    /// Its allocations that are not yet gone, in order of id.
    #[serde(default)]
    pub allocations: Vec<AllocationStatus>,
    /// The jobs that are run before it in the same chain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Name>,
    /// When it is run by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleStatus>,
}

/// When a job is run by itself, and how that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleStatus {
    /// What its manifest says.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// When it is due next; absent if it is not within years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// When it was due last, of what is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
    /// Which run was started then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Why none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// Service or job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceOrJob {
    /// Answers HTTP requests.
    Service,
    /// Runs over items, when asked.
    Job,
}

/// How one allocation stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AllocationStatus {
    /// Which.
    pub id: AllocationId,
    /// Where.
    pub node: NodeId,
    /// Of which revision.
    pub revision: Revision,
    /// Where it stands.
    pub state: AllocationState,
    /// Why it stands there, if that is not plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How often it was started again.
    pub restarts: u32,
    /// The most memory one of its instances held.
    pub memory: Bytes,
    /// Fuel its instances have burned.
    pub fuel: Fuel,
    /// Requests it has answered, or items it has run.
    pub instances: u64,
}

/// Where an allocation stands, as the coordinator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AllocationState {
    /// Bound to its node, which has not yet said anything of it.
    Placed,
    /// Its component is being brought to the node.
    Fetching,
    /// Its component is being compiled and loaded.
    Starting,
    /// It serves, or works on its items.
    Running,
    /// It failed and is tried again after a while.
    BackingOff,
    /// It runs and does not answer its health checks as it should.
    Unhealthy,
    /// It is not to run as long as the coordinator is not heard: see `on_partition`.
    Stopped,
    /// It can never run on this node.
    Refused,
    /// A job's allocation: each of its items has a record.
    Finished,
    /// It is being stopped.
    Stopping,
    /// Its node is not heard of.
    Lost,
    /// A state of a later version.
    #[serde(other)]
    Unknown,
}

impl AllocationState {
    /// Returns the name alone, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Fetching => "fetching",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::BackingOff => "backing-off",
            Self::Unhealthy => "unhealthy",
            Self::Stopped => "stopped",
            Self::Refused => "refused",
            Self::Finished => "finished",
            Self::Stopping => "stopping",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

impl From<&ObservedState> for AllocationState {
    fn from(state: &ObservedState) -> Self {
        match state {
            ObservedState::Fetching => Self::Fetching,
            ObservedState::Starting => Self::Starting,
            ObservedState::Running => Self::Running,
            ObservedState::BackingOff { .. } => Self::BackingOff,
            ObservedState::Unhealthy { .. } => Self::Unhealthy,
            ObservedState::Stopped { .. } => Self::Stopped,
            ObservedState::Refused { .. } => Self::Refused,
            ObservedState::Finished => Self::Finished,
        }
    }
}
