//! What users do: deploy, scale, stop, delete, run and cancel, at any time and without asking what is going on.

use std::collections::BTreeMap;

use dunlin_model::{
    Amount, AppName, AppSpec, Bytes, Digest, DurationMs, FuelRate, JobSpec, Limits, Missed, Name,
    NamespaceSpec, NodeId, Overlap, Packing, Percent, Placement, Preference, Priority, Promote, Quota,
    Revision, RolloutSpec, RouteSpec, RunId, Schedule, Semantics, ServiceSpec, Spread, TimeZone, Timestamp,
    WorkloadKind, WorkloadName, WorkloadSpec,
};
use dunlin_scheduler::{Answer, Command, RunWish, TokenRecord, View};

use crate::random::Random;
use crate::world::{Happening, World};

/// What users have been told, and so count on.
#[derive(Debug)]
pub(crate) struct User {
    apps: BTreeMap<AppName, Promised>,
    runs: BTreeMap<RunId, PromisedRun>,
}

/// What was promised of an app.
#[derive(Debug)]
struct Promised {
    revision: Revision,
    /// What was deployed last.
    spec: AppSpec,
    /// Whether the revision is that: an earlier one may have been restored.
    is_spec: bool,
}

/// What was promised of a run.
#[derive(Debug)]
struct PromisedRun {
    workload: WorkloadName,
    items: Option<u32>,
    is_cancelled: bool,
}

const TOKEN: &str = "token";

impl User {
    /// Returns users who have not been told anything.
    pub(crate) fn new() -> Self {
        Self { apps: BTreeMap::new(), runs: BTreeMap::new() }
    }

    /// Notes a command that was committed, and so may have been answered.
    pub(crate) fn committed(&mut self, command: &Command, answer: &Answer) {
        match (command, answer) {
            (Command::Deploy(spec), Answer::Deployed { revision, .. }) => {
                self.apps.insert(
                    spec.name.clone(),
                    Promised { revision: *revision, spec: spec.clone(), is_spec: true },
                );
            }
            (Command::Rollback { app, .. }, Answer::Deployed { revision, .. }) => {
                if let Some(app) = self.apps.get_mut(app) {
                    (app.revision, app.is_spec) = (*revision, false);
                }
            }
            (Command::Stop(name), Answer::Stopped { revision, .. }) => {
                if let Some(app) = self.apps.get_mut(name) {
                    // A revision may have been taken back before it was stopped.
                    app.is_spec &= *revision <= app.revision.next();
                    app.revision = *revision;
                    app.spec.workloads.values_mut().for_each(|spec| match &mut spec.kind {
                        WorkloadKind::Service(service) => service.allocations = 0,
                        WorkloadKind::Job(job) => job.schedule = None,
                    });
                }
                self.cancel_runs_of(name);
            }
            (Command::Delete(name), Answer::Deleted) => {
                self.apps.remove(name);
                // Whether the runs of a deleted app are kept is not promised.
                self.runs.retain(|_, run| run.workload.app_name() != *name);
            }
            (Command::StartRun { workload, wish }, Answer::RunStarted(run)) => {
                let promised =
                    PromisedRun { workload: workload.clone(), items: wish.items, is_cancelled: false };
                self.runs.insert(*run, promised);
            }
            (Command::CancelRun(run), Answer::Cancelled) => {
                if let Some(run) = self.runs.get_mut(run) {
                    run.is_cancelled = true;
                }
            }
            (
                Command::Promote(_)
                | Command::CreateToken(_)
                | Command::Join { .. }
                | Command::Cordon { .. }
                | Command::Uncordon(_)
                | Command::ReleaseBrake
                | Command::SetNamespace { .. },
                _,
            ) => {}
            (command, answer) => panic!("{answer:?} does not answer {command:?}"),
        }
    }

    fn cancel_runs_of(&mut self, app: &AppName) {
        for run in self.runs.values_mut().filter(|run| run.workload.app_name() == *app) {
            run.is_cancelled = true;
        }
    }

