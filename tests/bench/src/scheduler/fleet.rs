//! A fleet for the brain alone: nodes that say at once that they run what they were given, and no network.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dunlin_model::{
    AllocationId, AllocationReport, AppName, AppSpec, Bytes, ClusterId, Digest, DurationMs, Fuel, FuelRate,
    Limits, Name, NamespaceSpec, NodeId, NodeInfo, ObservedState, Placement, Preference, Priority, Quota,
    Report, Resources, RouteSpec, ServiceSpec, Spread, Term, Timestamp, WorkloadKind, WorkloadSpec,
};
use dunlin_scheduler::{Action, Change, Cluster, Command, Config, Observation, Step, TokenRecord};

/// How many kinds of machines there are.
pub(super) const CLASSES: usize = 5;
/// How many namespaces there are, each with a quota and a weight.
pub(super) const NAMESPACES: usize = 50;
/// How many zones there are.
pub(super) const ZONES: usize = 20;

/// What takes changes.
pub(crate) type Sink = Box<dyn FnMut(&[Change])>;

/// A brain, its clock, and what its nodes were told.
pub(super) struct Fleet {
    pub(super) cluster: Cluster,
    pub(super) now: Timestamp,
    pub(super) nodes: Vec<NodeId>,
    infos: BTreeMap<NodeId, NodeInfo>,
    nodes_of: BTreeMap<AllocationId, NodeId>,
    /// What runs on each node.
    running: BTreeMap<NodeId, BTreeSet<AllocationId>>,
    id: ClusterId,
    /// How long the brain has thought in each step since this was last emptied.
    pub(super) steps: Vec<Duration>,
    /// Who takes what was changed, as a coordinator's store does.
    pub(super) sink: Option<Sink>,
    /// How many allocations were placed since this was last emptied.
    pub(super) placed: u64,
}

impl Fleet {
    /// Returns so many nodes on which nothing runs.
    pub(super) fn new(count: usize) -> Self {
        Self::with_sink(count, None)
    }

    /// The same, with what takes all changes from the first one on.
    pub(super) fn with_sink(count: usize, sink: Option<Sink>) -> Self {
        let id: ClusterId = "bench".parse().expect("it is a name");
        let now = Timestamp(1_000_000);
        let cluster = Cluster::new(id.clone(), Term(1), Config::EDGE, now);
        let mut fleet = Self {
            cluster,
            now,
            nodes: Vec::new(),
            infos: BTreeMap::new(),
            nodes_of: BTreeMap::new(),
            running: BTreeMap::new(),
            id,
            steps: Vec::new(),
            sink,
            placed: 0,
        };
        let token = TokenRecord {
            id: "t".to_owned(),
            secret_hash: [1; 32],
            expires: Timestamp(u64::MAX),
            uses_left: u32::MAX,
            created: now,
            used_by: Vec::new(),
            approval: false,
        };
        fleet.submit(Command::CreateToken(token));
        for namespace in 0..NAMESPACES {
            let quota =
                Quota { memory: Some(Bytes(1 << 50)), allocations: Some(u32::MAX), ..Quota::default() };
            let weight = 1 + u32::try_from(namespace % 4).expect("it is small");
            let spec = NamespaceSpec { quota, weight, ..NamespaceSpec::default() };
            let namespace = format!("team-{namespace}").parse().expect("it is a name");
            fleet.submit(Command::SetNamespace { namespace, spec });
        }
        for number in 0..count {
            fleet.join(number);
        }
        fleet
    }

    fn join(&mut self, number: usize) {
        let node: NodeId = format!("node-{number:05}").parse().expect("it is a name");
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(number as u64).to_be_bytes());
        self.infos.insert(node.clone(), info(number));
        self.submit(Command::Join {
            token_id: "t".to_owned(),
            secret_hash: [1; 32],
            node: node.clone(),
            key_fingerprint: key,
        });
        self.nodes.push(node.clone());
        self.report(&node);
    }

    /// Lets the brain think over a command until nothing is left to do.
    pub(super) fn submit(&mut self, command: Command) -> Duration {
        let started = Instant::now();
        let (_, step) = self.cluster.submit(command, self.now).expect("the bench asks for what may be");
        let mut took = started.elapsed();
        self.take(step, took);
        took += self.settle();
        took
    }

    /// Lets the brain do what it left for later steps; returns how long all of them took.
    pub(super) fn settle(&mut self) -> Duration {
        let mut all = Duration::ZERO;
        while self.cluster.next_deadline().is_some_and(|deadline| deadline <= self.now) {
            let started = Instant::now();
            let step = self.cluster.tick(self.now);
            let took = started.elapsed();
            all += took;
            self.take(step, took);
        }
        all
    }

    fn take(&mut self, step: Step, took: Duration) {
        self.steps.push(took);
        if let Some(sink) = &mut self.sink {
            sink(&step.changes);
        }
        for change in &step.changes {
            match change {
                Change::Allocation(record) if record.is_assigned() => {
                    let is_new = self.running.entry(record.node.clone()).or_default().insert(record.id);
                    self.nodes_of.insert(record.id, record.node.clone());
                    self.placed += u64::from(is_new);
                }
                Change::Allocation(record) => self.forget(record.id),
                Change::AllocationDeleted(id) => self.forget(*id),
                _ => {}
            }
        }
        // What a shell would do with them is not the brain's.
        for action in step.actions {
            match action {
                Action::Assign { .. }
                | Action::AssignAll
                | Action::StartAgain
                | Action::Expel { .. }
                | Action::Recorded { .. }
                | Action::Heard { .. } => {}
            }
        }
    }

    fn forget(&mut self, id: AllocationId) {
        let running = self.nodes_of.remove(&id).and_then(|node| self.running.get_mut(&node));
        if let Some(running) = running {
            running.remove(&id);
        }
    }

    /// Returns what a node says: that all it was given runs.
    pub(super) fn told(&self, node: &NodeId) -> Report {
        let allocations = self.running.get(node).into_iter().flatten().map(|id| running(*id));
        Report {
            cluster: self.id.clone(),
            term: Term(1),
            generation: self.cluster.due(node),
            info: self.infos[node].clone(),
            sent: Timestamp::default(),
            allocations: allocations.collect(),
            items: Vec::new(),
        }
    }

    /// Lets the brain take in a report; returns how long that took.
    pub(super) fn observe(&mut self, node: &NodeId, report: Report) -> Duration {
        let observation = Observation::Report { node: node.clone(), report };
        let started = Instant::now();
        let step = self.cluster.observe(observation, self.now);
        let took = started.elapsed();
        self.take(step, took);
        took
    }

    /// Lets a node report that all it was given runs.
    pub(super) fn report(&mut self, node: &NodeId) -> Duration {
        let report = self.told(node);
        self.observe(node, report)
    }

    /// Lets all nodes report, but those in `silent`.
    pub(super) fn report_all(&mut self, is_silent: impl Fn(usize) -> bool) {
        for number in 0..self.nodes.len() {
            if !is_silent(number) {
                let node = self.nodes[number].clone();
                self.report(&node);
            }
        }
        self.settle();
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: DurationMs) {
        self.now = self.now.plus(time);
    }

    /// Returns which share of the memory of all nodes is reserved.
    pub(super) fn memory_used(&self) -> f64 {
        let view = self.cluster.view();
        let reserved: u64 = view.nodes.values().map(|node| node.reserved.memory.0).sum();
        let capacity: u64 = self.infos.values().map(|info| info.capacity.memory.0).sum();
        reserved as f64 / capacity as f64
    }
}

