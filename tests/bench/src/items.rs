//! The bench `items`: job items that do nothing, so that what is measured is all that happens around them.
//!
//! One coordinator and one agent with its worker, each a process of its own, share the cores of this machine. A run is
//! timed from its submission until the coordinator says that it has ended, which it says only of durable records;
//! afterwards every record is read back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dunlin_api::{ItemsQuery, MAX_ITEM_PAGE, RunState, StartRun};
use dunlin_guest_artifacts::{EMPTY, EMPTY_STD};
use dunlin_harness::{App, Fleet};
use dunlin_model::{AppName, Name, RunId};

use crate::memory::children;
use crate::processor::cpu;
use crate::report::{Report, Row, Series};
use crate::warn;

/// How many items each run has.
const ITEMS: u32 = 100_000;
/// How many runs each figure has, after one that does not count.
const ROUNDS: usize = 3;
/// How often the run is asked whether it has ended.
const POLL: Duration = Duration::from_millis(20);
/// The longest that one run may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// What was promised, in items per second.
const MUST: f64 = 20_000.0;
/// How many characters of each log are told when the bench fails.
const SHOWN_LOG: usize = 3000;

/// One allocation with enough instances for both cores, and nearly all of the agent's fuel rate.
const MANIFEST: &str = r#"
[app]
name = "bench"

[job.wat]
component = "empty.wasm"
limits = { memory = "64MiB", fuel = "100M", fuel_rate = "900M/s", deadline = "30s", concurrency = 8 }

[job.std]
component = "empty-std.wasm"
limits = { memory = "64MiB", fuel = "100M", fuel_rate = "900M/s", deadline = "30s", concurrency = 8 }
"#;

/// The jobs and what they are called in the table.
const JOBS: [(&str, &str); 2] =
    [("wat", "empty component"), ("std", "Rust std command with an empty `main`")];

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
    let mut report = Report::begin("items")?;
    report
        .note(format!("each round is one run of {ITEMS} items in one allocation, a fresh instance for each"));
    report.note(
        "coordinator, agent and worker share the cores; time is from submission to the last durable record",
    );
    fleet.deploy(&App::new(MANIFEST, &[("empty.wasm", EMPTY), ("empty-std.wasm", EMPTY_STD)])).await?;
    for (job, what) in JOBS {
        let job: Name = job.parse()?;
        once(fleet, &job).await.context("the run that does not count")?;
        let mut rounds = Vec::new();
        for round in 1..=ROUNDS {
            warn(&format!("measuring {what}, run {round} of {ROUNDS}"));
            rounds.push(once(fleet, &job).await?);
        }
        let rate: Series = rounds.iter().map(|round| f64::from(ITEMS) / round.seconds).collect();
        let row = Row::new(format!("{what}: items per second"), "1/s", &rate);
        report.add([if job.as_str() == "wat" { row.at_least(MUST) } else { row }]);
        for process in ["coordinator", "agent", "worker"] {
            let spent = rounds.iter().map(|round| round.cpu.get(process).copied().unwrap_or(f64::NAN));
            let each: Series = spent.map(|seconds| seconds * 1e6 / f64::from(ITEMS)).collect();
            report.add([Row::new(
                format!("{what}: processor time of the {process} for an item"),
                "us",
                &each,
            )]);
        }
        let bytes: Series = rounds.iter().map(|round| round.stored / f64::from(ITEMS)).collect();
        report.add([Row::new(format!("{what}: growth of the store for an item"), "bytes", &bytes)]);
    }
    report.end()
}

/// What one run took.
struct Round {
    seconds: f64,
    /// Seconds of processor time, by process.
    cpu: BTreeMap<&'static str, f64>,
    /// By how many bytes the store grew.
    stored: f64,
}

async fn once(fleet: &mut Fleet, job: &Name) -> anyhow::Result<Round> {
    let app: AppName = "default/bench".parse()?;
    let stored = store_size(fleet)?;
    let before = [cpu(fleet.coordinator().id())?, cpu(fleet.agent(0).id())?];
    let begun = Instant::now();
    let client = fleet.client().clone();
    let wish = StartRun { items: Some(ITEMS), ..StartRun::default() };
    let run = client.start_run(&app, job, &wish).await?.run;
    // Each job's own worker may end with its last allocation, so its time is read while the run goes on.
    let mut workers = BTreeMap::new();
    let status = loop {
        if let Some(agent) = fleet.agent(0).id() {
            for worker in children(agent)? {
                if let Ok(spent) = cpu(Some(worker)) {
                    let (_, last) = workers.entry(worker).or_insert((spent, spent));
                    *last = spent;
                }
            }
        }
        let status = client.run(run).await?;
        if status.state.is_ended() {
            break status;
        }
        ensure!(begun.elapsed() < PATIENCE, "the run has not ended after {PATIENCE:?}: {status:?}");
        tokio::time::sleep(POLL).await;
    };
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(status.state == RunState::Completed && status.succeeded == ITEMS, "{status:?}");
    let cpu = BTreeMap::from([
        ("coordinator", cpu(fleet.coordinator().id())? - before[0]),
        ("agent", cpu(fleet.agent(0).id())? - before[1]),
        ("worker", workers.values().map(|(first, last)| last - first).sum()),
    ]);
    let stored = store_size(fleet)? - stored;
    check_records(fleet, run).await?;
    Ok(Round { seconds, cpu, stored })
}

/// Reads all records back: each item has one, and it is a good one.
async fn check_records(fleet: &Fleet, run: RunId) -> anyhow::Result<()> {
    let mut query = ItemsQuery { after: None, limit: Some(MAX_ITEM_PAGE) };
    let mut next = 0;
    loop {
        let page = fleet.client().run_items(run, &query).await?;
        for status in &page.items {
            ensure!(status.item == next, "the record of item {next} is missing; found {}", status.item);
            ensure!(status.record.outcome.is_completed(), "{status:?}");
            next += 1;
        }
        let Some(after) = page.next else { break };
        query.after = Some(after);
    }
    ensure!(next == ITEMS, "{next} of {ITEMS} records are there");
    Ok(())
}

/// Returns how many bytes the coordinator's store has.
fn store_size(fleet: &Fleet) -> anyhow::Result<f64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(fleet.state())? {
        let entry = entry?;
        if entry.path().is_dir() || entry.path().extension().is_some_and(|extension| extension == "redb") {
            bytes += size(&entry.path())?;
        }
    }
    Ok(u32::try_from(bytes / 1024).map(f64::from)? * 1024.0)
}

fn size(path: &std::path::Path) -> anyhow::Result<u64> {
    if path.is_dir() {
        let mut bytes = 0;
        for entry in std::fs::read_dir(path)? {
            bytes += size(&entry?.path())?;
        }
        return Ok(bytes);
    }
    Ok(path.metadata()?.len())
}
