//! The brain itself: its ways in, and the one way out.

use std::collections::BTreeSet;
use std::sync::Arc;

use dunlin_model::{AllocationId, ClusterId, NodeId, Term, Timestamp, WorkloadName};

use crate::dirty::NewRoom;
use crate::durable::Durable;
use crate::effort::Effort;
use crate::placement::Pools;
use crate::planted::{Bug, planted};
use crate::volatile::Volatile;
use crate::{
    AllocationRecord, AllocationState, Answer, AppRecord, Change, Command, Config, Counters, Observation,
    Rejection, Step,
};

/// All that a coordinator knows, and all its choices.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(crate) id: ClusterId,
    pub(crate) term: Term,
    pub(crate) config: Config,
    pub(crate) durable: Durable,
    pub(crate) volatile: Volatile,
}

impl Cluster {
    /// Returns a fleet without nodes and apps.
    pub fn new(id: ClusterId, term: Term, config: Config, now: Timestamp) -> Self {
        Self::restore(id, term, config, [], now)
    }

    /// Returns the same fleet again, from what was committed, under a new term.
    ///
    /// Every node that was believed is believed again for a while. [`next_deadline`](Self::next_deadline) is past:
    /// what the commits left undone is done at the first tick.
    pub fn restore(
        id: ClusterId,
        term: Term,
        config: Config,
        changes: impl IntoIterator<Item = Change>,
        now: Timestamp,
    ) -> Self {
        let durable = Durable::restore(changes);
        let volatile = Volatile::restore(&durable, &config, now);
        Self { id, term, config, durable, volatile }
    }

    /// Takes a user's wish. It may be refused; then nothing has changed.
    pub fn submit(&mut self, command: Command, now: Timestamp) -> Result<(Answer, Step), Rejection> {
        if let Some(record) = self.durable.recovery().cloned() {
            return self.submit_in_recovery(command, record, now);
        }
        let mut step = Step::default();
        let answer = match command {
            Command::Recover => return Err(Rejection::NothingToRecover),
            Command::Deploy { spec, accept } => self.deploy(&mut step, spec, accept, now)?,
            Command::Rollback { app, to } => self.rollback(&mut step, &app, to, now)?,
            Command::Promote(app) => self.promote(&mut step, &app, now)?,
            Command::Stop(app) => self.stop(&mut step, &app, now)?,
            Command::Delete(app) => self.delete(&mut step, &app, now)?,
            Command::StartRun { workload, wish } => self.start_run(&mut step, &workload, &wish, now)?,
            Command::CancelRun(run) => self.cancel_run(&mut step, run, now)?,
            Command::SetNamespace { namespace, spec } => {
                self.set_namespace(&mut step, namespace, spec, now)?
            }
            Command::SetSecret { id, version, sealed } => {
                self.set_secret(&mut step, id, version, sealed, now)?
            }
            Command::DeleteSecret(id) => self.delete_secret(&mut step, &id, now)?,
            Command::StartUpgrade { programs, plan } => self.start_upgrade(&mut step, programs, plan, now)?,
            Command::StopUpgrade => self.stop_upgrade(&mut step, now)?,
            Command::ResumeUpgrade => self.resume_upgrade(&mut step, now)?,
            Command::RevertUpgrade => self.revert_upgrade(&mut step, now)?,
            Command::Cordon { node, drain } => self.cordon(&mut step, &node, drain, now)?,
            Command::Revoke(node) => self.revoke(&mut step, &node, now)?,
            Command::Remove(node) => self.remove_node(&mut step, &node, now)?,
            Command::Approve(node) => self.approve(&mut step, &node, now)?,
            Command::Uncordon(node) => self.uncordon(&mut step, &node, now)?,
            Command::ReleaseBrake => {
                self.volatile.release_all = !planted(Bug::NeverRelease);
                self.volatile.next_release = Some(now);
                Answer::BrakeReleased
            }
            Command::CreateToken(token) => self.create_token(&mut step, token, now)?,
            Command::Join { token_id, secret_hash, node, key_fingerprint } => {
                self.join(&mut step, &token_id, &secret_hash, node, key_fingerprint, now)?
            }
        };
        Ok((answer, self.settle(step, now)))
    }

