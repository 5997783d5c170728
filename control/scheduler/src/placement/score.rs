//! The order of nodes which can run an allocation: fewest of its kind, then emptiest, then lowest id.

use std::collections::BTreeMap;

use dunlin_model::{NodeId, WorkloadName};

use super::filter::Candidate;
use crate::Cluster;

/// Returns the best of at least one candidate.
pub(crate) fn best(cluster: &Cluster, workload: &WorkloadName, candidates: &[Candidate<'_>]) -> NodeId {
    let mut same: BTreeMap<&NodeId, u32> = BTreeMap::new();
    for record in cluster.durable.of_workload(workload).filter(|record| record.is_live()) {
        *same.entry(&record.node).or_default() += 1;
    }
    let score = |candidate: &Candidate<'_>| {
        let spread = same.get(candidate.id).copied().unwrap_or_default();
        (spread, reserved_share(candidate), candidate.id.clone())
    };
    candidates.iter().map(score).min().map(|(_, _, id)| id).expect("there is at least one candidate")
}

/// Returns which share of a node is reserved, in millionths: of memory or of computing, whichever is scarcer.
fn reserved_share(candidate: &Candidate<'_>) -> u128 {
    let share = |reserved: u64, capacity: u64| u128::from(reserved) * 1_000_000 / u128::from(capacity.max(1));
    let Candidate { reserved, capacity, .. } = candidate;
    share(reserved.memory.0, capacity.memory.0).max(share(reserved.fuel_rate.0, capacity.fuel_rate.0))
}
