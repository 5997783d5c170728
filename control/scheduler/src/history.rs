//! What has ended lately and why, and what failed: kept for questions, within bounds, and forgotten at a restart.
//!
//! Why an allocation ends is not said by those who end it: it follows from the state in which it ends, and is worked
//! out here, at the one place through which every change goes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dunlin_model::{
    AllocationFailure, AllocationId, EndReason, EndedAllocation, NodeId, ObservedState, RunId, Timestamp,
    Work, WorkloadKind, WorkloadName,
};

use crate::{AllocationRecord, AllocationState, Change, Cluster, NodeRecord};

/// So many ended allocations, and as many failures, are remembered of each workload.
const MAX_OF_WORKLOAD: usize = 16;
/// Of so many workloads something is remembered.
const MAX_WORKLOADS: usize = 1_024;

/// What is remembered of one workload, the latest last.
#[derive(Clone, Debug, Default)]
struct Memory {
    ended: VecDeque<EndedAllocation>,
    failures: VecDeque<AllocationFailure>,
    /// When something was last added.
    touched: u64,
}

/// Why an allocation is about to end, and what its node said.
#[derive(Clone, Debug)]
struct Farewell {
    why: EndReason,
    because: String,
    last_said: Option<String>,
}

/// What has ended lately, and what failed.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    workloads: BTreeMap<WorkloadName, Memory>,
    /// Workloads by when something was last added, so that the one which is longest at rest is forgotten first.
    order: BTreeMap<u64, WorkloadName>,
    count: u64,
    /// What is on its way out.
    leaving: BTreeMap<AllocationId, Farewell>,
    /// Whether nothing is forgotten, in a copy that looks ahead.
    keeps_all: bool,
    /// Nodes whose time to be left was over at this moment.
    overdue: (Timestamp, BTreeSet<NodeId>),
}

impl History {
    /// Forgets nothing from now on. Only for a copy with an end.
    pub(crate) fn keep_all(&mut self) {
        self.keeps_all = true;
    }

    /// Takes note that an allocation failed.
    pub(crate) fn failed(&mut self, record: &AllocationRecord, state: &ObservedState, now: Timestamp) {
        let failure =
            AllocationFailure { id: record.id, node: record.node.clone(), at: now, said: state.to_string() };
        let failures = &mut self.memory(&record.workload).failures;
        failures.retain(|known| known.id != failure.id || known.said != failure.said);
        failures.push_back(failure);
        if failures.len() > MAX_OF_WORKLOAD {
            failures.pop_front();
        }
    }

    /// Returns the ends of a workload's allocations, the latest first.
    pub(crate) fn ended(&self, workload: &WorkloadName) -> impl Iterator<Item = &EndedAllocation> {
        self.workloads.get(workload).into_iter().flat_map(|memory| memory.ended.iter().rev())
    }

    /// Returns the failures of a workload's allocations, the latest first.
    pub(crate) fn failures(&self, workload: &WorkloadName) -> impl Iterator<Item = &AllocationFailure> {
        self.workloads.get(workload).into_iter().flat_map(|memory| memory.failures.iter().rev())
    }

    /// Tells whether anything is remembered of a workload.
    pub(crate) fn knows(&self, workload: &WorkloadName) -> bool {
        self.workloads.contains_key(workload)
    }

    /// Returns how an allocation ended, and of what it was.
    pub(crate) fn find(&self, id: AllocationId) -> Option<(&WorkloadName, &EndedAllocation)> {
        self.workloads.iter().find_map(|(workload, memory)| {
            memory.ended.iter().find(|ended| ended.id == id).map(|ended| (workload, ended))
        })
    }

    fn memory(&mut self, workload: &WorkloadName) -> &mut Memory {
        self.count += 1;
        let memory = self.workloads.entry(workload.clone()).or_default();
        self.order.remove(&std::mem::replace(&mut memory.touched, self.count));
        self.order.insert(self.count, workload.clone());
        if !self.keeps_all
            && self.order.len() > MAX_WORKLOADS
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.workloads.remove(&oldest);
        }
        self.workloads.entry(workload.clone()).or_default()
    }
}

