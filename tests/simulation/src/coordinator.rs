//! The shell of the simulated coordinator: it commits what the real cluster decides, then carries it out.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{
    AllocationId, Assignment, DurationMs, NodeId, ObservedState, Report, Revision, RouteTable, ServiceSpec,
    Term, Timestamp, WorkloadKind, WorkloadName,
};
use dunlin_scheduler::{
    Action, AllocationState, Answer, Cluster, Command, Config, Observation, Rejection, Step,
};

use crate::options::Sabotage;
use crate::rules::Facts;
use crate::store::{Committed, Store};
use crate::world::{Happening, ToAgent, World};

/// So often the coordinator may want to be woken at the same moment.
const MAX_WAKES: u32 = 1_000;
/// Of steps that change nothing each so manieth is followed by a look at the whole brain; of others each.
const LOOK_EVERY: u64 = 16;

/// How often one allocation of a service may be moved to a better node.
const MOVE_EVERY: DurationMs = DurationMs(300_000);

/// The coordinator and its store.
pub(crate) struct Coordinator {
    /// Its brain, while it is up.
    pub(crate) cluster: Option<Cluster>,
    /// What it has committed.
    pub(crate) store: Store,
    /// Which connection of each node it believes in.
    pub(crate) connected: BTreeMap<NodeId, u64>,
    /// When it last heard each node.
    heard: BTreeMap<NodeId, Timestamp>,
    /// The allocations of which the report that it takes in says that they do not run.
    silent: BTreeSet<AllocationId>,
    /// When it last released a node, unless the operator has spoken since.
    last_release: Option<Timestamp>,
    booted: Timestamp,
    /// When an item was last recorded, and when something was last to be moved to a better node.
    pub(crate) last_record: Timestamp,
    last_move: Timestamp,
    /// What was last moved of each service to a better node, and since when.
    moves: BTreeMap<WorkloadName, (AllocationId, Timestamp)>,
    /// How often it was woken without that time has passed.
    wakes_at: (Timestamp, u32),
    /// Items which an agent said to have failed: they may be forgotten without a record, and tried again.
    failed: BTreeSet<(AllocationId, u32)>,
    /// How often it was started.
    term: Term,
    life: u64,
    wake: Option<Timestamp>,
    steps: u64,
}

impl Coordinator {
    /// Returns one that was never started.
    pub(crate) fn new() -> Self {
        Self {
            cluster: None,
            store: Store::default(),
            connected: BTreeMap::new(),
            heard: BTreeMap::new(),
            silent: BTreeSet::new(),
            last_release: None,
            booted: Timestamp(0),
            last_record: Timestamp(0),
            last_move: Timestamp(0),
            moves: BTreeMap::new(),
            wakes_at: (Timestamp(0), 0),
            failed: BTreeSet::new(),
            term: Term(0),
            life: 0,
            wake: None,
            steps: 0,
        }
    }

    /// Tells whether something was still to be moved to a better node then, or later.
    pub(crate) fn has_moved_since(&self, moment: Timestamp) -> bool {
        self.last_move >= moment
    }
}

