//! Why things are as they are: where allocations stand and why there, what waits for what, and what has ended.
//!
//! Each answer has a word for programs and a text for people. What is said is true of the moment of asking: a
//! scheduler keeps no reasons, it judges again.

use serde::{Deserialize, Serialize};

use crate::{AllocationId, DurationMs, NodeId, Revision, Timestamp, WorkloadName};

/// Why a workload is as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// Which.
    pub workload: WorkloadName,
    /// Its newest revision; absent if no app has it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// How many allocations should serve; zero for a job.
    pub desired: u32,
    /// How many serve.
    pub running: u32,
    /// What a node must fulfil to be given one, as it is written in the manifest.
    #[serde(default)]
    pub requires: Vec<String>,
    /// Its allocations that are not yet gone, in order of id, the first of them.
    #[serde(default)]
    pub allocations: Vec<ExplainedAllocation>,
    /// How many more there are.
    #[serde(default)]
    pub more: u32,
    /// Why it has fewer than it should, or could.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<ExplainedWait>,
    /// Where its allocations failed lately, the latest first.
    #[serde(default)]
    pub failures: Vec<AllocationFailure>,
    /// Its allocations that have ended lately, the latest first.
    #[serde(default)]
    pub ended: Vec<EndedAllocation>,
}

/// Why an allocation is where it is, or why it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AllocationExplanation {
    /// Of what it is, or was.
    pub workload: WorkloadName,
    /// How it stands; absent if it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<ExplainedAllocation>,
    /// How it ended; absent if it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndedAllocation>,
    /// How it failed lately, the latest first.
    #[serde(default)]
    pub failures: Vec<AllocationFailure>,
}

/// One allocation and why it is where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExplainedAllocation {
    /// Which.
    pub id: AllocationId,
    /// Of which revision.
    pub revision: Revision,
    /// Where.
    pub node: NodeId,
    /// When it was placed there.
    pub placed: Timestamp,
    /// Where it stands.
    pub state: String,
    /// What decided for its node.
    pub decided_by: Decision,
    /// The node that would be next; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<NodeId>,
    /// The same in words.
    pub because: String,
}

/// What decides for a node. The first in which two nodes differ decides between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Decision {
    /// It runs on each node that can run it.
    Everywhere,
    /// No other node can take it.
    OnlyNode,
    /// It has not failed there lately.
    Failures,
    /// Its spread is least full there.
    Spread,
    /// More of what it prefers holds there.
    Preference,
    /// Fewer of its allocations are there.
    Copies,
    /// Its component has run there.
    Compiled,
    /// The node is emptier, or fuller, as the namespace's packing wants it.
    Packing,
    /// All else is equal, and the lower name goes first.
    Name,
    /// Another node would be taken today.
    Elsewhere,
    /// Nothing would be placed there today.
    NotAgain,
    /// A reason of a later version.
    #[serde(other)]
    Unknown,
}

/// Why a workload has fewer allocations than it should, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExplainedWait {
    /// How many allocations of a service are missing.
    pub missing: u32,
    /// How many items of a job nobody works on, though somebody could.
    pub ready_items: u32,
    /// Why, in short.
    pub reason: String,
    /// How many nodes there are.
    pub nodes: u32,
    /// How many of them could take one more.
    pub able: u32,
    /// At what the others fell. Each node is counted at the first that it does not pass.
    #[serde(default)]
    pub filters: Vec<FilterCount>,
    /// The smallest changes each of which alone would let one more be placed.
    #[serde(default)]
    pub remedies: Vec<Remedy>,
    /// If no single change would do: what the nearest node lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
}

/// How many nodes fell at one filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FilterCount {
    /// What they do not pass.
    pub filter: String,
    /// How many.
    pub nodes: u32,
}

/// A change which alone would let one more allocation be placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Remedy {
    /// Of which kind.
    pub kind: RemedyKind,
    /// What to do.
    pub text: String,
    /// How many nodes could take one then.
    pub nodes: u32,
}

/// The kinds of changes that help what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RemedyKind {
    /// Let the namespace have more.
    RaiseQuota,
    /// Make room on a node.
    Free,
    /// Ask for less room.
    Lower,
    /// Ask for less of a place.
    Drop,
    /// Let a node be used that is not.
    UseNode,
    /// Switch a feature on.
    SwitchOn,
    /// Add a node.
    AddNode,
    /// Let what lost nodes ran be replaced.
    Release,
    /// A kind of a later version.
    #[serde(other)]
    Unknown,
}

/// How an allocation failed: it was not started, or its worker died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AllocationFailure {
    /// Which.
    pub id: AllocationId,
    /// Where.
    pub node: NodeId,
    /// When that was last said.
    pub at: Timestamp,
    /// What its node said.
    pub said: String,
}

/// An allocation that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndedAllocation {
    /// Which.
    pub id: AllocationId,
    /// Of which revision.
    pub revision: Revision,
    /// Where it was.
    pub node: NodeId,
    /// When it ended.
    pub at: Timestamp,
    /// How long it was there.
    pub lasted: DurationMs,
    /// Why.
    pub why: EndReason,
    /// The same in words.
    pub because: String,
    /// What its node last said of it, if it did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_said: Option<String>,
}

/// Why an allocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EndReason {
    /// Its app was deleted, or no longer has the workload.
    Deleted,
    /// Another revision took its place.
    Replaced,
    /// Fewer are wanted.
    ScaledDown,
    /// What ran on its node had to leave it.
    Drained,
    /// Another node is better for it, and one there took its place.
    Rebalanced,
    /// It made way for something more urgent.
    Preempted,
    /// Its node was lost, and it was replaced or given up.
    NodeLost,
    /// All its items have their records.
    Finished,
    /// Its run was cancelled, or has ended without it.
    RunEnded,
    /// It gave items back without a record, to be tried again.
    GivenBack,
    /// A reason of a later version.
    #[serde(other)]
    Unknown,
}
