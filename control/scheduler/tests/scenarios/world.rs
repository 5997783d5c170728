//! A fleet for scenarios: agents which do what they are told, and a store which keeps what is committed.
//!
//! Words of a script, one thing a line: `token ID uses=1 expires=60`, `join NODE TOKEN [key=1] [secret=1]`,
//! `node NAME [MEMORY] [label=value] [+resource=2] [overcommit=150]` (joins and reports), `beat [NODE..]` (these or all nodes report),
//! `pass SECONDS` (silence), `wait SECONDS` (all nodes that are up report every second), `down`, `up`,
//! `connect` and `disconnect NODE`, `deploy APP NAME=2@v1 ...`, `secret` and `forget` (in `secrets`), `apply MANIFEST`, `namespace NAME weight=3 memory=1GiB signer=ours`, `stop`, `delete`, `run`, `start NAMESPACE/APP/JOB ITEMS`, `cancel`,
//! `rollback APP [REVISION]`, `promote APP`, `history APP`, `restarts ALLOCATION 4`, `served ALLOCATION REQUESTS FAILED FUEL`,
//! `dark` (at the start: the profile of that name), `cordon NODE`, `drain NODE SECONDS`, `uncordon NODE`, `release` (the brake), `done ALLOCATION ITEMS`, `fail ALLOCATION ITEMS`, `state ALLOCATION WORD`, `restart`, `absent SECONDS`, `show`, `where`, `show-kept`,
//! `explain WORKLOAD|ALLOCATION`, `plan MANIFEST`, `simulate [lose=NODE] [zone=ZONE] [apply=MANIFEST] [within=SECONDS]`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::told::describe;
use crate::{explain, foresee, secrets, signed};
use dunlin_model::{
    AllocationId, AllocationReport, AppName, AppSpec, AssignedAllocation, Assignment, Bytes, ClusterId,
    Digest, DurationMs, Fuel, FuelRate, Generation, ItemRange, ItemRecord, ItemReport, JobSpec, Limits,
    Manifest, Name, NamespaceSpec, NewWants, NodeId, NodeInfo, ObservedState, OnPartition, Outcome,
    Overcommit, Packing, Quota, Report, Resources, Revision, RolloutSpec, RouteSpec, RunId, ServiceSpec,
    Term, Timestamp, Work, WorkloadKind, WorkloadSpec,
};
use dunlin_scheduler::{
    Action, AllocationState, Answer, Change, Cluster, Command, Config, Due, Fate, Observation, RunWish,
    ScheduleRecord, Step, TokenRecord, View,
};

const CONFIG: Config = Config {
    lease: DurationMs(10_000),
    start_grace: DurationMs(15_000),
    routed: None,
    heartbeat: DurationMs(1_000),
    release_pause: DurationMs(10_000),
    retry_backoff: DurationMs(1_000),
    retry_backoff_max: DurationMs(4_000),
};

/// An agent which does what it is told.
#[derive(Default)]
struct Agent {
    info: Option<NodeInfo>,
    is_down: bool,
    obeys: Option<Assignment>,
    outbox: Vec<ItemReport>,
    /// The singletons that it may run, as it was last told.
    leases: BTreeSet<AllocationId>,
}

