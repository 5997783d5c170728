//! The bench `engine`: instances without a network, in this process.
//!
//! It shows what one request costs before any byte is read or written, so that what the engine costs and what serving
//! costs can be told apart. The figure to compare is the time of a processor for each request: it is steadier than
//! the rate, which holds whatever else runs on this machine.
//!
//! Memory is of this process before and after, divided by what was added.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use dunlin_compiled::{CodeKey, Platform, file_name, seal};
use dunlin_engine::{Engine, EngineConfig, Loaded, Service};
use dunlin_guest_artifacts::{HELLO, SLEEP_HTTP};
use dunlin_host::{Access, HostCallWatch, LogSink, watch_host_calls};
use dunlin_model::{
    AllocationId, AssignedAllocation, Bytes as Size, Digest, Fuel, FuelRate, Instances, Limits, LogRecord,
    Metering, Revision, ServiceSpec, Work, WorkloadKind, WorkloadSpec,
};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tracing::subscriber::NoSubscriber;

use crate::memory::Memory;
use crate::report::{Report, Row, Series};

/// How many rounds each figure has, after one that does not count.
const ROUNDS: usize = 5;
/// How long one round lasts.
const ROUND: Duration = Duration::from_secs(1);
/// How many requests one task makes before others get their turn.
const TURN: usize = 16;
/// How many components are loaded for what one costs that is idle.
const COMPONENTS: u32 = 1_000;
/// How many are loaded and dropped before.
const PASSING: u32 = 50;
/// How many instances wait at the same time for what one of them costs, and how many one namespace may have of them.
const WAITING: u32 = 10_000;
const WAITING_TOGETHER: u32 = 250;

const KEY: CodeKey = CodeKey([7; 32]);
const KIBIBYTES: f64 = 1024.0;

pub(crate) struct Silent;

impl LogSink for Silent {
    fn record(&self, _record: LogRecord) {}
}

/// Measures all of it, on threads of its own.
pub(crate) async fn run() -> anyhow::Result<Report> {
    tokio::task::spawn_blocking(measure).await?
}

fn measure() -> anyhow::Result<Report> {
    let mut report = Report::begin("engine")?;
    report.note("in one process and without a network: only what the engine does");
    report.add(unwatched()?);
    tracing::subscriber::set_global_default(HostCallWatch::new(NoSubscriber::default()))?;
    watch_host_calls();
    for threads in [1, 2] {
        let runtime = runtime(threads)?;
        let rig = runtime.block_on(async { Rig::new() })?;
        let fresh = runtime.block_on(requests(&rig, Instances::Fresh, threads))?;
        let reused = runtime.block_on(requests(&rig, Instances::Reused, threads))?;
        for (name, seen) in [("a fresh instance each", fresh), ("instances reused", reused)] {
            let case = format!("`hello`, {name}, {threads} threads");
            report.add([
                Row::new(format!("{case}: time of a processor"), "us/request", &seen.cost),
                Row::new(format!("{case}: rate"), "requests/s", &seen.rate),
            ]);
        }
        runtime.shutdown_background();
    }
    let runtime = runtime(2)?;
    runtime.block_on(async {
        let rig = Rig::new()?;
        report.add(components(&rig).await?);
        report.add([waiting(&rig).await?]);
        anyhow::Ok(())
    })?;
    // What still waits there waits for a day.
    runtime.shutdown_background();
    report.end()
}

/// Measures what a request costs if nobody notes the calls into the host, which in a worker somebody does.
fn unwatched() -> anyhow::Result<[Row; 1]> {
    let runtime = runtime(1)?;
    let rig = runtime.block_on(async { Rig::new() })?;
    let fresh = runtime.block_on(requests(&rig, Instances::Fresh, 1))?;
    let case =
        "`hello`, a fresh instance each, 1 threads, calls into the host not noted: time of a processor";
    Ok([Row::new(case.to_owned(), "us/request", &fresh.cost)])
}

