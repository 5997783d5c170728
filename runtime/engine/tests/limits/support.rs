//! An engine, guests written for one limit each, and what became of them.

use std::sync::{Arc, Mutex};

use dunlin_compiled::{CodeKey, CodeKind, file_name, seal};
use dunlin_engine::{Engine, EngineConfig, Item, ItemEnd, Job, LoadError, Loaded, Service};
use dunlin_host::{Access, LogSink};
use dunlin_model::{
    AllocationId, AssignedAllocation, Bytes, Digest, DurationMs, Fuel, FuelRate, Instances, ItemRange,
    JobSpec, LimitHit, Limits, LogRecord, Metering, Outcome, Revision, RunId, ServiceSpec, Work,
    WorkloadKind, WorkloadSpec,
};
use tempfile::TempDir;

const KEY: CodeKey = CodeKey([7; 32]);

/// Generous where a test is not about it: what these guests burn is not to slow them down.
pub(crate) const LIMITS: Limits = Limits {
    memory: Bytes(16 << 20),
    fuel: Fuel(2_000_000_000),
    fuel_rate: FuelRate(1_000_000_000_000),
    fuel_burst: Fuel(1_000_000_000_000),
    deadline: DurationMs(60_000),
    ..Limits::SERVICE
};

#[derive(Default)]
pub(crate) struct Kept(pub(crate) Mutex<Vec<LogRecord>>);

impl LogSink for Kept {
    fn record(&self, record: LogRecord) {
        self.0.lock().unwrap().push(record);
    }
}

pub(crate) struct Rig {
    folder: TempDir,
    engine: Engine,
    pub(crate) logs: Arc<Kept>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let platform = dunlin_engine::platform().unwrap();
        let engine =
            Engine::new(EngineConfig { code_key: KEY, platform, instances: EngineConfig::MOST_INSTANCES })
                .unwrap();
        Self { folder: tempfile::tempdir().unwrap(), engine, logs: Arc::default() }
    }

    pub(crate) async fn load(&self, component: &[u8]) -> Loaded {
        self.load_as(component, Metering::Fuel).await
    }

    async fn load_as(&self, component: &[u8], kind: impl Into<CodeKind>) -> Loaded {
        let kind = kind.into();
        let code = dunlin_engine::compile_as(component, kind).unwrap();
        self.load_code(&code, kind, component).await.unwrap()
    }

    /// Loads `code` from a file in which it is said to be that of `component`, of this kind.
    pub(crate) async fn load_code(
        &self,
        code: &[u8],
        kind: impl Into<CodeKind>,
        component: &[u8],
    ) -> Result<Loaded, LoadError> {
        let kind = kind.into();
        let (digest, platform) = (Digest::of(component), dunlin_engine::platform().unwrap().for_code(kind));
        let file = [seal(KEY, platform, digest, code).as_slice(), code].concat();
        let path = self.folder.path().join(file_name(platform, digest));
        std::fs::write(&path, file).unwrap();
        self.engine.load_as(&path, digest, kind).await
    }

    /// Returns a job that is metered by time, on a node of which a processor burns so much.
    pub(crate) async fn job_by_time(&self, component: &[u8], limits: Limits, rate: FuelRate) -> Job {
        self.engine.set_processor_rate(rate);
        let loaded = self.load_as(component, Metering::Time).await;
        let allocation = allocation(component, limits, true);
        let node = "node-1".parse().unwrap();
        Job::new(&loaded, &allocation, &node, self.logs.clone(), &Access::none()).await.unwrap()
    }

    /// Returns a service that is metered by time, on a node of which a processor burns so much.
    pub(crate) async fn service_by_time(
        &self,
        component: &[u8],
        limits: Limits,
        (instances, rate): (Instances, FuelRate),
    ) -> Service {
        self.engine.set_processor_rate(rate);
        let loaded = self.load_as(component, Metering::Time).await;
        let mut allocation = allocation(component, limits, false);
        std::sync::Arc::make_mut(&mut allocation.spec).instances = instances;
        let node = "node-1".parse().unwrap();
        Service::new(&loaded, &allocation, &node, self.logs.clone(), &Access::none()).await.unwrap()
    }

    pub(crate) fn set_processor_rate(&self, rate: FuelRate) {
        self.engine.set_processor_rate(rate);
    }

    pub(crate) async fn job_of_kind(&self, component: &[u8], limits: Limits, kind: CodeKind) -> Job {
        let loaded = self.load_as(component, kind).await;
        let allocation = allocation(component, limits, true);
        let node = "node-1".parse().unwrap();
        Job::new(&loaded, &allocation, &node, self.logs.clone(), &Access::none()).await.unwrap()
    }

    pub(crate) async fn service_of_kind(&self, component: &[u8], limits: Limits, kind: CodeKind) -> Service {
        let loaded = self.load_as(component, kind).await;
        let allocation = allocation(component, limits, false);
        let node = "node-1".parse().unwrap();
        Service::new(&loaded, &allocation, &node, self.logs.clone(), &Access::none()).await.unwrap()
    }

    /// Makes a job of `loaded`, if it was loaded and is one.
    pub(crate) async fn try_job(
        &self,
        component: &[u8],
        loaded: Result<Loaded, LoadError>,
    ) -> Result<Job, LoadError> {
        let allocation = allocation(component, LIMITS, true);
        let node = "node-1".parse().unwrap();
        Job::new(&loaded?, &allocation, &node, self.logs.clone(), &Access::none()).await
    }

    pub(crate) async fn job(&self, component: &[u8], limits: Limits) -> Job {
        let loaded = self.load(component).await;
        let allocation = allocation(component, limits, true);
        let node = "node-1".parse().unwrap();
        Job::new(&loaded, &allocation, &node, self.logs.clone(), &Access::none()).await.unwrap()
    }

    pub(crate) async fn service(&self, component: &[u8], limits: Limits) -> Service {
        let loaded = self.load(component).await;
        let allocation = allocation(component, limits, false);
        let node = "node-1".parse().unwrap();
        Service::new(&loaded, &allocation, &node, self.logs.clone(), &Access::none()).await.unwrap()
    }
}

