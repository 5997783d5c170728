//! Placement: chooses a node for one allocation.
//!
//! Two passes. [`filter`] drops the nodes which cannot run it and keeps the reason for each; [`score`] orders the
//! rest. Equal scores go to the lower node id, so the answer never varies.
//!
//! Not here: whether the allocation is needed (`reconcile`), and when it may start (`rollout`).

mod filter;
mod score;

use std::collections::BTreeMap;

use dunlin_model::{NodeId, Resources, WorkloadName};

use crate::Cluster;
use filter::Unplaceable;

/// What is to be placed.
pub(crate) struct Demand<'a> {
    /// Of what.
    pub(crate) workload: &'a WorkloadName,
    /// What it reserves.
    pub(crate) need: Resources,
    /// Labels which its node must have.
    pub(crate) labels: &'a BTreeMap<String, String>,
}

/// Returns the best node, or why there is none.
pub(crate) fn choose(cluster: &Cluster, demand: &Demand<'_>) -> Result<NodeId, Unplaceable> {
    let candidates = filter::filter(cluster, demand)?;
    Ok(score::best(cluster, demand.workload, &candidates))
}
