//! Placement: chooses nodes for the allocations of one workload.
//!
//! Nodes that placement cannot tell apart but by their room stand in one class of [`pools`]. [`filter`] drops whole
//! classes which cannot run the workload; a [`search`] finds the best node in the rest, one allocation after the other,
//! and looks at few nodes for each: the first of an ordered class, and those which differ for this workload. Why there
//! is none is counted by [`unplaceable`] when somebody asks.
//!
//! Equal scores go to the lower node id, so the answer never varies.
//!
//! Not here: whether the allocation is needed (`reconcile`), and when it may start (`rollout`).

mod filter;
mod pools;
mod search;
mod unplaceable;

use std::sync::Arc;

use dunlin_model::{Resources, WorkloadKind, WorkloadName, WorkloadSpec};

pub(crate) use pools::Pools;
pub(crate) use search::Search;
pub(crate) use unplaceable::Unplaceable;

/// What is to be placed.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    /// Of what.
    pub(crate) workload: WorkloadName,
    /// How it is to be run.
    pub(crate) spec: Arc<WorkloadSpec>,
}

impl Demand {
    /// Returns what one allocation reserves.
    pub(crate) fn need(&self) -> Resources {
        crate::record::need(&self.spec)
    }

    /// Tells whether it is batch work, for which nodes may be over-committed.
    pub(crate) fn is_batch(&self) -> bool {
        matches!(self.spec.kind, WorkloadKind::Job(_))
    }
}
