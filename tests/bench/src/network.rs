//! The bench `network`: what it costs that a request is answered on another node, that a service calls another one, and
//! that clients keep connections on which they ask nothing. Everything runs on this machine over loopback.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use dunlin_guest_artifacts::{ASK_HTTP, HELLO};
use dunlin_harness::{App, Fleet};

use crate::load::{Ask, Connection, Seen};
use crate::memory::{Memory, children};
use crate::processor::cpu;
use crate::report::{Report, Row, Series, in_turns, percentile};
use crate::subject::{Subject, first_200, rounds};
use crate::warn;

/// Each is on one node alone. `alone` is the guest of `outer` without the grant.
const MANIFEST: &str = r#"
[app]
name = "bench"

[service.hello]
component = "hello.wasm"
routes = [{ host = "hello.localhost", path = "/" }]
node_labels = { of = "first" }
limits = { fuel = "100M", fuel_rate = "100G/s", concurrency = 1024, host_calls = 10000000 }

[service.outer]
component = "ask.wasm"
routes = [{ host = "outer.localhost", path = "/" }]
node_labels = { of = "first" }
environment = { NEXT = "http://hello.bench.internal/" }
limits = { fuel = "100M", fuel_rate = "100G/s", concurrency = 1024, host_calls = 10000000 }

[service.outer.capabilities]
outbound_http = ["http://hello.bench.internal"]

[service.alone]
component = "ask.wasm"
routes = [{ host = "alone.localhost", path = "/" }]
node_labels = { of = "first" }
environment = { NEXT = "http://hello.bench.internal/" }
limits = { fuel = "100M", fuel_rate = "100G/s", concurrency = 1024, host_calls = 10000000 }

[service.away]
component = "ask.wasm"
routes = [{ host = "away.localhost", path = "/" }]
node_labels = { of = "second" }
environment = { NEXT = "http://hello.bench.internal/" }
limits = { fuel = "100M", fuel_rate = "100G/s", concurrency = 1024, host_calls = 10000000 }

[service.away.capabilities]
outbound_http = ["http://hello.bench.internal"]

[service.hidden]
component = "hello.wasm"
routes = [{ host = "hidden.localhost", path = "/" }]
node_labels = { of = "hidden" }
limits = { fuel = "100M", fuel_rate = "100G/s", concurrency = 1024, host_calls = 10000000 }
"#;
const HELLO_HOST: &str = "hello.localhost";
const OUTER_HOST: &str = "outer.localhost";
const AWAY_HOST: &str = "away.localhost";
const ALONE_HOST: &str = "alone.localhost";
const HIDDEN_HOST: &str = "hidden.localhost";
/// An address at which nobody answers: a node that says it is there is reached through the coordinator alone.
const NOWHERE: &str = "240.0.0.1:7400";
/// What the agents are given: more than there is, so that no rate holds anything back.
const CAPACITY: [&str; 4] = ["--memory", "64GiB", "--fuel-rate", "1000G/s"];
/// How many connections ask at the same time.
const CONNECTIONS: usize = 32;
/// How many clients are idle.
const IDLE: usize = 5000;
/// How many rounds of processor time there are, and how long each takes.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
/// How long after the last request memory is read.
const SETTLE: Duration = Duration::from_secs(3);

/// The least of a request's rate that is left where another node answers it,
const PEER_RATE: f64 = 0.5;
/// and where that node is reached through the coordinator,
const RELAYED_RATE: f64 = 0.3;
/// and the most that it may take longer.
const PEER_TIME: f64 = 0.3;
/// The most processor time of a request that calls a service, as part of one that does not.
const CALL_COST: f64 = 2.2;
/// The most memory of an idle client, in KiB.
const IDLE_MEMORY: f64 = 20.0;

/// Measures all of it.
pub(crate) async fn run() -> anyhow::Result<Report> {
    let mut report = Report::begin("network")?;
    report.note("load generator, agents and workers share the cores; the generator takes one thread");
    let mut fleet = Fleet::start(0).await?;
    let nowhere = ["--advertise", NOWHERE];
    for (of, more) in [("of=first", &[][..]), ("of=second", &[]), ("of=hidden", &nowhere)] {
        let config = fleet.folder().join("node.toml");
        std::fs::write(&config, "[ingress]\nmax_connections = 16384\n")?;
        let config = config.display().to_string();
        fleet.add_agent(&[&CAPACITY[..], &["--label", of, "--config", &config], more].concat()).await?;
    }
    fleet.deploy(&App::new(MANIFEST, &[("hello.wasm", HELLO), ("ask.wasm", ASK_HTTP)])).await?;
    for host in [HELLO_HOST, OUTER_HOST, AWAY_HOST, ALONE_HOST, HIDDEN_HOST] {
        for node in 0..2 {
            first_200(fleet.ingress(node), host).await?;
        }
    }
    warn("measuring requests that another node answers");
    report.add(peers(&fleet).await?);
    warn("measuring calls of services");
    report.add(calls(&mut fleet).await?);
    warn("measuring idle clients");
    report.add(idle(&mut fleet).await?);
    report.end()
}