impl World {
    pub(crate) fn coordinator_boots(&mut self) -> Result<(), String> {
        if self.coordinator.cluster.is_some() {
            return Ok(());
        }
        let is_first = self.coordinator.term == Term(0);
        if is_first || !self.is_broken(Sabotage::ReuseTerm) {
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
        self.user.check_nothing_is_lost(&cluster.view()).map_err(|it| format!("after a start {it}"))?;
        self.coordinator.cluster = Some(cluster);
        self.coordinator.booted = now;
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
        self.coordinator.heard.clear();
        self.coordinator.last_release = None;
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
        let (at, wakes) = self.coordinator.wakes_at;
        self.coordinator.wakes_at = if at == now { (at, wakes + 1) } else { (now, 0) };
        if wakes > MAX_WAKES {
            return Err("the coordinator wants to be woken again and again".to_owned());
        }
        let Some(cluster) = &mut self.coordinator.cluster else { return Ok(()) };
        let step = cluster.tick(now);
        self.coordinator_acts(step)?;
        Ok(())
    }

    pub(crate) fn coordinator_receives(&mut self, node: &NodeId, mut report: Report) -> Result<(), String> {
        if self.blocked(node).to_coordinator || !self.coordinator.connected.contains_key(node) {
            return Ok(());
        }
        if self.is_broken(Sabotage::RecordTooEarly) && self.random.chance(100) {
            let items = std::mem::take(&mut report.items);
            let items = items.iter().map(|item| (item.allocation, item.item)).collect();
            let recorded =
                Step { changes: Vec::new(), actions: vec![Action::Recorded { node: node.clone(), items }] };
            self.coordinator_acts(recorded)?;
        }
        let failed = report.items.iter().filter(|item| !item.record.outcome.is_completed());
        self.coordinator.failed.extend(failed.map(|item| (item.allocation, item.item)));
        self.coordinator.heard.insert(node.clone(), self.now);
        let silent = report.allocations.iter().filter(|it| it.state != ObservedState::Running);
        self.coordinator.silent = silent.map(|it| it.id).collect();
        self.coordinator_observes(Observation::Report { node: node.clone(), report })?;
        self.coordinator.silent.clear();
        Ok(())
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
            Err(rejection) => {
                self.counts.refusals += 1;
                return check_rejection(&rejection).map(|()| Some(Err(rejection)));
            }
        };
        if !self.coordinator_commits(&step, Some(command))? {
            return Ok(None);
        }
        self.user.committed(command, &answer);
        self.counts.commands += 1;
        // Who asks after the answer sees what was answered.
        let view = self.coordinator.cluster.as_ref().map(Cluster::view);
        if let Some(view) = view {
            self.user.check_nothing_is_lost(&view).map_err(|it| format!("after {command:?} {it}"))?;
        }
        self.coordinator_sends(step)?;
        Ok(Some(Ok(answer)))
    }

    fn coordinator_acts(&mut self, step: Step) -> Result<(), String> {
        if self.is_broken(Sabotage::ActTooEarly) && self.random.chance(100) {
            let Step { actions, changes } = step;
            self.coordinator_sends(Step { actions, changes: Vec::new() })?;
            let unsent = Step { actions: Vec::new(), changes };
            return self.coordinator_commits(&unsent, None).map(drop);
        }
        if self.coordinator_commits(&step, None)? {
            self.coordinator_sends(step)?;
        }
        Ok(())
    }

