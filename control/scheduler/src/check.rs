//! What must hold after every step. For tests and simulation; a coordinator does not pay for it.

use dunlin_model::{Resources, Work};

use crate::durable::{Change, Durable};
use crate::range_set::single;
use crate::reconcile::services;
use crate::routes::route_table;
use crate::run::outstanding;
use crate::volatile::copies;
use crate::{
    AllocationState, Cluster, NamespaceRecord, NodeRecord, RangeSet, RunRecord, RunState, UpgradeState,
};

impl Cluster {
    /// Tells what does not hold that should.
    pub fn check(&self) -> Result<(), String> {
        self.check_indexes()?;
        self.check_allocations()?;
        self.check_services()?;
        self.durable.runs().values().try_for_each(|run| self.check_run(run))?;
        self.check_upgrade()?;
        // What was restored may not have been thought through yet.
        if self.volatile.dirty.is_empty() {
            self.check_assignments()?;
        }
        self.check_leftovers()
    }

    /// Nothing is remembered of what is gone.
    fn check_leftovers(&self) -> Result<(), String> {
        let volatile = &self.volatile;
        let gone = volatile.waiting_runs.iter().find(|run| !self.durable.runs().contains_key(run));
        ensure(gone.is_none(), || format!("{gone:?} waits and is gone"))?;
        if !volatile.dirty.is_empty() {
            return Ok(());
        }
        let specs = self.durable.specs();
        let gone = volatile.waiting_services.iter().find(|workload| !specs.contains_key(workload));
        ensure(gone.is_none(), || format!("{gone:?} waits and is gone"))?;
        let gone = volatile.waiting_for_others.iter().find(|(workload, run)| match run {
            Some(run) => !volatile.waiting_runs.contains(run),
            None => !volatile.waiting_services.contains(workload),
        });
        ensure(gone.is_none(), || format!("{gone:?} waits for others, and does not wait"))
    }

    /// Indexes say the same as records, and records alone make the same state.
    fn check_indexes(&self) -> Result<(), String> {
        let durable = &self.durable;
        let revisions = durable.revisions().values().flat_map(|revisions| revisions.values());
        let revisions = revisions.cloned().map(Change::Revision);
        let apps = durable.apps().values().cloned().map(Change::App).chain(revisions);
        let namespaces = durable.namespaces().iter();
        let namespaces = namespaces.map(|(name, spec)| {
            Change::Namespace(NamespaceRecord { name: name.clone(), spec: spec.clone() })
        });
        let nodes = durable.nodes().values().cloned().map(Change::Node);
        let allocations = durable.allocations().values().cloned().map(Change::Allocation);
        let runs = durable.runs().values().cloned().map(Change::Run);
        let tokens = durable.tokens().values().cloned().map(Change::Token);
        let pending = durable.pending().values().cloned().map(Change::Pending);
        let counters = [Change::Counters(durable.counters())];
        let schedules = durable.schedules().values().cloned().map(Change::Schedule);
        let secrets = durable.secrets().values().cloned().map(Change::Secret);
        let upgrade = durable.upgrade().cloned().map(Change::Upgrade);
        let recovery = durable.recovery().cloned().map(Change::Recovery);
        let rest = apps.chain(nodes).chain(tokens).chain(pending).chain(schedules).chain(counters);
        let rest = rest.chain(secrets).chain(upgrade).chain(recovery);
        let again = Durable::restore(namespaces.chain(allocations).chain(runs).chain(rest));
        ensure(again == *durable, || "an index differs from the records".to_owned())
    }

    /// No more nodes become another program at a time than was wished, and none is told any more when one could not.
    fn check_upgrade(&self) -> Result<(), String> {
        let running = self.durable.upgrade().filter(|upgrade| upgrade.state == UpgradeState::Running);
        let Some(upgrade) = running else { return Ok(()) };
        let told = |node: &&NodeRecord| node.upgrade.is_some_and(|told| told.number == upgrade.number);
        if self.volatile.upgrade.is_due {
            return Ok(());
        }
        let mut at_work = 0;
        for node in self.durable.nodes().values().filter(told).filter(|node| upgrade.is_for(node)) {
            let report = node.info.as_ref().and_then(|info| info.program.as_ref());
            let report = report.filter(|report| report.tried == upgrade.number);
            at_work += usize::from(!node.upgrade.is_some_and(|told| told.ended));
            let has_failed = report.is_some_and(|report| report.failed.is_some());
            ensure(!has_failed, || {
                format!("{} could not become what upgrade {} wants, which goes on", node.id, upgrade.number)
            })?;
        }
        ensure(at_work <= upgrade.plan.at_once as usize, || {
            format!("{at_work} nodes become another program, and {} may", upgrade.plan.at_once)
        })
    }

