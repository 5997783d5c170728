//! What must be true some time after all faults have ended.
//!
//! It is looked at from outside: at what the workers hold, at what the store has, and at the users' wishes.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{
    AllocationId, AssignedAllocation, ObservedState, Overcommit, Resources, Work, WorkloadKind, WorkloadName,
    WorkloadSpec,
};
use dunlin_scheduler::{RunRecord, RunState, View};

use crate::agent::Agent;
use crate::user::broken_component;
use crate::world::World;

/// Tells whether a node is one that a workload may run on, if there is room.
fn is_place(agent: &Agent, spec: &WorkloadSpec) -> bool {
    let labels = &agent.info.labels;
    spec.node_labels.iter().all(|(name, value)| labels.get(name) == Some(value))
        && spec.placement.require.iter().all(|condition| condition.matches(labels))
        && spec.placement.resources.keys().all(|name| agent.info.resources.contains_key(name))
}

impl World {
    /// Tells what is not right yet, if anything is not.
    pub(crate) fn check_all_is_right(&self) -> Result<(), String> {
        let Some(cluster) = &self.coordinator.cluster else {
            return Err("the coordinator is down".to_owned());
        };
        let view = cluster.view();
        let workloads = view.apps.values().flat_map(|app| app.workloads.values());
        if let Some(job) = workloads.filter(|workload| workload.next_run.is_some()).map(|it| &it.name).next()
        {
            return Err(format!("{job} still has a schedule, and so nothing comes to rest"));
        }
        for agent in self.living() {
            self.check_node(agent)?;
        }
        self.check_services(&view)?;
        self.check_runs(&view)?;
        self.check_routes()
    }

    fn living(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values().filter(|agent| !agent.gone)
    }

    /// A node runs exactly what is committed to it.
    fn check_node(&self, agent: &Agent) -> Result<(), String> {
        let node = &agent.node;
        let Some(supervisor) = &agent.supervisor else { return Err(format!("{node} is down")) };
        let committed = self.coordinator.store.allocations.values();
        let committed = committed.filter(|record| record.node == *node && record.is_assigned());
        let wanted: BTreeSet<AllocationId> = committed.map(|record| record.id).collect();
        let (_, _, reports, outbox) = supervisor.clone().report();
        let known: BTreeSet<AllocationId> = reports.iter().map(|report| report.id).collect();
        if wanted != known {
            return Err(format!("{node} should have {wanted:?} and has {known:?}"));
        }
        let is_broken = |id| {
            let record = self.coordinator.store.allocations.get(&id);
            record.is_some_and(|record| record.spec.component == broken_component())
        };
        for report in reports {
            let up = agent.loaded.get(&report.id).is_some_and(|loaded| loaded.started);
            match report.state {
                ObservedState::Running if up => {}
                ObservedState::Finished => {}
                ObservedState::Refused { .. } if is_broken(report.id) => {}
                state => return Err(format!("{} on {node} is {state}, in the worker: {up}", report.id)),
            }
        }
        if outbox.is_empty() { Ok(()) } else { Err(format!("{node} has items that nobody recorded")) }
    }

    /// Each service has what it should, or somebody says why not.
    fn check_services(&self, view: &View) -> Result<(), String> {
        let mut running: BTreeMap<&WorkloadName, Vec<&AssignedAllocation>> = BTreeMap::new();
        let loaded = self.living().flat_map(|agent| agent.loaded.values());
        for assigned in loaded.map(|loaded| &loaded.assigned) {
            if let Work::Serve = assigned.work {
                running.entry(&assigned.workload).or_default().push(assigned);
            }
        }
        for (name, app) in &self.coordinator.store.apps {
            if app.rollout.as_ref().is_some_and(|rollout| rollout.failed.is_none()) {
                return Err(format!("the rollout of {name} goes on"));
            }
            for (short, spec) in &app.spec.workloads {
                let WorkloadKind::Service(service) = &spec.kind else { continue };
                let workload = name.workload(short);
                let copies = running.remove(&workload).unwrap_or_default();
                let desired = if service.everywhere && service.allocations > 0 {
                    self.living().filter(|agent| is_place(agent, spec)).count()
                } else {
                    usize::try_from(service.allocations).expect("it is small")
                };
                let is_current = copies
                    .iter()
                    .all(|copy| copy.spec.limits == spec.limits && copy.spec.component == spec.component);
                if copies.len() == desired && is_current {
                    continue;
                }
                let waits = view.apps[name].workloads[short].waiting.is_some();
                // A rollout that has failed stays as it is if that is wanted.
                let has_halted =
                    app.rollout.as_ref().is_some_and(|it| it.failed.is_some() && it.from.is_some());
                if !(waits || has_halted) || copies.len() > desired {
                    let count = copies.len();
                    return Err(format!(
                        "{workload} should run {desired} times, runs {count} times, waits: {waits}"
                    ));
                }
                if spec.component == broken_component() || has_halted {
                    continue;
                }
                let having: BTreeSet<_> = copies.iter().map(|copy| copy.id).collect();
                self.check_no_room(spec, service.everywhere.then_some(&having))
                    .map_err(|reason| format!("{workload} waits, but {reason}"))?;
            }
        }
        match running.keys().next() {
            Some(workload) => Err(format!("{workload} runs, and nobody wants it")),
            None => Ok(()),
        }
    }

