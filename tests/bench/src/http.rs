//! The bench `http`: one agent with one allocation of the service `hello`.
//!
//! Requests per second and latencies against peers, then what memory the load took, then how long it takes from a
//! deploy to the first answer. Everything runs on this machine over loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use dunlin_guest_artifacts::{HELLO, HELLO_PATH};
use dunlin_harness::{App, Fleet, PATIENCE, eventually};
use dunlin_model::{
    AppName, AppSpec, Digest, DurationMs, Fuel, FuelRate, Limits, RouteSpec, ServiceSpec, WorkloadKind,
    WorkloadSpec,
};
use http::StatusCode;
use http::header::CONTENT_LENGTH;

use crate::load::{Connection, Seen, load};
use crate::memory::{Memory, children};
use crate::native::{Answer, Native};
use crate::report::{Report, Row, Series, in_turns, percentile};
use crate::warn;
use crate::wasmtime::Wasmtime;

/// How many connections send requests at the same time.
const CONNECTIONS: [usize; 3] = [1, 32, 256];
/// How long one round of load takes.
const ROUND: Duration = Duration::from_secs(2);
/// How long each is loaded before its rounds count.
const WARM_UP: Duration = Duration::from_secs(1);
/// How many rounds each figure has.
const ROUNDS: usize = 5;
/// How long after the load memory is read, so that what was only in use has been given back.
const SETTLE: Duration = Duration::from_secs(5);
/// How often a fresh service is asked whether it is there.
const POLL: Duration = Duration::from_millis(2);
/// How many characters of each log are told when the bench fails.
const SHOWN_LOG: usize = 3000;

/// The fuel rate is nearly all that the agent has, so that the loaded service is not held back by it.
const MANIFEST: &str = r#"
[app]
name = "bench"

[service.hello]
component = "hello.wasm"
routes = [{ host = "bench.localhost", path = "/" }]
limits = { memory = "64MiB", fuel = "100M", fuel_rate = "900M/s", deadline = "30s", concurrency = 1024 }
"#;

/// The host of its route, so that other hosts find nothing until they are deployed.
const HOST: &str = "bench.localhost";

/// What the guest tells of itself; the peers must answer the same.
const VARIABLES: [(&str, &str); 4] = [
    ("DUNLIN_ALLOCATION", "a1"),
    ("DUNLIN_NODE", "node-1"),
    ("DUNLIN_WORKLOAD", "default/bench/hello"),
    ("DUNLIN_REVISION", "1"),
];

/// Measures all of it.
pub(crate) async fn run() -> anyhow::Result<Report> {
    let mut fleet = Fleet::start(1).await?;
    let result = measure(&mut fleet).await;
    if result.is_err() {
        for (path, log) in fleet.logs() {
            let beginning = log.len().saturating_sub(SHOWN_LOG);
            warn(&format!("{}:\n{}", path.display(), &log[log.ceil_char_boundary(beginning)..]));
        }
    }
    result
}

