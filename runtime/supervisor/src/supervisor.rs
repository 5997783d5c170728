//! The supervisor: what should run on this node, what does, and what is to be done about the difference.
//!
//! Every way in changes some state and ends in `settle`, the only place which decides what to fetch, what to start
//! and which item to run next. So an event that is lost, late or repeated cannot leave a half-made decision behind.
//!
//! Not here: the life of one allocation (`allocation`), the order of its items (`items`).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_model::{
    AllocationId, AllocationReport, AssignedAllocation, Assignment, Begun, Bytes, ClusterId, Digest,
    DurationMs, Fuel, Generation, HostCalls, ItemRecord, ItemReport, Name, NodeId, Outcome, ProgramReport,
    RouteTable, SecretId, SecretVersion, Term, Timestamp, Work,
};

use crate::allocation::{Allocation, Phase, Usage};
use crate::component::{ComponentState, Components};
use crate::contact::Contact;
use crate::fallback::Fallback;
use crate::health::Health;
use crate::outbox::{Keep, Outbox};
use crate::program::{KeptProgram, Programs};
use crate::secrets::Secrets;
use crate::{Action, Config, Event};

/// Why an assignment was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// It comes from another fleet.
    #[error("the assignment is of fleet {received}, this node belongs to {expected}")]
    OtherCluster {
        /// The fleet this node belongs to.
        expected: ClusterId,
        /// The fleet of the assignment.
        received: ClusterId,
    },
    /// It is older than the one stored.
    #[error(
        "the assignment is of term {received_term}, generation {received_generation}; stored is term {stored_term}, generation {stored_generation}"
    )]
    Older {
        /// The term stored.
        stored_term: Term,
        /// The generation stored.
        stored_generation: Generation,
        /// The term of the assignment.
        received_term: Term,
        /// The generation of the assignment.
        received_generation: Generation,
    },
}

/// What was on disk when an agent started.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The last assignment that can be believed.
    pub assignment: Option<Assignment>,
    /// Reports of items that were not recorded.
    pub items: Vec<ItemReport>,
    /// How far allocations had come with their items, if the agent before this one was to be started again.
    pub begun: Vec<Begun>,
    /// Whether there was another assignment, which cannot be believed.
    pub is_unsure: bool,
    /// What is known of the program, if this agent takes some from the fleet.
    pub program: Option<KeptProgram>,
}

/// Tells whether an item that was reported is of this allocation.
fn is_of(report: &ItemReport, assigned: &AssignedAllocation) -> bool {
    match assigned.work {
        Work::Items { run, range, .. } => {
            report.allocation == assigned.id && report.run == run && range.contains(report.item)
        }
        Work::Serve => false,
    }
}

/// Tells whether that is how far this allocation has come.
fn is_begun_of(begun: &Begun, assigned: &AssignedAllocation) -> bool {
    matches!(assigned.work, Work::Items { run, .. } if (begun.allocation, begun.run) == (assigned.id, run))
}

/// The brain of one agent.
#[derive(Clone, Debug)]
pub struct Supervisor {
    cluster: ClusterId,
    node: NodeId,
    config: Config,
    /// The highest stored.
    stored: (Term, Generation),
    /// Where requests go, as the coordinator says.
    routes: RouteTable,
    /// What the ingress was told beyond that.
    fallback: Fallback,
    /// The components whose code is kept though nothing runs them.
    kept: BTreeSet<Digest>,
    allocations: BTreeMap<AllocationId, Allocation>,
    components: Components,
    secrets: Secrets,
    /// Which values of secrets are meant, as the coordinator says.
    meant: BTreeMap<SecretId, SecretVersion>,
    outbox: Outbox,
    contact: Contact,
    programs: Programs,
    /// The reports on disk of which nobody knows what they are of, if an assignment that was there is not believed: with
    /// the next one it is known what this agent may have begun.
    unsure: Option<Vec<ItemReport>>,
    /// Until when items that run are waited for, if the agent is about to be started again: no new ones are begun.
    leaving: Option<Timestamp>,
    /// The latest moment it was told.
    now: Timestamp,
}

