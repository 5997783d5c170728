//! Requests to a service all the time, and which of them failed though they must not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    failed: Arc<AtomicU64>,
    asking: JoinHandle<()>,
    address: SocketAddr,
}

impl Traffic {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let (stop, may_fail) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (answered, failed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (stopping, failing) = (stop.clone(), may_fail.clone());
        let (counting, missing) = (answered.clone(), failed.clone());
        let asking = tokio::spawn(async move {
            while !stopping.load(Ordering::Relaxed) {
                let before = failing.load(Ordering::Relaxed);
                if answers(address).await {
                    counting.fetch_add(1, Ordering::Relaxed);
                } else if !before && !failing.load(Ordering::Relaxed) {
                    missing.fetch_add(1, Ordering::Relaxed);
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
        while !answers(self.address).await {
            ensure!(since.elapsed() < PATIENCE, "the service does not answer for {PATIENCE:?}");
            tokio::time::sleep(PAUSE).await;
        }
        let after = since.elapsed();
        self.may_fail.store(false, Ordering::Relaxed);
        Ok(after)
    }

    /// Stops asking; returns how many requests were answered, and how many failed that must not.
    pub(crate) async fn end(self) -> anyhow::Result<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.asking.await?;
        Ok((self.answered.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed)))
    }
}

async fn answers(address: SocketAddr) -> bool {
    let request = http().get(format!("http://{address}/")).header("host", "localhost").timeout(ANSWER);
    request.send().await.is_ok_and(|answer| answer.status().is_success())
}
