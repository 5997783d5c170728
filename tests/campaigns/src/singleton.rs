//! A client that asks a singleton at every node all the time, and finds out whether two of it ran at a time.
//!
//! Each has a fencing number, which is greater than that of every one before it. Who has begun to ask after a newer one
//! had answered must not be answered by an older one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dunlin_harness::http;
use tokio::task::JoinHandle;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How long from one question to the next.
const PAUSE: Duration = Duration::from_millis(5);

/// What was answered so far.
#[derive(Debug, Default)]
struct Seen {
    newest: u64,
    answers: u64,
    /// When it last answered at each place.
    last: Vec<Option<Instant>>,
    /// Why it did not, the last time it did not.
    failed: Vec<String>,
    wrong: Option<String>,
}

/// The client.
pub(crate) struct Singleton {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    asking: Vec<JoinHandle<()>>,
}

impl Singleton {
    /// Begins to ask at these ingresses.
    pub(crate) fn watch(ingresses: Vec<SocketAddr>) -> Self {
        let (last, failed) = (vec![None; ingresses.len()], vec![String::new(); ingresses.len()]);
        let seen = Arc::new(Mutex::new(Seen { last, failed, ..Seen::default() }));
        let stop = Arc::<AtomicBool>::default();
        let asking = ingresses.into_iter().enumerate().map(|(place, ingress)| {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let newest = lock(&seen).newest;
                    let answer = ask(ingress).await;
                    note(&mut lock(&seen), place, newest, answer);
                    tokio::time::sleep(PAUSE).await;
                }
            })
        });
        Self { asking: asking.collect(), seen, stop }
    }

    /// Fails if two ran at a time.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let seen = lock(&self.seen);
        ensure!(seen.wrong.is_none(), "two of a singleton ran at a time: {seen:?}");
        Ok(())
    }

    /// Whether it has answered at each ingress since then.
    pub(crate) fn answered_everywhere(&self, since: Instant) -> bool {
        lock(&self.seen).last.iter().all(|last| last.is_some_and(|last| last > since))
    }

    /// What was seen, for a message.
    pub(crate) fn seen(&self) -> String {
        format!("{:?}", lock(&self.seen))
    }

    /// Stops asking; returns how many answers there were.
    pub(crate) async fn end(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.check()?;
        for asking in self.asking {
            asking.await?;
        }
        Ok(lock(&self.seen).answers)
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes an answer to a question that was asked when `before` was the newest that had answered.
fn note(seen: &mut Seen, place: usize, before: u64, answer: anyhow::Result<u64>) {
    match answer {
        Ok(number) => {
            if number < before {
                seen.wrong = Some(format!("number {number} has answered after {before} had"));
            }
            seen.newest = seen.newest.max(number);
            seen.answers += 1;
            seen.last[place] = Some(Instant::now());
        }
        Err(error) => seen.failed[place] = format!("{error:?}"),
    }
}

/// Returns the fencing number of the one that answers.
async fn ask(ingress: SocketAddr) -> anyhow::Result<u64> {
    let request = http().get(format!("http://{ingress}/environment")).header("host", "one.localhost");
    let answer = request.timeout(ANSWER).send().await?;
    let (status, body) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{status}: {body}");
    let number = body.lines().find_map(|line| line.strip_prefix("DUNLIN_FENCE="));
    Ok(number.context("a singleton without a fencing number")?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_one_that_answers_after_a_newer_one_is_found() {
        let mut seen = Seen { last: vec![None], failed: vec![String::new()], ..Seen::default() };
        note(&mut seen, 0, 0, Ok(4));
        // It was asked before the newer one had answered.
        note(&mut seen, 0, 0, Ok(3));
        assert!(seen.wrong.is_none() && seen.newest == 4);
        note(&mut seen, 0, 4, Ok(3));
        assert!(seen.wrong.is_some());
    }
}