impl Supervisor {
    /// Returns the supervisor of a node on which nothing runs.
    pub fn new(cluster: ClusterId, node: NodeId, config: Config) -> Self {
        Self {
            cluster,
            node,
            config,
            stored: (Term::default(), Generation::default()),
            routes: RouteTable::default(),
            fallback: Fallback::default(),
            kept: BTreeSet::new(),
            allocations: BTreeMap::new(),
            components: Components::default(),
            secrets: Secrets::default(),
            meant: BTreeMap::new(),
            outbox: Outbox::default(),
            contact: Contact::default(),
            programs: Programs::default(),
            unsure: None,
            leaving: None,
            now: Timestamp::default(),
        }
    }

    /// Takes the whole list of what the node must run.
    ///
    /// One with the stored (term, generation) is a repetition and changes nothing; an older one, or one of another
    /// fleet, is refused.
    pub fn assign(&mut self, assignment: Assignment, now: Timestamp) -> Result<Vec<Action>, Stale> {
        if assignment.cluster != self.cluster {
            return Err(Stale::OtherCluster { expected: self.cluster.clone(), received: assignment.cluster });
        }
        let (stored_term, stored_generation) = self.stored;
        let received = (assignment.term, assignment.generation);
        if received < self.stored {
            let (received_term, received_generation) = received;
            return Err(Stale::Older { stored_term, stored_generation, received_term, received_generation });
        }
        self.contact.heard(now);
        self.programs.heard();
        if received == self.stored {
            return Ok(self.settle(now));
        }
        let mut actions = vec![Action::Save(Box::new(assignment.clone()))];
        if let Some(reports) = self.unsure.take() {
            // The agent may have begun what is in here, and did not know so when it started.
            let new = assignment.allocations.iter().filter(|it| !self.allocations.contains_key(&it.id));
            for assigned in new.cloned().collect::<Vec<_>>() {
                self.begin_again(&assigned, &reports, &[], now);
                let of_it: BTreeMap<u32, &ItemReport> =
                    reports.iter().filter(|it| is_of(it, &assigned)).map(|it| (it.item, it)).collect();
                of_it.into_values().for_each(|report| self.outbox.push(report.clone(), now));
            }
        }
        actions.extend(self.take(assignment, now));
        Ok(actions)
    }

    /// Takes what was on disk when the agent started.
    ///
    /// An assignment is trusted as the highest stored, and not saved again. One of another fleet is left alone. Nobody
    /// knows which items the agent had begun: those that may be started at most once have ended. Items of which there is a
    /// report are not run again.
    pub fn restore(&mut self, kept: Kept, now: Timestamp) -> Vec<Action> {
        let Kept { assignment, items, begun, is_unsure, program } = kept;
        self.programs.restore(program, now, &self.config);
        let on_disk = items.len();
        let assignment = assignment.filter(|assignment| assignment.cluster == self.cluster);
        let assigned = assignment.iter().flat_map(|assignment| &assignment.allocations);
        let (mut wanted, mut others) = (Vec::new(), items);
        for assigned in assigned.clone() {
            wanted.extend(others.extract_if(.., |report| is_of(report, assigned)));
        }
        // What is not wanted may be of an assignment that is not believed, and is kept for that.
        self.outbox.restore(wanted.clone(), if is_unsure { 0 } else { on_disk });
        for assigned in assigned {
            self.begin_again(assigned, &wanted, &begun, now);
        }
        self.unsure = is_unsure.then_some(others);
        self.secrets.doubt();
        match assignment {
            Some(assignment) => self.take(assignment, now),
            None => self.settle(now),
        }
    }

