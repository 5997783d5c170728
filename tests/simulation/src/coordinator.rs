//! The shell of the simulated coordinator: it commits what the real cluster decides, then carries it out.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{AllocationId, NodeId, Report, Term, Timestamp};
use dunlin_scheduler::{Action, Answer, Cluster, Command, Config, Observation, Rejection, Step};

use crate::faults::Sabotage;
use crate::store::Store;
use crate::world::{Happening, ToAgent, World};

/// The coordinator and its store.
pub(crate) struct Coordinator {
    /// Its brain, while it is up.
    pub(crate) cluster: Option<Cluster>,
    /// What it has committed.
    pub(crate) store: Store,
    /// Which connection of each node it believes in.
    pub(crate) connected: BTreeMap<NodeId, u64>,
    /// Items which an agent said to have failed: they may be forgotten without a record, and tried again.
    failed: BTreeSet<(AllocationId, u32)>,
    /// How often it was started.
    term: Term,
    life: u64,
    wake: Option<Timestamp>,
}

impl Coordinator {
    /// Returns one that was never started.
    pub(crate) fn new() -> Self {
        Self {
            cluster: None,
            store: Store::default(),
            connected: BTreeMap::new(),
            failed: BTreeSet::new(),
            term: Term(0),
            life: 0,
            wake: None,
        }
    }
}

impl World {
    pub(crate) fn coordinator_boots(&mut self) -> Result<(), String> {
        if self.coordinator.cluster.is_some() {
            return Ok(());
        }
        let is_first = self.coordinator.term == Term(0);
        if is_first || self.sabotage != Sabotage::ReuseTerm {
            self.coordinator.term = self.coordinator.term.next();
        }
        self.coordinator.life += 1;
        let (id, term, now) = (self.cluster.clone(), self.coordinator.term, self.now);
        self.note(format_args!("the coordinator starts with term {term}"));
        let cluster = if is_first {
            Cluster::new(id, term, Config::LAN, now)
        } else {
            Cluster::restore(id, term, Config::LAN, self.coordinator.store.changes(), now)
        };
        self.user.check_nothing_is_lost(&cluster.view())?;
        self.coordinator.cluster = Some(cluster);
        let tick = self.coordinator.cluster.as_mut().map(|cluster| cluster.tick(now));
        self.coordinator_acts(tick.expect("it was just started"))?;
        Ok(())
    }

    pub(crate) fn coordinator_crashes(&mut self, why: &str) {
        if self.coordinator.cluster.take().is_none() {
            return;
        }
        self.note(format_args!("the coordinator crashes {why}"));
        self.counts.coordinator_crashes += 1;
        self.coordinator.life += 1;
        self.coordinator.wake = None;
        self.coordinator.connected.clear();
        let wait = if self.random.chance(200) { self.draw(15_000, 60_000) } else { self.draw(300, 8_000) };
        self.plan(wait, Happening::CoordinatorBoots);
        let connections: Vec<_> =
            self.agents.values().filter_map(|agent| Some((agent.node.clone(), agent.connection?))).collect();
        for (node, connection) in connections {
            self.agent_loses_connection(&node, connection);
        }
    }

    pub(crate) fn coordinator_tick(&mut self, life: u64) -> Result<(), String> {
        if self.coordinator.life != life {
            return Ok(());
        }
        let now = self.now;
        self.coordinator.wake = None;
        let Some(cluster) = &mut self.coordinator.cluster else { return Ok(()) };
        let step = cluster.tick(now);
        self.coordinator_acts(step)?;
        Ok(())
    }

    pub(crate) fn coordinator_receives(&mut self, node: &NodeId, mut report: Report) -> Result<(), String> {
        if self.blocked(node).to_coordinator || !self.coordinator.connected.contains_key(node) {
            return Ok(());
        }
        if self.sabotage == Sabotage::RecordTooEarly && self.random.chance(100) {
            let items = std::mem::take(&mut report.items);
            let items = items.iter().map(|item| (item.allocation, item.item)).collect();
            let recorded =
                Step { changes: Vec::new(), actions: vec![Action::Recorded { node: node.clone(), items }] };
            self.coordinator_acts(recorded)?;
        }
        let failed = report.items.iter().filter(|item| !item.record.outcome.is_completed());
        self.coordinator.failed.extend(failed.map(|item| (item.allocation, item.item)));
        self.coordinator_observes(Observation::Report { node: node.clone(), report })
    }

    pub(crate) fn coordinator_observes(&mut self, observation: Observation) -> Result<(), String> {
        let now = self.now;
        let Some(cluster) = &mut self.coordinator.cluster else { return Ok(()) };
        let step = cluster.observe(observation, now);
        self.coordinator_acts(step)?;
        Ok(())
    }

    /// Gives a command to the coordinator; there is no answer if it is down, or goes down before it has committed.
    pub(crate) fn submit(&mut self, command: &Command) -> Result<Option<Result<Answer, Rejection>>, String> {
        let now = self.now;
        let Some(cluster) = &mut self.coordinator.cluster else { return Ok(None) };
        let (answer, step) = match cluster.submit(command.clone(), now) {
            Ok(accepted) => accepted,
            Err(rejection) => return Ok(Some(Err(rejection))),
        };
        if !self.coordinator_commits(&step)? {
            return Ok(None);
        }
        self.user.committed(command, &answer);
        self.counts.commands += 1;
        self.coordinator_sends(step)?;
        Ok(Some(Ok(answer)))
    }