    /// Who waits for room must be right in that there is none.
    ///
    /// Of a service that runs everywhere, which has these allocations, only nodes count that have none of them.
    fn check_no_room(
        &self,
        spec: &WorkloadSpec,
        having: Option<&BTreeSet<AllocationId>>,
    ) -> Result<(), String> {
        let need = Resources { memory: spec.limits.memory, fuel_rate: spec.limits.fuel_rate };
        let is_batch = matches!(spec.kind, WorkloadKind::Job(_));
        for agent in self.living() {
            if having.is_some_and(|having| agent.loaded.keys().any(|id| having.contains(id))) {
                continue;
            }
            let on_node = self.coordinator.store.allocations.values().filter(|it| it.node == agent.node);
            let on_node: Vec<_> = on_node.filter(|record| record.is_assigned()).collect();
            let reserved = on_node.iter().map(|record| record.resources());
            let reserved = reserved.fold(Resources::default(), Resources::plus);
            let overcommit = if is_batch { agent.info.batch_overcommit } else { Overcommit::NONE };
            let is_counted = spec.placement.resources.iter().all(|(name, count)| {
                let taken = on_node.iter().filter_map(|record| record.spec.placement.resources.get(name));
                agent.info.resources.get(name).copied().unwrap_or_default() >= taken.sum::<u32>() + count
            });
            let free = overcommit.of(agent.info.capacity).minus(reserved);
            if is_place(agent, spec) && is_counted && free.holds(&need) {
                return Err(format!("{} has room", agent.node));
            }
        }
        Ok(())
    }

    /// Each run has ended, or somebody says why it waits; all its items have a record.
    fn check_runs(&self, view: &View) -> Result<(), String> {
        for (id, run) in &self.coordinator.store.runs {
            match run.state {
                RunState::Cancelled | RunState::Abandoned { .. } => continue,
                // It is looked at what it waits for.
                RunState::Waiting
                    if run.after.iter().any(|earlier| {
                        self.coordinator.store.runs.get(earlier).is_some_and(RunRecord::is_open)
                    }) =>
                {
                    continue;
                }
                RunState::Waiting => return Err(format!("{id} waits for runs that have ended")),
                RunState::Running => {
                    let told = &view.runs[id];
                    if told.waiting.is_none() || told.leased > 0 || told.backing_off > 0 {
                        return Err(format!(
                            "{id} goes on, {} of {} recorded",
                            run.recorded.len(),
                            run.items
                        ));
                    }
                    self.check_no_room(&run.spec, None)
                        .map_err(|reason| format!("{id} waits, but {reason}"))?;
                    continue;
                }
                RunState::Completed | RunState::Failed { .. } => {}
            }
            let combines = matches!(&run.spec.kind, WorkloadKind::Job(job) if job.combine);
            let recorded = |item| self.coordinator.store.items.contains_key(&(*id, item));
            if let Some(item) = (0..run.items).find(|item| !recorded(*item)) {
                return Err(format!("{id} has ended without a record of item {item}"));
            }
            // The outputs of items are combined only if there are all of them.
            if combines && run.state == RunState::Completed && !recorded(run.items) {
                return Err(format!("{id} has ended without its total"));
            }
        }
        Ok(())
    }

    /// All ingresses agree, and send requests only to what runs.
    fn check_routes(&self) -> Result<(), String> {
        let mut tables = self.living().map(|agent| (&agent.node, &agent.routes));
        let Some((first, table)) = tables.next() else { return Ok(()) };
        if let Some((node, _)) = tables.find(|(_, other)| *other != table) {
            return Err(format!("the ingresses of {first} and {node} have different routes"));
        }
        for endpoint in table.endpoints.values().flatten() {
            let agent = self.agents.get(&endpoint.node);
            let is_up = agent.and_then(|it| it.loaded.get(&endpoint.allocation)).is_some_and(|it| it.started);
            if !is_up {
                return Err(format!(
                    "requests go to {} on {}, which is not up",
                    endpoint.allocation, endpoint.node
                ));
            }
        }
        Ok(())
    }
}
