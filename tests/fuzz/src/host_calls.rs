//! Sequences of host calls by a guest which keeps all it gets, in the real engine.
//!
//! The guest is compiled once; the bytes are its program. It counts what it was given, and says so if that is ever
//! more than its limits; the host's own account of its instance must agree.

use std::sync::{Arc, OnceLock};

use dunlin_compiled::{CodeKey, file_name, seal};
use dunlin_engine::{Engine, EngineConfig, Item, Job};
use dunlin_guest_artifacts::CALLS;
use dunlin_host::{Access, LogSink};
use dunlin_model::{
    AllocationId, AssignedAllocation, Bytes, Digest, DurationMs, Fuel, FuelRate, ItemRange, JobSpec, Limits,
    LogRecord, MAX_ITEM_OUTPUT, Outcome, Revision, RunId, Work, WorkloadKind, WorkloadSpec,
};

/// Low enough that a short program reaches them all.
const LIMITS: Limits = Limits {
    memory: Bytes(8 << 20),
    fuel: Fuel(20_000_000),
    fuel_rate: FuelRate(1_000_000_000_000),
    fuel_burst: Fuel(1_000_000_000_000),
    deadline: DurationMs(10_000),
    handles: 500,
    header_bytes: Bytes(2 << 10),
    random_bytes: Bytes(64 << 10),
    host_calls: 10_000_000,
    host_call_burst: 10_000_000,
    host_call_bytes: Bytes(1 << 20),
    ..Limits::JOB
};
/// The longest program: one argument of a job.
const MAX_STEPS: usize = 512;
/// The host may notice a little after the limit that it was reached.
const FUEL_SLACK: u64 = 10_000_000;

struct Silence;

impl LogSink for Silence {
    fn record(&self, _record: LogRecord) {}
}

struct Rig {
    runtime: tokio::runtime::Runtime,
    job: Job,
    _folder: tempfile::TempDir,
}

pub(crate) fn run(bytes: &[u8]) {
    static RIG: OnceLock<Rig> = OnceLock::new();
    let rig = RIG.get_or_init(rig);
    let program = hex::encode(&bytes[..bytes.len().min(MAX_STEPS)]);
    let item = Item { number: 0, arguments: vec![program], input: None };
    let end = rig.runtime.block_on(rig.job.run_item(item));
    assert!(end.memory <= LIMITS.memory, "held {} of {}", end.memory, LIMITS.memory);
    assert!(end.fuel.0 <= LIMITS.fuel.0 + FUEL_SLACK, "burned {} of {}", end.fuel, LIMITS.fuel);
    assert!(end.output.len() <= MAX_ITEM_OUTPUT, "{} bytes of output", end.output.len());
    assert!(!end.output.contains("BEYOND"), "{}", end.output);
    match end.outcome {
        Outcome::Cancelled => panic!("nobody cancelled it"),
        Outcome::NotStarted { reason } | Outcome::Unknown { reason } => panic!("not started: {reason}"),
        // Too slow a machine is no fault of the host.
        Outcome::DeadlineExceeded { .. } | Outcome::Completed | Outcome::Exited { .. } => {}
        Outcome::Trapped { .. }
        | Outcome::OutOfFuel { .. }
        | Outcome::OutOfMemory { .. }
        | Outcome::LimitExceeded { .. } => {}
    }
}

fn rig() -> Rig {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let key = CodeKey([7; 32]);
    let platform = dunlin_engine::platform().expect("this machine can run guests");
    let engine =
        Engine::new(EngineConfig { code_key: key, platform, instances: EngineConfig::MOST_INSTANCES })
            .expect("an engine can be made");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let digest = Digest::of(CALLS);
    let code = dunlin_engine::compile(CALLS).expect("the guest can be compiled");
    let path = folder.path().join(file_name(platform, digest));
    let file = [seal(key, platform, digest, &code).as_slice(), &code].concat();
    std::fs::write(&path, file).expect("the folder can be written");
    let job = runtime.block_on(async {
        let loaded = engine.load(&path, digest).await.expect("it was just sealed");
        let node = "node-1".parse().expect("a name");
        Job::new(&loaded, &allocation(digest), &node, Arc::new(Silence), &Access::none()).await
    });
    Rig { runtime, job: job.expect("the guest is a job"), _folder: folder }
}

fn allocation(component: Digest) -> AssignedAllocation {
    let told = [
        ("HANDLES", u64::from(LIMITS.handles)),
        ("HEADER_BYTES", LIMITS.header_bytes.0),
        ("RANDOM", LIMITS.random_bytes.0),
        ("MEMORY", LIMITS.memory.0),
    ];
    AssignedAllocation {
        id: AllocationId::new(1),
        workload: "tests/app/guest".parse().expect("a name"),
        revision: Revision(1),
        spec: std::sync::Arc::new(WorkloadSpec {
            component,
            kind: WorkloadKind::Job(JobSpec { attempts: 1, ..JobSpec::default() }),
            limits: LIMITS,
            environment: told.map(|(name, value)| (name.to_owned(), value.to_string())).into(),
            node_labels: [].into(),
            capabilities: Default::default(),
            instances: Default::default(),
            metering: Default::default(),
            coredump: false,
            signed: None,
            placement: Default::default(),
            priority: Default::default(),
        }),
        work: Work::Items {
            run: RunId::new(1),
            range: ItemRange { start: 0, end: 10 },
            attempt: 1,
            combine: false,
            inputs: false,
        },
    }
}
