//! What would come of something before it is done: told by the brain itself, driven ahead in time on a copy.
//!
//! Agents are taken to obey: each starts at its next heartbeat what it is told to run. Times are those of the fleet,
//! counted from the moment of asking.

use serde::{Deserialize, Serialize};

use crate::{AllocationId, AppName, DurationMs, EndReason, Name, NodeId, Revision, Want, WorkloadName};

/// What would come of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Forecast {
    /// Why it goes no further.
    pub ends: ForecastEnd,
    /// When the last thing changed.
    pub took_ms: DurationMs,
    /// What happens, in order of time, the first of it.
    #[serde(default)]
    pub moments: Vec<Moment>,
    /// How much more happens.
    #[serde(default)]
    pub more: u32,
    /// Those workloads of which something changes, in order of name.
    #[serde(default)]
    pub workloads: Vec<WorkloadForecast>,
    /// How many others there are.
    #[serde(default)]
    pub untouched: u32,
    /// The zones whose lost nodes are not replaced at the end, as many were lost at once.
    #[serde(default)]
    pub held_zones: Vec<String>,
}

/// Why a forecast goes no further.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ForecastEnd {
    /// Nothing changes any more.
    #[default]
    Settled,
    /// The time that was looked at is over; something would change later.
    Time,
    /// It is too much to be computed for one question.
    Effort,
    /// A reason of a later version.
    #[serde(other)]
    Unknown,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Moment {
    /// When, counted from the moment of asking.
    pub after_ms: DurationMs,
    /// What.
    pub kind: MomentKind,
    /// The same in words.
    pub text: String,
    /// To which workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadName>,
    /// On which node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum MomentKind {
    /// The lease of a node is over.
    NodeLost,
    /// So many nodes of a zone are lost that nothing of it is replaced.
    ZoneHeld,
    /// What a lost node ran may be replaced.
    NodeReleased,
    /// An allocation is placed.
    Placed,
    /// It serves.
    Serves,
    /// It is lost with its node.
    Lost,
    /// It leaves the routes, and ends when its requests are answered.
    Leaves,
    /// It ends.
    Ended,
    /// A revision has failed, and the one before is restored.
    TakenBack,
    /// Nothing of a service answers.
    Down,
    /// Something of it answers again.
    Up,
    /// Something of a later version.
    #[serde(other)]
    Unknown,
}

/// What would come of one workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkloadForecast {
    /// Which.
    pub workload: WorkloadName,
    /// How many should serve before, and do.
    pub desired_before: u32,
    /// See `desired_before`.
    pub serving_before: u32,
    /// How many should serve in the end, and do.
    pub desired: u32,
    /// See `desired`.
    pub serving: u32,
    /// The fewest that serve at any moment.
    pub fewest: u32,
    /// For how long none serves, though some should, as far as it is looked at.
    pub down_ms: DurationMs,
    /// Since when none serves, if that is so in the end though some should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_since_ms: Option<DurationMs>,
    /// When all that should serve do, if they do in the end and did not all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_after_ms: Option<DurationMs>,
    /// Why it has fewer than it should in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// What becomes of its allocations, the first of them; those that stay as they are come last.
    #[serde(default)]
    pub allocations: Vec<AllocationForecast>,
    /// How many more there are.
    #[serde(default)]
    pub more: u32,
    /// How many stay as they are.
    pub kept: u32,
    /// How many are started beyond those that are moved or replaced.
    pub started: u32,
    /// How many are moved to another node.
    pub moved: u32,
    /// How many give their place to one of another revision.
    pub replaced: u32,
    /// How many end without another in their place.
    pub ended: u32,
    /// How many are on lost nodes in the end and not replaced.
    pub lost: u32,
}

/// What becomes of one allocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AllocationForecast {
    /// What.
    pub change: AllocationChange,
    /// Which, if it is there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<AllocationId>,
    /// Where it is, if it is there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<NodeId>,
    /// Where it will be, or what takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NodeId>,
    /// Why it ends, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<EndReason>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// What can become of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AllocationChange {
    /// It is on a lost node, and not replaced.
    Lost,
    /// It ends, and another one of the same revision is elsewhere.
    Moved,
    /// It ends, and one of another revision is in its place.
    Replaced,
    /// It ends.
    Ended,
    /// It is started.
    Started,
    /// It stays as it is.
    Kept,
    /// Something of a later version.
    #[serde(other)]
    Unknown,
}

/// What a deploy would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    /// Of which app.
    pub app: AppName,
    /// Its revision now; absent if it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Revision>,
    /// Its revision then.
    pub revision: Revision,
    /// Whether anything would change.
    pub changed: bool,
    /// What differs in its specs.
    #[serde(default)]
    pub fields: Vec<FieldChange>,
    /// What its workloads could do or have then and cannot now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wants: Vec<Want>,
    /// Whether its namespace lets none of these be deployed unless the deploy accepts them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks: bool,
    /// What would come of it: its own workloads, and those of others of which something would be otherwise than
    /// without it.
    pub forecast: Forecast,
}

/// A field of a spec that is another one than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldChange {
    /// Of which workload.
    pub workload: Name,
    /// Which, as a dotted path; empty for the whole workload.
    pub field: String,
    /// What it is, as JSON; absent if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it will be, as JSON; absent if it will not be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}
