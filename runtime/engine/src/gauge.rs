//! How much an instance has computed: its fuel, or the time that a processor worked for it.
//!
//! Fuel is counted by the guest's own code, in steps, and is the same on every run. Time is what the thread's clock
//! says around each poll of the guest, so that other tasks on the same thread do not count; it is turned into fuel by
//! what a processor of this node burns in a second. All that asks how much was burned asks here, and only here the two
//! differ.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use dunlin_host::Guest;
use dunlin_model::{Fuel, FuelRate};
use rustix::time::{ClockId, clock_gettime};
use wasmtime::{AsContext, Trap};

const NANOS: u64 = 1_000_000_000;

/// What tells how much one instance has burned. Cheap to clone; all clones tell the same.
#[derive(Clone)]
pub(crate) enum Gauge {
    /// By fuel, which the store counts.
    Fuel,
    /// By time.
    Time(Arc<Stopwatch>),
}

impl Gauge {
    /// Returns a gauge by time, on a node of which one processor burns so much.
    pub(crate) fn by_time(rate: FuelRate) -> Self {
        Self::Time(Arc::new(Stopwatch {
            rate: rate.0.max(1),
            nanos: AtomicU64::new(0),
            began: AtomicU64::new(STOPPED),
        }))
    }

    /// Returns what was burned of `given` so far.
    pub(crate) fn burned(&self, store: impl AsContext<Data = Guest>, given: Fuel) -> Fuel {
        match self {
            Self::Fuel => given.minus(Fuel(store.as_context().get_fuel().unwrap_or(0))),
            Self::Time(stopwatch) => stopwatch.burned(),
        }
    }

    /// Ends an instance that has burned more than it was given. Where fuel is counted, the guest's own code sees to it.
    pub(crate) fn check(&self, burned: Fuel, given: Fuel) -> wasmtime::Result<()> {
        match self {
            Self::Time(_) if burned > given => Err(Trap::OutOfFuel.into()),
            Self::Time(_) | Self::Fuel => Ok(()),
        }
    }

    /// Begins anew for the next request of a reused instance.
    pub(crate) fn reset(&self) {
        if let Self::Time(stopwatch) = self {
            stopwatch.nanos.store(0, Ordering::Relaxed);
        }
    }

    /// Runs `call`, all of which counts as the instance's.
    pub(crate) async fn measure<T>(&self, call: impl Future<Output = T>) -> T {
        let Self::Time(stopwatch) = self else { return call.await };
        let mut call = pin!(call);
        std::future::poll_fn(|context| {
            let _lap = Lap::begin(stopwatch);
            let polled: Poll<T> = call.as_mut().poll(context);
            polled
        })
        .await
    }
}

/// What `began` of a stopwatch is between two polls. No thread has worked for so long.
const STOPPED: u64 = u64::MAX;

/// Counts the time that threads have worked for one instance.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    /// What a processor burns in a second.
    rate: u64,
    /// In all polls that have ended.
    nanos: AtomicU64,
    /// What the thread's clock said when the poll began that is under way. It is read by the same thread alone.
    began: AtomicU64,
}

impl Stopwatch {
    fn burned(&self) -> Fuel {
        let lap = match self.began.load(Ordering::Relaxed) {
            STOPPED => 0,
            began => thread_time().saturating_sub(began),
        };
        let nanos = self.nanos.load(Ordering::Relaxed).saturating_add(lap);
        let fuel = u128::from(nanos) * u128::from(self.rate) / u128::from(NANOS);
        Fuel(u64::try_from(fuel).unwrap_or(u64::MAX))
    }
}

/// One poll. It ends also if the host's own code panics in it.
struct Lap<'a>(&'a Stopwatch);

impl<'a> Lap<'a> {
    fn begin(stopwatch: &'a Stopwatch) -> Self {
        stopwatch.began.store(thread_time(), Ordering::Relaxed);
        Self(stopwatch)
    }
}

impl Drop for Lap<'_> {
    fn drop(&mut self) {
        let began = self.0.began.swap(STOPPED, Ordering::Relaxed);
        self.0.nanos.fetch_add(thread_time().saturating_sub(began), Ordering::Relaxed);
    }
}

/// Returns for how long a processor has worked for this thread, in nanoseconds.
fn thread_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(NANOS).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn stopwatch(gauge: &Gauge) -> &Stopwatch {
        match gauge {
            Gauge::Time(stopwatch) => stopwatch,
            Gauge::Fuel => panic!("it counts time"),
        }
    }

    fn work(until: u64) {
        let began = thread_time();
        while thread_time() - began < until {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn only_what_is_done_in_the_call_counts() {
        let gauge = Gauge::by_time(FuelRate(1_000_000));
        let millisecond = NANOS / 1000;
        work(20 * millisecond);
        gauge
            .measure(async {
                work(10 * millisecond);
                assert!(stopwatch(&gauge).burned() >= Fuel(10_000), "it is told while it goes on");
                // Another task works meanwhile, and later nobody does.
                tokio::spawn(async move { work(50 * millisecond) });
                tokio::time::sleep(Duration::from_millis(100)).await;
                work(10 * millisecond);
            })
            .await;
        let burned = stopwatch(&gauge).burned();
        assert!((20_000..45_000).contains(&burned.0), "{burned}");
        work(50 * millisecond);
        assert_eq!(stopwatch(&gauge).burned(), burned);
        gauge.reset();
        assert_eq!(stopwatch(&gauge).burned(), Fuel(0));
    }

    #[test]
    fn the_clock_goes_on() {
        let (before, began) = (thread_time(), Instant::now());
        work(1_000_000);
        assert!(thread_time() > before && began.elapsed() >= Duration::from_millis(1));
    }
}