    /// Makes a step durable; tells whether that was done.
    fn coordinator_commits(&mut self, step: &Step, command: Option<&Command>) -> Result<bool, String> {
        let Some(cluster) = &self.coordinator.cluster else { return Ok(false) };
        self.coordinator.steps += 1;
        let moved: Vec<_> = cluster.moves().map(|(workload, id)| (workload.clone(), id)).collect();
        for (workload, id) in moved {
            self.coordinator.last_move = self.now;
            if take_move(&mut self.coordinator.moves, &workload, id, self.now)? {
                self.note(format_args!("{id} of {workload} is to be moved"));
            }
        }
        let Some(cluster) = &self.coordinator.cluster else { return Ok(false) };
        if command == Some(&Command::ReleaseBrake) {
            self.coordinator.last_release = None;
        }
        if !step.changes.is_empty() || self.coordinator.steps.is_multiple_of(LOOK_EVERY) {
            cluster.check().map_err(|reason| format!("the cluster is not sound: {reason}"))?;
        }
        if step.changes.iter().any(|change| matches!(change, dunlin_scheduler::Change::Item { .. })) {
            self.coordinator.last_record = self.now;
        }
        if step.changes.is_empty() {
            return Ok(true);
        }
        if self.random.chance(self.faults.crash_before_commit) {
            self.coordinator_crashes("before a commit");
            return Ok(false);
        }
        self.note(format_args!("commit {}", shown(step)));
        if self.is_broken(Sabotage::DropCommits) && self.random.chance(20) {
            return Ok(true);
        }
        self.counts.commits += 1;
        let Coordinator { store, booted, connected, heard, last_release, silent, .. } = &mut self.coordinator;
        let (now, config) = (self.now, Config::LAN);
        let facts = Facts {
            now,
            booted: *booted,
            config,
            command,
            connected,
            heard,
            silent,
            last_release: *last_release,
        };
        let Committed { lost, preempted, released } = store.commit(&step.changes, &facts)?;
        self.counts.nodes_lost += lost;
        self.counts.preempted += preempted;
        if released > 0 && command != Some(&Command::ReleaseBrake) {
            *last_release = Some(now);
        }
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
                // Its store is never an old one.
                Action::Expel { node } => return Err(format!("{node} is expelled, and nobody wanted that")),
                Action::StartAgain => return Err("the coordinator wants to start again".to_owned()),
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
                Action::Heard { node, sent, leases } => {
                    self.tell(node, ToAgent::Heard { term: self.coordinator.term, sent, leases });
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
        self.check_assignment(&node, &assignment)?;
        let key = (node.clone(), assignment.term, assignment.generation);
        let before = self.sent.entry(key).or_insert_with(|| assignment.clone());
        if *before != assignment {
            let (term, generation) = (assignment.term, assignment.generation);
            return Err(format!("{node} is sent two different assignments {term}.{generation}"));
        }
        self.tell(node, ToAgent::Assign(Box::new(assignment)));
        Ok(())
    }

    /// A node is told what is committed to it, under the newest term, and where requests go.
    fn check_assignment(&mut self, node: &NodeId, assignment: &Assignment) -> Result<(), String> {
        let store = &self.coordinator.store;
        if assignment.term != self.coordinator.term {
            return Err(format!("{node} is told term {}, it is {}", assignment.term, self.coordinator.term));
        }
        let committed = store.allocations.values().filter(|it| it.node == *node && it.is_assigned());
        let committed: BTreeMap<AllocationId, Revision> = committed.map(|it| (it.id, it.revision)).collect();
        let told: BTreeMap<_, _> = assignment.allocations.iter().map(|it| (it.id, it.revision)).collect();
        if told != committed {
            return Err(format!("{node} is told to run {told:?}, committed to it is {committed:?}"));
        }
        crate::secrets::check_told(store, node, assignment)?;
        if self.routes.0 == self.counts.commits && self.routes.1 == assignment.routes {
            return Ok(());
        }
        check_routes(store, &assignment.routes)?;
        self.routes = (self.counts.commits, assignment.routes.clone());
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

/// Takes note of what is moved to a better node, one allocation of a service in five minutes; tells whether it is new.
fn take_move(
    known: &mut BTreeMap<WorkloadName, (AllocationId, Timestamp)>,
    workload: &WorkloadName,
    id: AllocationId,
    now: Timestamp,
) -> Result<bool, String> {
    match known.get(workload) {
        Some((before, _)) if *before == id => return Ok(false),
        Some((before, at)) if now.since(*at) < MOVE_EVERY => {
            return Err(format!("{id} of {workload} is moved {} after {before}", now.since(*at)));
        }
        Some(_) | None => {}
    }
    known.insert(workload.clone(), (id, now));
    Ok(true)
}

/// What the routes say is what the records say: requests go to all that answer, and to nothing else.
fn check_routes(store: &Store, routes: &RouteTable) -> Result<(), String> {
    let answers = store.allocations.values().filter(|it| it.serves() && it.state == AllocationState::Running);
    let mut answering: BTreeMap<&WorkloadName, BTreeSet<AllocationId>> = BTreeMap::new();
    for record in answers {
        answering.entry(&record.workload).or_default().insert(record.id);
    }
    for (workload, endpoints) in &routes.endpoints {
        let told: BTreeSet<AllocationId> = endpoints.iter().map(|endpoint| endpoint.allocation).collect();
        let answering = answering.get(workload).cloned().unwrap_or_default();
        if told != answering {
            return Err(format!("requests for {workload} go to {told:?}, and {answering:?} answer"));
        }
    }
    check_canaries(store, routes)?;
    let specs = store.apps.values().flat_map(|app| app.spec.workloads.iter().map(move |it| (app, it)));
    let routed = specs.filter_map(|(app, (short, spec))| match &spec.kind {
        WorkloadKind::Service(service) if !service.routes.is_empty() => Some(app.name.workload(short)),
        WorkloadKind::Service(_) | WorkloadKind::Job(_) => None,
    });
    let mut missing = routed.filter(|workload| !routes.endpoints.contains_key(workload));
    let peers = store.nodes.values().filter(|node| node.info.is_some() && node.lost.is_none());
    if !routes.peers.keys().eq(peers.map(|node| &node.id)) {
        return Err(format!("the ingresses are told of the peers {:?}", routes.peers.keys()));
    }
    match missing.next() {
        Some(workload) => Err(format!("nobody is told where {workload} answers")),
        None => Ok(()),
    }
}

/// Canaries are those of the newest revision, as long as they are not promoted.
fn check_canaries(store: &Store, routes: &RouteTable) -> Result<(), String> {
    let canaries = |workload: &WorkloadName| {
        let app = store.apps.get(&workload.app_name())?;
        let rollout = app.rollout.as_ref()?;
        let is_on = !rollout.promoted && rollout.services.contains(&workload.workload);
        match &app.spec.workloads.get(&workload.workload)?.kind {
            WorkloadKind::Service(ServiceSpec { rollout, .. }) if is_on && rollout.canary.is_some() => {
                Some((app.revision, rollout.canary_share))
            }
            WorkloadKind::Service(_) | WorkloadKind::Job(_) => None,
        }
    };
    let share = |workload: &WorkloadName| canaries(workload).and_then(|(_, share)| share);
    if let Some((workload, told)) =
        routes.shares.iter().find(|(workload, told)| share(workload) != Some(**told))
    {
        return Err(format!("the canaries of {workload} are given {told}, and have {:?}", share(workload)));
    }
    let specs = store.apps.values().flat_map(|app| app.spec.workloads.iter().map(move |it| (app, it)));
    let narrow = specs.filter(|(_, (_, spec))| {
        matches!(spec.kind, WorkloadKind::Service(_)) && spec.limits.concurrency < RouteTable::NARROW
    });
    let narrow: BTreeMap<_, _> =
        narrow.map(|(app, (short, spec))| (app.name.workload(short), spec.limits.concurrency)).collect();
    if narrow != routes.narrow {
        return Err(format!(
            "the ingresses are told that {:?} are narrow, and {narrow:?} are",
            routes.narrow
        ));
    }
    for (workload, endpoints) in &routes.endpoints {
        if share(workload).is_some() && !routes.shares.contains_key(workload) {
            return Err(format!("nobody is told of the share of the canaries of {workload}"));
        }
        for endpoint in endpoints {
            let revision = store.allocations[&endpoint.allocation].revision;
            if endpoint.canary != canaries(workload).is_some_and(|(newest, _)| newest == revision) {
                let what = if endpoint.canary { "a canary" } else { "no canary" };
                return Err(format!(
                    "{} of {workload} is told as {what}, and is {revision}",
                    endpoint.allocation
                ));
            }
        }
    }
    Ok(())
}

/// The code of every refusal is one of these.
const CODES: &[&str] = &[
    "invalid_namespace",
    "invalid_run",
    "invalid_spec",
    "invalid_upgrade",
    "missing_secret",
    "name_taken",
    "no_items",
    "no_upgrade",
    "not_a_job",
    "nothing_to_promote",
    "nothing_to_restore",
    "nothing_to_work_on",
    "quota_exceeded",
    "route_taken",
    "secret_in_use",
    "token_expired",
    "token_taken",
    "token_unknown",
    "token_used",
    "too_many_items",
    "unknown_app",
    "unknown_node",
    "unknown_revision",
    "unknown_run",
    "unknown_secret",
    "unknown_workload",
];

fn check_rejection(rejection: &Rejection) -> Result<(), String> {
    let code = rejection.code();
    if CODES.contains(&code) { Ok(()) } else { Err(format!("a refusal has the unknown code {code}")) }
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
        Change::Secret(record) => format!("secret {} is {}", record.id, record.version),
        Change::SecretDeleted(id) => format!("secret {id} forgotten"),
        Change::Upgrade(record) => {
            format!("upgrade {} is {:?} at ring {}", record.number, record.state, record.ring)
        }
        Change::Token(_) | Change::TokenDeleted(_) => "token".to_owned(),
        Change::Pending(record) => format!("{} waits", record.node),
        Change::PendingDeleted(node) => format!("{node} waits no more"),
        Change::Counters(_) => "counters".to_owned(),
        Change::Recovery(_) => "recovery".to_owned(),
    });
    words.collect::<Vec<_>>().join(", ")
}
