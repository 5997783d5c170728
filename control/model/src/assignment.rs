//! What one node must run: the whole list, sent again until the node reports it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    AllocationId, ClusterId, Digest, Generation, ProgramOrder, Resources, Revision, RouteTable, RunId,
    SecretId, SecretVersion, Term, WorkloadName, WorkloadSpec,
};

/// Everything one node must run, and the routes its ingress must know.
///
/// Ordered by (term, generation): an agent never acts on one below the highest it has stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The fleet that speaks.
    pub cluster: ClusterId,
    /// The coordinator that speaks.
    pub term: Term,
    /// Counts the assignments to this node within the term.
    pub generation: Generation,
    /// Everything that must run; what is not in here must not.
    pub allocations: Vec<AssignedAllocation>,
    /// Those among them which take no new items: they finish what they have, and make way then.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub finishing: BTreeSet<AllocationId>,
    /// Components whose compiled code stays on the node though nothing here may run them any more: a rollout that fails
    /// goes back to them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub kept: BTreeSet<Digest>,
    /// The secrets that these allocations are granted, each with the value that is meant. One that is not here is not
    /// set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<SecretId, SecretVersion>,
    /// What the agent is to become, if the fleet has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramOrder>,
    /// What the ingress must know.
    pub routes: RouteTable,
}

/// One allocation in an assignment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedAllocation {
    /// Which.
    pub id: AllocationId,
    /// Of what.
    pub workload: WorkloadName,
    /// Of which revision.
    pub revision: Revision,
    /// How. Allocations of one revision share it.
    pub spec: Arc<WorkloadSpec>,
    /// What for.
    pub work: Work,
}

impl AssignedAllocation {
    /// Returns the secrets that it is granted.
    pub fn secrets(&self) -> impl Iterator<Item = SecretId> {
        let names = self.spec.capabilities.secrets.iter().cloned();
        names.map(|name| SecretId { namespace: self.workload.namespace.clone(), name })
    }

    /// Returns what it reserves on its node.
    pub fn resources(&self) -> Resources {
        Resources { memory: self.spec.limits.memory, fuel_rate: self.spec.limits.fuel_rate }
    }
}

/// What an allocation is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Work {
    /// Answer requests until told otherwise.
    Serve,
    /// Run these items, each in a fresh instance, then end.
    Items {
        /// Of which run.
        run: RunId,
        /// Which items.
        range: ItemRange,
        /// Which try this is, from 1.
        attempt: u32,
        /// Whether this is the one instance that combines the outputs of all items.
        combine: bool,
        /// Whether items have inputs, which must be brought; without, each knows only its number.
        #[serde(default = "unknown_inputs")]
        inputs: bool,
    },
}

/// Who does not say whether there are inputs is asked for them.
const fn unknown_inputs() -> bool {
    true
}

/// A half-open range of item numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemRange {
    /// The first item.
    pub start: u32,
    /// One after the last item.
    pub end: u32,
}

impl ItemRange {
    /// Returns how many items it has.
    pub const fn len(&self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    /// Tells whether it has no items.
    pub const fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Tells whether `item` is one of them.
    pub const fn contains(&self, item: u32) -> bool {
        self.start <= item && item < self.end
    }
}

impl fmt::Display for ItemRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}