    fn check_allocations(&self) -> Result<(), String> {
        for node in self.durable.nodes().keys() {
            let known = self.volatile.pools.node(node).map(|(_, room)| room);
            ensure(known == Some(&self.durable.room(node)), || {
                format!("placement believes {node} to have {known:?}")
            })?;
        }
        let copies = copies(&self.durable, &self.volatile.pools);
        ensure(copies == self.volatile.copies, || "placement miscounts the allocations".to_owned())?;
        for record in self.durable.allocations().values() {
            let id = record.id;
            let node = self.durable.nodes().get(&record.node);
            let node = node.ok_or_else(|| format!("{id} is on the unknown node {}", record.node))?;
            let is_lost = record.state == AllocationState::Lost;
            ensure(is_lost == node.lost.is_some(), || {
                format!("{id} and its node {} differ in being lost", node.id)
            })?;
            if let Work::Items { run, .. } = record.work {
                let run = self.durable.runs().get(&run);
                let is_running = run.is_some_and(RunRecord::is_running);
                ensure(is_running, || format!("{id} works for a run that has ended"))?;
            }
        }
        for node in self.durable.nodes().values() {
            let live = self.durable.on_node(&node.id).filter(|record| record.is_assigned());
            let sum = live.fold(Resources::default(), |sum, record| sum.plus(record.resources()));
            ensure(sum == self.durable.reserved(&node.id), || {
                format!("{} reserves something else", node.id)
            })?;
        }
        Ok(())
    }

    /// No service has more than one allocation too many, and none of a revision that was never deployed.
    fn check_services(&self) -> Result<(), String> {
        if !self.volatile.dirty.is_empty() {
            return Ok(());
        }
        for (app, name, _, desired) in services(&self.durable) {
            let full = app.name.workload(name);
            let live = self.durable.of_workload(&full).filter(|record| record.serves() && record.is_live());
            let live = u32::try_from(live.count()).unwrap_or(u32::MAX);
            // One that runs everywhere has two on a node while the second replaces the first.
            let most = if self.durable.everywhere().contains(&full) {
                crate::reconcile::desired(self, &full).saturating_mul(2).saturating_add(1)
            } else {
                let (spec, _) = app.rollout_spec(name).unzip();
                let surge = spec.map_or(0, |spec| spec.max_surge.of_up(desired)).max(1);
                let canaries = spec.and_then(|spec| spec.canary).map_or(0, |canary| canary.of_up(desired));
                match &app.rollout {
                    // Of what has failed some stay that do not answer, and what was before may leave its nodes.
                    Some(rollout) if rollout.failed.is_some() => desired + 2 * surge,
                    // Canaries and what was before may each leave their nodes.
                    Some(rollout) if !rollout.promoted => desired + canaries + 2 * surge,
                    Some(_) | None => desired + surge,
                }
            };
            ensure(live <= most, || {
                format!("{full} has {live} allocations, {most} at most, {:?}", app.rollout)
            })?;
        }
        for record in self.durable.allocations().values().filter(|record| record.serves() && record.is_live())
        {
            let app = self.durable.apps().get(&record.workload.app_name());
            let is_known = app.is_some_and(|app| record.revision <= app.revision);
            ensure(is_known, || format!("{} serves a revision which is not there", record.id))?;
        }
        Ok(())
    }

    /// Every item of a run that goes on is in exactly one place: recorded, queued, or leased to one allocation.
    fn check_run(&self, run: &RunRecord) -> Result<(), String> {
        let id = run.id;
        if run.state == RunState::Waiting {
            let is_held_up = self
                .waits_for(run)
                .iter()
                .any(|earlier| self.durable.runs().get(earlier).is_some_and(RunRecord::is_open));
            ensure(is_held_up, || format!("{id} waits for runs that have ended"))?;
        }
        let most = if run.job().combine { run.items + 1 } else { run.items };
        let counted = run.succeeded + run.failed;
        ensure(run.recorded.len() == counted, || format!("{id} counts {counted} records"))?;
        let is_inside = run.recorded.ranges().last().is_none_or(|range| range.end <= most);
        ensure(is_inside, || format!("{id} has records of items that it does not have"))?;
        let Some(queue) = self.volatile.queues.get(&id) else {
            return ensure(!run.is_running(), || format!("{id} goes on without a queue"));
        };
        ensure(run.is_running(), || format!("{id} has ended but has a queue"))?;
        let mut places = queue.all();
        let mut count = queue.ready() + queue.waiting();
        for record in
            self.durable.of_run(id).filter(|record| record.is_live() || self.durable.is_held(record))
        {
            let items = outstanding(run, record);
            count += items.len();
            for range in items.ranges() {
                places.insert(*range);
            }
        }
        let mut open = run.recorded.missing_from(run.all_items());
        if open.is_empty() && run.job().combine {
            open = RangeSet::from(vec![single(run.items)]);
        }
        ensure(places == open, || format!("{id} has open items {open:?} but looks after {places:?}"))?;
        ensure(count == open.len(), || format!("{id} looks after an item in two places"))
    }

    /// What every ingress is told is right.
    fn check_assignments(&self) -> Result<(), String> {
        ensure(route_table(&self.durable, &self.volatile.silent) == self.volatile.routes, || {
            "the routes are out of date".to_owned()
        })?;
        Ok(())
    }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
