//! What users and operators wish for, at any time and without asking what is going on.
//!
//! Wishes are such that whatever the brain can do happens often: little room, quotas, drains, affinities, failures.

use std::collections::BTreeMap;

use dunlin_model::{
    Affinity, Amount, AppName, AppSpec, Bytes, Digest, DurationMs, FuelRate, HealthSpec, JobSpec, Limits,
    Missed, Name, NamespaceSpec, NodeId, OnPartition, Overlap, Packing, Percent, Placement, Preference,
    Priority, Promote, Quota, RolloutSpec, RouteSpec, RunId, Schedule, Semantics, ServiceSpec, Spread,
    TimeZone, WorkloadKind, WorkloadSpec,
};
use dunlin_scheduler::{Command, RunWish};

use crate::random::Random;
use crate::secrets::any_secrets;
use crate::world::{Happening, World};

impl World {
    pub(crate) fn wish(&mut self) -> Command {
        if let Some(command) = self.first_secret() {
            return command;
        }
        let most = most_allocations(self.agents.len());
        let random = &mut self.random;
        let apps: Vec<&AppSpec> = self.user.apps().collect();
        let runs: Vec<RunId> = self.user.runs().collect();
        let kind = random.between(0, 99);
        if apps.is_empty() || kind < 22 {
            return deploy(any_app(most, random));
        }
        let app = (*random.choose(&apps)).clone();
        match kind {
            22..40 => deploy(scaled(app, most, random)),
            40..46 => Command::Stop(app.name),
            46..51 => Command::Delete(app.name),
            57..60 => Command::Rollback { app: app.name, to: None },
            60..63 => Command::Promote(app.name),
            88.. => self.operators_wish(),
            51..57 if !runs.is_empty() => Command::CancelRun(*random.choose(&runs)),
            _ => {
                let is_job = |spec: &WorkloadSpec| matches!(spec.kind, WorkloadKind::Job(_));
                let any = random.chance(100) || !app.workloads.values().any(is_job);
                let workloads = app.workloads.iter().filter(|(_, spec)| any || is_job(spec));
                let workloads: Vec<Name> = workloads.map(|(name, _)| name.clone()).collect();
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
        match random.between(0, 11) {
            0..2 => Command::Cordon { node, drain: None },
            2..4 => Command::Cordon { node, drain: Some(DurationMs(random.between(1_000, 60_000))) },
            4..7 => Command::Uncordon(node),
            7 => Command::ReleaseBrake,
            10 => self.secret_wish(),
            11 => self.upgrade_wish(),
            _ => {
                let namespace = format!("team-{}", random.between(0, 1)).parse().expect("it is a name");
                let quota = Quota {
                    memory: random.chance(300).then(|| Bytes(random.between(1, 12) * (64 << 20))),
                    fuel_rate: random.chance(200).then(|| FuelRate(random.between(1, 12) * 50_000_000)),
                    allocations: random.chance(400).then(|| random.small(1, 8)),
                    items: random.chance(400).then(|| random.small(10, 80)),
                };
                let packing = if random.chance(500) { Packing::Pack } else { Packing::Spread };
                let spec =
                    NamespaceSpec { quota, weight: random.small(1, 4), packing, ..NamespaceSpec::default() };
                Command::SetNamespace { namespace, spec }
            }
        }
    }

    /// Takes back all that operators have said, again and again, and releases what the brake holds: nodes that are gone
    /// may be held by it later.
    pub(crate) fn operator_heals(&mut self) -> Result<(), String> {
        self.plan(DurationMs(30_000), Happening::OperatorHeals);
        let members: Vec<NodeId> = self.coordinator.store.nodes.keys().cloned().collect();
        let namespaces: Vec<Name> = self.coordinator.store.namespaces.keys().cloned().collect();
        let uncordon = members.into_iter().map(Command::Uncordon);
        let unlimited = namespaces
            .into_iter()
            .map(|namespace| Command::SetNamespace { namespace, spec: NamespaceSpec::default() });
        // What is not held is released without a word.
        let view = self.coordinator.cluster.as_ref().map(dunlin_scheduler::Cluster::view);
        let is_held = view.is_some_and(|view| !view.held_zones.is_empty());
        let release = is_held.then_some(Command::ReleaseBrake);
        let waiting = self.coordinator.store.apps.values();
        let waiting = waiting
            .filter(|app| app.rollout.as_ref().is_some_and(|it| !it.promoted && it.failed.is_none()))
            .map(|app| Command::Promote(app.name.clone()));
        let waiting: Vec<Command> = waiting.collect();
        // What runs by itself never comes to rest.
        let apps = self.coordinator.store.apps.values().map(|app| app.spec.clone());
        let quiet: Vec<Command> = apps.filter_map(without_schedules).map(deploy).collect();
        for command in uncordon.chain(unlimited).chain(waiting).chain(quiet).chain(release) {
            if let Some(Err(rejection)) = self.submit(&command)? {
                return Err(format!("an operator cannot have {command:?}: {rejection}"));
            }
        }
        Ok(())
    }

    /// Deletes everything that users have.
    pub(crate) fn users_leave(&mut self) -> Result<(), String> {
        let names: Vec<AppName> = self.coordinator.store.apps.keys().cloned().collect();
        for name in names {
            match self.submit(&Command::Delete(name.clone()))? {
                Some(Ok(_)) => {}
                other => return Err(format!("{name} cannot be deleted: {other:?}")),
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

/// Returns how many allocations a service has at most in a fleet of so many nodes.
fn most_allocations(nodes: usize) -> u32 {
    u32::try_from(nodes / 2).expect("there are few nodes").max(4)
}

/// Returns what a workload asks of places, most often nothing.
fn any_placement(app: &AppName, count: u64, random: &mut Random) -> Placement {
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
    if random.chance(200) {
        placement.resources.insert("gpu".to_owned(), random.small(1, 2));
    }
    if random.chance(200) {
        let number = random.between(0, count - 1);
        let workload = app.workload(&format!("w{number}").parse().expect("it is a name"));
        let over = if random.chance(600) { Placement::EACH_NODE } else { "zone" }.to_owned();
        let affinity = Affinity { workload, over, required: random.chance(700) };
        if random.chance(700) { placement.apart.push(affinity) } else { placement.near.push(affinity) }
    }
    placement
}

/// Returns an app as a user might write it.
fn any_app(most: u32, random: &mut Random) -> AppSpec {
    let namespace = random.between(0, 1);
    let app = random.between(0, 2);
    let name: AppName = format!("team-{namespace}/app-{app}").parse().expect("it is a name");
    let count = random.between(1, 5);
    let workloads = (0..count).map(|number| {
        let workload: Name = format!("w{number}").parse().expect("it is a name");
        let path = format!("/app-{namespace}-{app}/{number}");
        (workload, any_workload(&name, (count, &path), most, random))
    });
    let mut spec = AppSpec { name: name.clone(), workloads: workloads.collect() };
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

/// Returns what a service does on a node that is cut off, most often nothing.
fn any_on_partition(random: &mut Random) -> OnPartition {
    if random.chance(250) {
        OnPartition::Singleton
    } else if random.chance(150) {
        OnPartition::StopAfter(DurationMs(random.between(6_000, 40_000)))
    } else {
        OnPartition::Keep
    }
}

/// Returns how a service is checked, most often not at all.
fn any_health(random: &mut Random) -> Option<HealthSpec> {
    if !random.chance(300) {
        return None;
    }
    let failures = random.small(1, 3);
    Some(HealthSpec {
        path: "/".to_owned(),
        interval: DurationMs(random.between(500, 5_000)),
        timeout: DurationMs(500),
        failures,
        successes: random.small(1, 2),
        restart_after: random.chance(400).then(|| failures + random.small(0, 2)),
    })
}

/// Returns how a service passes from one revision to the next, most often as most do.
fn any_rollout(random: &mut Random, everywhere: bool, on_partition: OnPartition) -> RolloutSpec {
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
        let canaries = random.small(1, 2);
        rollout.canary = Some(Amount::Count(canaries));
        rollout.canary_share = (canaries == 1).then_some(Percent(10));
        rollout.promote = if random.chance(500) { Promote::Auto } else { Promote::ByHand };
    }
    if random.chance(300) {
        rollout.deadline = DurationMs(random.between(5_000, 60_000));
    }
    rollout.rollback = random.chance(400);
    if on_partition.is_singleton() {
        let RolloutSpec { max_surge, max_unavailable, .. } = RolloutSpec::default_for(on_partition);
        (rollout.max_surge, rollout.max_unavailable) = (max_surge, max_unavailable);
        (rollout.canary, rollout.canary_share) = (None, None);
    }
    rollout
}

fn any_workload(app: &AppName, (count, path): (u64, &str), most: u32, random: &mut Random) -> WorkloadSpec {
    let is_service = random.chance(600);
    let kind = if is_service {
        let routes = if random.chance(700) { vec![RouteSpec::new(None, path)] } else { Vec::new() };
        let on_partition = any_on_partition(random);
        let is_singleton = on_partition.is_singleton();
        let everywhere = random.chance(150) && !is_singleton;
        let most = if is_singleton { 1 } else { most };
        WorkloadKind::Service(ServiceSpec {
            allocations: if is_singleton && random.chance(700) { 1 } else { random.small(0, most) },
            routes,
            fuel_header: false,
            everywhere,
            rollout: any_rollout(random, everywhere, on_partition),
            health: any_health(random),
            on_partition,
        })
    } else {
        WorkloadKind::Job(JobSpec {
            parallelism: random.small(1, 4),
            attempts: random.small(1, 3),
            combine: random.chance(400),
            ..JobSpec::default()
        })
    };
    let mut placement = any_placement(app, count, random);
    if matches!(&kind, WorkloadKind::Service(service) if service.everywhere) {
        // What runs everywhere has no say in that.
        (placement.near, placement.apart) = Default::default();
    }
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
        capabilities: any_secrets(random),
        instances: Default::default(),
        metering: Default::default(),
        coredump: false,
        signed: None,
        placement,
        priority: any_priority(is_service, random),
    }
}

/// Returns a priority: three for services, and the lower two of them for jobs, of which some so have to make way.
fn any_priority(is_service: bool, random: &mut Random) -> Priority {
    let highest = if is_service { 2 } else { 1 };
    Priority::new(i64::from(random.small(0, highest)) * 50).expect("it is one")
}

fn deploy(spec: AppSpec) -> Command {
    Command::Deploy { spec, accept: true }
}

/// Returns an app with other numbers of allocations, and perhaps another component.
fn scaled(mut app: AppSpec, most: u32, random: &mut Random) -> AppSpec {
    for spec in app.workloads.values_mut() {
        if let WorkloadKind::Service(service) = &mut spec.kind {
            let most = if service.on_partition.is_singleton() { 1 } else { most };
            service.allocations = random.small(0, most);
        }
        if random.chance(200) {
            spec.component = any_component(random);
        }
    }
    app
}

fn any_component(random: &mut Random) -> Digest {
    match random.between(0, 999) {
        0..60 => return broken_component(),
        60..120 => return sick_component(),
        _ => {}
    }
    Digest::of(&[u8::try_from(random.between(0, 5)).expect("it is small")])
}

/// Returns the component that answers no health check.
fn sick_component() -> Digest {
    Digest::of(b"sick")
}

/// Tells whether what is checked says that it is unwell, always.
pub(crate) fn never_well(spec: &WorkloadSpec) -> bool {
    let is_checked = matches!(&spec.kind, WorkloadKind::Service(service) if service.health.is_some());
    is_checked && spec.component == sick_component()
}

/// Returns the component that every worker refuses.
pub(crate) fn broken_component() -> Digest {
    Digest::of(b"broken")
}
