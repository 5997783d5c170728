//! Who is loaded in a bench, and what the load of all of them in turns gives.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use dunlin_harness::PATIENCE;
use http::StatusCode;

use crate::load::{Ask, Connection, Seen, load};
use crate::report::{Row, Series, in_turns, percentile};

/// How long one round of load takes.
const ROUND: Duration = Duration::from_secs(2);
/// How long each is loaded before its rounds count.
const WARM_UP: Duration = Duration::from_secs(1);
/// How many rounds each figure has.
const ROUNDS: usize = 5;
/// How often a fresh service is asked whether it is there.
const POLL: Duration = Duration::from_millis(2);

/// What a figure is called, its unit, and how it is read off what a round gave.
pub(crate) type Figure<M> = (&'static str, &'static str, fn(&M) -> f64);

/// Who is loaded.
#[derive(Clone)]
pub(crate) struct Subject {
    /// What it is called.
    pub(crate) name: &'static str,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What it is asked.
    pub(crate) ask: Ask,
}

impl Subject {
    /// Returns one that is asked `GET /` for `host`.
    pub(crate) fn new(name: &'static str, address: SocketAddr, host: &str) -> Self {
        Self { name, address, ask: Ask::get(host) }
    }

    /// The same, asked something else.
    pub(crate) fn asked(mut self, ask: Ask) -> Self {
        self.ask = ask;
        self
    }

    /// Loads it; anything but 200 is an error.
    pub(crate) async fn load(&self, connections: usize, duration: Duration) -> anyhow::Result<Seen> {
        let seen = load(self.address, &self.ask, connections, duration).await;
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

/// Loads all subjects in turns over so many connections and returns what each saw in its rounds.
pub(crate) async fn rounds(subjects: &[Subject], connections: usize) -> anyhow::Result<Vec<Vec<Seen>>> {
    for subject in subjects {
        subject.load(connections, WARM_UP).await?;
    }
    in_turns(ROUNDS, subjects, async |subject: &Subject| subject.load(connections, ROUND).await).await
}

/// Measures all subjects over so many connections; the first is Dunlin.
pub(crate) async fn requests(subjects: &[Subject], connections: usize) -> anyhow::Result<Vec<Row>> {
    let seen = rounds(subjects, connections).await?;
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

/// Says how many.
pub(crate) fn counted(connections: usize) -> String {
    if connections == 1 { "1 connection".to_owned() } else { format!("{connections} connections") }
}

/// Asks until the answer is 200.
pub(crate) async fn first_200(address: SocketAddr, host: &str) -> anyhow::Result<http::Response<Bytes>> {
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
/// Asks once.
pub(crate) async fn get(address: SocketAddr, host: &str) -> anyhow::Result<http::Response<Bytes>> {
    let mut connection = Connection::open(address, &Ask::get(host)).await?;
    let answer = connection.ask().await;
    answer.with_context(|| format!("{address} did not answer"))
}
