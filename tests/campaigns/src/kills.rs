//! `kill -9` of the coordinator, the agent and a worker at any moment (T4).
//!
//! A ledger writes and a client asks all the time. After each kill the process is started again, as an init system
//! would; what was acknowledged must be there, no request may fail because of the coordinator, and in the end every
//! run has completed with one record for each of its items.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dunlin_api::Client;
use dunlin_guest_artifacts::{EMPTY, HELLO};
use dunlin_harness::{App, Fleet, children, is_running};
use dunlin_model::{AppSpec, Digest, Manifest};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::chance::Chance;
use crate::ledger::Ledger;
use crate::report::Report;
use crate::tails::tails_of;
use crate::traffic::Traffic;

/// A process is killed less than so long after the last one was well again.
const DELAY: Duration = Duration::from_millis(250);
/// How long it may take until a write is acknowledged again.
const PATIENCE: Duration = Duration::from_secs(60);
/// So many workers are killed at most until the agent is: what dies again and again is started after longer and longer
/// waits (G20), which a new agent does not know of.
const WORKERS: u32 = 4;

/// Kills so many processes.
pub async fn kills(rounds: u64, seed: u64) -> anyhow::Result<Report> {
    let mut fleet = Fleet::start(1).await?;
    let done = run(&mut fleet, rounds, seed).await;
    done.with_context(|| format!("seed {seed}; the logs end so:\n{}", tails_of(&fleet)))
}

async fn run(fleet: &mut Fleet, rounds: u64, seed: u64) -> anyhow::Result<Report> {
    let mut chance = Chance::new(seed);
    let mut report = Report::default();
    fleet.deploy(&app()).await?;
    fleet.until_running("default/campaign").await;
    let spec = job(fleet.client()).await?;
    let traffic = Traffic::start(fleet.ingress(0));
    traffic.until_answered(Instant::now()).await?;
    let ledger = Ledger::start(fleet.client(), spec);
    let mut workers = 0;
    for _ in 0..rounds {
        tokio::time::sleep(chance.shorter_than(DELAY)).await;
        match chance.below(10) {
            0..=4 => kill_coordinator(fleet, &ledger, &mut report).await?,
            8.. if workers < WORKERS => {
                kill_worker(fleet, &traffic, &mut report).await?;
                workers += 1;
            }
            _ => {
                kill_agent(fleet, &traffic, &mut report).await?;
                workers = 0;
            }
        }
        traffic.check()?;
    }
    report.found = ledger.end(fleet.client()).await?;
    report.answered = traffic.end().await?;
    Ok(report)
}

async fn kill_coordinator(fleet: &mut Fleet, ledger: &Ledger, report: &mut Report) -> anyhow::Result<()> {
    let killed = Instant::now();
    fleet.coordinator().kill().await?;
    // Compared before anybody writes again: what is lost is of the last moment.
    ledger.hold();
    fleet.coordinator().start(&[]).await?;
    ledger.check(fleet.client()).await?;
    ledger.go_on();
    report.fault("kills of the coordinator");
    while ledger.last().is_none_or(|last| last < killed) {
        ensure!(killed.elapsed() < PATIENCE, "no write was acknowledged for {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    report.recovered("coordinator killed, until a write is acknowledged", killed.elapsed());
    Ok(())
}

async fn kill_agent(fleet: &mut Fleet, traffic: &Traffic, report: &mut Report) -> anyhow::Result<()> {
    traffic.may_fail();
    let killed = Instant::now();
    fleet.agent(0).kill().await?;
    fleet.agent(0).start(&[]).await?;
    report.fault("kills of the agent");
    report.recovered("agent killed, until a request is answered", traffic.until_answered(killed).await?);
    Ok(())
}

async fn kill_worker(fleet: &mut Fleet, traffic: &Traffic, report: &mut Report) -> anyhow::Result<()> {
    let agent = fleet.agent(0).id().context("the agent runs")?;
    // There may be none for a moment, if the last one was killed too.
    let Some(worker) = children(agent).into_iter().next() else { return Ok(()) };
    traffic.may_fail();
    let killed = Instant::now();
    kill(Pid::from_raw(worker), Signal::SIGKILL)?;
    // It may answer until it is gone.
    while is_running(worker) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    report.fault("kills of a worker");
    report.recovered("worker killed, until a request is answered", traffic.until_answered(killed).await?);
    Ok(())
}

pub(crate) fn app() -> App {
    let manifest = r#"
        [app]
        name = "campaign"

        [service.hello]
        component = "hello.wasm"
        allocations = 1
        routes = [{ path = "/" }]
        limits = { memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }
    "#;
    App::new(manifest, &[("hello.wasm", HELLO)])
}

/// Uploads a job of which runs can be started, and returns what it is as the API takes it.
pub(crate) async fn job(client: &Client) -> anyhow::Result<AppSpec> {
    let manifest = r#"
        [app]
        name = "ledger"

        [job.empty]
        component = "empty.wasm"
        items = 3
        attempts = 100
        parallelism = 3
        limits = { memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }
    "#;
    let digest = Digest::of(EMPTY);
    client.upload_component(&digest, EMPTY.into(), |_| {}).await?;
    let manifest = Manifest::parse(manifest).context("the campaign's own manifest is wrong")?;
    let workloads = manifest.workloads.iter().map(|(name, section)| (name.clone(), section.spec(digest)));
    let spec = AppSpec { name: manifest.app_name(), workloads: workloads.collect() };
    client.deploy(&spec).await?;
    Ok(spec)
}
