//! Placement: chooses nodes for the allocations of one workload.
//!
//! Nodes that placement cannot tell apart but by their room stand in one class of [`pools`]. [`filter`] drops whole
//! classes which cannot run the workload; [`relation`] says where the workloads are that it wants near or apart. A
//! [`search`] finds the best node in the rest, one allocation after the other, and looks at few nodes for each: the
//! first of an ordered class, and those which differ for this workload. Why there is none is counted by
//! [`unplaceable`] when somebody asks, and [`obstacles`] looks for the smallest change that would help.
//!
//! What decides is an order, not a sum of points, so that it can be told: see [`search::Rank`]. Equal ones go to the
//! lower node id, so the answer never varies.
//!
//! Not here: whether the allocation is needed (`reconcile`), whose turn it is (`turns`), and when it may start
//! (`rollout`).

mod barriers;
mod compiled;
mod copies;
mod filter;
mod obstacles;
mod pools;
mod relation;
mod search;
mod unplaceable;

use std::sync::Arc;

use dunlin_model::{Packing, Resources, Revision, WorkloadKind, WorkloadName, WorkloadSpec};

use crate::Cluster;

pub(crate) use barriers::Barriers;
pub(crate) use compiled::Compiled;
pub(crate) use copies::Copies;
pub(crate) use filter::judge_labels;
pub(crate) use obstacles::{Survey, lack};
pub(crate) use pools::{Pools, Room, Standing};
pub(crate) use relation::Relations;
pub(crate) use search::{Comparison, Rank, Search};
pub(crate) use unplaceable::Unplaceable;

/// What is to be placed.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    /// Of what.
    pub(crate) workload: WorkloadName,
    /// Of which revision.
    pub(crate) revision: Revision,
    /// How it is to be run.
    pub(crate) spec: Arc<WorkloadSpec>,
    /// How it lies on the nodes, where nothing else decides.
    pub(crate) packing: Packing,
}

impl Demand {
    /// Returns the demand for allocations of a workload, of the newest revision.
    pub(crate) fn new(cluster: &Cluster, workload: &WorkloadName, spec: &Arc<WorkloadSpec>) -> Self {
        let packing = cluster.durable.namespace(&workload.namespace).packing;
        let revision = cluster.durable.apps().get(&workload.app_name()).map(|app| app.revision);
        let revision = revision.unwrap_or_default();
        Self { workload: workload.clone(), revision, spec: Arc::clone(spec), packing }
    }

    /// Returns the same demand, of another revision.
    pub(crate) fn of(self, revision: Revision) -> Self {
        Self { revision, ..self }
    }

    /// Returns what one allocation reserves.
    pub(crate) fn need(&self) -> Resources {
        crate::record::need(&self.spec)
    }

    /// Tells whether it is batch work, for which nodes may be over-committed.
    pub(crate) fn is_batch(&self) -> bool {
        matches!(self.spec.kind, WorkloadKind::Job(_))
    }
}