    fn coordinator_acts(&mut self, step: Step) -> Result<(), String> {
        if self.coordinator_commits(&step)? {
            self.coordinator_sends(step)?;
        }
        Ok(())
    }

    /// Makes a step durable; tells whether that was done.
    fn coordinator_commits(&mut self, step: &Step) -> Result<bool, String> {
        let Some(cluster) = &self.coordinator.cluster else { return Ok(false) };
        cluster.check().map_err(|reason| format!("the cluster is not sound: {reason}"))?;
        if step.changes.is_empty() {
            return Ok(true);
        }
        if self.random.chance(self.faults.crash_before_commit) {
            self.coordinator_crashes("before a commit");
            return Ok(false);
        }
        self.note(format_args!("commit {}", shown(step)));
        if self.sabotage == Sabotage::DropCommits && self.random.chance(20) {
            return Ok(true);
        }
        self.coordinator.store.commit(&step.changes)?;
        Ok(true)
    }

    /// Carries out the actions of a step that is durable, unless it crashes before.
    fn coordinator_sends(&mut self, step: Step) -> Result<(), String> {
        if !step.changes.is_empty() && self.random.chance(self.faults.crash_after_commit) {
            self.coordinator_crashes("after a commit");
            return Ok(());
        }
        for action in step.actions {
            match action {
                Action::Assign { node } => self.assign(node)?,
                Action::AssignAll => {
                    let cluster = self.coordinator.cluster.as_ref().expect("it has just decided this");
                    for node in cluster.listeners().cloned().collect::<Vec<_>>() {
                        self.assign(node)?;
                    }
                }
                Action::Recorded { node, items } => {
                    for (allocation, item) in &items {
                        let has_failed = self.coordinator.failed.contains(&(*allocation, *item));
                        if !has_failed && !self.coordinator.store.may_be_forgotten(*allocation, *item) {
                            return Err(format!(
                                "{node} is told to forget item {item} of {allocation} too early"
                            ));
                        }
                    }
                    self.tell(node, ToAgent::Recorded { term: self.coordinator.term, items });
                }
            }
        }
        self.coordinator_sets_alarm();
        Ok(())
    }

    /// Sends a node what it must run, as it is now.
    fn assign(&mut self, node: NodeId) -> Result<(), String> {
        let cluster = self.coordinator.cluster.as_ref().expect("it has just decided this");
        let assignment = cluster.assignment(&node).ok_or_else(|| format!("{node} is no member"))?;
        let key = (node.clone(), assignment.term, assignment.generation);
        let before = self.sent.entry(key).or_insert_with(|| assignment.clone());
        if *before != assignment {
            let (term, generation) = (assignment.term, assignment.generation);
            return Err(format!("{node} is sent two different assignments {term}.{generation}"));
        }
        self.tell(node, ToAgent::Assign(Box::new(assignment)));
        Ok(())
    }

    fn tell(&mut self, node: NodeId, message: ToAgent) {
        if self.coordinator.connected.contains_key(&node) {
            self.send(Happening::ToAgent { node, message });
        }
    }

    fn coordinator_sets_alarm(&mut self) {
        let now = self.now;
        let coordinator = &mut self.coordinator;
        let Some(deadline) = coordinator.cluster.as_ref().and_then(Cluster::next_deadline) else { return };
        if coordinator.wake.is_none_or(|wake| deadline < wake) {
            coordinator.wake = Some(deadline);
            let life = coordinator.life;
            self.plan(deadline.since(now), Happening::CoordinatorTick { life });
        }
    }
}

/// Returns the changes of a step in few words.
fn shown(step: &Step) -> String {
    use dunlin_scheduler::Change;
    let words = step.changes.iter().map(|change| match change {
        Change::App(record) => format!("{} revision {}", record.name, record.revision),
        Change::AppDeleted(name) => format!("{name} deleted"),
        Change::Revision(record) => format!("{} revision {} kept", record.app, record.revision),
        Change::RevisionDeleted(app, revision) => format!("{app} revision {revision} forgotten"),
        Change::Namespace(record) => format!("namespace {} may have {:?}", record.name, record.spec),
        Change::Node(record) if record.lost.is_some() => format!("{} lost", record.id),
        Change::Node(record) => format!("{} known", record.id),
        Change::Allocation(record) => {
            format!("{} of {} on {} {:?}", record.id, record.workload, record.node, record.state)
        }
        Change::AllocationDeleted(id) => format!("{id} ended"),
        Change::Run(record) => {
            format!("{} {:?} {}/{}", record.id, record.state, record.recorded.len(), record.items)
        }
        Change::RunDeleted(id) => format!("{id} forgotten"),
        Change::Item { run, item, .. } => format!("item {item} of {run}"),
        Change::Schedule(record) => format!("the schedule of {} is followed", record.job),
        Change::ScheduleDeleted(job) => format!("{job} has no schedule"),
        Change::Token(_) | Change::TokenDeleted(_) => "token".to_owned(),
        Change::Counters(_) => "counters".to_owned(),
    });
    words.collect::<Vec<_>>().join(", ")
}
