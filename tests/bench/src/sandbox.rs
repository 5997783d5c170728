//! The bench `sandbox`: what it costs to run guests behind all walls and limits, against `wasmtime serve` of the same
//! line and a native server.
//!
//! Everything goes through an agent's ingress into a worker process. Each figure has the bound which it must keep to.
//!
//! Not here: what the engine costs without processes around it (`engine`), and items (`items`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use dunlin_guest_artifacts::{HELLO, HELLO_PATH, SLEEP_HTTP};
use dunlin_harness::{App, Fleet};
use dunlin_model::{
    AppName, AppSpec, Digest, DurationMs, Fuel, FuelRate, Limits, RouteSpec, ServiceSpec, WorkloadKind,
    WorkloadSpec,
};
use http::header::CONTENT_LENGTH;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::http::distinct;
use crate::load::{Ask, Seen};
use crate::memory::{Memory, children};
use crate::native::{Answer, Native};
use crate::report::{Report, Row, Series};
use crate::subject::{Subject, counted, first_200, get, rounds};
use crate::warn;
use crate::wasmtime::Wasmtime;

/// The flags with which `wasmtime serve` is fastest while it still gives each request an instance of its own.
const BEST_FRESH: &[&str] = &[
    "-O",
    "pooling-allocator=y,pooling-memory-keep-resident=2097152,pooling-table-keep-resident=65536,\
     pooling-async-stack-keep-resident=65536,pooling-max-unused-warm-slots=1000",
];
/// The same with an instance for many requests.
const BEST_REUSED: &[&str] = &[
    "-O",
    "pooling-allocator=y,pooling-memory-keep-resident=2097152,pooling-table-keep-resident=65536,\
     pooling-async-stack-keep-resident=65536,pooling-max-unused-warm-slots=1000",
    "--max-instance-reuse-count",
    "1000000",
    "--idle-instance-timeout",
    "10s",
];
/// What the guest tells of itself; the peers must answer the same.
const VARIABLES: [(&str, &str); 4] = [
    ("DUNLIN_ALLOCATION", "a1"),
    ("DUNLIN_NODE", "node-1"),
    ("DUNLIN_WORKLOAD", "default/bench/hello"),
    ("DUNLIN_REVISION", "1"),
];
const MANIFEST: &str = r#"
[app]
name = "bench"

[service.hello]
component = "hello.wasm"
routes = [{ host = "fresh.localhost", path = "/" }]
limits = { fuel = "100M", fuel_rate = "100G/s", concurrency = 1024, host_calls = 10000000 }

[service.reused]
component = "hello.wasm"
instances = "reused"
routes = [{ host = "reused.localhost", path = "/" }]
limits = { fuel = "100M", fuel_rate = "100G/s", concurrency = 1024, host_calls = 10000000, host_call_burst = 10000000 }
"#;
const FRESH: &str = "fresh.localhost";
const REUSED: &str = "reused.localhost";
/// The size of a body that is sent and comes back.
const ECHO: usize = 64 << 10;
/// What the agents of this bench are given: more than there is, so that no rate holds anything back.
const CAPACITY: [&str; 4] = ["--memory", "64GiB", "--fuel-rate", "1000G/s"];
/// How many distinct services are deployed.
const SERVICES: u16 = 1000;
/// How many workloads each of their apps has.
const PER_APP: u16 = 50;
/// How many first answers are measured.
const FIRST_ANSWERS: u16 = 100;
/// How often the peer is started.
const PEER_STARTS: usize = 20;
/// How many instances are alive at the same time, and over how many services.
const LIVE: usize = 10_000;
const LIVE_SERVICES: usize = 10;
/// How long after a load memory is read, so that what was only in use has been given back.
const SETTLE: Duration = Duration::from_secs(5);

/// What it is made of; each part may be measured alone.
pub(crate) const PARTS: &[&str] = &["idle", "requests", "echo", "services", "live"];

