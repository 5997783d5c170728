//! Which workloads failed on which nodes lately: another node is tried first.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{DurationMs, NodeId, Timestamp, WorkloadName};

/// How long a failure is remembered.
const MEMORY: DurationMs = DurationMs(600_000);

/// Which workloads failed on which nodes lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures {
    by_workload: BTreeMap<WorkloadName, BTreeMap<NodeId, Timestamp>>,
    ends: BTreeSet<(Timestamp, WorkloadName, NodeId)>,
}

impl Failures {
    /// Takes note that a workload failed on a node.
    pub(crate) fn note(&mut self, workload: &WorkloadName, node: &NodeId, now: Timestamp) {
        let end = now.plus(MEMORY);
        let nodes = self.by_workload.entry(workload.clone()).or_default();
        if let Some(before) = nodes.insert(node.clone(), end) {
            self.ends.remove(&(before, workload.clone(), node.clone()));
        }
        self.ends.insert((end, workload.clone(), node.clone()));
    }

    /// Returns the nodes on which a workload failed lately.
    pub(crate) fn nodes(&self, workload: &WorkloadName) -> impl Iterator<Item = &NodeId> {
        self.by_workload.get(workload).into_iter().flat_map(BTreeMap::keys)
    }

    /// Forgets the failures of a workload: it is another program now.
    pub(crate) fn forget(&mut self, workload: &WorkloadName) {
        for (node, end) in self.by_workload.remove(workload).into_iter().flatten() {
            self.ends.remove(&(end, workload.clone(), node));
        }
    }

    /// Forgets what is too long ago.
    pub(crate) fn forget_old(&mut self, now: Timestamp) {
        while self.ends.first().is_some_and(|(end, ..)| *end <= now) {
            let Some((_, workload, node)) = self.ends.pop_first() else { return };
            if let Some(nodes) = self.by_workload.get_mut(&workload) {
                nodes.remove(&node);
                if nodes.is_empty() {
                    self.by_workload.remove(&workload);
                }
            }
        }
    }
}
