//! The bench `http`: one agent with one allocation of the service `hello`.
//!
//! Requests per second and latencies against peers, then what memory the load took, then how long it takes from a
//! deploy to the first answer. Everything runs on this machine over loopback.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use dunlin_guest_artifacts::{HELLO, HELLO_PATH};
use dunlin_harness::{App, Fleet, eventually};
use dunlin_model::{
    AppName, AppSpec, Digest, DurationMs, Fuel, FuelRate, Limits, RouteSpec, ServiceSpec, WorkloadKind,
    WorkloadSpec,
};
use http::StatusCode;
use http::header::CONTENT_LENGTH;

use crate::memory::{Memory, children};
use crate::native::{Answer, Native};
use crate::report::{Report, Row};
use crate::subject::{Figure, Subject, counted, first_200, get, requests};
use crate::warn;
use crate::wasmtime::Wasmtime;

/// How many connections send requests at the same time.
const CONNECTIONS: [usize; 3] = [1, 32, 256];
/// How many rounds each figure has.
const ROUNDS: usize = 5;
/// How long after the load memory is read, so that what was only in use has been given back.
const SETTLE: Duration = Duration::from_secs(5);
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
    let wasmtime = Wasmtime::start(Path::new(HELLO_PATH), &VARIABLES, &[]).await?;
    let mut subjects =
        vec![Subject::new("dunlin", ingress, HOST), Subject::new("native hyper", native.address(), HOST)];
    match &wasmtime {
        Some(wasmtime) => {
            report.note(format!("wasmtime is {}", wasmtime.version()));
            subjects.push(Subject::new("wasmtime serve", wasmtime.address(), HOST));
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
        for round in 0..u16::try_from(ROUNDS)? {
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
pub(crate) fn distinct(component: &[u8], number: u16) -> Bytes {
    let mut bytes = component.to_vec();
    bytes.extend_from_slice(&[0, 8, 5]);
    bytes.extend_from_slice(b"bench");
    bytes.extend_from_slice(&number.to_le_bytes());
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
    let routes = vec![RouteSpec::new(Some(host), "/")];
    let workload = WorkloadSpec {
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
    };
    Ok(AppSpec { name: name.clone(), workloads: BTreeMap::from([("hello".parse()?, workload)]) })
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
