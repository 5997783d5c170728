//! Services: what should run against what does.

use dunlin_model::{AllocationId, AppName, Name, Timestamp, Work, WorkloadKind, WorkloadName, WorkloadSpec};

use crate::durable::Durable;
use crate::placement::{Demand, choose};
use crate::record::need;
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

/// Returns what a service needs next.
fn plan_of(durable: &Durable, workload: &WorkloadName) -> Plan {
    let app: AppName = workload.app_name();
    let revision = durable.apps().get(&app).map(|app| app.revision);
    let serving = durable.of_workload(workload).filter(|record| record.serves() && record.is_live());
    let copies: Vec<Copy> = serving
        .map(|record| Copy {
            id: record.id,
            is_current: Some(record.revision) == revision,
            is_running: record.state == AllocationState::Running,
        })
        .collect();
    plan(desired(durable, workload), &copies)
}

impl Cluster {
    /// Ends what no revision wants any more.
    pub(crate) fn end_surplus(&mut self, step: &mut Step, now: Timestamp) {
        let workloads: Vec<WorkloadName> = self.durable.busy_workloads().cloned().collect();
        for workload in workloads {
            for id in plan_of(&self.durable, &workload).end {
                self.end_serving(step, id, now);
            }
        }
    }

    /// Places what is missing, and forgets lost allocations that are replaced or not wanted any more.
    pub(crate) fn place_services(&mut self, step: &mut Step, now: Timestamp) {
        self.volatile.service_waiting.clear();
        let names: Vec<WorkloadName> =
            services(&self.durable).map(|(app, name, _, _)| app.name.workload(name)).collect();
        for workload in names {
            let wanted = plan_of(&self.durable, &workload).start;
            let placed = (0..wanted).take_while(|_| self.place_one(step, &workload, now)).count();
            let missing = usize::try_from(wanted).unwrap_or(usize::MAX) - placed;
            self.forget_lost(step, &workload, missing, now);
        }
        // Workloads that are gone, or are jobs now, have nothing to come back to.
        let gone: Vec<WorkloadName> = self.durable.busy_workloads().cloned().collect();
        for workload in
            gone.iter().filter(|workload| desired(&self.durable, workload) == 0).collect::<Vec<_>>()
        {
            self.forget_lost(step, workload, 0, now);
        }
    }

    /// Places one allocation of a service; if that cannot be, notes why and returns false.
    fn place_one(&mut self, step: &mut Step, workload: &WorkloadName, now: Timestamp) -> bool {
        let app = &self.durable.apps()[&workload.app_name()];
        let (revision, spec) = (app.revision, app.spec.workloads[&workload.workload].clone());
        let demand = Demand { workload, need: need(&spec), labels: &spec.node_labels };
        let node = match choose(self, &demand) {
            Ok(node) => node,
            Err(reason) => {
                self.volatile.service_waiting.insert(workload.clone(), reason.to_string());
                return false;
            }
        };
        let record = AllocationRecord {
            id: self.next_allocation(step, now),
            workload: workload.clone(),
            revision,
            node,
            spec,
            work: Work::Serve,
            returned: RangeSet::new(),
            state: AllocationState::Placed,
            created: now,
        };
        self.change(step, Change::Allocation(record), now);
        true
    }

    /// Keeps as many lost allocations of a service as are missing: their nodes may come back. Oldest first.
    fn forget_lost(&mut self, step: &mut Step, workload: &WorkloadName, missing: usize, now: Timestamp) {
        let is_lost = |record: &&AllocationRecord| record.serves() && record.state == AllocationState::Lost;
        let lost = self.durable.of_workload(workload).filter(is_lost);
        let surplus: Vec<AllocationId> = lost.skip(missing).map(|record| record.id).collect();
        for id in surplus {
            self.end(step, id, now);
        }
    }
}