/// Measures all of it, or one part.
pub(crate) async fn run(part: Option<&str>) -> anyhow::Result<Report> {
    let mut report = Report::begin("sandbox")?;
    report.note("load generator, agent, worker and peers share the cores; the generator takes one thread");
    let version = Wasmtime::start(Path::new(HELLO_PATH), &VARIABLES, &[]).await?;
    let Some(version) = version else { bail!("there is no program `wasmtime` on the PATH to compare with") };
    report.note(format!("wasmtime is {}", version.version()));
    report.note(format!("its best flags for fresh instances: {}", BEST_FRESH.join(" ")));
    report.note(format!("its best flags for reused instances: {}", BEST_REUSED.join(" ")));
    drop(version);
    for part in PARTS.iter().filter(|known| part.is_none_or(|part| part == **known)) {
        warn(&format!("measuring the part `{part}`"));
        match *part {
            "idle" => idle(&mut report).await?,
            "requests" => requests(&mut report).await?,
            "echo" => echo(&mut report).await?,
            "services" => many_services(&mut report).await?,
            "live" => live_instances(&mut report).await?,
            other => unreachable!("`{other}` is not in the list of parts"),
        }
    }
    report.end()
}

/// A fleet of one node with room for everything, whose config file says `settings`.
async fn fleet(settings: &str) -> anyhow::Result<Fleet> {
    let mut fleet = Fleet::start(0).await?;
    let config = fleet.folder().join("node.toml");
    std::fs::write(&config, settings)?;
    let config = config.display().to_string();
    fleet.add_agent(&[&CAPACITY[..], &["--config", &config]].concat()).await?;
    Ok(fleet)
}

fn one(value: f64) -> Series {
    [value].into_iter().collect()
}

/// Returns the agent and its one worker.
fn processes(fleet: &mut Fleet) -> anyhow::Result<(u32, u32)> {
    let agent = fleet.agent(0).id().context("the agent does not run any more")?;
    match children(agent)?[..] {
        [worker] => Ok((agent, worker)),
        ref workers => bail!("the agent should have one worker, but has {workers:?}"),
    }
}

async fn idle(report: &mut Report) -> anyhow::Result<()> {
    let mut fleet = fleet("").await?;
    tokio::time::sleep(SETTLE).await;
    let agent = Memory::of(fleet.agent(0).id().context("the agent runs")?)?;
    report.add([Row::new("idle agent: resident", "MiB", &one(agent.resident)).at_most(20.0)]);
    fleet.deploy(&App::new(MANIFEST, &[("hello.wasm", HELLO)])).await?;
    tokio::time::sleep(SETTLE).await;
    let (agent, worker) = processes(&mut fleet)?;
    let (agent, worker) = (Memory::of(agent)?.resident, Memory::of(worker)?.resident);
    report.add([
        Row::new("agent with an idle service: resident", "MiB", &one(agent)),
        Row::new("its worker: resident", "MiB", &one(worker)).at_most(15.0),
    ]);
    Ok(())
}

fn rates(seen: &[Seen]) -> Series {
    seen.iter().map(|seen| seen.rate).collect()
}

async fn requests(report: &mut Report) -> anyhow::Result<()> {
    let walled = fleet("").await?;
    let shared = fleet("isolation = \"shared\"\n").await?;
    let app = App::new(MANIFEST, &[("hello.wasm", HELLO)]);
    for fleet in [&walled, &shared] {
        fleet.deploy(&app).await?;
    }
    let (door, shared_door) = (walled.ingress(0), shared.ingress(0));
    let answer = first_200(door, FRESH).await?;
    first_200(door, REUSED).await?;
    first_200(shared_door, FRESH).await?;
    first_200(shared_door, REUSED).await?;
    let text = String::from_utf8(answer.body().to_vec())?;
    let has_length = answer.headers().contains_key(CONTENT_LENGTH);
    let native = Native::start(&Answer { text, has_length }).await?;
    let component = Path::new(HELLO_PATH);
    let start = async |flags: &[&str]| {
        Wasmtime::start(component, &VARIABLES, flags).await?.context("it was there a moment ago")
    };
    let (plain, fresh, reused) = (start(&[]).await?, start(BEST_FRESH).await?, start(BEST_REUSED).await?);

    for connections in [32, 256] {
        warn(&format!("measuring requests over {}", counted(connections)));
        let subjects = [
            Subject::new("dunlin", door, FRESH),
            Subject::new("dunlin, reused", door, REUSED),
            Subject::new("dunlin, isolation = shared", shared_door, FRESH),
            Subject::new("dunlin, shared, reused", shared_door, REUSED),
            Subject::new("wasmtime serve", plain.address(), FRESH),
            Subject::new("wasmtime serve, best fresh", fresh.address(), FRESH),
            Subject::new("wasmtime serve, best reused", reused.address(), REUSED),
            Subject::new("native hyper", native.address(), FRESH),
        ];
        let seen = rounds(&subjects, connections).await?;
        let of = |index: usize| rates(&seen[index]);
        let row = |case: &str, ours: usize, peer: usize| {
            let case = format!("{case}, {}", counted(connections));
            Row::new(case, "1/s", &of(ours)).against(subjects[peer].name, &of(peer))
        };
        report.add([
            row("hello, fresh", 0, 4).ratio_at_least(3.0),
            row("hello, fresh", 0, 5).ratio_at_least(1.5),
            row("hello, reused", 1, 6).ratio_at_least(1.2),
            row("hello, reused", 1, 7).ratio_at_least(0.5),
            row("the wall: shared against walled, fresh", 2, 0).ratio_at_most(1.1),
            row("the wall: shared against walled, reused", 3, 1).ratio_at_most(1.1),
        ]);
    }
    Ok(())
}

