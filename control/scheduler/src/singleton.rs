//! Singletons: services of which never two allocations run at the same moment, anywhere.
//!
//! A node runs one under a lease only, which the answer to each of its reports renews: it counts from when the report was
//! sent, by the node's clock, and the node has stopped when it is over. So whoever was not heard for the length of the
//! lease and a little more, by this clock, runs none. The little is for clocks that do not go alike.
//!
//! Until then the place is *taken*, and nothing is placed: by an allocation that runs or drains, by a lost one that may
//! still run, and by one that was ended and may still run. The last are remembered in the record of their node, until that
//! has said under its newest assignment that it does not have it, or its lease is over.
//!
//! A coordinator that starts again takes every node for heard at that moment: it does not know how long it was away.

use std::collections::BTreeMap;

use dunlin_model::{AllocationId, DurationMs, NodeId, OnPartition, Report, Timestamp, WorkloadName};

use crate::durable::Durable;
use crate::planted::{Bug, planted};
use crate::record::Leaving;
use crate::rollout::{Copy, Phase, Plan};
use crate::view::held_back;
use crate::{Action, AllocationRecord, AllocationState, Change, Cluster, Step};

/// How much longer than the lease one waits before it is believed to be over: two per cent,
const SLACK: u64 = 50;
/// and this.
const MORE: DurationMs = DurationMs(1_000);

/// Returns how long a node that is not heard may run what has this lease.
fn longest(lease: DurationMs) -> DurationMs {
    lease.plus(DurationMs(lease.0 / SLACK)).plus(MORE)
}

/// Tells whether a service is one of which at most one allocation runs.
pub(crate) fn is_singleton(durable: &Durable, workload: &WorkloadName) -> bool {
    durable.specs().get(workload).is_some_and(|spec| spec.on_partition() == OnPartition::Singleton)
}

/// Lets a plan wait until nothing else of the singleton may run. What has failed and does not serve is ended, if what was
/// before is to take its place.
pub(crate) fn wait_for_the_other(
    cluster: &Cluster,
    workload: &WorkloadName,
    phase: Phase,
    copies: &[Copy],
    plan: Plan,
) -> Plan {
    if planted(Bug::SurgeOfSingleton) {
        return plan;
    }
    let Plan { mut end, start, start_earlier } = plan;
    if !is_singleton(&cluster.durable, workload) {
        // The revision before may be that of a singleton.
        let before = cluster.spec_before(workload).filter(|_| start_earlier > 0);
        if before.is_none_or(|(_, spec)| !spec.on_partition().is_singleton()) {
            return Plan { end, start, start_earlier };
        }
        let most = if cluster.is_leased(workload) { 0 } else { 1 };
        return Plan { end, start, start_earlier: start_earlier.min(most) };
    }
    if phase == Phase::Halted && start_earlier > 0 {
        let silent = copies.iter().filter(|copy| copy.is_newest && !copy.is_running);
        end.extend(silent.map(|copy| copy.id).filter(|id| !end.contains(id)).collect::<Vec<_>>());
    }
    if cluster.is_taken(workload) {
        return Plan { end, start: 0, start_earlier: 0 };
    }
    // Both at once would be two.
    Plan { end, start: start.min(1), start_earlier: if start > 0 { 0 } else { start_earlier.min(1) } }
}

impl Cluster {
    /// Tells whether something of a singleton may run, so that nothing of it may be placed; also what was placed when it
    /// was none.
    pub(crate) fn is_taken(&self, workload: &WorkloadName) -> bool {
        let mut own = self.durable.of_workload(workload).filter(|record| record.serves());
        own.any(|record| self.may_run(record)) || self.is_leased(workload)
    }

    /// Tells whether something of a workload may run that has a lease.
    fn is_leased(&self, workload: &WorkloadName) -> bool {
        let mut leased = self.durable.of_workload(workload).filter(|record| record.lease.is_some());
        let is_leaving = self.durable.leaving(workload) && !planted(Bug::SingletonForgetsLeaving);
        is_leaving || leased.any(|record| self.may_run(record))
    }

    /// Tells whether an allocation may run, for all that is known.
    fn may_run(&self, record: &AllocationRecord) -> bool {
        match record.state {
            AllocationState::Placed | AllocationState::Running => true,
            AllocationState::Draining { .. } => !planted(Bug::ReplaceWhileDraining),
            AllocationState::Lost => {
                self.durable.is_held(record) || self.volatile.lost_leases.has(&record.id)
            }
        }
    }

    /// Returns what a singleton waits for, if it waits for another allocation of itself.
    pub(crate) fn why_singleton_waits(&self, workload: &WorkloadName) -> Option<String> {
        if !is_singleton(&self.durable, workload) || !self.is_taken(workload) {
            return None;
        }
        let mut own = self.durable.of_workload(workload).filter(|record| record.serves());
        if let Some(record) = own.find(|record| self.may_run(record)) {
            let (id, node) = (record.id, &record.node);
            return Some(match record.state {
                AllocationState::Lost if !self.volatile.lost_leases.has(&id) => held_back(1),
                AllocationState::Lost => {
                    format!("it is a singleton, and {id} may still run on {node}, which is lost")
                }
                _ => format!("it is a singleton, and {id} on {node} has not ended"),
            });
        }
        let node = self.durable.nodes().values().find_map(|node| {
            let leaving = node.leaving.iter().find(|(_, leaving)| leaving.workload == *workload);
            leaving.map(|(id, _)| format!("{id} has not been stopped on {}", node.id))
        });
        Some(format!("it is a singleton, and {}", node.unwrap_or_default()))
    }

