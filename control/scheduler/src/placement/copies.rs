//! How many allocations of each revision each workload has on each node, by class of nodes, so that a search need not
//! count them.
//!
//! By revision, since a rollout is to end with the newest one spread out, whatever goes before.

use std::collections::BTreeMap;

use dunlin_model::{NodeId, Revision, WorkloadName};

use super::pools::ClassId;
use crate::AllocationRecord;
use crate::lookup::Lookup;

/// The allocations of one workload on the nodes of one class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InClass {
    /// How many there are on all of them.
    pub(crate) total: u32,
    /// How many there are on each node that has some.
    pub(crate) nodes: BTreeMap<NodeId, u32>,
}

/// The allocations of all workloads that are neither on their way out nor lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Copies {
    by_workload: Lookup<WorkloadName, BTreeMap<(Revision, ClassId), InClass>>,
}

impl Copies {
    /// Takes note of one more allocation.
    pub(crate) fn add(&mut self, record: &AllocationRecord, class: ClassId) {
        let AllocationRecord { workload, revision, node, .. } = record;
        let in_class = self.by_workload.or_default(workload).entry((*revision, class)).or_default();
        in_class.total += 1;
        match in_class.nodes.get_mut(node) {
            Some(count) => *count += 1,
            None => drop(in_class.nodes.insert(node.clone(), 1)),
        }
    }

    /// Takes note that there is one less.
    pub(crate) fn remove(&mut self, record: &AllocationRecord, class: ClassId) {
        let AllocationRecord { workload, revision, node, .. } = record;
        let key = (*revision, class);
        let Some(by_class) = self.by_workload.get_mut(workload) else { return };
        let Some(in_class) = by_class.get_mut(&key) else { return };
        let Some(count) = in_class.nodes.get_mut(node) else { return };
        *count -= 1;
        if *count == 0 {
            in_class.nodes.remove(node);
        }
        in_class.total -= 1;
        if in_class.total == 0 {
            by_class.remove(&key);
        }
        if by_class.is_empty() {
            self.by_workload.remove(workload);
        }
    }

    /// Returns the classes on whose nodes a workload has allocations of a revision.
    pub(crate) fn of(
        &self,
        workload: &WorkloadName,
        revision: Revision,
    ) -> impl Iterator<Item = (ClassId, &InClass)> {
        let by_class = self.by_workload.get(workload);
        let of_revision =
            by_class.map(|by_class| by_class.range((revision, ClassId::MIN)..=(revision, ClassId::MAX)));
        of_revision.into_iter().flatten().map(|((_, class), in_class)| (*class, in_class))
    }

    /// Returns the allocations that a workload has of a revision on the nodes of a class, if there are any.
    pub(crate) fn in_class(
        &self,
        workload: &WorkloadName,
        revision: Revision,
        class: ClassId,
    ) -> Option<&InClass> {
        self.by_workload.get(workload)?.get(&(revision, class))
    }
}

impl InClass {
    /// Returns how many there are on a node.
    pub(crate) fn on(&self, node: &NodeId) -> u32 {
        self.nodes.get(node).copied().unwrap_or_default()
    }
}