    /// Takes an allocation that this agent may have had before it was started again.
    fn begin_again(
        &mut self,
        assigned: &AssignedAllocation,
        reports: &[ItemReport],
        begun: &[Begun],
        now: Timestamp,
    ) {
        let done =
            reports.iter().filter(|report| is_of(report, assigned)).map(|report| report.item).collect();
        let begun = begun.iter().find(|begun| is_begun_of(begun, assigned));
        let (allocation, given_up) = Allocation::restored(assigned.clone(), done, begun, now);
        self.give_up(&allocation, &given_up, "the agent was started again while it ran", now);
        self.allocations.insert(assigned.id, allocation);
    }

    /// Takes what happened on the node, or what the coordinator said of items.
    pub fn observe(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        self.observe_all([event], now)
    }

    /// Takes several events and thinks through what follows from all of them once.
    pub fn observe_all(&mut self, events: impl IntoIterator<Item = Event>, now: Timestamp) -> Vec<Action> {
        let (mut settled, mut first) = (true, Vec::new());
        for event in events {
            settled &= matches!(event, Event::Usage { .. });
            first.extend(self.note(event, now));
        }
        if settled {
            self.now = self.now.max(now);
            return Vec::new();
        }
        first.extend(self.settle(now));
        first
    }

    /// Takes one event; returns what is to be done about it before all else.
    fn note(&mut self, event: Event, now: Timestamp) -> Option<Action> {
        match event {
            Event::NotTaken { number, reason, again } => {
                let reason = self.shortened(reason);
                return self.programs.not_taken(number, reason, again, now, &self.config);
            }
            Event::Fetched { digest } => self.components.fetched(&digest),
            Event::FetchFailed { digest, reason } => {
                let reason = self.shortened(reason);
                self.components.failed(&digest, reason, now, &self.config);
            }
            Event::SecretFetched { secret, version } => self.secrets.fetched(secret, version),
            Event::SecretNotFetched { secret, version, present, is_alone, reason } => {
                let why = (is_alone, self.shortened(reason));
                self.secrets.failed(&secret, version, present, why, (now, &self.config));
            }
            Event::Started { allocation } => self.started(allocation, now),
            Event::Stopped { allocation } => {
                self.contact.stopped(allocation);
                if let Some(allocation) = self.allocations.get_mut(&allocation) {
                    allocation.stopped();
                }
            }
            Event::Heard { term, sent, leases } => {
                // A coordinator which was replaced gives no leases any more.
                if term >= self.stored.0 {
                    self.contact.answered(sent, now, &leases);
                }
            }
            Event::NotStarted { allocation, reason, refused } => {
                let reason = self.shortened(reason);
                self.not_started(allocation, reason, refused, now);
            }
            Event::ItemEnded { allocation, item, outcome, fuel, memory, wall, host, output, output_cut } => {
                let end = ItemEnd { outcome, fuel, memory, wall, host, output, output_cut };
                self.item_ended(allocation, item, end, now);
            }
            // Why is for the agent's log; the coordinator has no place for the reason of a single item.
            Event::ItemNotRun { allocation, item, reason: _ } => {
                if let Some(items) = self.allocations.get_mut(&allocation).and_then(|it| it.items.as_mut()) {
                    items.not_run(item, now, &self.config);
                }
            }
            Event::Recorded { term, items } => self.recorded(term, &items),
            Event::Usage { allocation, fuel, memory, instances, failed } => {
                if let Some(allocation) = self.allocations.get_mut(&allocation) {
                    allocation.usage = Usage { fuel, memory, instances, failed };
                }
            }
            Event::Checked { allocation, problem } => {
                let problem = problem.map(|problem| self.shortened(problem));
                if let Some(allocation) = self.allocations.get_mut(&allocation) {
                    allocation.checked(problem);
                }
            }
            Event::WorkerDied { namespace } => self.worker_died(&namespace, now),
        }
        None
    }