    /// Answers a report of a node that has something which asks for it, with the leases of its singletons.
    pub(crate) fn answer(&mut self, step: &mut Step, node: &NodeId, sent: Timestamp) {
        let asking = self.durable.asking(node);
        if sent.0 == 0 || asking.is_empty() {
            return;
        }
        let records = asking.iter().filter_map(|id| self.durable.allocations().get(id));
        let leases = records.filter_map(|record| Some((record.id, record.lease?)));
        let leases: BTreeMap<AllocationId, DurationMs> = leases.collect();
        step.actions.push(Action::Heard { node: node.clone(), sent, leases });
    }

    /// Remembers of an allocation that is ended that it may still run for a while.
    pub(crate) fn remember_leaving(&mut self, step: &mut Step, id: AllocationId, now: Timestamp) {
        let Some(record) = self.durable.allocations().get(&id) else { return };
        let Some(lease) = record.lease else { return };
        let until = self.runs_until(&record.node, lease);
        if until <= now {
            return;
        }
        let leaving = Leaving { workload: record.workload.clone(), lease, until };
        let Some(mut node) = self.durable.nodes().get(&record.node).cloned() else { return };
        self.volatile.leaving_ends.set(&(node.id.clone(), id), until);
        node.leaving.insert(id, leaving);
        self.change(step, Change::Node(node), now);
    }

    /// Ends what is lost of a singleton, now that another takes its place: it must not go on when its node is back.
    pub(crate) fn end_lost_singletons(&mut self, step: &mut Step, workload: &WorkloadName, now: Timestamp) {
        let own = self.durable.of_workload(workload);
        let lost = own.filter(|record| record.lease.is_some() && record.state == AllocationState::Lost);
        for id in lost.map(|record| record.id).collect::<Vec<_>>() {
            self.end(step, id, now);
        }
    }

    /// Takes note that a singleton's allocation is lost: it may run as long as its lease.
    pub(crate) fn remember_lost_lease(&mut self, id: AllocationId) {
        let Some(record) = self.durable.allocations().get(&id) else { return };
        if let Some(lease) = record.lease {
            let until = self.runs_until(&record.node, lease);
            self.volatile.lost_leases.set(&id, until);
        }
    }

    /// Returns until when a node may run what has this lease, if it is not heard any more.
    fn runs_until(&self, node: &NodeId, lease: DurationMs) -> Timestamp {
        let heard = self.volatile.nodes.get(node).and_then(|state| state.last_seen);
        heard.unwrap_or(self.volatile.started).plus(longest(lease))
    }

    /// Forgets what a node does not have any more, as it says itself under its newest assignment.
    pub(crate) fn forget_what_has_left(
        &mut self,
        step: &mut Step,
        node: &NodeId,
        report: &Report,
        now: Timestamp,
    ) {
        let Some(record) = self.durable.nodes().get(node).filter(|record| !record.leaving.is_empty()) else {
            return;
        };
        // One under an older assignment may be about to hear that it is to run it.
        let is_newest = (report.term, report.generation) == (self.term, self.due(node));
        if !is_newest && !planted(Bug::BelieveItHasStopped) {
            return;
        }
        let still = |id: &AllocationId| {
            !planted(Bug::BelieveItHasStopped) && report.allocations.iter().any(|told| told.id == *id)
        };
        let mut record = record.clone();
        record.leaving.retain(|id, _| still(id));
        self.change(step, Change::Node(record), now);
    }

    /// Forgets leases that are over.
    pub(crate) fn end_leases(&mut self, step: &mut Step, now: Timestamp) {
        while let Some((node, id)) = self.volatile.leaving_ends.take_due(now) {
            let record = self.durable.nodes().get(&node);
            if let Some(record) = record.filter(|record| record.leaving.contains_key(&id)) {
                let mut record = record.clone();
                record.leaving.remove(&id);
                self.change(step, Change::Node(record), now);
            }
        }
        while let Some(id) = self.volatile.lost_leases.take_due(now) {
            if let Some(record) = self.durable.allocations().get(&id) {
                self.volatile.dirty.workloads.insert(record.workload.clone());
            }
        }
    }
}

impl crate::volatile::Volatile {
    /// Takes everybody for heard at the start who may run a singleton.
    pub(crate) fn restore_leases(&mut self, durable: &Durable, now: Timestamp) {
        self.started = now;
        for node in durable.nodes().values() {
            for (id, leaving) in &node.leaving {
                let until = leaving.until.max(now.plus(longest(leaving.lease)));
                self.leaving_ends.set(&(node.id.clone(), *id), until);
            }
        }
        for record in durable.allocations().values().filter(|record| record.state == AllocationState::Lost) {
            if let Some(lease) = record.lease {
                self.lost_leases.set(&record.id, now.plus(longest(lease)));
            }
        }
    }
}