pub(crate) fn allocation(component: &[u8], limits: Limits, is_job: bool) -> AssignedAllocation {
    let range = ItemRange { start: 0, end: 10 };
    let (kind, work) = if is_job {
        let kind = WorkloadKind::Job(JobSpec { attempts: 1, ..JobSpec::default() });
        (kind, Work::Items { run: RunId::new(1), range, attempt: 1, combine: false, inputs: false })
    } else {
        let kind = ServiceSpec {
            allocations: 1,
            routes: Vec::new(),
            fuel_header: false,
            everywhere: false,
            rollout: Default::default(),
            health: None,
            on_partition: Default::default(),
        };
        (WorkloadKind::Service(kind), Work::Serve)
    };
    AssignedAllocation {
        id: AllocationId::new(1),
        workload: "tests/app/guest".parse().unwrap(),
        revision: Revision(1),
        spec: std::sync::Arc::new(WorkloadSpec {
            component: Digest::of(component),
            kind,
            limits,
            environment: [].into(),
            node_labels: [].into(),
            capabilities: Default::default(),
            instances: Default::default(),
            metering: Default::default(),
            coredump: false,
            signed: None,
            placement: Default::default(),
            priority: Default::default(),
        }),
        work,
    }
}

/// Runs one item, and then checks that its allocation can run another: nothing of the first is left.
pub(crate) async fn run(job: &Job) -> ItemEnd {
    let item = Item { number: 0, arguments: Vec::new(), input: None };
    job.run_item(item).await
}

/// Runs a guest twice, checks that it hits `limit` each time and that this is counted, and returns what it was told.
pub(crate) async fn hits(component: &str, limits: Limits, limit: &str) -> LimitHit {
    let (rig, component) = (Rig::new(), wat::parse_str(component).unwrap());
    let job = rig.job(&component, limits).await;
    let mut told = None;
    for count in 1..=2 {
        let hit = match run(&job).await.outcome {
            Outcome::LimitExceeded { hit } => hit,
            Outcome::OutOfMemory { limit, observed } => LimitHit::new("memory", limit, observed),
            Outcome::OutOfFuel { limit } => LimitHit::new("fuel", limit, "more"),
            Outcome::DeadlineExceeded { limit } => LimitHit::new("deadline", limit, "more"),
            other => panic!("the guest should hit `{limit}`, but: {other}"),
        };
        assert_eq!(hit.limit, limit, "{hit}");
        let usage = job.usage();
        assert_eq!(usage.limit_hits.get(limit), Some(&count), "{usage:?}");
        assert_eq!(usage.instances, count);
        told = Some(hit);
    }
    // Another allocation of the same engine is as it was: what the guest held is free again.
    let fine = rig.job(&wat::parse_str(job_of("", "", "")).unwrap(), limits).await;
    assert_eq!(run(&fine).await.outcome, Outcome::Completed);
    told.unwrap()
}

/// Returns a job: `imports` of the component, `core` of its module, and the instructions of its `run`.
pub(crate) fn job_of(imports: &str, core: &str, run: &str) -> String {
    let with = if imports.is_empty() { "" } else { "(with \"host\" (instance $host))" };
    format!(
        r#"(component
            {imports}
            (core module $code
                {core}
                (func (export "run") (result i32)
                    (local $i i32)
                    {run}
                    i32.const 0))
            (core instance $instance (instantiate $code {with}))
            (func $run (result (result)) (canon lift (core func $instance "run")))
            (instance $exported (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $exported)))"#
    )
}

/// Returns instructions that do `body` so many times.
pub(crate) fn times(count: u32, body: &str) -> String {
    format!(
        "(local.set $i (i32.const {count}))
        (loop $again
            {body}
            (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"
    )
}

/// The clock, as `now` of `host`.
pub(crate) const CLOCK: &str = r#"
    (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock (export "now" (func (result u64)))))
    (core func $now (canon lower (func $clock "now")))
    (core instance $host (export "now" (func $now)))"#;