impl Cluster {
    /// Remembers what `change` ends. Call it before the change is made.
    pub(crate) fn remember(&mut self, change: &Change, now: Timestamp) {
        match change {
            Change::Allocation(after) => {
                let Some(before) = self.durable.allocations().get(&after.id) else { return };
                let leaves =
                    |record: &AllocationRecord| matches!(record.state, AllocationState::Draining { .. });
                if leaves(after) && !leaves(before) {
                    let farewell = self.farewell(before, now);
                    self.volatile.history.leaving.insert(after.id, farewell);
                }
            }
            Change::AllocationDeleted(id) => {
                let Some(record) = self.durable.allocations().get(id) else { return };
                let farewell = self.volatile.history.leaving.get(id).cloned();
                let Farewell { why, because, last_said } =
                    farewell.unwrap_or_else(|| self.farewell(record, now));
                let ended = EndedAllocation {
                    id: *id,
                    revision: record.revision,
                    node: record.node.clone(),
                    at: now,
                    lasted: now.since(record.created),
                    why,
                    because,
                    last_said,
                };
                let workload = record.workload.clone();
                let history = &mut self.volatile.history;
                history.leaving.remove(id);
                let keeps_all = history.keeps_all;
                let known = &mut history.memory(&workload).ended;
                known.push_back(ended);
                if known.len() > MAX_OF_WORKLOAD && !keeps_all {
                    known.pop_front();
                }
            }
            Change::Node(after) => {
                let drain = |record: &NodeRecord| record.cordon.and_then(|cordon| cordon.drain);
                let before = self.durable.nodes().get(&after.id).and_then(drain);
                if before.is_some_and(|until| until <= now)
                    && after.cordon.is_some()
                    && drain(after).is_none()
                {
                    let (moment, nodes) = &mut self.volatile.history.overdue;
                    if std::mem::replace(moment, now) != now {
                        nodes.clear();
                    }
                    nodes.insert(after.id.clone());
                }
            }
            _ => {}
        }
    }

    fn farewell(&self, record: &AllocationRecord, now: Timestamp) -> Farewell {
        let (why, because) = self.why_ending(record, now);
        let said = self.volatile.observed(record).map(|report| &report.state);
        let last_said = said.filter(|state| {
            matches!(state, ObservedState::BackingOff { .. } | ObservedState::Refused { .. })
        });
        Farewell { why, because, last_said: last_said.map(ToString::to_string) }
    }

    /// Works out why an allocation ends that ends now.
    fn why_ending(&self, record: &AllocationRecord, now: Timestamp) -> (EndReason, String) {
        let AllocationRecord { node, workload, revision, .. } = record;
        if record.state == AllocationState::Lost {
            return (
                EndReason::NodeLost,
                format!("{node} was lost, and it was replaced or not wanted any more"),
            );
        }
        let (moment, overdue) = &self.volatile.history.overdue;
        let is_overdue = *moment == now && overdue.contains(node);
        if let Work::Items { run, .. } = record.work {
            return self.why_ending_items(record, run, is_overdue);
        }
        let app = self.durable.apps().get(&workload.app_name());
        let Some(app) = app else { return (EndReason::Deleted, "its app was deleted".to_owned()) };
        let service = match app.spec.workloads.get(&workload.workload).map(|spec| &spec.kind) {
            Some(WorkloadKind::Service(service)) => service,
            Some(WorkloadKind::Job(_)) | None => {
                let text = format!("revision {} of its app has no such service", app.revision);
                return (EndReason::Deleted, text);
            }
        };
        let moved = self.volatile.rebalancing.reason(record);
        let is_draining = self.durable.nodes().get(node).is_some_and(NodeRecord::is_draining);
        match service.allocations {
            0 => (EndReason::ScaledDown, format!("revision {} wants none", app.revision)),
            _ if is_overdue => (EndReason::Drained, format!("the time to leave {node} was over")),
            _ if is_draining => (EndReason::Drained, format!("{node} is to be left")),
            _ if *revision != app.revision => {
                (EndReason::Replaced, format!("revision {} took its place", app.revision))
            }
            _ if moved.is_some() => (EndReason::Rebalanced, moved.unwrap_or_default().to_owned()),
            _ if service.everywhere => {
                (EndReason::ScaledDown, format!("it is not to run on {node} any more"))
            }
            wanted => (EndReason::ScaledDown, format!("there were more than are wanted, which is {wanted}")),
        }
    }

    fn why_ending_items(
        &self,
        record: &AllocationRecord,
        run: RunId,
        is_overdue: bool,
    ) -> (EndReason, String) {
        let said = self.volatile.observed(record).map(|report| &report.state);
        if self.outstanding(record).is_empty() && self.durable.runs().contains_key(&run) {
            (EndReason::Finished, "each of its items has a record, or is tried elsewhere".to_owned())
        } else if let Some(makes_way) = &record.makes_way {
            (EndReason::Preempted, makes_way.reason_of_end())
        } else if is_overdue {
            (EndReason::Drained, format!("the time to leave {} was over", record.node))
        } else if said == Some(&ObservedState::Finished) {
            (EndReason::GivenBack, "it ended without a record of each item".to_owned())
        } else {
            (EndReason::RunEnded, format!("its run {run} was ended"))
        }
    }
}