async fn echo(report: &mut Report) -> anyhow::Result<()> {
    let fleet = fleet("").await?;
    fleet.deploy(&App::new(MANIFEST, &[("hello.wasm", HELLO)])).await?;
    let door = fleet.ingress(0);
    first_200(door, FRESH).await?;
    let start = async |flags: &[&str]| {
        let started = Wasmtime::start(Path::new(HELLO_PATH), &VARIABLES, flags).await?;
        started.context("it was there a moment ago")
    };
    let (plain, fresh) = (start(&[]).await?, start(BEST_FRESH).await?);
    let body = Bytes::from(vec![b'e'; ECHO]);
    let echo = |host: &str| Ask::post(host, "/echo", body.clone());
    let subjects = [
        Subject::new("dunlin", door, FRESH).asked(echo(FRESH)),
        Subject::new("wasmtime serve", plain.address(), FRESH).asked(echo(FRESH)),
        Subject::new("wasmtime serve, best fresh", fresh.address(), FRESH).asked(echo(FRESH)),
    ];
    let seen = rounds(&subjects, 32).await?;
    for (peer, bound) in [(1, Some(1.5)), (2, None)] {
        let row = Row::new("echo of 64 KiB, fresh, 32 connections", "1/s", &rates(&seen[0]));
        let row = row.against(subjects[peer].name, &rates(&seen[peer]));
        report.add([match bound {
            Some(bound) => row.ratio_at_least(bound),
            None => row,
        }]);
    }
    Ok(())
}