async fn measure(fleet: &mut Fleet) -> anyhow::Result<Report> {
    let mut report = Report::begin("http")?;
    report.note("load generator, agent, worker and peers share the cores; the generator takes one thread");
    report.note("rates count 200s only; anything else fails the bench");
    fleet.deploy(&App::new(MANIFEST, &[("hello.wasm", HELLO)])).await?;
    let ingress = fleet.ingress(0);
    let answer = first_200(ingress, HOST).await?;
    let text = String::from_utf8(answer.body().to_vec())?;

    let has_length = answer.headers().contains_key(CONTENT_LENGTH);
    let native = Native::start(&Answer { text: text.clone(), has_length }).await?;
    let wasmtime = Wasmtime::start(Path::new(HELLO_PATH), &VARIABLES).await?;
    let mut subjects = vec![Subject::new("dunlin", ingress), Subject::new("native hyper", native.address())];
    match &wasmtime {
        Some(wasmtime) => {
            report.note(format!("wasmtime is {}", wasmtime.version()));
            subjects.push(Subject::new("wasmtime serve", wasmtime.address()));
        }
        None => report.note("no program `wasmtime` on the PATH: not compared with `wasmtime serve`"),
    }
    for subject in &subjects {
        let same = first_200(subject.address, HOST).await?;
        ensure!(same.body() == text.as_bytes(), "{} answers other bytes: {:?}", subject.name, same.body());
    }

    let before = memories(fleet)?;
    for connections in CONNECTIONS {
        warn(&format!("measuring requests over {}", counted(connections)));
        report.add(requests(&subjects, connections).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let after = memories(fleet)?;
    drop((native, wasmtime));
    report.add(memory_rows(&before, &after)?);
    warn("measuring deploys");
    report.add(deploys(fleet).await?);
    report.end()
}

/// What a figure is called, its unit, and how it is read off what a round gave.
type Figure<M> = (&'static str, &'static str, fn(&M) -> f64);

/// Who is loaded.
struct Subject {
    name: &'static str,
    address: SocketAddr,
}

impl Subject {
    fn new(name: &'static str, address: SocketAddr) -> Self {
        Self { name, address }
    }

    async fn load(&self, connections: usize, duration: Duration) -> anyhow::Result<Seen> {
        let seen = load(self.address, HOST, connections, duration).await;
        let seen = seen.with_context(|| format!("{} over {}", self.name, counted(connections)))?;
        let bad: u64 = seen.failures.values().sum();
        let all = seen.latencies.len();
        ensure!(
            bad == 0,
            "{}: {bad} of {all} requests over {} failed: {:?}",
            self.name,
            counted(connections),
            seen.failures
        );
        Ok(seen)
    }
}

/// Measures all subjects over so many connections; the first is Dunlin.
async fn requests(subjects: &[Subject], connections: usize) -> anyhow::Result<Vec<Row>> {
    for subject in subjects {
        subject.load(connections, WARM_UP).await?;
    }
    let seen =
        in_turns(ROUNDS, subjects, async |subject: &Subject| subject.load(connections, ROUND).await).await?;
    let (ours, peers) = seen.split_first().context("there is at least Dunlin")?;
    let figures: [Figure<Seen>; 4] = [
        ("requests per second", "1/s", |seen| seen.rate),
        ("half answered within", "ms", |seen| percentile(&seen.latencies, 500) / 1000.0),
        ("99 of 100 answered within", "ms", |seen| percentile(&seen.latencies, 990) / 1000.0),
        ("all answered within", "ms", |seen| percentile(&seen.latencies, 1000) / 1000.0),
    ];
    let mut rows = Vec::new();
    for (what, unit, figure) in figures {
        let ours: Series = ours.iter().map(figure).collect();
        for (peer, subject) in peers.iter().zip(&subjects[1..]) {
            let row = Row::new(format!("{}: {what}", counted(connections)), unit, &ours);
            rows.push(row.against(subject.name, &peer.iter().map(figure).collect()));
        }
    }
    Ok(rows)
}

fn counted(connections: usize) -> String {
    if connections == 1 { "1 connection".to_owned() } else { format!("{connections} connections") }
}

/// Returns what the agent and its one worker hold.
fn memories(fleet: &mut Fleet) -> anyhow::Result<BTreeMap<&'static str, Memory>> {
    let agent = fleet.agent(0).id().context("the agent does not run any more")?;
    let workers = children(agent)?;
    let [worker] = workers[..] else { bail!("the agent should have one worker, but has {workers:?}") };
    Ok(BTreeMap::from([("agent", Memory::of(agent)?), ("worker", Memory::of(worker)?)]))
}

fn memory_rows(
    before: &BTreeMap<&'static str, Memory>,
    after: &BTreeMap<&'static str, Memory>,
) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut add = |case: String, value: f64| rows.push(Row::new(case, "MiB", &[value].into_iter().collect()));
    for (process, before) in before {
        let after = after.get(process).context("it was there before the load")?;
        add(format!("{process}: resident memory, idle before the load"), before.resident);
        add(format!("{process}: resident memory, idle after the load"), after.resident);
        add(format!("{process}: resident memory, most during the load"), after.peak);
        add(format!("{process}: proportional memory, idle before the load"), before.proportional);
        add(format!("{process}: proportional memory, idle after the load"), after.proportional);
    }
    Ok(rows)
}

/// How long after its beginning each step of a deploy was done, in milliseconds.
struct Deploy {
    uploaded: f64,
    accepted: f64,
    answered: f64,
}

