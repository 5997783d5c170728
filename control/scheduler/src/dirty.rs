//! What has changed since it was last thought through, so that the work of a step grows with the change.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{AllocationId, Name, NodeId, RunId, Work, WorkloadName};

use crate::durable::{Change, Durable};
use crate::planted::{Bug, planted};
use crate::{AllocationRecord, AllocationState, AppRecord, NodeRecord};

/// What has to be thought through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dirty {
    /// Workloads of which there may be too many or too few allocations.
    pub(crate) workloads: BTreeSet<WorkloadName>,
    /// Runs that may lease more.
    pub(crate) runs: BTreeSet<RunId>,
    /// Nodes that have to run something else.
    pub(crate) nodes: BTreeSet<NodeId>,
    /// Services of which routes and all endpoints may be others.
    pub(crate) services: BTreeSet<WorkloadName>,
    /// Allocations that may answer requests now and did not, or the other way round.
    pub(crate) endpoints: BTreeMap<AllocationId, WorkloadName>,
    /// Nodes that may be reached elsewhere, or not at all.
    pub(crate) peers: BTreeSet<NodeId>,
    /// Whether something may fit now that did not.
    pub(crate) room: bool,
    /// Namespaces that may have more now.
    pub(crate) allowed: BTreeSet<Name>,
    /// Whether something is elsewhere now that others want near or apart.
    pub(crate) relations: bool,
}

/// For whom there may be room now that had none.
#[derive(Debug)]
pub(crate) struct NewRoom {
    on_nodes: bool,
    namespaces: BTreeSet<Name>,
}

impl NewRoom {
    /// Takes it out of what has changed.
    pub(crate) fn take(dirty: &mut Dirty) -> Self {
        let Dirty { room, allowed, .. } = dirty;
        Self { on_nodes: std::mem::take(room), namespaces: std::mem::take(allowed) }
    }

    /// Tells whether there is none for anybody.
    pub(crate) fn is_none(&self) -> bool {
        !self.on_nodes && self.namespaces.is_empty()
    }

    /// Tells whether a workload that waits may have some.
    pub(crate) fn concerns(&self, workload: &WorkloadName) -> bool {
        self.on_nodes || self.namespaces.contains(&workload.namespace)
    }
}

impl Dirty {
    /// Returns the state in which everything is to be thought through.
    pub(crate) fn everything(durable: &Durable) -> Self {
        let busy = durable.allocations().values().map(|record| record.workload.clone());
        Self {
            workloads: durable.specs().keys().cloned().chain(busy).collect(),
            runs: durable.runs().values().filter(|run| run.is_running()).map(|run| run.id).collect(),
            nodes: durable.nodes().keys().cloned().collect(),
            services: BTreeSet::new(),
            endpoints: BTreeMap::new(),
            peers: BTreeSet::new(),
            room: true,
            allowed: BTreeSet::new(),
            relations: false,
        }
    }

    /// Tells whether there is nothing to think through.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Notes what `change` may bring about. Call it before the change is made.
    pub(crate) fn mark(&mut self, before: &Durable, change: &Change) {
        match change {
            Change::App(record) => {
                self.mark_app(before.apps().get(&record.name));
                self.mark_app(Some(record));
            }
            Change::AppDeleted(name) => self.mark_app(before.apps().get(name)),
            Change::Node(record) => {
                let known = before.nodes().get(&record.id);
                self.peers.insert(record.id.clone());
                let gone = known.iter().flat_map(|known| &known.leaving);
                let gone = gone.filter(|(id, _)| !record.leaving.contains_key(id));
                self.workloads.extend(gone.map(|(_, leaving)| leaving.workload.clone()));
                let order = |node: &NodeRecord| before.upgrade().and_then(|upgrade| upgrade.order(node));
                if known.and_then(&order) != order(record) {
                    self.nodes.insert(record.id.clone());
                }
                if known.is_some_and(|known| known.cordon != record.cordon) {
                    self.workloads.extend(before.on_node(&record.id).map(|it| it.workload.clone()));
                }
                if known.is_some_and(|known| known.released != record.released) {
                    before.on_node(&record.id).for_each(|record| self.mark_allowed(before, record));
                }
            }
            Change::Allocation(record) => {
                let known = before.allocations().get(&record.id);
                self.mark_allocation(record, known.map(|known| &**known), Some(record));
            }
            Change::AllocationDeleted(id) => {
                if let Some(known) = before.allocations().get(id) {
                    self.mark_allowed(before, known);
                    self.mark_allocation(known, Some(known), None);
                }
            }
            Change::Run(record) => {
                self.runs.insert(record.id);
            }
            Change::Namespace(record) => drop(self.allowed.insert(record.name.clone())),
            Change::Secret(_) if planted(Bug::ForgetReaders) => {}
            Change::Secret(record) => {
                self.nodes.extend(before.readers(&record.id).map(|record| record.node.clone()));
            }
            Change::Upgrade(record) => {
                // Who is not told yet what this one brings is no longer told what the one before did.
                let order = |node| before.upgrade().and_then(|upgrade| upgrade.order(node));
                let others = before.nodes().values().filter(|node| order(node) != record.order(node));
                self.nodes.extend(others.map(|node| node.id.clone()));
            }
            Change::Revision(_)
            | Change::RevisionDeleted(..)
            | Change::RunDeleted(_)
            | Change::Item { .. }
            | Change::Schedule(_)
            | Change::ScheduleDeleted(_)
            | Change::Token(_)
            | Change::TokenDeleted(_)
            | Change::Pending(_)
            | Change::PendingDeleted(_)
            | Change::SecretDeleted(_)
            | Change::Counters(_)
            | Change::Recovery(_) => {}
        }
    }

    /// Notes that the namespace of an allocation has less than before.
    fn mark_allowed(&mut self, before: &Durable, record: &AllocationRecord) {
        let namespace = &record.workload.namespace;
        if before.namespaces().contains_key(namespace) && !self.allowed.contains(namespace) {
            self.allowed.insert(namespace.clone());
        }
    }

    fn mark_app(&mut self, app: Option<&AppRecord>) {
        let Some(app) = app else { return };
        for name in app.spec.workloads.keys() {
            let full = app.name.workload(name);
            self.services.insert(full.clone());
            self.workloads.insert(full);
        }
    }

    fn mark_allocation(
        &mut self,
        record: &AllocationRecord,
        before: Option<&AllocationRecord>,
        after: Option<&AllocationRecord>,
    ) {
        // An allocation changes for its node only together with its revision, or when it is to make way.
        let told = |record: Option<&AllocationRecord>| {
            let assigned = record.filter(|record| record.is_assigned());
            assigned.map(|record| (record.revision, record.makes_way.is_some()))
        };
        if told(before) != told(after) {
            self.nodes.insert(record.node.clone());
        }
        match record.work {
            Work::Serve => {
                let answers = |record: Option<&AllocationRecord>| {
                    record.is_some_and(|record| match record.state {
                        AllocationState::Running => true,
                        AllocationState::Lost => planted(Bug::KeepRoutesOfLost),
                        AllocationState::Placed | AllocationState::Draining { .. } => false,
                    })
                };
                if answers(before) != answers(after) {
                    self.endpoints.insert(record.id, record.workload.clone());
                }
                self.workloads.insert(record.workload.clone());
            }
            Work::Items { run, .. } => {
                self.runs.insert(run);
                // An allocation may outlive that its workload was a service or a job.
                self.workloads.insert(record.workload.clone());
            }
        }
    }
}
