//! The bench `store`: a store of ten thousand nodes and a million allocations, in a file and in etcd, and a real
//! coordinator that starts on it.
//!
//! The records are those of the bench `scheduler`, written as a coordinator writes them. The etcd has one member on this
//! machine.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dunlin_coordinator::Filler;
use dunlin_harness::{Etcd as Server, Process};
use dunlin_scheduler::Change;
use dunlin_store::{Changes, Embedded, Etcd, EtcdLocation, Footprint, SnapshotError, Table, Write};

use crate::report::{Report, Row, Series};
use crate::scheduler;
use crate::warn;

/// So many changes are committed together.
const BATCH: usize = 20_000;
/// How often the coordinator is started.
const STARTS: usize = 3;
/// How long a checkpoint may take.
const CHECKPOINT: Duration = Duration::from_secs(120);

/// Measures all of it.
pub(crate) async fn run() -> anyhow::Result<Report> {
    let mut report = Report::begin("store")?;
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("coordinator");
    std::fs::create_dir_all(&state)?;
    warn("filling a store");
    let path = state.join("store");
    let allocations = tokio::task::spawn_blocking(move || fill(&path)).await??;
    report.note(format!("10,000 nodes and {allocations} allocations"));
    let size = std::fs::metadata(state.join("store/store.redb"))?.len();
    report.add([row("the store's file", "MiB", mebibytes(size)).at_most(1024.0)]);

    let mut starts = Series::default();
    for round in 1..=STARTS {
        warn(&format!("starting a coordinator on it, {round} of {STARTS}"));
        starts.push(start(&state).await?.as_secs_f64());
    }
    report.add([Row::new("start of a coordinator until it serves", "s", &starts).at_most(5.0)]);

    let Some(server) = Server::start(1).await? else {
        report.note("there is no etcd on this machine, so nothing was measured there");
        return report.end();
    };
    warn("copying it into etcd");
    let location: EtcdLocation = server.url().parse()?;
    let (copies, path) = (folder.path().to_owned(), state.join("store"));
    report.add(tokio::task::spawn_blocking(move || in_etcd(&location, &path, &copies)).await??);
    report.end()
}

/// Fills a store as a coordinator would; returns how many allocations it holds.
fn fill(path: &Path) -> anyhow::Result<u64> {
    let store = Embedded::open(path)?;
    let waiting: Rc<RefCell<Vec<Change>>> = Rc::default();
    let (store, filler) = (Rc::new(store), Rc::<RefCell<Filler>>::default());
    let (taking, into, filling) = (Rc::clone(&waiting), Rc::clone(&store), Rc::clone(&filler));
    let placed = scheduler::fill_into(Box::new(move |changes| {
        let mut waiting = taking.borrow_mut();
        waiting.extend_from_slice(changes);
        if waiting.len() >= BATCH {
            filling.borrow_mut().commit(&*into, &waiting).expect("the bench's own disk takes it");
            waiting.clear();
        }
    }));
    filler.borrow_mut().commit(&*store, &waiting.borrow())?;
    Ok(placed)
}

/// Starts a coordinator and returns how long it took until it serves.
async fn start(state: &Path) -> anyhow::Result<Duration> {
    let shown = state.display().to_string();
    let arguments = ["coordinator", "--state", &shown, "--fleet", "127.0.0.1:0", "--api", "127.0.0.1:0"];
    let mut coordinator = Process::new(state.to_owned(), arguments.map(str::to_owned).to_vec());
    let started = Instant::now();
    coordinator.start(&[]).await?;
    let took = started.elapsed();
    coordinator.end().await?;
    Ok(took)
}

fn in_etcd(location: &EtcdLocation, store: &Path, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let store = Embedded::open(store)?;
    let etcd = Arc::new(Etcd::open(location.clone(), &folder.join("first"))?);
    let reign = etcd.campaign(b"{}")?.context("nobody else is in charge")?;
    let shared = Arc::clone(&etcd).lead(reign)?;
    let copied = Instant::now();
    store.snapshot(&mut |snapshot| {
        let mut writes = Vec::new();
        for table in Table::ALL {
            snapshot.each(table, &mut |key, value| {
                writes.push(Write { table, key: key.to_vec(), value: Some(value.to_vec()) });
                if writes.len() < BATCH {
                    return Ok(());
                }
                shared.commit(&std::mem::take(&mut writes)).map_err(std::io::Error::other)
            })?;
        }
        shared.commit(&writes).map_err(|error| SnapshotError::Write(std::io::Error::other(error)))
    })?;
    let copied = copied.elapsed();
    warn("waiting for checkpoints");
    let head = etcd.follow()?.head;
    let waited = Instant::now();
    // Two more, so that the log before them has gone.
    let mut writes = 0_u32;
    while etcd.follow()?.checkpoint <= head + 4_096 {
        ensure!(waited.elapsed() < CHECKPOINT, "no checkpoint was written within {CHECKPOINT:?}");
        writes += 1;
        let value = Some(writes.to_be_bytes().to_vec());
        shared.commit(&[Write { table: Table::Meta, key: b"bench".to_vec(), value }])?;
    }
    let Footprint { keys, bytes, largest } = etcd.footprint()?;
    let second = Etcd::open(location.clone(), &folder.join("second"))?;
    let loaded = Instant::now();
    second.follow()?;
    let loaded = loaded.elapsed();
    Ok(vec![
        row("all records into etcd", "s", copied.as_secs_f64()),
        row("keys in etcd", "", keys as f64).at_most(10_000.0),
        row("largest value in etcd", "KiB", largest as f64 / 1024.0).at_most(1024.0),
        row("all values in etcd", "MiB", mebibytes(bytes)).at_most(1024.0),
        row("a new coordinator's copy, from nothing", "s", loaded.as_secs_f64()),
    ])
}

fn row(case: &str, unit: &'static str, value: f64) -> Row {
    Row::new(case, unit, &std::iter::once(value).collect())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
