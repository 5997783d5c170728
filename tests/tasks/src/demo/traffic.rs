//! Requests that go on in the background while things are broken: every one that fails is counted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::demo::http;

/// Requests that go on until it is ended.
pub(crate) struct Traffic {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
    slowest_ms: AtomicU64,
    entries: Mutex<Vec<SocketAddr>>,
    first_failure: Mutex<Option<String>>,
}

/// What became of the requests so far.
pub(crate) struct Count {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) slowest: Duration,
    pub(crate) first_failure: Option<String>,
}

impl Traffic {
    /// Begins to ask for `/` at these ingresses in turn, about a hundred times per second.
    pub(crate) fn begin(entries: Vec<SocketAddr>) -> Self {
        let shared = Arc::new(Shared { entries: Mutex::new(entries), ..Shared::default() });
        let its = Arc::clone(&shared);
        let thread = std::thread::spawn(move || its.run());
        Self { shared, thread: Some(thread) }
    }

    /// Asks only at these ingresses from now on.
    pub(crate) fn enter_at(&self, entries: Vec<SocketAddr>) {
        *self.shared.entries.lock().unwrap_or_else(PoisonError::into_inner) = entries;
    }

    /// Returns what became of the requests so far.
    pub(crate) fn count(&self) -> Count {
        let failure = self.shared.first_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Count {
            answered: self.shared.answered.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
            slowest: Duration::from_millis(self.shared.slowest_ms.load(Ordering::Relaxed)),
            first_failure: failure,
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        for turn in 0_usize.. {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            let entry = {
                let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
                entries.get(turn % entries.len().max(1)).copied()
            };
            if let Some(entry) = entry {
                self.ask(entry);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn ask(&self, entry: SocketAddr) {
        let started = Instant::now();
        let failure = match http::request(entry, "GET", "/", b"") {
            Ok(answer) if answer.status == 200 => None,
            Ok(answer) => Some(format!("{entry} answered {}: {}", answer.status, answer.body)),
            Err(error) => Some(format!("{entry}: {error:#}")),
        };
        let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.slowest_ms.fetch_max(took, Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
        if let Some(failure) = failure {
            self.failed.fetch_add(1, Ordering::Relaxed);
            self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        }
    }
}
