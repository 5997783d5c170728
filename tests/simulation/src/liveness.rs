//! What must be true some time after all faults have ended.
//!
//! It is looked at from outside: at what the workers hold, at what the store has, and at the users' wishes.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{
    AllocationId, Amount, AssignedAllocation, NodeId, ObservedState, Overcommit, Placement, Resources,
    Semantics, Work, WorkloadKind, WorkloadName, WorkloadSpec,
};
use dunlin_scheduler::{AllocationRecord, AllocationState, NodeRecord, RunRecord, RunState, View};

use crate::agent::Agent;
use crate::rules::Commit;
use crate::rules_of_runs::combines;
use crate::wishes::{broken_component, never_well};
use crate::world::World;

/// Tells whether a node is one that a workload may run on, if there is room.
fn is_place(agent: &Agent, spec: &WorkloadSpec) -> bool {
    may_run_on(&agent.info.labels, &agent.info.resources, spec)
}

/// Tells the same of a node with these labels and these countable resources.
pub(crate) fn may_run_on(
    labels: &BTreeMap<String, String>,
    resources: &BTreeMap<String, u32>,
    spec: &WorkloadSpec,
) -> bool {
    spec.node_labels.iter().all(|(name, value)| labels.get(name) == Some(value))
        && spec.placement.require.iter().all(|condition| condition.matches(labels))
        && spec.placement.resources.keys().all(|name| resources.contains_key(name))
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
            self.check_secrets_of(agent)?;
        }
        // Until every node that is gone is lost and released, things look better than they are, or worse.
        let mut members = self.coordinator.store.nodes.values().filter(|node| node.info.is_some());
        let is_settled = |node: &NodeRecord| match node.lost {
            Some(_) => node.released,
            None => !self.agents[&node.id].gone,
        };
        if let Some(node) = members.find(|node| !is_settled(node)) {
            return Err(format!("what {} ran may not be replaced", node.id));
        }
        if let Some(node) = self.coordinator.store.nodes.values().find(|node| node.cordon.is_some()) {
            return Err(format!("{} is still cordoned", node.id));
        }
        self.check_upgrade_is_over()?;
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
        let is_never_well = |id| {
            let record = self.coordinator.store.allocations.get(&id);
            record.is_some_and(|record| never_well(&record.spec))
        };
        for report in reports {
            let up = agent.loaded.get(&report.id).is_some_and(|loaded| loaded.started);
            match report.state {
                ObservedState::Running if up => {}
                ObservedState::Finished => {}
                ObservedState::Refused { .. } if is_broken(report.id) => {}
                _ if is_never_well(report.id) => {}
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
                // A rollout that has failed stays as it is if that is wanted.
                let failed = app.rollout.as_ref().filter(|rollout| rollout.failed.is_some());
                let has_halted = failed.is_some_and(|rollout| rollout.from.is_some());
                // What is never well may just be started again, and of a rollout that has failed it is left beside the others.
                let is_sick = never_well(spec);
                if copies.len() == desired && is_current {
                    // What is left of a rollout that has failed takes nobody's place.
                    if !(is_sick && has_halted) {
                        self.check_none_is_lost(&workload, service.everywhere)?;
                    }
                    continue;
                }
                let waits = view.apps[name].workloads[short].waiting.is_some();
                let own = self.coordinator.store.allocations.values();
                let own = own.filter(|record| record.workload == workload && record.is_assigned());
                let sick = own.clone().filter(|record| never_well(&record.spec)).count();
                let well = copies.iter().filter(|copy| !never_well(&copy.spec)).count();
                let count = if failed.is_some() { well } else { well + sick };
                if is_sick && well + sick == desired {
                    continue;
                }
                let explained = waits || has_halted || is_sick && failed.is_some();
                if !explained || count > desired {
                    return Err(format!(
                        "{workload} should run {desired} times, runs {count} times, waits: {waits}"
                    ));
                }
                if spec.component == broken_component() || has_halted || failed.is_some() && is_sick {
                    // Some of it may still come to a node that is trusted again.
                    self.check_none_is_set_aside()?;
                    continue;
                }
                // One of an earlier revision is replaced beside it, unless none may be more than wanted.
                let is_ended_first = service.rollout.max_surge == Amount::Count(0);
                let stay = own.filter(|record| record.revision == app.revision || is_ended_first);
                let having: BTreeSet<_> = stay.map(|record| &record.node).collect();
                self.check_no_room(&workload, spec, service.everywhere.then_some(&having))
                    .map_err(|reason| format!("{workload} waits, but {reason}"))?;
            }
        }
        match running.keys().next() {
            Some(workload) => Err(format!("{workload} runs, and nobody wants it")),
            None => Ok(()),
        }
    }

    /// No node is kept out of use as it was lost again and again.
    fn check_none_is_set_aside(&self) -> Result<(), String> {
        let until = |node: &&NodeRecord| Commit::set_aside_until(node).is_some_and(|until| until > self.now);
        match self.coordinator.store.nodes.values().find(until) {
            Some(node) => Err(format!("{} is set aside", node.id)),
            None => Ok(()),
        }
    }

    /// Of a service that is complete nothing lost is kept, unless it runs everywhere and its node may still be back.
    fn check_none_is_lost(&self, workload: &WorkloadName, everywhere: bool) -> Result<(), String> {
        let store = &self.coordinator.store;
        let is_away = |record: &AllocationRecord| everywhere && store.nodes[&record.node].lost.is_some();
        let own = store.allocations.values().filter(|it| it.workload == *workload);
        match own
            .filter(|record| !is_away(record))
            .find(|record| record.serves() && record.state == AllocationState::Lost)
        {
            Some(record) => Err(format!("{} of {workload} is replaced, and kept", record.id)),
            None => Ok(()),
        }
    }

    /// Tells whether what a workload requires to be near and apart allows a node.
    fn is_where_it_wants(&self, workload: &WorkloadName, spec: &WorkloadSpec, node: &NodeId) -> bool {
        let Placement { near, apart, .. } = &spec.placement;
        let required = near.iter().map(|it| (it, true)).chain(apart.iter().map(|it| (it, false)));
        required.filter(|(affinity, _)| affinity.required).all(|(affinity, is_near)| {
            let place = |node: &NodeId| {
                if affinity.over == Placement::EACH_NODE {
                    return Some(node.0.as_str().to_owned());
                }
                self.agents[node].info.labels.get(&affinity.over).cloned()
            };
            let others = self.coordinator.store.allocations.values();
            let others = others.filter(|it| it.workload == affinity.workload && it.is_live());
            let places: BTreeSet<Option<String>> = others.map(|record| place(&record.node)).collect();
            let is_first = is_near && affinity.workload == *workload && places.is_empty();
            places.contains(&place(node)) == is_near || is_first
        })
    }

    /// Nothing is left anywhere of what users had and have deleted.
    pub(crate) fn check_nothing_is_left(&self) -> Result<(), String> {
        let store = &self.coordinator.store;
        if let Some(record) = store.allocations.values().next() {
            return Err(format!("{} on {} is left over", record.id, record.node));
        }
        if !store.apps.is_empty() || !store.runs.is_empty() || !store.items.is_empty() {
            return Err("an app, a run or a record is left over".to_owned());
        }
        for agent in self.living() {
            let Some(supervisor) = &agent.supervisor else { return Err(format!("{} is down", agent.node)) };
            let (_, _, reports, outbox) = supervisor.clone().report();
            if !agent.loaded.is_empty() || !reports.is_empty() || !outbox.is_empty() {
                return Err(format!("{} still has {:?}", agent.node, agent.loaded.keys()));
            }
            if !agent.secrets.is_empty() {
                return Err(format!("{} still has {:?}", agent.node, agent.secrets.keys()));
            }
            if !agent.routes.routes.is_empty() || !agent.routes.endpoints.is_empty() {
                return Err(format!("{} still has routes", agent.node));
            }
        }
        let cluster = self.coordinator.cluster.as_ref().ok_or("the coordinator is down")?;
        match cluster.view().namespaces.iter().find(|(_, it)| it.usage != Default::default()) {
            Some((name, namespace)) => Err(format!("{name} still has {:?}", namespace.usage)),
            None => Ok(()),
        }
    }

    /// Who waits for room must be right in that there is none.
    ///
    /// Of a service that runs everywhere, which is on these nodes, only the others count.
    fn check_no_room(
        &self,
        workload: &WorkloadName,
        spec: &WorkloadSpec,
        having: Option<&BTreeSet<&NodeId>>,
    ) -> Result<(), String> {
        let need = Resources { memory: spec.limits.memory, fuel_rate: spec.limits.fuel_rate };
        let is_batch = matches!(spec.kind, WorkloadKind::Job(_));
        for agent in self.living() {
            if having.is_some_and(|having| having.contains(&agent.node)) {
                continue;
            }
            let on_node = self.coordinator.store.allocations.values().filter(|it| it.node == agent.node);
            // Batch work that is less urgent would make way.
            let stays = |record: &AllocationRecord| {
                let is_near = spec.placement.near.iter().any(|it| it.workload == record.workload);
                let is_once = matches!(&record.spec.kind, WorkloadKind::Job(job) if job.semantics == Semantics::AtMostOnce);
                record.serves() || is_once || record.spec.priority >= spec.priority || is_near
            };
            let on_node = on_node.filter(|record| record.is_assigned());
            let on_node: Vec<_> = on_node.filter(|record| having.is_some() || stays(record)).collect();
            let reserved = on_node.iter().map(|record| record.resources());
            let reserved = reserved.fold(Resources::default(), Resources::plus);
            let overcommit = if is_batch { agent.info.batch_overcommit } else { Overcommit::NONE };
            let is_counted = spec.placement.resources.iter().all(|(name, count)| {
                let taken = on_node.iter().filter_map(|record| record.spec.placement.resources.get(name));
                agent.info.resources.get(name).copied().unwrap_or_default() >= taken.sum::<u32>() + count
            });
            let free = overcommit.of(agent.info.capacity).minus(reserved);
            let is_allowed = self.is_where_it_wants(workload, spec, &agent.node);
            if is_place(agent, spec) && is_allowed && is_counted && free.holds(&need) {
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
                    self.check_no_room(&run.workload, &run.spec, None)
                        .map_err(|reason| format!("{id} waits, but {reason}"))?;
                    continue;
                }
                RunState::Completed | RunState::Failed { .. } => {}
            }
            let recorded = |item| self.coordinator.store.items.contains_key(&(*id, item));
            if let Some(item) = (0..run.items).find(|item| !recorded(*item)) {
                return Err(format!("{id} has ended without a record of item {item}"));
            }
            // The outputs of items are combined only if there are all of them.
            if combines(run) && run.state == RunState::Completed && !recorded(run.items) {
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