    /// Compares what was promised with what a coordinator knows that has just started.
    pub(crate) fn check_nothing_is_lost(&self, view: &View) -> Result<(), String> {
        if !view.apps.keys().eq(self.apps.keys()) {
            let known: Vec<_> = view.apps.keys().collect();
            return Err(format!("the apps are {:?}, after a restart {known:?}", self.apps.keys()));
        }
        for (name, promised) in &self.apps {
            let app = &view.apps[name];
            let specs = app.workloads.iter().map(|(name, workload)| (name, &workload.spec));
            // What has failed since is kept as an earlier revision.
            let taken_back = app.revisions.iter().find(|kept| kept.revision == promised.revision);
            let is_spec = match taken_back {
                None => app.revision == promised.revision && specs.eq(promised.spec.workloads.iter()),
                Some(kept) => app.restores.is_some() && kept.spec == promised.spec,
            };
            let is_kept = is_spec || !promised.is_spec;
            if !is_kept {
                return Err(format!(
                    "{name} was revision {}, after a restart {}",
                    promised.revision, app.revision
                ));
            }
        }
        for (id, promised) in &self.runs {
            let Some(run) = view.runs.get(id) else {
                // The oldest of many runs are forgotten.
                let of_job = view.runs.values().filter(|run| run.record.workload == promised.workload);
                if of_job.count() >= 100 {
                    continue;
                }
                return Err(format!("{id} is lost in a restart"));
            };
            let run = &run.record;
            let is_another = promised.items.is_some_and(|items| items != run.items);
            if run.workload != promised.workload || is_another {
                return Err(format!("{id} is another run after a restart"));
            }
            if promised.is_cancelled && run.is_open() {
                return Err(format!("{id} was cancelled and goes on after a restart"));
            }
        }
        Ok(())
    }
}

impl World {
    /// Makes a node a member, if it is not; tells whether it is one now.
    pub(crate) fn join(&mut self, node: &NodeId) -> Result<bool, String> {
        if self.coordinator.store.nodes.contains_key(node) {
            return Ok(true);
        }
        let token = TokenRecord {
            id: TOKEN.to_owned(),
            secret_hash: [7; 32],
            expires: Timestamp(u64::MAX),
            uses_left: 100,
            created: self.now,
            used_by: Vec::new(),
        };
        // It is there already for all but the first node; then the answer is a refusal.
        let _ = self.submit(&Command::CreateToken(token))?;
        let mut key_fingerprint = [0; 32];
        let name = node.0.as_str().as_bytes();
        key_fingerprint[..name.len()].copy_from_slice(name);
        let join = Command::Join {
            token_id: TOKEN.to_owned(),
            secret_hash: [7; 32],
            node: node.clone(),
            key_fingerprint,
        };
        match self.submit(&join)? {
            None => Ok(false),
            Some(Ok(_)) => Ok(self.coordinator.cluster.is_some()),
            Some(Err(rejection)) => Err(format!("{node} cannot join: {rejection}")),
        }
    }

    pub(crate) fn user_acts(&mut self) -> Result<(), String> {
        let wait = self.draw(500, 15_000);
        self.plan(wait, Happening::User);
        let command = self.wish();
        let said = match self.submit(&command)? {
            None => "nothing".to_owned(),
            Some(Ok(answer)) => format!("{answer:?}"),
            Some(Err(rejection)) => rejection.to_string(),
        };
        let asked = match command {
            Command::Deploy(spec) => format!("deploys {} with {} workloads", spec.name, spec.workloads.len()),
            other => format!("wants {other:?}"),
        };
        self.note(format_args!("a user {asked}, and hears {said}"));
        Ok(())
    }

    fn wish(&mut self) -> Command {
        let random = &mut self.random;
        let apps: Vec<&AppSpec> = self.user.apps.values().map(|app| &app.spec).collect();
        let runs: Vec<RunId> = self.user.runs.keys().copied().collect();
        let kind = random.between(0, 99);
        if apps.is_empty() || kind < 25 {
            return Command::Deploy(any_app(random));
        }
        let app = (*random.choose(&apps)).clone();
        match kind {
            25..45 => Command::Deploy(scaled(app, random)),
            45..52 => Command::Stop(app.name),
            52..58 => Command::Delete(app.name),
            64..67 => Command::Rollback { app: app.name, to: None },
            67..70 => Command::Promote(app.name),
            94.. => self.operators_wish(),
            58..64 if !runs.is_empty() => Command::CancelRun(*random.choose(&runs)),
            _ => {
                let workloads: Vec<Name> = app.workloads.keys().cloned().collect();
                let workload = app.name.workload(random.choose(&workloads));
                let items = random.chance(700).then(|| random.small(1, 60));
                Command::StartRun { workload, wish: RunWish { items, ..RunWish::default() } }
            }
        }
    }
}