async fn deploys(fleet: &Fleet) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    // The second time the coordinator and the node have the component, and the worker's cache has its code.
    for kind in ["fresh component", "known component"] {
        let mut measured = Vec::new();
        for round in 0..u8::try_from(ROUNDS)? {
            let name = format!("default/{}-{round}", kind.replace(' ', "-")).parse()?;
            measured.push(deploy(fleet, &name, &distinct(HELLO, round)).await?);
        }
        let figures: [Figure<Deploy>; 3] = [
            ("uploaded", "ms", |deploy| deploy.uploaded),
            ("and its deploy accepted", "ms", |deploy| deploy.accepted),
            ("and its first request answered", "ms", |deploy| deploy.answered),
        ];
        for (what, unit, figure) in figures {
            rows.push(Row::new(format!("{kind}: {what}"), unit, &measured.iter().map(figure).collect()));
        }
    }
    Ok(rows)
}

/// Returns the same component under another digest: with one more custom section, which has no meaning.
fn distinct(component: &[u8], number: u8) -> Bytes {
    let mut bytes = component.to_vec();
    bytes.extend_from_slice(&[0, 7, 5]);
    bytes.extend_from_slice(b"bench");
    bytes.push(number);
    bytes.into()
}

/// Deploys an app with one service, waits for its first answer, and takes it away again.
async fn deploy(fleet: &Fleet, name: &AppName, component: &Bytes) -> anyhow::Result<Deploy> {
    let (client, digest) = (fleet.client(), Digest::of(component));
    let host = format!("{}.localhost", name.app);
    let spec = spec(name, digest, &host)?;
    let begun = Instant::now();
    let elapsed = || begun.elapsed().as_secs_f64() * 1000.0;
    if !client.has_component(&digest).await? {
        client.upload_component(&digest, component.clone(), |_| {}).await?;
    }
    let uploaded = elapsed();
    client.deploy(&spec).await?;
    let accepted = elapsed();
    first_200(fleet.ingress(0), &host).await?;
    let answered = elapsed();
    client.delete_app(name).await?;
    eventually("the app is gone from the ingress", || async {
        let answer = get(fleet.ingress(0), &host).await.map_err(|error| format!("{error:#}"))?;
        if answer.status() == StatusCode::NOT_FOUND { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    Ok(Deploy { uploaded, accepted, answered })
}

fn spec(name: &AppName, component: Digest, host: &str) -> anyhow::Result<AppSpec> {
    let limits = Limits {
        // An app that was deleted keeps its room for a while, so there must be enough for all of them.
        memory: dunlin_model::Bytes(16 << 20),
        fuel: Fuel(100_000_000),
        fuel_rate: FuelRate(10_000_000),
        deadline: DurationMs(10_000),
        ..Limits::SERVICE
    };
    let routes = vec![RouteSpec { host: Some(host.to_owned()), path: "/".to_owned() }];
    let workload = WorkloadSpec {
        component,
        kind: WorkloadKind::Service(ServiceSpec { allocations: 1, routes, fuel_header: false }),
        limits,
        environment: BTreeMap::new(),
        node_labels: BTreeMap::new(),
        capabilities: Default::default(),
        instances: Default::default(),
        metering: Default::default(),
    };
    Ok(AppSpec { name: name.clone(), workloads: BTreeMap::from([("hello".parse()?, workload)]) })
}

/// Asks until the answer is 200.
async fn first_200(address: SocketAddr, host: &str) -> anyhow::Result<http::Response<Bytes>> {
    let begun = Instant::now();
    loop {
        let answer = get(address, host).await?;
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        ensure!(begun.elapsed() < PATIENCE, "{address} answers {host} with {answer:?} for {PATIENCE:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// Asks once, over a connection of its own.
async fn get(address: SocketAddr, host: &str) -> anyhow::Result<http::Response<Bytes>> {
    let mut connection = Connection::open(address, host).await?;
    let answer = connection.get().await;
    answer.with_context(|| format!("{address} did not answer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_that_makes_a_component_distinct_has_the_size_it_says() {
        let (one, other) = (distinct(HELLO, 1), distinct(HELLO, 2));
        assert_ne!(Digest::of(&one), Digest::of(&other));
        let section = &one[HELLO.len()..];
        assert_eq!(section[0], 0, "a custom section");
        assert_eq!(usize::from(section[1]), section.len() - 2);
        assert_eq!(usize::from(section[2]), "bench".len());
    }
}
