//! A site that loses power again and again while its coordinator is out of reach (T7).
//!
//! The node must serve again within 10 seconds each time (P2). When the coordinator is back it hears of every item that
//! was finished meanwhile, once, and nothing that it had acknowledged is lost.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dunlin_api::{Client, ItemsQuery, RunState, StartRun};
use dunlin_harness::Fleet;
use dunlin_model::{AppSpec, RunId};

use crate::chance::Chance;
use crate::kills::{app, job};
use crate::report::Report;
use crate::tails::tails_of;
use crate::traffic::Traffic;

/// How many reboots there are until the coordinator is back for a while.
const ALONE: u64 = 10;
/// Power is cut less than so long after the node served again.
const DELAY: Duration = Duration::from_millis(400);
/// How soon a node must serve again (P2).
const PROMISED: Duration = Duration::from_secs(10);
/// How many items a run has that goes on meanwhile: more than are finished in a moment.
const ITEMS: u32 = 400;
/// How long a run may take when the coordinator is back.
const PATIENCE: Duration = Duration::from_secs(120);

/// Cuts the power so often.
pub async fn reboots(rounds: u64, seed: u64) -> anyhow::Result<Report> {
    let mut fleet = Fleet::start(1).await?;
    let done = run(&mut fleet, rounds, seed).await;
    done.with_context(|| format!("seed {seed}; the logs end so:\n{}", tails_of(&fleet)))
}

async fn run(fleet: &mut Fleet, rounds: u64, seed: u64) -> anyhow::Result<Report> {
    let mut chance = Chance::new(seed);
    let mut report = Report::default();
    fleet.deploy(&app()).await?;
    let spec = job(fleet.client()).await?;
    let traffic = Traffic::start(fleet.ingress(0));
    traffic.may_fail();
    traffic.until_answered(Instant::now()).await?;
    let mut items = 0;
    for round in 0..rounds {
        if round.is_multiple_of(ALONE) {
            let run = start_run(fleet.client(), &spec).await?;
            tokio::time::sleep(chance.shorter_than(DELAY)).await;
            alone(fleet, &traffic, &mut chance, &mut report, ALONE.min(rounds - round)).await?;
            items += until_completed(fleet.client(), run).await?;
        }
    }
    report.found.insert("items that were finished, each recorded once,".to_owned(), items);
    report.answered = traffic.end().await?;
    Ok(report)
}

/// Takes the coordinator away, cuts the power so often, and brings it back.
async fn alone(
    fleet: &mut Fleet,
    traffic: &Traffic,
    chance: &mut Chance,
    report: &mut Report,
    reboots: u64,
) -> anyhow::Result<()> {
    fleet.coordinator().kill().await?;
    for _ in 0..reboots {
        tokio::time::sleep(chance.shorter_than(DELAY)).await;
        traffic.check()?;
        traffic.may_fail();
        fleet.agent(0).kill().await?;
        let booted = Instant::now();
        fleet.agent(0).start(&[]).await?;
        let after = traffic.until_answered(booted).await?;
        ensure!(after < PROMISED, "after a reboot the node served after {after:?}");
        report.fault("reboots without a coordinator");
        report.recovered("power is back, until a request is answered", after);
    }
    fleet.coordinator().start(&[]).await
}

async fn start_run(client: &Client, spec: &AppSpec) -> anyhow::Result<RunId> {
    let job = spec.workloads.keys().next().context("the app has a job")?;
    let wish = StartRun { items: Some(ITEMS), ..StartRun::default() };
    Ok(client.start_run(&spec.name, job, &wish).await?.run)
}

/// Waits for the end of a run, and looks at the record of each of its items; returns how many there are.
async fn until_completed(client: &Client, run: RunId) -> anyhow::Result<u64> {
    let since = Instant::now();
    loop {
        let status = client.run(run).await?;
        if status.state == RunState::Completed {
            break;
        }
        ensure!(status.ended.is_none(), "{run} ended otherwise than it should: {status:?}");
        ensure!(since.elapsed() < PATIENCE, "{run} does not end within {PATIENCE:?}: {status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut recorded = Vec::new();
    let mut query = ItemsQuery::default();
    loop {
        let page = client.run_items(run, &query).await?;
        recorded.extend(page.items.iter().map(|item| item.item));
        let Some(next) = page.next else { break };
        query.after = Some(next);
    }
    ensure!(recorded == (0..ITEMS).collect::<Vec<_>>(), "{run} has completed, with records of {recorded:?}");
    Ok(ITEMS.into())
}