impl World {
    /// Returns what an operator might want: nodes taken out of use and put back, quotas, and no more patience.
    fn operators_wish(&mut self) -> Command {
        let nodes: Vec<NodeId> = self.agents.keys().cloned().collect();
        let random = &mut self.random;
        let node = random.choose(&nodes).clone();
        match random.between(0, 9) {
            0..2 => Command::Cordon { node, drain: None },
            2..4 => Command::Cordon { node, drain: Some(DurationMs(random.between(1_000, 60_000))) },
            4..7 => Command::Uncordon(node),
            7 => Command::ReleaseBrake,
            _ => {
                let namespace = format!("team-{}", random.between(0, 1)).parse().expect("it is a name");
                let quota = Quota {
                    memory: random.chance(500).then(|| Bytes(random.between(1, 12) * (64 << 20))),
                    fuel_rate: None,
                    allocations: random.chance(300).then(|| random.small(1, 8)),
                    items: random.chance(300).then(|| random.small(10, 80)),
                };
                let packing = if random.chance(500) { Packing::Pack } else { Packing::Spread };
                let spec = NamespaceSpec { quota, weight: random.small(1, 4), packing };
                Command::SetNamespace { namespace, spec }
            }
        }
    }

    /// Takes back all that operators have said, again and again: nodes that are gone may be held by the brake later.
    pub(crate) fn operator_heals(&mut self) -> Result<(), String> {
        self.plan(DurationMs(30_000), Happening::OperatorHeals);
        let members: Vec<NodeId> = self.coordinator.store.nodes.keys().cloned().collect();
        let namespaces: Vec<Name> = self.coordinator.store.namespaces.keys().cloned().collect();
        let uncordon = members.into_iter().map(Command::Uncordon);
        let unlimited = namespaces
            .into_iter()
            .map(|namespace| Command::SetNamespace { namespace, spec: NamespaceSpec::default() });
        let waiting = self.coordinator.store.apps.values();
        let waiting = waiting
            .filter(|app| app.rollout.as_ref().is_some_and(|it| !it.promoted && it.failed.is_none()))
            .map(|app| Command::Promote(app.name.clone()));
        let waiting: Vec<Command> = waiting.collect();
        // What runs by itself never comes to rest.
        let apps = self.coordinator.store.apps.values().map(|app| app.spec.clone());
        let quiet: Vec<Command> = apps.filter_map(without_schedules).map(Command::Deploy).collect();
        let all = uncordon.chain(unlimited).chain(waiting).chain(quiet).chain([Command::ReleaseBrake]);
        for command in all {
            if let Some(Err(rejection)) = self.submit(&command)? {
                return Err(format!("an operator cannot have {command:?}: {rejection}"));
            }
        }
        Ok(())
    }
}

/// Returns an app without the schedules of its jobs, if it has any.
fn without_schedules(mut app: AppSpec) -> Option<AppSpec> {
    let mut has_any = false;
    for spec in app.workloads.values_mut() {
        if let WorkloadKind::Job(job) = &mut spec.kind {
            has_any |= job.schedule.take().is_some();
        }
    }
    has_any.then_some(app)
}

/// Returns what a workload asks of places, most often nothing.
fn any_placement(random: &mut Random) -> Placement {
    let mut placement = Placement::default();
    if random.chance(100) {
        placement.require.push("zone in (a, c)".parse().expect("it is a condition"));
    }
    if random.chance(100) {
        let expression = "zone = b".parse().expect("it is a condition");
        placement.prefer.push(Preference { expression, weight: 10 });
    }
    if random.chance(200) {
        placement.spread.push(Spread { over: "zone".to_owned(), weights: BTreeMap::new() });
    }
    if random.chance(100) {
        placement.resources.insert("gpu".to_owned(), 1);
    }
    placement
}

/// Returns an app as a user might write it.
fn any_app(random: &mut Random) -> AppSpec {
    let namespace = random.between(0, 1);
    let app = random.between(0, 2);
    let name: AppName = format!("team-{namespace}/app-{app}").parse().expect("it is a name");
    let workloads = (0..random.between(1, 5)).map(|number| {
        let workload: Name = format!("w{number}").parse().expect("it is a name");
        (workload, any_workload(&format!("/app-{namespace}-{app}/{number}"), random))
    });
    let mut spec = AppSpec { name, workloads: workloads.collect() };
    chain(&mut spec, random);
    spec
}