pub(crate) struct World {
    config: Config,
    cluster: Cluster,
    now: Timestamp,
    term: Term,
    store: BTreeMap<String, Change>,
    items: BTreeSet<(RunId, u32)>,
    agents: BTreeMap<NodeId, Agent>,
    states: BTreeMap<AllocationId, ObservedState>,
    restarts: BTreeMap<AllocationId, u32>,
    /// Requests, failed ones, and fuel.
    doings: BTreeMap<AllocationId, [u64; 3]>,
    /// Whether it is not told what each node gets.
    pub(crate) is_quiet: bool,
    /// Manifests that a script may apply, by name.
    pub(crate) manifests: BTreeMap<String, String>,
    pub(crate) out: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let id: ClusterId = "fleet".parse().unwrap();
        let mut cluster = Cluster::new(id, Term(1), CONFIG, Timestamp(0));
        let step = cluster.tick(Timestamp(0));
        assert_eq!(step, Step::default());
        Self {
            config: CONFIG,
            cluster,
            now: Timestamp(0),
            term: Term(1),
            store: BTreeMap::new(),
            items: BTreeSet::new(),
            agents: BTreeMap::new(),
            states: BTreeMap::new(),
            restarts: BTreeMap::new(),
            doings: BTreeMap::new(),
            is_quiet: false,
            manifests: BTreeMap::new(),
            out: String::new(),
        }
    }

    pub(crate) fn play(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, rest) = words.split_first().unwrap();
        self.repeat(verb, line);
        match *verb {
            "token" => self.token(rest),
            "join" => self.join(rest),
            "node" => self.node(rest),
            "beat" => self.beat(rest),
            "pass" => self.pass(rest[0].parse().unwrap(), false),
            "wait" => self.pass(rest[0].parse().unwrap(), true),
            "down" | "up" => self.agent(rest[0]).is_down = *verb == "down",
            "connect" => self.observe(Observation::Connected { node: rest[0].parse().unwrap() }),
            "disconnect" => self.observe(Observation::Disconnected { node: rest[0].parse().unwrap() }),
            "deploy" => self.deploy(rest),
            "namespace" => self.namespace(rest),
            "secret" | "forget" => self.submit(secrets::command(verb, rest)),
            "apply" => self.apply(rest[0]),
            "rollback" | "promote" | "history" | "restarts" | "served" => self.roll(verb, rest),
            "stop" => self.submit(Command::Stop(app(rest[0]))),
            "delete" => self.submit(Command::Delete(app(rest[0]))),
            "run" => {
                let workload = format!("default/{}", rest[0]).parse().unwrap();
                self.submit(Command::StartRun { workload, wish: wish(&rest[1..]) });
            }
            "start" => {
                let workload = rest[0].parse().unwrap();
                self.submit(Command::StartRun { workload, wish: wish(&rest[1..]) });
            }
            "cordon" => self.submit(Command::Cordon { node: rest[0].parse().unwrap(), drain: None }),
            "drain" => {
                let time = DurationMs(rest[1].parse::<u64>().unwrap() * 1_000);
                self.submit(Command::Cordon { node: rest[0].parse().unwrap(), drain: Some(time) });
            }
            "uncordon" => self.submit(Command::Uncordon(rest[0].parse().unwrap())),
            "release" => self.submit(Command::ReleaseBrake),
            "fenced" => self.observe(Observation::Fenced {
                node: rest[0].parse().unwrap(),
                term: Term(rest[1].parse().unwrap()),
            }),
            "recover" => self.submit(Command::Recover),
            "revoke" => self.submit(Command::Revoke(rest[0].parse().unwrap())),
            "approve" => self.submit(Command::Approve(rest[0].parse().unwrap())),
            "remove" => self.submit(Command::Remove(rest[0].parse().unwrap())),
            "cancel" => self.submit(Command::CancelRun(rest[0].parse().unwrap())),
            "done" => self.finish(rest[0], rest[1], &Outcome::Completed),
            "fail" => self.finish(rest[0], rest[1], &Outcome::Trapped { reason: "boom".to_owned() }),
            "stopped" => self.finish(rest[0], rest[1], &Outcome::Cancelled),
            "state" => self.state(rest),
            "report" => self.stray_report(rest),
            "restart" => self.restart(),
            // No coordinator is there for so many seconds; `restart` brings one.
            "absent" => self.now = self.now.plus(DurationMs(rest[0].parse::<u64>().unwrap() * 1_000)),
            "show" => self.show(),
            // The first coordinator is another, for nodes that are out of reach for long.
            "dark" => {
                self.config = Config::DARK;
                self.cluster = Cluster::new("fleet".parse().unwrap(), Term(1), Config::DARK, Timestamp(0));
            }
            "plan" => {
                let spec = self.manifest(rest[0]);
                self.out.push_str(&foresee::planned(&self.cluster, self.now, spec));
            }
            "simulate" => {
                let manifest = |name: &str| self.manifest(name);
                let told = foresee::simulated(&self.cluster, self.now, rest, manifest);
                self.out.push_str(&told);
            }
            "explain" => self.out.push_str(&explain::explained(&self.cluster, rest[0])),
            "where" => self.show_where(),
            "show-kept" => self.show_kept(),
            _ => panic!("`{verb}` is no word of a script"),
        }
    }

    /// Writes down what was said, where it is to be seen.
    fn repeat(&mut self, verb: &str, line: &str) {
        if !matches!(
            verb,
            "wait" | "pass" | "beat" | "up" | "down" | "state" | "node" | "restarts" | "served"
        ) {
            let indent = if matches!(
                verb,
                "show" | "show-kept" | "where" | "history" | "explain" | "plan" | "simulate"
            ) {
                "--"
            } else {
                "> "
            };
            writeln!(self.out, "{indent}{line}").unwrap();
        }
    }

    /// What concerns rollouts.
    fn roll(&mut self, verb: &str, rest: &[&str]) {
        match verb {
            "rollback" => {
                let to = rest.get(1).map(|word| Revision(word.parse().unwrap()));
                self.submit(Command::Rollback { app: app(rest[0]), to });
            }
            "promote" => self.submit(Command::Promote(app(rest[0]))),
            "history" => self.show_history(rest[0]),
            "restarts" => drop(self.restarts.insert(rest[0].parse().unwrap(), rest[1].parse().unwrap())),
            "served" => {
                let numbers = [1, 2, 3].map(|index| rest[index].parse().unwrap());
                self.doings.insert(rest[0].parse().unwrap(), numbers);
            }
            _ => unreachable!("it is one of these"),
        }
    }

    /// Returns the allocations of runs, with their items, that agents work on.
    pub(crate) fn leased(&self) -> Vec<(AllocationId, ItemRange)> {
        let assignments = self.agents.values().filter_map(|agent| agent.obeys.as_ref());
        let allocations = assignments.flat_map(|assignment| &assignment.allocations);
        let leased = allocations.filter_map(|allocation| match allocation.work {
            Work::Items { range, .. } => Some((allocation.id, range)),
            Work::Serve => None,
        });
        leased.collect()
    }

    /// Returns what everything looks like.
    pub(crate) fn view(&self) -> View {
        self.cluster.view()
    }

    fn agent(&mut self, node: &str) -> &mut Agent {
        self.agents.get_mut(&node.parse::<NodeId>().unwrap()).unwrap()
    }

    fn submit(&mut self, command: Command) {
        match self.cluster.submit(command, self.now) {
            Ok((answer, step)) => {
                match answer {
                    // What it wants stands where it is refused.
                    Answer::Deployed { revision, changed, wants: _ } => {
                        writeln!(self.out, "Deployed {{ revision: {revision:?}, changed: {changed} }}")
                            .unwrap();
                    }
                    answer => writeln!(self.out, "{answer:?}").unwrap(),
                }
                self.take(step);
            }
            Err(rejection) => writeln!(self.out, "{}: {rejection}", rejection.code()).unwrap(),
        }
    }

    fn observe(&mut self, observation: Observation) {
        let step = self.cluster.observe(observation, self.now);
        self.take(step);
    }

    fn token(&mut self, words: &[&str]) {
        let token = TokenRecord {
            id: words[0].to_owned(),
            secret_hash: [1; 32],
            expires: Timestamp(number(words, "expires", 60) * 1_000),
            uses_left: u32::try_from(number(words, "uses", 1)).unwrap(),
            created: self.now,
            used_by: Vec::new(),
            approval: number(words, "approval", 0) > 0,
        };
        self.submit(Command::CreateToken(token));
    }

    fn join(&mut self, words: &[&str]) {
        let byte = |name| u8::try_from(number(words, name, 1)).unwrap();
        self.submit(Command::Join {
            token_id: words[1].to_owned(),
            secret_hash: [byte("secret"); 32],
            node: words[0].parse().unwrap(),
            key_fingerprint: [byte("key"); 32],
        });
    }

    fn node(&mut self, words: &[&str]) {
        let id: NodeId = words[0].parse().unwrap();
        let index = self.agents.len();
        let memory = words.get(1).map_or(Bytes(1 << 30), |word| word.parse().unwrap());
        let pairs: Vec<(&str, &str)> = words.iter().skip(2).filter_map(|word| word.split_once('=')).collect();
        let resources = pairs.iter().filter_map(|(key, value)| Some((key.strip_prefix('+')?, value)));
        let resources = resources.map(|(key, value)| (key.to_owned(), value.parse().unwrap())).collect();
        let overcommit = u32::try_from(number(words, "overcommit", 100)).unwrap();
        let labels = pairs.iter().filter(|(key, _)| !key.starts_with('+') && *key != "overcommit");
        let info = NodeInfo {
            capacity: Resources { memory, fuel_rate: FuelRate(1_000_000_000) },
            labels: labels.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ingress: format!("10.0.0.{index}:80").parse().unwrap(),
            peer: format!("10.0.0.{index}:7000").parse().unwrap(),
            version: "1".to_owned(),
            resources,
            batch_overcommit: Overcommit::new(overcommit).unwrap(),
            clock_unset: false,
            program: None,
        };
        if !self.cluster.view().nodes.contains_key(&id) {
            let mark = self.out.len();
            self.token(&[&format!("of-{id}"), "expires=100000"]);
            self.join(&[words[0], &format!("of-{id}"), &format!("key={index}")]);
            self.out.truncate(mark);
        }
        self.agents.insert(id.clone(), Agent { info: Some(info), ..Agent::default() });
        self.beat_one(&id);
    }

    fn beat(&mut self, words: &[&str]) {
        let named: Vec<NodeId> = words.iter().map(|word| word.parse().unwrap()).collect();
        let up = self.agents.iter().filter(|(_, agent)| !agent.is_down).map(|(id, _)| id.clone());
        let nodes: Vec<NodeId> = if named.is_empty() { up.collect() } else { named };
        for node in nodes {
            self.beat_one(&node);
        }
    }

    fn beat_one(&mut self, node: &NodeId) {
        let agent = &self.agents[node];
        let running = agent.obeys.iter().flat_map(|assignment| &assignment.allocations);
        let report = Report {
            cluster: "fleet".parse().unwrap(),
            term: agent.obeys.as_ref().map_or(Term(0), |assignment| assignment.term),
            generation: agent.obeys.as_ref().map_or(Generation(0), |assignment| assignment.generation),
            info: agent.info.clone().unwrap(),
            sent: self.now.plus(DurationMs(1)),
            allocations: running.map(|allocation| self.allocation_report(allocation)).collect(),
            items: agent.outbox.clone(),
        };
        self.observe(Observation::Report { node: node.clone(), report });
    }

    fn allocation_report(&self, allocation: &AssignedAllocation) -> AllocationReport {
        let state = self.states.get(&allocation.id).cloned().unwrap_or(ObservedState::Running);
        AllocationReport {
            id: allocation.id,
            state,
            restarts: self.restarts.get(&allocation.id).copied().unwrap_or_default(),
            fuel: Fuel(self.doings.get(&allocation.id).map_or(0, |doings| doings[2])),
            memory: Bytes(0),
            instances: self.doings.get(&allocation.id).map_or(0, |doings| doings[0]),
            failed: self.doings.get(&allocation.id).map_or(0, |doings| doings[1]),
        }
    }

    /// `report NODE cluster=other`: a report which should not count.
    fn stray_report(&mut self, words: &[&str]) {
        let node: NodeId = words[0].parse().unwrap();
        let text = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let report = Report {
            cluster: text("cluster").unwrap_or("fleet").parse().unwrap(),
            term: Term(number(words, "term", 0)),
            generation: Generation(number(words, "generation", 0)),
            info: self.agents[&NodeId("a".parse().unwrap())].info.clone().unwrap(),
            sent: Timestamp(0),
            allocations: Vec::new(),
            items: Vec::new(),
        };
        self.observe(Observation::Report { node, report });
    }

    fn pass(&mut self, seconds: u64, beats: bool) {
        let end = self.now.plus(DurationMs(seconds * 1_000));
        while self.now < end {
            let second = Timestamp(self.now.0 / 1_000 * 1_000 + 1_000);
            let deadline = self.cluster.next_deadline().filter(|deadline| *deadline > self.now);
            self.now = deadline.map_or(second, |deadline| deadline.min(second));
            if self.cluster.next_deadline().is_some_and(|deadline| deadline <= self.now) {
                let step = self.cluster.tick(self.now);
                self.take(step);
            }
            if beats && self.now == second {
                self.beat(&[]);
            }
        }
    }

    fn deploy(&mut self, words: &[&str]) {
        let mut workloads = BTreeMap::new();
        let accept = words.contains(&"accept");
        for word in words[1..].iter().filter(|word| **word != "accept") {
            let mut parts = word.split(',');
            let (name, head) = parts.next().unwrap().split_once('=').unwrap();
            let (count, component) = head.split_once('@').unwrap();
            let mut spec = WorkloadSpec {
                component: Digest::of(component.as_bytes()),
                kind: WorkloadKind::Service(ServiceSpec {
                    allocations: 0,
                    routes: Vec::new(),
                    fuel_header: false,
                    everywhere: false,
                    rollout: Default::default(),
                    health: None,
                    on_partition: Default::default(),
                }),
                limits: Limits::SERVICE,
                environment: BTreeMap::new(),
                node_labels: BTreeMap::new(),
                capabilities: Default::default(),
                instances: Default::default(),
                metering: Default::default(),
                coredump: false,
                signed: None,
                placement: Default::default(),
                priority: Default::default(),
            };
            let mut job = JobSpec { attempts: 1, ..JobSpec::default() };
            let mut routes = Vec::new();
            let mut on_partition = OnPartition::Keep;
            for part in parts {
                match part.split_once(':').unwrap_or((part, "")) {
                    ("memory", size) => spec.limits.memory = size.parse().unwrap(),
                    ("attempts", attempts) => job.attempts = attempts.parse().unwrap(),
                    ("combine", _) => job.combine = true,
                    ("singleton", _) => on_partition = OnPartition::Singleton,
                    ("stop", time) => on_partition = OnPartition::StopAfter(time.parse().unwrap()),
                    ("route", host) => {
                        routes.push(RouteSpec::new(Some(host), "/"));
                    }
                    ("signed", asked) => spec.signed = Some(signed::signed(asked, words[0], name, component)),
                    ("secret", name) => drop(spec.capabilities.secrets.insert(name.parse().unwrap())),
                    ("calls", host) => spec.capabilities.outbound_http.push(format!("http://{host}")),
                    (label, value) => {
                        spec.node_labels.insert(label.to_owned(), value.to_owned());
                    }
                }
            }
            match count.strip_prefix("job") {
                Some(parallelism) => {
                    job.parallelism = parallelism.parse().unwrap();
                    spec.kind = WorkloadKind::Job(job);
                }
                None => {
                    let allocations = count.parse().unwrap();
                    spec.kind = WorkloadKind::Service(ServiceSpec {
                        allocations,
                        routes,
                        fuel_header: false,
                        everywhere: false,
                        rollout: RolloutSpec::default_for(on_partition),
                        health: None,
                        on_partition,
                    });
                }
            }
            workloads.insert(name.parse::<Name>().unwrap(), spec);
        }
        self.submit(Command::Deploy { spec: AppSpec { name: app(words[0]), workloads }, accept });
    }

    /// `namespace NAME weight=3 memory=1GiB allocations=4 items=10 pack`: what it may have.
    fn namespace(&mut self, words: &[&str]) {
        let text = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let spec = NamespaceSpec {
            quota: Quota {
                memory: text("memory").map(|memory| memory.parse().unwrap()),
                fuel_rate: text("fuel_rate").map(|rate| rate.parse().unwrap()),
                allocations: text("allocations").map(|count| count.parse().unwrap()),
                items: text("items").map(|count| count.parse().unwrap()),
            },
            weight: u32::try_from(number(words, "weight", 1)).unwrap(),
            packing: if words.contains(&"pack") { Packing::Pack } else { Packing::Spread },
            new_wants: if words.contains(&"ask") { NewWants::Ask } else { NewWants::Allow },
            signers: words.iter().filter_map(|word| word.strip_prefix("signer=")).map(signed::key).collect(),
        };
        self.submit(Command::SetNamespace { namespace: words[0].parse().unwrap(), spec });
    }

    /// `apply NAME`: deploys a manifest, each of whose components is known by its path.
    fn apply(&mut self, name: &str) {
        let spec = self.manifest(name);
        self.submit(Command::Deploy { spec, accept: true });
    }

    fn manifest(&self, name: &str) -> AppSpec {
        let manifest = Manifest::parse(&self.manifests[name]).unwrap_or_else(|errors| panic!("{errors}"));
        let workloads = manifest.workloads.iter();
        let workloads = workloads
            .map(|(name, workload)| (name.clone(), workload.spec(Digest::of(workload.component.as_bytes()))));
        AppSpec { name: manifest.app_name(), workloads: workloads.collect() }
    }

    /// The agent which has `allocation` ran these items (`3` or `0..5`) and says so at its next report.
    fn finish(&mut self, allocation: &str, items: &str, outcome: &Outcome) {
        let id: AllocationId = allocation.parse().unwrap();
        let (start, end) = match items.split_once("..") {
            Some((start, end)) => (start.parse().unwrap(), end.parse().unwrap()),
            None => (items.parse().unwrap(), items.parse::<u32>().unwrap() + 1),
        };
        for (node, agent) in &mut self.agents {
            let all = agent.obeys.iter().flat_map(|assignment| &assignment.allocations);
            for assigned in all.filter(|assigned| assigned.id == id) {
                let Work::Items { run, attempt, .. } = assigned.work else { continue };
                agent.outbox.extend((start..end).map(|item| ItemReport {
                    allocation: id,
                    run,
                    item,
                    record: ItemRecord {
                        outcome: outcome.clone(),
                        node: node.clone(),
                        attempt,
                        fuel: Fuel(10),
                        memory: Bytes(1),
                        wall: DurationMs(1),
                        host: Default::default(),
                        output: String::new(),
                        output_cut: false,
                    },
                }));
            }
        }
    }

    fn state(&mut self, words: &[&str]) {
        let reason = words[2..].join(" ");
        let state = match words[1] {
            "unhealthy" => ObservedState::Unhealthy { reason },
            "starting" => ObservedState::Starting,
            "running" => ObservedState::Running,
            "finished" => ObservedState::Finished,
            "refused" => ObservedState::Refused { reason },
            "backing-off" => ObservedState::BackingOff { reason },
            other => panic!("`{other}` is no state"),
        };
        self.states.insert(words[0].parse().unwrap(), state);
    }

    fn restart(&mut self) {
        self.term = self.term.next();
        let id = "fleet".parse().unwrap();
        let changes: Vec<Change> = self.store.values().cloned().collect();
        self.cluster = Cluster::restore(id, self.term, self.config, changes, self.now);
        let is_due = self.cluster.next_deadline().is_some_and(|deadline| deadline <= self.now);
        assert!(is_due || self.cluster.recovery().is_some());
        let step = self.cluster.tick(self.now);
        self.take(step);
    }

    /// Commits, tells, and checks what must hold.
    fn take(&mut self, step: Step) {
        for change in step.changes {
            self.tell_change(&change);
            self.commit(change);
        }
        for action in step.actions {
            self.act(action);
        }
        self.cluster.check().unwrap_or_else(|broken| panic!("{broken}\n{}", self.out));
        let again = Cluster::restore(
            "fleet".parse().unwrap(),
            self.term,
            self.config,
            self.store.values().cloned(),
            self.now,
        );
        again.check().unwrap_or_else(|broken| panic!("restored: {broken}\n{}", self.out));
        // Who starts does not know yet who is silent.
        if self.config.routed.is_none() {
            assert_eq!(again.view().routes, self.cluster.view().routes, "{}", self.out);
        }
    }

    fn commit(&mut self, change: Change) {
        // Through JSON, as a store does it.
        let text = serde_json::to_string(&change).unwrap();
        let change: Change = serde_json::from_str(&text).unwrap();
        match &change {
            Change::App(record) => self.store.insert(format!("app {}", record.name), change),
            Change::AppDeleted(name) => self.store.remove(&format!("app {name}")),
            Change::Revision(record) => {
                self.store.insert(format!("revision {} {}", record.app, record.revision), change)
            }
            Change::RevisionDeleted(app, revision) => {
                self.store.remove(&format!("revision {app} {revision}"))
            }
            Change::Namespace(record) => self.store.insert(format!("namespace {}", record.name), change),
            Change::Node(record) => self.store.insert(format!("node {}", record.id), change),
            Change::Allocation(record) => self.store.insert(format!("allocation {}", record.id), change),
            Change::AllocationDeleted(id) => self.store.remove(&format!("allocation {id}")),
            Change::Run(record) => self.store.insert(format!("run {}", record.id), change),
            Change::RunDeleted(id) => self.store.remove(&format!("run {id}")),
            Change::Item { run, item, .. } => {
                assert!(self.items.insert((*run, *item)), "{run} item {item} is recorded twice");
                None
            }
            Change::Schedule(record) => self.store.insert(format!("schedule {}", record.job), change),
            Change::ScheduleDeleted(job) => self.store.remove(&format!("schedule {job}")),
            Change::Token(record) => self.store.insert(format!("token {}", record.id), change),
            Change::TokenDeleted(id) => self.store.remove(&format!("token {id}")),
            Change::Pending(record) => self.store.insert(format!("pending {}", record.node), change),
            Change::PendingDeleted(node) => self.store.remove(&format!("pending {node}")),
            Change::Secret(record) => self.store.insert(format!("secret {}", record.id), change),
            Change::SecretDeleted(id) => self.store.remove(&format!("secret {id}")),
            Change::Upgrade(_) => self.store.insert("upgrade".to_owned(), change),
            Change::Counters(_) => self.store.insert("counters".to_owned(), change),
            Change::Recovery(_) => self.store.insert("recovery".to_owned(), change),
        };
    }

    /// Tells of changes which neither an answer nor an assignment tells of.
    fn tell_change(&mut self, change: &Change) {
        let seconds = self.now.0 / 1_000;
        match change {
            Change::Node(record) if record.lost.is_some() => {
                writeln!(self.out, "{seconds}s {} is lost", record.id).unwrap();
            }
            Change::Allocation(record) if record.state == AllocationState::Lost => {
                writeln!(self.out, "{seconds}s {} is lost", record.id).unwrap();
            }
            Change::Item { run, item, record } => {
                writeln!(
                    self.out,
                    "{seconds}s {run} item {item}: {} (attempt {})",
                    record.outcome, record.attempt
                )
                .unwrap();
            }
            Change::Run(record) if !record.is_open() => {
                writeln!(self.out, "{seconds}s {} ends: {:?}", record.id, record.state).unwrap();
            }
            Change::RunDeleted(run) => writeln!(self.out, "{seconds}s {run} is forgotten").unwrap(),
            Change::Schedule(ScheduleRecord { job, last: Some(Due { at, done }), .. }) => {
                let at = at.0 / 1_000;
                writeln!(self.out, "{seconds}s {job} was due at {at}s: {done}").unwrap();
            }
            _ => {}
        }
    }

    fn assign(&mut self, node: &NodeId) {
        let seconds = self.now.0 / 1_000;
        let assignment = self.cluster.assignment(node).unwrap();
        let told = describe(&assignment);
        let agent = self.agents.entry(node.clone()).or_default();
        if agent.is_down {
            writeln!(self.out, "{seconds}s {node} does not get {told}").unwrap();
        } else {
            if !self.is_quiet {
                writeln!(self.out, "{seconds}s {node} gets {told}").unwrap();
            }
            agent.obeys = Some(assignment);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Assign { node } => self.assign(&node),
            Action::AssignAll => {
                for node in self.cluster.listeners().cloned().collect::<Vec<_>>() {
                    self.assign(&node);
                }
            }
            Action::Expel { node } => writeln!(self.out, "{node} is expelled").unwrap(),
            Action::StartAgain => {
                let record = self.cluster.recovery().expect("nothing else is a reason");
                self.term = self.term.max(record.highest_term);
                self.store.remove("recovery");
                self.restart();
            }
            Action::Recorded { node, items } => {
                let agent = self.agents.get_mut(&node).unwrap();
                agent.outbox.retain(|item| !items.contains(&(item.allocation, item.item)));
            }
            // Each second again: what they give is told when it is asked for.
            Action::Heard { node, sent: _, leases } => {
                self.agents.get_mut(&node).unwrap().leases = leases.into_keys().collect();
            }
        }
    }

    /// Tells how many live allocations of each workload are on each node.
    fn show_where(&mut self) {
        let mut counts: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
        let view = self.cluster.view();
        for record in view.allocations.values().map(|held| &held.record).filter(|record| record.is_live()) {
            let nodes = counts.entry(record.workload.to_string()).or_default();
            *nodes.entry(record.node.to_string()).or_default() += 1;
        }
        for (workload, nodes) in counts {
            let nodes: Vec<String> = nodes.iter().map(|(node, count)| format!("{node}:{count}")).collect();
            writeln!(self.out, "{workload} on {}", nodes.join(" ")).unwrap();
        }
        for workload in view.apps.values().flat_map(|app| app.workloads.values()) {
            if let Some(reason) = &workload.waiting {
                let name = &workload.name;
                writeln!(self.out, "{name} {} of {}: {reason}", workload.running, workload.desired).unwrap();
            }
        }
        for (id, run) in &view.runs {
            if let Some(reason) = &run.waiting {
                writeln!(self.out, "{id} waits: {reason}").unwrap();
            }
        }
    }

    /// Tells how many components each node keeps the code of that it may not run.
    fn show_kept(&mut self) {
        for (node, agent) in &self.agents {
            let kept = agent.obeys.as_ref().map_or(0, |assignment| assignment.kept.len());
            writeln!(self.out, "{node} keeps {kept}").unwrap();
        }
    }

    /// Tells the revisions of an app, the newest first.
    fn show_history(&mut self, name: &str) {
        let view = self.cluster.view();
        let app = &view.apps[&app(name)];
        let restores = |revision: Option<Revision>| {
            revision.map(|revision| format!(" restores {revision}")).unwrap_or_default()
        };
        let rollout = match &app.rollout {
            None => "is over".to_owned(),
            Some(rollout) => match (&rollout.failed, rollout.good_since) {
                (Some(reason), _) => format!("has failed: {reason}"),
                (None, Some(since)) => {
                    let what = if rollout.promoted { "" } else { " with canaries" };
                    format!("is well since {}s{what}", since.0 / 1_000)
                }
                (None, None) => format!("goes on since {}s", rollout.started.0 / 1_000),
            },
        };
        writeln!(self.out, "{}{}, its rollout {rollout}", app.revision, restores(app.restores)).unwrap();
        for record in app.revisions.iter().rev() {
            let fate = match &record.fate {
                Fate::Stopped => "was a stop".to_owned(),
                Fate::Completed => "was well".to_owned(),
                Fate::Superseded => "was replaced before it was known to be well".to_owned(),
                Fate::Failed { reason } => format!("failed: {reason}"),
            };
            writeln!(self.out, "{}{} {fate}", record.revision, restores(record.restores)).unwrap();
        }
    }

    fn show(&mut self) {
        let view = self.cluster.view();
        for node in view.nodes.values() {
            writeln!(self.out, "{} {:?}, reserved {}", node.record.id, node.status, node.reserved.memory)
                .unwrap();
        }
        for (node, agent) in self.agents.iter().filter(|(_, agent)| !agent.leases.is_empty()) {
            let leases: Vec<String> = agent.leases.iter().map(ToString::to_string).collect();
            writeln!(self.out, "{node} has the lease of {}", leases.join(" ")).unwrap();
        }
        for workload in view.apps.values().flat_map(|app| app.workloads.values()) {
            if let WorkloadKind::Service(_) = workload.spec.kind {
                let name = &workload.name;
                write!(self.out, "{name} {} of {}", workload.running, workload.desired).unwrap();
                if workload.current != workload.running {
                    write!(self.out, ", {} current", workload.current).unwrap();
                }
                let waiting = workload.waiting.as_ref().map(|reason| format!(", waiting: {reason}"));
                writeln!(self.out, "{}", waiting.unwrap_or_default()).unwrap();
            }
        }
        for run in view.runs.values() {
            let (id, record) = (run.record.id, &run.record);
            write!(
                self.out,
                "{id} {:?}: {} good, {} bad of {}; leased {}, ready {}, backing off {}; {} fuel",
                record.state,
                record.succeeded,
                record.failed,
                record.items,
                run.leased,
                run.ready,
                run.backing_off,
                record.fuel
            )
            .unwrap();
            let waiting = run.waiting.as_ref().map(|reason| format!(", waiting: {reason}"));
            writeln!(self.out, "{}", waiting.unwrap_or_default()).unwrap();
        }
    }
}

/// `5 COLOUR=red`: so many items, or those of the spec, and variables.
fn wish(words: &[&str]) -> RunWish {
    let variables = words.iter().filter_map(|word| word.split_once('='));
    RunWish {
        items: words.first().and_then(|word| word.parse().ok()),
        inputs: None,
        environment: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

fn app(name: &str) -> AppName {
    format!("default/{name}").parse().unwrap()
}

fn number(words: &[&str], key: &str, otherwise: u64) -> u64 {
    let value = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.map_or(otherwise, |value| value.parse().unwrap())
}