fn service(component: Digest, host: &str, limits: Limits) -> WorkloadSpec {
    let routes = vec![RouteSpec::new(Some(host), "/")];
    WorkloadSpec {
        component,
        kind: WorkloadKind::Service(ServiceSpec {
            allocations: 1,
            routes,
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
        placement: Default::default(),
        priority: Default::default(),
    }
}

/// What one more deployed and idle service costs, and how soon one answers whose code is on disk but not loaded.
async fn many_services(report: &mut Report) -> anyhow::Result<()> {
    let mut fleet = fleet("").await?;
    let limits = Limits {
        memory: dunlin_model::Bytes(16 << 20),
        fuel: Fuel(100_000_000),
        fuel_rate: FuelRate(100_000_000),
        fuel_burst: Fuel(100_000_000),
        ..Limits::SERVICE
    };
    fleet.deploy(&App::new(MANIFEST, &[("hello.wasm", HELLO)])).await?;
    first_200(fleet.ingress(0), FRESH).await?;
    tokio::time::sleep(SETTLE).await;
    let (agent, worker) = processes(&mut fleet)?;
    let resident = || anyhow::Ok([Memory::of(agent)?.resident, Memory::of(worker)?.resident]);
    let before = resident()?;
    for first in (0..SERVICES).step_by(usize::from(PER_APP)) {
        let name: AppName = format!("default/many-{first}").parse()?;
        let mut workloads = BTreeMap::new();
        for number in first..(first + PER_APP).min(SERVICES) {
            let component = distinct(HELLO, number);
            let digest = Digest::of(&component);
            fleet.client().upload_component(&digest, component, |_| {}).await?;
            let host = format!("s{number}.localhost");
            workloads.insert(format!("s{number}").parse()?, service(digest, &host, limits));
        }
        fleet.client().deploy(&AppSpec { name: name.clone(), workloads }).await?;
        fleet.until_running(&name.to_string()).await;
    }
    tokio::time::sleep(SETTLE).await;
    let after = resident()?;
    let each = |process: usize| (after[process] - before[process]) * 1024.0 / f64::from(SERVICES - 1);
    report.add([
        Row::new("a deployed, idle service: resident", "KiB", &one(each(0) + each(1))).at_most(64.0),
        Row::new("of that in the agent", "KiB", &one(each(0))),
        Row::new("of that in the worker", "KiB", &one(each(1))),
    ]);

    let (mut firsts, mut seconds) = (Series::default(), Series::default());
    for number in 0..FIRST_ANSWERS {
        let host = format!("s{number}.localhost");
        for series in [&mut firsts, &mut seconds] {
            let begun = Instant::now();
            let answer = get(fleet.ingress(0), &host).await?;
            ensure!(answer.status().is_success(), "{host} answers {answer:?}");
            series.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let peer = peer_starts().await?;
    report.add([
        Row::new("first answer, code on disk", "ms", &firsts).at_most(3.0),
        Row::new("first answer, code on disk", "ms", &firsts)
            .against("start of wasmtime serve", &peer)
            .ratio_at_most(0.1),
        Row::new("second answer", "ms", &seconds),
    ]);
    Ok(())
}

/// How long it takes from the start of `wasmtime serve --allow-precompiled` to its first answer, in milliseconds.
async fn peer_starts() -> anyhow::Result<Series> {
    let folder = std::env::temp_dir().join(format!("dunlin-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let compiled = folder.join("hello.cwasm");
    let status = Command::new("wasmtime").arg("compile").arg("-o").arg(&compiled).arg(HELLO_PATH).status();
    ensure!(status.await?.success(), "`wasmtime compile` failed");
    let mut series = Series::default();
    for _ in 0..PEER_STARTS {
        let begun = Instant::now();
        let peer = Wasmtime::start(&compiled, &VARIABLES, &["--allow-precompiled"]).await?;
        let peer = peer.context("it was there a moment ago")?;
        first_200(peer.address(), FRESH).await?;
        series.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(series)
}

/// What one more live instance costs that waits in a call of the host.
async fn live_instances(report: &mut Report) -> anyhow::Result<()> {
    let mut fleet =
        fleet("[ingress]\nmax_connections = 20000\n[limits]\nnamespace_concurrency = 20000\n").await?;
    let limits = Limits {
        fuel_rate: FuelRate(10_000_000_000),
        deadline: DurationMs(600_000),
        concurrency: 1024,
        ..Limits::SERVICE
    };
    let digest = Digest::of(SLEEP_HTTP);
    fleet.client().upload_component(&digest, Bytes::from_static(SLEEP_HTTP), |_| {}).await?;
    let workload =
        |number: usize| anyhow::Ok((format!("w{number}").parse()?, service(digest, &host(number), limits)));
    let workloads = (0..LIVE_SERVICES).map(workload).collect::<anyhow::Result<_>>()?;
    let name: AppName = "default/live".parse()?;
    fleet.client().deploy(&AppSpec { name: name.clone(), workloads }).await?;
    fleet.until_running(&name.to_string()).await;
    let door = fleet.ingress(0);
    let (_, worker) = processes(&mut fleet)?;
    let mut open = Vec::new();
    for number in 0..LIVE_SERVICES {
        open.push(ask_to_sleep(door, number).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let before = Memory::of(worker)?.resident;
    for number in LIVE_SERVICES..LIVE {
        open.push(ask_to_sleep(door, number).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let grown = (Memory::of(worker)?.resident - before) * 1024.0;
    let answered = open.iter().filter(|stream| stream.try_read(&mut [0; 1]).is_ok()).count();
    ensure!(answered == 0, "{answered} of {LIVE} instances have answered instead of waiting");
    let each = grown / f64::from(u32::try_from(LIVE - LIVE_SERVICES)?);
    report.add([Row::new("a live, waiting instance: resident", "KiB", &one(each)).at_most(200.0)]);
    Ok(())
}

fn host(number: usize) -> String {
    format!("w{}.localhost", number % LIVE_SERVICES)
}

async fn ask_to_sleep(door: SocketAddr, number: usize) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(door).await?;
    let request = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", host(number));
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}