fn running(id: AllocationId) -> AllocationReport {
    AllocationReport {
        id,
        state: ObservedState::Running,
        restarts: 0,
        fuel: Fuel(1),
        memory: Bytes(1 << 20),
        instances: 1,
        failed: 0,
    }
}

/// Returns which zone a node is in.
pub(super) fn zone(number: usize) -> usize {
    number / CLASSES % ZONES
}

/// Returns what a node has.
pub(super) fn capacity(number: usize) -> Resources {
    let class = number % CLASSES;
    Resources {
        memory: Bytes([8, 16, 16, 32, 64][class] << 30),
        fuel_rate: FuelRate([4, 8, 8, 16, 32][class] * 1_000_000_000),
    }
}

fn info(number: usize) -> NodeInfo {
    let class = number % CLASSES;
    let labels = [
        ("class".to_owned(), format!("c{class}")),
        ("zone".to_owned(), format!("z{}", zone(number))),
        ("arch".to_owned(), if class < 3 { "amd64" } else { "arm64" }.to_owned()),
    ];
    let port = u16::try_from(number % 60_000).expect("it is small") + 1;
    NodeInfo {
        capacity: capacity(number),
        labels: labels.into(),
        resources: BTreeMap::new(),
        batch_overcommit: Default::default(),
        clock_unset: false,
        program: None,
        ingress: ([10, 0, 0, 1], port).into(),
        peer: ([10, 0, 0, 2], port).into(),
        version: "bench".to_owned(),
    }
}

/// Returns a spec of a service like those that people deploy: with a route, a condition, a preference, and spread over
/// zones; some are more urgent than others.
pub(super) fn service(number: usize, allocations: u32, memory: Bytes, rate: FuelRate) -> WorkloadSpec {
    let mut limits = Limits::SERVICE;
    limits.memory = memory;
    limits.fuel_rate = rate;
    let expression = |text: &str| text.parse().expect("it is a condition");
    let require = match number % 4 {
        0 => vec![expression("arch in (amd64, arm64)")],
        1 => vec![expression("arch = amd64")],
        2 => vec![expression("zone"), expression("class != c4")],
        _ => Vec::new(),
    };
    let placement = Placement {
        require,
        prefer: vec![Preference { expression: expression("class = c3"), weight: 20 }],
        spread: vec![Spread { over: "zone".to_owned(), weights: BTreeMap::new() }],
        ..Placement::default()
    };
    let route = RouteSpec::new(Some(&format!("app-{number}.example")), "/");
    WorkloadSpec {
        component: Digest::of(&number.to_be_bytes()),
        kind: WorkloadKind::Service(ServiceSpec {
            allocations,
            routes: vec![route],
            fuel_header: false,
            everywhere: false,
            rollout: Default::default(),
            health: None,
            on_partition: Default::default(),
        }),
        limits,
        environment: BTreeMap::new(),
        node_labels: BTreeMap::new(),
        capabilities: Default::default(),
        instances: Default::default(),
        metering: Default::default(),
        coredump: false,
        signed: None,
        placement,
        priority: Priority::new(40 + i64::try_from(number % 3).expect("it is small") * 10)
            .expect("it is one"),
    }
}

/// Returns an app with one workload, of one of fifty namespaces.
pub(super) fn app(number: usize, spec: WorkloadSpec) -> AppSpec {
    let workload: Name = "web".parse().expect("it is a name");
    AppSpec { name: name(number), workloads: [(workload, spec)].into() }
}

/// Returns the name of an app.
pub(super) fn name(number: usize) -> AppName {
    format!("team-{}/app-{number}", number % NAMESPACES).parse().expect("it is a name")
}