/// Lets some jobs of an app come after others, and some be run by themselves.
fn chain(app: &mut AppSpec, random: &mut Random) {
    let mut earlier: Vec<Name> = Vec::new();
    for (name, spec) in &mut app.workloads {
        let WorkloadKind::Job(job) = &mut spec.kind else { continue };
        job.after = earlier.iter().filter(|_| random.chance(300)).cloned().collect();
        job.items = (job.after.is_empty() || random.chance(300)).then(|| random.small(1, 20));
        if random.chance(150) {
            let seconds = random.choose(&["*/20 * * * * *", "0 * * * * *", "5,50 */2 * * * *"]);
            job.schedule = Some(Schedule {
                cron: seconds.parse().expect("it is one"),
                time_zone: TimeZone::default(),
                missed: if random.chance(500) { Missed::Once } else { Missed::Skip },
                overlap: if random.chance(500) { Overlap::Allow } else { Overlap::Skip },
            });
        }
        if random.chance(150) {
            job.deadline = Some(DurationMs(random.between(5_000, 120_000)));
        }
        if random.chance(250) {
            job.semantics = Semantics::AtMostOnce;
            job.attempts = 1;
        }
        earlier.push(name.clone());
    }
}

/// Returns how a service passes from one revision to the next, most often as most do.
fn any_rollout(random: &mut Random, everywhere: bool) -> RolloutSpec {
    let mut rollout = RolloutSpec { bake: DurationMs(random.between(0, 2_000)), ..RolloutSpec::default() };
    if random.chance(300) {
        (rollout.max_surge, rollout.max_unavailable) = match random.between(0, 3) {
            0 => (Amount::Count(0), Amount::Count(1)),
            1 => (Amount::Count(2), Amount::Count(0)),
            2 => (Amount::Count(1), Amount::Count(1)),
            _ => (Amount::Share(Percent(100)), Amount::Count(0)),
        };
    }
    if random.chance(250) && !everywhere {
        rollout.canary = Some(Amount::Count(random.small(1, 2)));
        rollout.promote = if random.chance(500) { Promote::Auto } else { Promote::ByHand };
    }
    if random.chance(300) {
        rollout.deadline = DurationMs(random.between(5_000, 60_000));
    }
    rollout.rollback = random.chance(700);
    rollout
}

fn any_workload(path: &str, random: &mut Random) -> WorkloadSpec {
    let is_service = random.chance(600);
    let kind = if is_service {
        let routes = if random.chance(700) {
            vec![RouteSpec { host: None, path: path.to_owned() }]
        } else {
            Vec::new()
        };
        let everywhere = random.chance(80);
        WorkloadKind::Service(ServiceSpec {
            allocations: random.small(0, 4),
            routes,
            fuel_header: false,
            everywhere,
            rollout: any_rollout(random, everywhere),
            health: None,
        })
    } else {
        WorkloadKind::Job(JobSpec {
            parallelism: random.small(1, 4),
            attempts: random.small(1, 3),
            combine: random.chance(400),
            ..JobSpec::default()
        })
    };
    let limits = if is_service { Limits::SERVICE } else { Limits::JOB };
    let zone = if random.chance(500) { "a" } else { "b" };
    let labels = if random.chance(150) { vec![("zone".to_owned(), zone.to_owned())] } else { Vec::new() };
    WorkloadSpec {
        component: any_component(random),
        kind,
        limits: Limits {
            memory: Bytes(random.between(1, 4) * (64 << 20)),
            fuel_rate: FuelRate(random.between(1, 4) * 50_000_000),
            deadline: DurationMs(60_000),
            concurrency: random.small(1, 4),
            ..limits
        },
        environment: BTreeMap::new(),
        node_labels: labels.into_iter().collect(),
        capabilities: Default::default(),
        instances: Default::default(),
        metering: Default::default(),
        coredump: false,
        placement: any_placement(random),
        priority: Priority::new(i64::try_from(random.between(0, 2)).expect("it is small") * 50)
            .expect("it is one"),
    }
}

/// Returns an app with other numbers of allocations, and perhaps another component.
fn scaled(mut app: AppSpec, random: &mut Random) -> AppSpec {
    for spec in app.workloads.values_mut() {
        if let WorkloadKind::Service(service) = &mut spec.kind {
            service.allocations = random.small(0, 4);
        }
        if random.chance(200) {
            spec.component = any_component(random);
        }
    }
    app
}

fn any_component(random: &mut Random) -> Digest {
    if random.chance(60) {
        return broken_component();
    }
    Digest::of(&[u8::try_from(random.between(0, 5)).expect("it is small")])
}

/// Returns the component that every worker refuses.
pub(crate) fn broken_component() -> Digest {
    Digest::of(b"broken")
}