/// A request that enters at one node and is answered on another, against one that is answered where it enters.
async fn peers(fleet: &Fleet) -> anyhow::Result<Vec<Row>> {
    let subjects = [
        Subject::new("answered on another node", fleet.ingress(1), HELLO_HOST),
        Subject::new("answered where it enters", fleet.ingress(0), HELLO_HOST),
        Subject::new("answered through the coordinator", fleet.ingress(0), HIDDEN_HOST),
    ];
    let seen = rounds(&subjects, CONNECTIONS).await?;
    let rates: Vec<Series> = seen.iter().map(|seen| seen.iter().map(|seen| seen.rate).collect()).collect();
    let one = rounds(&subjects, 1).await?;
    let half = |seen: &Seen| percentile(&seen.latencies, 500) / 1000.0;
    let halves: Vec<Series> = one.iter().map(|seen| seen.iter().map(half).collect()).collect();
    let added = one[0].iter().zip(&one[1]).map(|(there, here)| half(there) - half(here)).collect();
    Ok(vec![
        Row::new("answered on another node, 32 connections: requests per second", "1/s", &rates[0])
            .against("answered where it enters", &rates[1])
            .ratio_at_least(PEER_RATE),
        Row::new("answered through the coordinator, 32 connections: requests per second", "1/s", &rates[2])
            .against("answered where it enters", &rates[1])
            .ratio_at_least(RELAYED_RATE),
        Row::new("answered on another node, 1 connection: half answered within", "ms", &halves[0])
            .against("answered where it enters", &halves[1]),
        Row::new("answered on another node, 1 connection: half take longer by", "ms", &added)
            .at_most(PEER_TIME),
        Row::new("answered through the coordinator, 1 connection: half answered within", "ms", &halves[2])
            .against("answered where it enters", &halves[1]),
    ])
}

/// What a request costs whose guest calls a service on the same node, and on another one.
async fn calls(fleet: &mut Fleet) -> anyhow::Result<Vec<Row>> {
    let processes = all_processes(fleet)?;
    let subjects = [
        Subject::new("calls a service in its process", fleet.ingress(0), OUTER_HOST),
        Subject::new("calls a service on another node", fleet.ingress(1), AWAY_HOST),
        Subject::new("calls nobody", fleet.ingress(0), HELLO_HOST),
        Subject::new("may not call", fleet.ingress(0), ALONE_HOST),
    ];
    let costs = in_turns(ROUNDS, &subjects, async |subject: &Subject| {
        let before = processor_time(&processes)?;
        let seen = subject.load(CONNECTIONS, ROUND).await?;
        let requests = u32::try_from(seen.latencies.len())?;
        ensure!(requests > 0, "{} was not asked", subject.name);
        Ok((processor_time(&processes)? - before) * 1e6 / f64::from(requests))
    })
    .await?;
    let costs: Vec<Series> = costs.into_iter().map(|costs| costs.into_iter().collect()).collect();
    Ok(vec![
        Row::new("processor time of a request that calls a service in its process", "us", &costs[0])
            .against("one that calls nobody", &costs[2])
            .ratio_at_most(CALL_COST),
        Row::new("processor time of a request that calls a service in its process", "us", &costs[0])
            .against("the same guest, which may not call", &costs[3]),
        Row::new("processor time of a request that calls a service on another node", "us", &costs[1])
            .against("one that calls nobody", &costs[2]),
    ])
}

/// What clients take that have asked once and keep their connections.
async fn idle(fleet: &mut Fleet) -> anyhow::Result<Vec<Row>> {
    let processes = all_processes(fleet)?;
    let before = memory(&processes)?;
    let mut clients = Vec::with_capacity(IDLE);
    let ask = Ask::get(HELLO_HOST);
    for _ in 0..IDLE {
        let mut client = Connection::open(fleet.ingress(0), &ask).await?;
        client.ask().await?;
        clients.push(client);
    }
    tokio::time::sleep(SETTLE).await;
    let held = (memory(&processes)? - before) * 1024.0 / f64::from(u32::try_from(IDLE)?);
    drop(clients);
    let case = format!("{IDLE} idle clients: memory of agent and worker for each");
    Ok(vec![Row::new(case, "KiB", &[held].into_iter().collect()).at_most(IDLE_MEMORY)])
}

/// Returns all agents and workers.
fn all_processes(fleet: &mut Fleet) -> anyhow::Result<Vec<u32>> {
    let mut all = Vec::new();
    for node in 0..2 {
        let agent = fleet.agent(node).id().context("an agent does not run any more")?;
        all.push(agent);
        all.extend(children(agent)?);
    }
    Ok(all)
}

fn processor_time(processes: &[u32]) -> anyhow::Result<f64> {
    processes.iter().map(|process| cpu(Some(*process))).sum()
}

fn memory(processes: &[u32]) -> anyhow::Result<f64> {
    processes.iter().map(|process| Ok(Memory::of(*process)?.proportional)).sum()
}