    /// Takes what happened outside. It cannot be refused; what makes no sense is ignored.
    pub fn observe(&mut self, observation: Observation, now: Timestamp) -> Step {
        let mut step = Step::default();
        match observation {
            Observation::Fenced { node, term } => self.observe_fenced(&mut step, node, term, now),
            // It decides nothing, so it need not know; when it goes on it hears everything again.
            _ if self.durable.recovery().is_some() => {}
            Observation::Report { node, report } => self.observe_report(&mut step, &node, report, now),
            Observation::Connected { node } => self.observe_connected(&node, now),
            Observation::Disconnected { node } => self.observe_disconnected(&node),
        }
        self.settle(step, now)
    }

    /// Lets time pass. While nothing is decided it does not.
    pub fn tick(&mut self, now: Timestamp) -> Step {
        self.settle(Step::default(), now)
    }

    /// Returns when to call [`tick`](Self::tick) if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.durable.recovery().is_some() {
            return None;
        }
        let lease = self.volatile.first_lease_end().map(|(end, _)| *end);
        let drain = self.durable.draining().first().map(|(until, _)| *until);
        let retry = self.volatile.retries.first().map(|(due, _)| *due);
        let unsettled = (!self.volatile.dirty.is_empty()).then_some(self.volatile.dirty_since);
        let release = self.next_release();
        let leave = self.durable.drained_nodes().first().map(|(until, _)| *until);
        let trust = self.volatile.set_aside.first().map(|(until, _)| *until);
        let rollout = self.volatile.rollouts.first();
        let overdue = self.durable.run_index().first_deadline().map(|(end, _)| end);
        let scheduled = self.volatile.calendar.first();
        let way = self.durable.making_way().first().map(|(until, _)| *until);
        let again = self.volatile.in_vain_ends.first().map(|(until, _)| *until);
        let better = self.volatile.rebalancing.next();
        let routed = self.volatile.routed.first();
        let awaited = self.volatile.awaited.first();
        let singletons = [self.volatile.leaving_ends.first(), self.volatile.lost_leases.first()];
        let of_nodes = [lease, drain, unsettled, release, leave, trust, way, again, better, routed, awaited];
        let upgrade = self.volatile.upgrade.due(self.volatile.dirty_since);
        let due = of_nodes.into_iter().chain([retry, rollout, overdue, scheduled, upgrade]).chain(singletons);
        due.flatten().min()
    }

    /// Makes a change and remembers it for the store.
    pub(crate) fn change(&mut self, step: &mut Step, change: Change, now: Timestamp) {
        self.remember(&change, now);
        self.volatile.dirty.mark(&self.durable, &change);
        self.volatile.upgrade.mark(&self.durable, &change);
        self.volatile.dirty_since = now;
        let allocation = match &change {
            Change::Allocation(record) => Some(record.id),
            Change::AllocationDeleted(id) => Some(*id),
            Change::App(AppRecord { name, .. }) | Change::AppDeleted(name) => {
                self.volatile.calendar.changed.insert(name.clone());
                None
            }
            _ => None,
        };
        let before = allocation.and_then(|id| self.durable.allocations().get(&id)).cloned();
        change.apply(&mut self.durable);
        if let Change::App(AppRecord { name: app, .. })
        | Change::AppDeleted(app)
        | Change::RevisionDeleted(app, _) = &change
        {
            self.refresh_baking(app);
        } else if let Change::Revision(record) = &change {
            self.refresh_baking(&record.app);
        }
        if let Change::Node(record) = &change {
            self.volatile.rebalancing.changed(now);
            self.refresh_pools(&record.id);
        } else if allocation.is_some() {
            self.volatile.rebalancing.changed(now);
            let after = match &change {
                Change::Allocation(record) => Some(&**record),
                _ => None,
            };
            self.refresh_allocation(before.as_deref(), after);
            if let Some(before) = before.filter(|before| before.serves()) {
                self.look_at_rollout(&before.workload.app_name(), true, now);
            }
        }
        step.changes.push(change);
    }

    /// Lets placement see an allocation as it is now, and what is free on its node.
    fn refresh_allocation(&mut self, before: Option<&AllocationRecord>, after: Option<&AllocationRecord>) {
        let Some(record) = after.or(before) else { return };
        let node = &record.node;
        let Volatile { pools, copies, dirty, waiting_for_others, rebalancing, .. } = &mut self.volatile;
        dirty.relations |= !waiting_for_others.is_empty();
        let [takes_before, takes] = [before, after].map(|it| it.filter(|it| it.is_assigned()));
        if takes_before.map(|it| &it.spec) != takes.map(|it| &it.spec) {
            let has_room = pools.set_room(node, self.durable.room(node));
            dirty.room |= has_room && !planted(Bug::ForgetRoom);
        }
        let [before, after] = [before, after].map(|it| it.filter(|it| it.is_live()));
        if after.is_none()
            && let Some(before) = before
        {
            rebalancing.ended(before);
        }
        if before.map(|it| it.revision) != after.map(|it| it.revision)
            && let Some(class) = pools.counting_class(node)
        {
            before.into_iter().for_each(|record| copies.remove(record, class));
            after.into_iter().for_each(|record| copies.add(record, class));
        }
        self.volatile.node(node).must_be_heard = true;
    }

    /// Lets placement see a node as it is now.
    pub(crate) fn refresh_pools(&mut self, node: &NodeId) {
        let Some(record) = self.durable.nodes().get(node) else { return };
        let Volatile { nodes, pools, copies, dirty, .. } = &mut self.volatile;
        let class = |pools: &Pools| pools.counting_class(node);
        let before = class(pools);
        let state = nodes.or_default(node);
        dirty.room |= pools.refresh(record, state, self.durable.room(node));
        let after = class(pools);
        if before != after {
            for record in self.durable.on_node(node).filter(|record| record.is_live()) {
                before.into_iter().for_each(|class| copies.remove(record, class));
                after.into_iter().for_each(|class| copies.add(record, class));
            }
        }
        // What is to run on each node may have one more to run on, or one less.
        if !planted(Bug::EverywhereMissesJoined) {
            self.volatile.dirty.workloads.extend(self.durable.everywhere().iter().cloned());
        }
    }

    /// Returns an allocation id which was never given out. The count is written once, at the end of the step.
    pub(crate) fn next_allocation(&mut self) -> AllocationId {
        let Counters { allocation, run } = self.durable.counters();
        Change::Counters(Counters { allocation: allocation + 1, run }).apply(&mut self.durable);
        self.volatile.has_counted = true;
        AllocationId::new(allocation + 1)
    }

    /// Gives an allocation a new state.
    pub(crate) fn set_state(
        &mut self,
        step: &mut Step,
        id: AllocationId,
        state: AllocationState,
        now: Timestamp,
    ) {
        let mut record = AllocationRecord::clone(&self.durable.allocations()[&id]);
        record.state = state;
        self.change(step, Change::Allocation(Arc::new(record)), now);
    }

    /// Ends an allocation at once.
    pub(crate) fn end(&mut self, step: &mut Step, id: AllocationId, now: Timestamp) {
        self.remember_leaving(step, id, now);
        self.change(step, Change::AllocationDeleted(id), now);
    }

    /// Ends a service's allocation: one that requests may be going to leaves the routes first.
    pub(crate) fn end_serving(&mut self, step: &mut Step, id: AllocationId, now: Timestamp) {
        match self.durable.allocations()[&id].state {
            AllocationState::Running if !planted(Bug::StopWithoutDraining) => {
                let until = now.plus(self.config.heartbeat);
                self.set_state(step, id, AllocationState::Draining { until }, now);
            }
            AllocationState::Draining { .. } => {}
            AllocationState::Placed | AllocationState::Running | AllocationState::Lost => {
                self.end(step, id, now)
            }
        }
    }

    /// Returns the ids of a node's allocations.
    pub(crate) fn ids_on_node(&self, node: &NodeId) -> Vec<AllocationId> {
        self.durable.on_node(node).map(|record| record.id).collect()
    }

    /// Thinks through what has changed or is due. All ways in end here.
    fn settle(&mut self, mut step: Step, now: Timestamp) -> Step {
        if self.durable.recovery().is_some() {
            return step;
        }
        let mut effort = Effort::of_one_step();
        self.expire_leases(&mut step, &mut effort, now);
        self.release_lost(&mut step, &mut effort, now);
        self.leave_silent(now);
        self.trust_again(now);
        self.volatile.failures.forget_old(now);
        self.leave_drained(&mut step, now);
        self.end_drained(&mut step, now);
        self.end_leases(&mut step, now);
        self.end_overdue(&mut step, now);
        self.take_schedules(&mut step, now);
        self.start_due(&mut step, &mut effort, now);
        self.end_what_makes_way(&mut step, now);
        self.look_again(now);
        self.give_up_awaited(now);
        self.promote_retries(now);
        self.give_what_is_kept(&mut step, &mut effort, now);
        self.advance_rollouts(&mut step, now);
        self.rebalance(&mut effort, now);
        self.advance_upgrade(&mut step, now);
        if effort.is_over() {
            self.volatile.dirty.workloads.append(&mut effort.left_services);
            self.volatile.dirty.runs.append(&mut effort.left_runs);
        } else {
            self.end_and_place(&mut step, effort, now);
        }
        let are_routes_new = self.refresh_routes();
        self.assign(&mut step, are_routes_new);
        if std::mem::take(&mut self.volatile.has_counted) && !planted(Bug::ForgetCounters) {
            step.changes.push(Change::Counters(self.durable.counters()));
        }
        step.compact();
        step
    }

    /// Ends what is too much of the workloads that have changed, and places what is missing.
    fn end_and_place(&mut self, step: &mut Step, mut effort: Effort, now: Timestamp) {
        let mut workloads = std::mem::take(&mut self.volatile.dirty.workloads);
        self.end_surplus(step, &workloads, now);
        let room = NewRoom::take(&mut self.volatile.dirty);
        if std::mem::take(&mut self.volatile.dirty.relations) {
            self.look_at_those_who_wait_for_others(&mut workloads);
        }
        self.give_turns(step, workloads, &room, &mut effort, now);
        // What was placed meanwhile needs no further thought; what there was no time for does.
        NewRoom::take(&mut self.volatile.dirty);
        self.volatile.dirty.workloads = effort.left_services;
        self.volatile.dirty.runs = effort.left_runs;
    }

    /// Lets those be looked at that wait to be near others or apart from them: somebody else has moved.
    fn look_at_those_who_wait_for_others(&mut self, workloads: &mut BTreeSet<WorkloadName>) {
        let Volatile { waiting_for_others, dirty, .. } = &mut self.volatile;
        for (workload, run) in &*waiting_for_others {
            match run {
                Some(run) => drop(dirty.runs.insert(*run)),
                None => drop(workloads.insert(workload.clone())),
            }
        }
    }

    /// Ends what has drained long enough.
    fn end_drained(&mut self, step: &mut Step, now: Timestamp) {
        while let Some((until, id)) = self.durable.draining().first().copied() {
            if until > now {
                break;
            }
            self.end(step, id, now);
        }
    }

    /// Lets failed items be leased again whose wait is over.
    fn promote_retries(&mut self, now: Timestamp) {
        while let Some((due, run)) = self.volatile.retries.first().copied() {
            if due > now {
                break;
            }
            self.volatile.retries.pop_first();
            if self.volatile.queues.get_mut(&run).is_some_and(|queue| queue.promote(now)) {
                self.volatile.dirty.runs.insert(run);
                self.volatile.dirty_since = now;
            }
        }
    }
}
