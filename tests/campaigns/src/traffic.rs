//! Requests to a service all the time, and which of them failed though they must not.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use dunlin_harness::http;
use tokio::task::JoinHandle;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long after a fault a service may be away.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long from one request to the next.
const PAUSE: Duration = Duration::from_millis(2);

/// One who asks all the time.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    /// Whether a request may fail now.
    may_fail: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    /// Why requests failed that must not.
    failed: Arc<Mutex<Vec<String>>>,
    asking: JoinHandle<()>,
    address: SocketAddr,
}

impl Traffic {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let (stop, may_fail) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (answered, failed) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (stopping, failing) = (stop.clone(), may_fail.clone());
        let (counting, missing) = (answered.clone(), failed.clone());
        let asking = tokio::spawn(async move {
            while !stopping.load(Ordering::Relaxed) {
                let before = failing.load(Ordering::Relaxed);
                let asked = Instant::now();
                match ask(address).await {
                    Ok(()) => drop(counting.fetch_add(1, Ordering::Relaxed)),
                    Err(error) if !before && !failing.load(Ordering::Relaxed) => {
                        let error = format!("after {:?}: {error}", asked.elapsed());
                        missing.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { stop, may_fail, answered, failed, asking, address }
    }

    /// From now on requests may fail.
    pub(crate) fn may_fail(&self) {
        self.may_fail.store(true, Ordering::Relaxed);
    }

    /// Waits until the service answers again; from then on no request may fail. Returns how long after `since` that was.
    pub(crate) async fn until_answered(&self, since: Instant) -> anyhow::Result<Duration> {
        let after = until_answered(self.address, since).await?;
        self.may_fail.store(false, Ordering::Relaxed);
        Ok(after)
    }

    /// Fails if a request failed that must not.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(failed.is_empty(), "requests failed that must not: {failed:?}");
        Ok(())
    }

    /// Stops asking; returns how many requests were answered. Fails if one failed that must not.
    pub(crate) async fn end(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.check()?;
        self.asking.await?;
        Ok(self.answered.load(Ordering::Relaxed))
    }
}

/// Waits until a service answers, and returns how long after `since` that was.
pub(crate) async fn until_answered(address: SocketAddr, since: Instant) -> anyhow::Result<Duration> {
    loop {
        match ask(address).await {
            Ok(()) => return Ok(since.elapsed()),
            Err(seen) => ensure!(since.elapsed() < PATIENCE, "no answer for {PATIENCE:?}; last: {seen}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(address: SocketAddr) -> Result<(), String> {
    let request = http().get(format!("http://{address}/")).header("host", "localhost").timeout(ANSWER);
    let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    Err(format!("{status}: {}", answer.text().await.unwrap_or_default()))
}