fn runtime(threads: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

pub(crate) struct Rig {
    folder: PathBuf,
    engine: Engine,
    platform: Platform,
}

impl Rig {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("dunlin-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let platform = dunlin_engine::platform()?;
        let engine =
            Engine::new(EngineConfig { code_key: KEY, platform, instances: EngineConfig::MOST_INSTANCES })?;
        Ok(Self { folder, engine, platform })
    }

    /// Writes `code` as that of the component with this digest and returns the file.
    fn keep(&self, code: &[u8], digest: Digest, metering: Metering) -> anyhow::Result<PathBuf> {
        let platform = self.platform.for_code(metering);
        let path = self.folder.join(file_name(platform, digest));
        let mut file = seal(KEY, platform, digest, code).to_vec();
        file.extend(code);
        fs::write(&path, file)?;
        Ok(path)
    }

    async fn load(&self, component: &[u8]) -> anyhow::Result<Loaded> {
        self.load_as(component, Metering::Fuel).await
    }

    pub(crate) async fn load_as(&self, component: &[u8], metering: Metering) -> anyhow::Result<Loaded> {
        let digest = Digest::of(component);
        let path = self.keep(&dunlin_engine::compile_as(component, metering)?, digest, metering)?;
        Ok(self.engine.load_as(&path, digest, metering).await?)
    }

    async fn service(&self, loaded: &Loaded, number: u32, instances: Instances) -> anyhow::Result<Service> {
        let allocation = allocation(number, instances)?;
        let node = "node-1".parse()?;
        Ok(Service::new(loaded, &allocation, &node, Arc::new(Silent), &Access::none()).await?)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // It is in the folder for what is temporary; if it cannot be removed, it goes with that.
        drop(fs::remove_dir_all(&self.folder));
    }
}

pub(crate) fn allocation(number: u32, instances: Instances) -> anyhow::Result<AssignedAllocation> {
    let plenty = 1_000_000_000_000;
    Ok(AssignedAllocation {
        id: AllocationId::new(u64::from(number)),
        workload: format!("bench-{number}/app/hello").parse()?,
        revision: Revision(1),
        spec: Arc::new(WorkloadSpec {
            component: Digest::of(b""),
            kind: WorkloadKind::Service(ServiceSpec {
                allocations: 1,
                routes: Vec::new(),
                fuel_header: false,
                everywhere: false,
                rollout: Default::default(),
                health: None,
                on_partition: Default::default(),
            }),
            limits: Limits {
                memory: Size(16 << 20),
                concurrency: WAITING_TOGETHER,
                // Nothing is slowed down: what is measured is what a request costs.
                fuel_rate: FuelRate(plenty),
                fuel_burst: Fuel(plenty),
                ..Limits::SERVICE
            },
            environment: [].into(),
            node_labels: [].into(),
            capabilities: Default::default(),
            instances,
            metering: Default::default(),
            coredump: false,
            signed: None,
            placement: Default::default(),
            priority: Default::default(),
        }),
        work: Work::Serve,
    })
}

/// What requests one after the other cost.
struct Seen {
    cost: Series,
    rate: Series,
}

async fn requests(rig: &Rig, instances: Instances, threads: usize) -> anyhow::Result<Seen> {
    let loaded = rig.load(HELLO).await?;
    let service = rig.service(&loaded, 1, instances).await?;
    let (mut cost, mut rate) = (Series::default(), Series::default());
    for round in 0..=ROUNDS {
        let (before, begun) = (processor_time()?, Instant::now());
        let mut tasks: JoinSet<anyhow::Result<u32>> = JoinSet::new();
        for _ in 0..threads {
            tasks.spawn(ask(service.clone(), begun + ROUND));
        }
        let mut count = 0;
        while let Some(task) = tasks.join_next().await {
            count += task??;
        }
        let (after, took) = (processor_time()?, begun.elapsed());
        if round > 0 {
            cost.push((after - before).as_secs_f64() * 1e6 / f64::from(count));
            rate.push(f64::from(count) / took.as_secs_f64());
        }
    }
    Ok(Seen { cost, rate })
}

async fn ask(service: Service, until: Instant) -> anyhow::Result<u32> {
    let mut count = 0;
    while Instant::now() < until {
        for _ in 0..TURN {
            get(&service).await?;
            count += 1;
        }
        tokio::task::yield_now().await;
    }
    Ok(count)
}

async fn get(service: &Service) -> anyhow::Result<()> {
    let request = Request::get("http://hello.test/").header("host", "hello.test").header("accept", "*/*");
    let response = service.handle(request.body(Empty::<Bytes>::new())?).await;
    let response = response.map_err(|failure| anyhow::anyhow!("no response: {failure:?}"))?;
    let body = response.into_body().collect().await?.to_bytes();
    anyhow::ensure!(body.starts_with(b"hello"), "not the answer of `hello`");
    Ok(())
}

/// Measures what a component costs that was deployed and is not asked, and how soon it answers when it is.
async fn components(rig: &Rig) -> anyhow::Result<[Row; 2]> {
    let code = dunlin_engine::compile(HELLO)?;
    let mut services = Vec::new();
    let mut held = None;
    // What the compiler has left behind is given back while the first ones come and go.
    let passing = COMPONENTS + 1..=COMPONENTS + PASSING;
    for number in passing.chain(0..=COMPONENTS) {
        // The same code under another name: the engine cannot know that it is the same.
        let digest = Digest::of(&number.to_le_bytes());
        let loaded = rig.engine.load(&rig.keep(&code, digest, Metering::Fuel)?, digest).await?;
        if number > COMPONENTS {
            continue;
        }
        services.push(rig.service(&loaded, number, Instances::Fresh).await?);
        if number == 0 {
            held = Some(resident()?);
        }
    }
    let added = resident()? - held.context("the first was loaded")?;
    let mut first = Series::default();
    // The first ones were loaded long ago and have made way since.
    for service in services.iter().take(100) {
        let begun = Instant::now();
        get(service).await?;
        first.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok([
        Row::new(
            format!("each of {COMPONENTS} idle components"),
            "KiB",
            &Series::from_iter([added / f64::from(COMPONENTS)]),
        )
        .at_most(64.0),
        Row::new("first answer of a component that is not in memory", "ms", &first).at_most(3.0),
    ])
}

/// Measures what an instance costs that waits in a call of the host.
async fn waiting(rig: &Rig) -> anyhow::Result<Row> {
    let loaded = rig.load(SLEEP_HTTP).await?;
    let mut requests = JoinSet::new();
    let held = resident()?;
    for number in 0..WAITING / WAITING_TOGETHER {
        let service = rig.service(&loaded, number, Instances::Fresh).await?;
        for _ in 0..WAITING_TOGETHER {
            let service = service.clone();
            let request = Request::get("http://sleep.test/").header("host", "sleep.test");
            let request = request.body(Empty::<Bytes>::new())?;
            requests.spawn(async move { service.handle(request).await.map(drop) });
        }
    }
    // Each that can run has run once all have had their turn and none is left to start.
    let mut last = 0.0;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = resident()?;
        if now - last < KIBIBYTES {
            break;
        }
        last = now;
    }
    if let Some(ended) = requests.try_join_next() {
        anyhow::bail!("an instance does not wait: {ended:?}");
    }
    let each = (resident()? - held) / f64::from(WAITING);
    Ok(Row::new(format!("each of {WAITING} instances that wait"), "KiB", &Series::from_iter([each]))
        .at_most(200.0))
}

/// Returns how many KiB of this process are in memory.
fn resident() -> anyhow::Result<f64> {
    Ok(Memory::of(std::process::id())?.resident * KIBIBYTES)
}

/// Returns how long processors have worked for the threads of this process.
pub(crate) fn processor_time() -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let nanoseconds: u64 = stat.split_whitespace().next().unwrap_or("0").parse()?;
        total += Duration::from_nanos(nanoseconds);
    }
    Ok(total)
}
