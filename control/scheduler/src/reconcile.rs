//! Services: what should run against what does.

use std::collections::BTreeSet;
use std::sync::Arc;

use dunlin_model::{AllocationId, AppName, Name, Timestamp, Work, WorkloadKind, WorkloadName, WorkloadSpec};

use crate::durable::Durable;
use crate::effort::Effort;
use crate::placement::{Demand, Search};
use crate::rollout::{Copy, Plan, plan};
use crate::{AllocationRecord, AllocationState, AppRecord, Change, Cluster, RangeSet, Step};

/// Returns all services with their app and spec.
pub(crate) fn services(durable: &Durable) -> impl Iterator<Item = (&AppRecord, &Name, &WorkloadSpec, u32)> {
    durable.apps().values().flat_map(|app| {
        app.spec.workloads.iter().filter_map(move |(name, spec)| match &spec.kind {
            WorkloadKind::Service(service) => Some((app, name, spec, service.allocations)),
            WorkloadKind::Job(_) => None,
        })
    })
}

/// Returns how many allocations of a workload should serve.
fn desired(durable: &Durable, workload: &WorkloadName) -> u32 {
    let app = durable.apps().get(&workload.app_name());
    match app.and_then(|app| app.spec.workloads.get(&workload.workload)).map(|spec| &spec.kind) {
        Some(WorkloadKind::Service(service)) => service.allocations,
        Some(WorkloadKind::Job(_)) | None => 0,
    }
}

/// Tells whether a service is as it should be: all allocations that it should have are of the newest revision, and none
/// of them is lost.
fn is_settled(durable: &Durable, workload: &WorkloadName) -> bool {
    let Some(tally) = durable.tally(workload) else { return desired(durable, workload) == 0 };
    let app = durable.apps().get(&workload.app_name());
    let current = app.and_then(|app| tally.live.get(&app.revision)).copied().unwrap_or_default();
    let leaves = |record: &AllocationRecord| {
        record.is_live() && durable.nodes().get(&record.node).is_some_and(crate::NodeRecord::is_draining)
    };
    tally.lost == 0
        && (durable.drained_nodes().is_empty() || !durable.of_workload(workload).any(leaves))
        && tally.live.values().sum::<u32>() == current
        && current == desired(durable, workload)
}

/// Returns what a service needs next.
fn plan_of(durable: &Durable, workload: &WorkloadName) -> Plan {
    let app: AppName = workload.app_name();
    let revision = durable.apps().get(&app).map(|app| app.revision);
    let serving = durable.of_workload(workload).filter(|record| record.serves());
    let counting = serving.filter(|record| record.is_live() || durable.is_held(record));
    let copies: Vec<Copy> = counting
        .map(|record| {
            // What is to leave its node makes way for a new one, as an earlier revision does.
            let leaves = durable.nodes().get(&record.node).is_some_and(crate::NodeRecord::is_draining);
            Copy {
                id: record.id,
                is_current: Some(record.revision) == revision && !leaves,
                // Of a node that is held nobody knows better.
                is_running: record.state != AllocationState::Placed,
            }
        })
        .collect();
    plan(desired(durable, workload), &copies)
}

impl Cluster {
    /// Ends what no revision wants any more.
    pub(crate) fn end_surplus(
        &mut self,
        step: &mut Step,
        workloads: &BTreeSet<WorkloadName>,
        now: Timestamp,
    ) {
        for workload in
            workloads.iter().filter(|workload| !is_settled(&self.durable, workload)).collect::<Vec<_>>()
        {
            for id in plan_of(&self.durable, workload).end {
                self.end_serving(step, id, now);
            }
        }
    }

    /// Places what is missing of `workloads`, and of those that wait if there is new room; forgets lost allocations
    /// that are replaced or not wanted any more.
    pub(crate) fn place_services(
        &mut self,
        step: &mut Step,
        mut workloads: BTreeSet<WorkloadName>,
        is_room_new: bool,
        effort: &mut Effort,
        now: Timestamp,
    ) {
        if is_room_new {
            workloads.extend(self.volatile.waiting_services.iter().cloned());
        }
        for workload in workloads {
            if is_settled(&self.durable, &workload) {
                self.volatile.waiting_services.remove(&workload);
                continue;
            }
            if effort.is_over() {
                effort.left_services.insert(workload);
                continue;
            }
            let wanted = plan_of(&self.durable, &workload).start;
            let missing = wanted - self.place(step, &workload, wanted, effort, now);
            self.forget_lost(step, &workload, missing, now);
            if missing == 0 {
                self.volatile.waiting_services.remove(&workload);
            } else if effort.is_over() {
                effort.left_services.insert(workload);
            } else {
                self.volatile.waiting_services.insert(workload);
            }
        }
    }

    /// Places allocations of a service, as many as are wanted and there is room for; returns how many.
    fn place(
        &mut self,
        step: &mut Step,
        workload: &WorkloadName,
        wanted: u32,
        effort: &mut Effort,
        now: Timestamp,
    ) -> u32 {
        let (Some(spec), 1..) = (self.durable.specs().get(workload), wanted) else { return 0 };
        let demand = Demand { workload: workload.clone(), spec: Arc::clone(spec) };
        let revision = self.durable.apps()[&workload.app_name()].revision;
        effort.spend(Search::cost(self));
        let mut search = Search::new(self, &demand);
        let mut placed = 0;
        while placed < wanted && !effort.is_over() {
            let Some(node) = search.best().cloned() else { break };
            let record = AllocationRecord {
                id: self.next_allocation(),
                workload: workload.clone(),
                revision,
                node: node.clone(),
                spec: Arc::clone(&demand.spec),
                work: Work::Serve,
                returned: RangeSet::new(),
                state: AllocationState::Placed,
                created: now,
            };
            self.change(step, Change::Allocation(record), now);
            search.placed(&self.volatile.pools, &node);
            effort.spend(1);
            placed += 1;
        }
        placed
    }

    /// Keeps as many lost allocations of a service as are missing: their nodes may come back. Oldest first.
    fn forget_lost(&mut self, step: &mut Step, workload: &WorkloadName, missing: u32, now: Timestamp) {
        let is_lost = |record: &&AllocationRecord| {
            record.serves() && record.state == AllocationState::Lost && !self.durable.is_held(record)
        };
        let lost = self.durable.of_workload(workload).filter(is_lost);
        let surplus: Vec<AllocationId> =
            lost.skip(usize::try_from(missing).unwrap_or(usize::MAX)).map(|record| record.id).collect();
        for id in surplus {
            self.end(step, id, now);
        }
    }
}