    /// Takes notice that time has passed.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Action> {
        self.settle(now)
    }

    /// Begins no more items: the agent is about to be started again, while all else goes on until it is.
    pub fn leave(&mut self, now: Timestamp) {
        self.leaving.get_or_insert(now.plus(self.config.finish_within));
    }

    /// Tells whether the agent that is about to be started again need not wait any more: no item runs, or those that do
    /// take too long.
    pub fn may_leave(&self) -> bool {
        let mut items = self.allocations.values().filter_map(|allocation| allocation.items.as_ref());
        self.leaving.is_some_and(|end| end <= self.now || items.all(|items| !items.is_any_running()))
    }

    /// Returns what is to be done last before the agent is started again: nothing runs then that must not run twice, and
    /// what no coordinator has recorded is on disk.
    pub fn last_actions(&mut self, now: Timestamp) -> Vec<Action> {
        self.now = self.now.max(now);
        let is_once = |it: &&Allocation| it.items.is_some() || it.assigned.spec.on_partition().is_singleton();
        let in_worker = self.allocations.values().filter(|it| it.is_in_worker());
        let once: Vec<AssignedAllocation> = in_worker.filter(is_once).map(|it| it.assigned.clone()).collect();
        let stops: Vec<Action> = once.iter().map(|assigned| self.stop(assigned, true, true)).collect();
        let unsure = self.unsure.iter().flatten().cloned();
        let reports = self.outbox.all().chain(unsure).collect();
        let begun = self.allocations.iter().filter_map(|(id, it)| Some(it.items.as_ref()?.begun(*id)));
        let keep = [Action::KeepItems { reports, in_place: true }, Action::KeepBegun(begun.collect())];
        stops.into_iter().chain(keep).collect()
    }

    /// Returns when to call `tick` if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let waiting = self.allocations.values().filter_map(|allocation| match allocation.phase {
            Phase::Waiting { until, .. } => Some(until),
            Phase::Starting | Phase::Running { .. } | Phase::Refused { .. } | Phase::Ended => None,
        });
        let items = self.allocations.values().filter_map(Allocation::items_at_work);
        let in_worker = self.allocations.values().filter(|it| it.is_in_worker());
        let ends = in_worker.filter_map(|it| self.contact.may_run_until(&it.assigned));
        // What was due by the last step and is still here waits for an event, not for time.
        waiting
            .chain(items.flat_map(|items| items.deadlines(&self.config)))
            .chain(self.components.deadlines())
            .chain(self.secrets.deadlines())
            .chain(self.programs.deadlines())
            .chain(ends)
            .chain(self.outbox.keeps_at(&self.config))
            .chain(self.leaving)
            .filter(|deadline| *deadline > self.now)
            .min()
    }

    /// Returns what the coordinator is to hear: what is stored, all allocations, and the oldest unrecorded items.
    ///
    /// The items stay the same until all of them are recorded, so what was sent need not be sent again for the sake of
    /// those which came after: while one list is on its way, the next grows.
    pub fn report(&mut self) -> (Term, Generation, Vec<AllocationReport>, Arc<[ItemReport]>) {
        let (term, generation) = self.stored;
        let allocations = self.allocations.values().map(|allocation| {
            let component = self.components.state(&allocation.assigned.spec.component);
            let obstacle = self.secrets.obstacle(&allocation.assigned);
            allocation.report(component, obstacle, &self.contact, self.now)
        });
        let leaving = self.contact.reports(|id| self.allocations.contains_key(&id));
        let allocations = allocations.chain(leaving).collect();
        (term, generation, allocations, self.outbox.told(&self.config))
    }

    /// Returns what the coordinator is to hear of the program that the agent is; nothing if it takes none from the fleet.
    pub fn program(&self) -> Option<ProgramReport> {
        self.programs.report()
    }

    /// Tells whether something runs that must stop when the coordinator is silent for long.
    pub fn is_on_time(&self) -> bool {
        let mut in_worker = self.allocations.values().filter(|it| it.is_in_worker());
        in_worker.any(|it| self.contact.may_run_until(&it.assigned).is_some())
    }

    /// Returns the highest (term, generation) that it has taken.
    pub fn stored(&self) -> (Term, Generation) {
        self.stored
    }

    /// Makes an assignment the wanted state; what starts from it is left to `settle`.
    fn take(&mut self, assignment: Assignment, now: Timestamp) -> Vec<Action> {
        self.stored = (assignment.term, assignment.generation);
        self.meant = assignment.secrets;
        self.programs.want(assignment.program);
        let mut actions = Vec::new();
        let are_routes_new = assignment.routes != self.routes;
        self.routes = assignment.routes;
        if assignment.kept != self.kept {
            self.kept = assignment.kept;
            actions.push(Action::KeepCode { components: self.kept.clone() });
        }
        let wanted: BTreeMap<AllocationId, AssignedAllocation> =
            assignment.allocations.into_iter().map(|allocation| (allocation.id, allocation)).collect();
        let is_unwanted = |(id, it): &(&AllocationId, &Allocation)| {
            !wanted.get(id).is_some_and(|wanted| it.runs_alike(wanted))
        };
        let unwanted: Vec<AllocationId> =
            self.allocations.iter().filter(is_unwanted).map(|(id, _)| *id).collect();
        let removed: Vec<Action> = unwanted.into_iter().filter_map(|id| self.remove(id)).collect();
        for (id, assigned) in wanted {
            let allocation = match self.allocations.entry(id) {
                Entry::Occupied(known) => {
                    let known = known.into_mut();
                    known.assigned = assigned;
                    known
                }
                Entry::Vacant(free) => free.insert(Allocation::new(assigned, now)),
            };
            if let Some(items) = &mut allocation.items {
                items.finish(assignment.finishing.contains(&id), now);
            }
        }
        // Before anything is stopped to which requests still go.
        actions.extend(self.route(are_routes_new));
        actions.extend(removed);
        actions.extend(self.settle(now));
        actions
    }

    /// Has the ingress told where requests go, if that is new.
    fn route(&mut self, are_routes_new: bool) -> Option<Action> {
        let fallback = Fallback::of(&self.node, &self.routes, self.allocations.values());
        if !are_routes_new && fallback == self.fallback {
            return None;
        }
        self.fallback = fallback;
        Some(Action::SetRoutes(self.fallback.added_to(self.routes.clone())))
    }

    /// Forgets an allocation; its item reports go with it, since a coordinator that removed it wants none of them.
    fn remove(&mut self, id: AllocationId) -> Option<Action> {
        self.outbox.forget(id);
        let allocation = self.allocations.remove(&id)?;
        let must_say = !allocation.assigned.spec.on_partition().is_keep();
        let at_once = allocation.assigned.spec.on_partition().is_singleton();
        allocation.is_in_worker().then(|| self.stop(&allocation.assigned, must_say, at_once))
    }

    /// Has a worker stop an allocation, and break off what it is at if that must be `at_once`. With `must_say` it is waited
    /// for.
    fn stop(&mut self, assigned: &AssignedAllocation, must_say: bool, at_once: bool) -> Action {
        if must_say {
            self.contact.stops(assigned);
        }
        Action::Stop { allocation: assigned.id, namespace: assigned.workload.namespace.clone(), at_once }
    }

    /// Has everything stopped that must not run, as the coordinator is silent, or is to be started again, as it is not
    /// well, or was to finish its items and has not.
    fn stop_some(&mut self, now: Timestamp) -> Vec<Action> {
        self.contact.look(now);
        let mut stopped: Vec<(AssignedAllocation, bool)> = Vec::new();
        for allocation in self.allocations.values_mut() {
            let is_cut_off = self.contact.must_not_run(&allocation.assigned, now).is_some();
            if is_cut_off && allocation.is_in_worker() {
                allocation.cut_off(now);
            } else if !allocation.gives_up(now, &self.config) && !allocation.breaks_off(now, &self.config) {
                continue;
            }
            let assigned = allocation.assigned.clone();
            let at_once = assigned.spec.on_partition().is_singleton() || allocation.items.is_some();
            stopped.push((assigned, at_once));
        }
        stopped.iter().map(|(assigned, at_once)| self.stop(assigned, true, *at_once)).collect()
    }

    fn started(&mut self, id: AllocationId, now: Timestamp) {
        if let Some(allocation) = self.allocations.get_mut(&id)
            && allocation.phase == Phase::Starting
        {
            allocation.phase = Phase::Running { since: now };
            allocation.health = Health::default();
        }
    }

    fn not_started(&mut self, id: AllocationId, reason: String, refused: bool, now: Timestamp) {
        let Some(allocation) = self.allocations.get_mut(&id) else { return };
        if allocation.phase != Phase::Starting {
            return;
        }
        if refused {
            allocation.phase = Phase::Refused { reason };
        } else {
            allocation.not_started(reason, now, &self.config);
            // The component's file may be what is wrong: the agent looks at it again before the next start.
            self.components.doubt(&allocation.assigned.spec.component);
        }
    }

    fn item_ended(&mut self, id: AllocationId, item: u32, end: ItemEnd, now: Timestamp) {
        let Some(items) = self.allocations.get_mut(&id).and_then(|it| it.items.as_mut()) else { return };
        if !items.ended(item) {
            return;
        }
        items.measure(end.wall, end.output.len());
        let record = ItemRecord {
            outcome: end.outcome,
            node: self.node.clone(),
            attempt: items.attempt,
            fuel: end.fuel,
            memory: end.memory,
            wall: end.wall,
            host: end.host,
            output: end.output,
            output_cut: end.output_cut,
        };
        self.outbox.push(ItemReport { allocation: id, run: items.run, item, record }, now);
    }

    fn recorded(&mut self, term: Term, items: &[(AllocationId, u32)]) {
        // A coordinator which was replaced may have promised what its successor does not know.
        if term < self.stored.0 {
            return;
        }
        for (allocation, item) in items {
            self.outbox.remove(*allocation, *item);
        }
    }

    fn worker_died(&mut self, namespace: &Name, now: Timestamp) {
        let mut allocations = std::mem::take(&mut self.allocations);
        for allocation in allocations.values_mut() {
            if allocation.namespace() == namespace && allocation.is_in_worker() {
                let given_up = allocation.died(now, &self.config);
                self.give_up(allocation, &given_up, "the worker process died while running it", now);
            }
        }
        self.allocations = allocations;
        self.contact.worker_died(namespace);
    }

    /// Tells the coordinator of items that will not be run again, though they have not ended by themselves.
    fn give_up(&mut self, allocation: &Allocation, given_up: &[u32], why: &str, now: Timestamp) {
        let Some(items) = &allocation.items else { return };
        let reason = why.to_owned();
        let outcome =
            if items.is_at_most_once { Outcome::Unknown { reason } } else { Outcome::Trapped { reason } };
        let record = ItemRecord {
            outcome,
            node: self.node.clone(),
            attempt: items.attempt,
            fuel: Fuel(0),
            memory: Bytes(0),
            wall: DurationMs(0),
            host: HostCalls::default(),
            output: String::new(),
            output_cut: false,
        };
        for item in given_up {
            let (run, record) = (items.run, record.clone());
            let report = ItemReport { allocation: allocation.assigned.id, run, item: *item, record };
            self.outbox.push(report, now);
        }
    }

    /// Returns what is to be done now: stops, fetches, starts, then items.
    fn settle(&mut self, now: Timestamp) -> Vec<Action> {
        // A clock that seems to go back, as events may come with, must not bring deadlines back.
        let now = self.now.max(now);
        self.now = now;
        let needed: BTreeSet<_> = self.allocations.values().map(|it| it.assigned.spec.component).collect();
        self.components.keep(&needed);
        let secrets = self.settle_secrets(now);
        let stops = self.stop_some(now);
        let mut fetches = Vec::new();
        let mut starts = Vec::new();
        let mut runs = Vec::new();
        for (id, allocation) in &mut self.allocations {
            match allocation.phase {
                Phase::Waiting { until, .. } if until <= now && !allocation.is_finished() => {
                    let digest = allocation.assigned.spec.component;
                    if self.components.need(digest, now) {
                        fetches.push(Action::Fetch { digest });
                    } else if self.components.state(&digest) == Some(&ComponentState::Present)
                        && self.secrets.are_ready(&allocation.assigned)
                        && !self.contact.is_stopping(*id)
                        && self.contact.must_not_run(&allocation.assigned, now).is_none()
                    {
                        allocation.phase = Phase::Starting;
                        starts.push(Action::Start { allocation: Box::new(allocation.assigned.clone()) });
                    }
                }
                Phase::Running { .. } if !self.outbox.is_full(&self.config) && self.leaving.is_none() => {
                    let namespace = allocation.assigned.workload.namespace.clone();
                    let Some(items) = &mut allocation.items else { continue };
                    let room = self.outbox.room(&self.config);
                    while let Some(range) = items.take(now, room) {
                        let (run, combine, inputs) = (items.run, items.combine, items.inputs);
                        let (allocation, namespace) = (*id, namespace.clone());
                        runs.push(Action::RunItems { allocation, namespace, run, range, combine, inputs });
                    }
                }
                Phase::Waiting { .. }
                | Phase::Starting
                | Phase::Running { .. }
                | Phase::Refused { .. }
                | Phase::Ended => {}
            }
        }
        let keep = self.outbox.keep(now, &self.config).map(|keep| match keep {
            Keep::Add(reports) => Action::KeepItems { reports, in_place: false },
            Keep::Replace(reports) => Action::KeepItems { reports, in_place: true },
        });
        let program = self.leaving.is_none().then(|| self.programs.settle(now)).flatten();
        self.route(false)
            .into_iter()
            .chain(keep)
            .chain(stops)
            .chain(secrets)
            .chain(fetches)
            .chain(starts)
            .chain(runs)
            .chain(program)
            .collect()
    }

    /// Returns what is to be done about secrets now. Those who run with one that has another value are told.
    fn settle_secrets(&mut self, now: Timestamp) -> Vec<Action> {
        let granted = self.allocations.values().flat_map(|it| it.assigned.secrets()).collect();
        self.secrets.want(&granted, &self.meant);
        let keep = self.secrets.news_to_keep().map(|secrets| Action::KeepSecrets { secrets });
        let missing = self.secrets.missing(now).into_iter();
        let fetches = missing.map(|(secret, version)| Action::FetchSecret { secret, version });
        let changed = self.secrets.take_changed();
        let in_worker = self.allocations.values().filter(|it| it.is_in_worker());
        let readers = in_worker.filter(|it| it.assigned.secrets().any(|secret| changed.contains(&secret)));
        let give = readers.map(|it| Action::GiveSecrets { allocation: Box::new(it.assigned.clone()) });
        keep.into_iter().chain(fetches).chain(give).collect()
    }

    /// Returns a reason cut to what a report may carry.
    fn shortened(&self, reason: String) -> String {
        match reason.char_indices().nth(self.config.reason_length) {
            Some((end, _)) => format!("{}...", &reason[..end]),
            None => reason,
        }
    }
}

/// How an item ended.
struct ItemEnd {
    outcome: Outcome,
    fuel: Fuel,
    memory: Bytes,
    wall: DurationMs,
    host: HostCalls,
    output: String,
    output_cut: bool,
}
