//! The fuel rate of an allocation: what it has burned too fast it waits for, and nobody waits on a thread.
//!
//! A [`Bucket`] fills at the rate and holds the burst at most. What was burned is taken out, also more than there is;
//! whoever finds the bucket in deficit sleeps until the deficit is earned. Where the processors cannot give all guests
//! their rates, [`Turns`] shares them out in the ratio of the rates: whoever is ahead lets those pass who are behind.
//!
//! Time is passed in, so that both are tested without any; [`Meter`] is the shell around them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dunlin_model::{Fuel, FuelRate};
use tokio::runtime::Handle;

use crate::turns::Turns;

const NANOS: u64 = 1_000_000_000;
/// A wait shorter than this is not waited for: timers are no finer.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// The longest sleep at once: after it, it is looked again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// After how long who is ahead looks whether it is still.
const AHEAD_WAIT: Duration = Duration::from_millis(3);

/// A token bucket: fills at a rate, holds a burst at most, and may be in deficit.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: u64,
    burst: u64,
    /// In billionths, so that no moment is too short to earn something.
    level: i128,
    at: Duration,
}

impl Bucket {
    /// Returns a full bucket.
    pub(crate) fn new(rate: u64, burst: u64, now: Duration) -> Self {
        let (rate, burst) = (rate.max(1), burst.max(1));
        Self { rate, burst, level: i128::from(burst) * i128::from(NANOS), at: now }
    }

    /// Takes out `amount`, also more than there is.
    pub(crate) fn debit(&mut self, now: Duration, amount: u64) {
        self.fill(now);
        self.level -= i128::from(amount) * i128::from(NANOS);
    }

    /// Returns how long it takes until there is no deficit any more; nothing if there is none.
    pub(crate) fn wait(&mut self, now: Duration) -> Option<Duration> {
        self.fill(now);
        let deficit = u128::try_from(-self.level).ok().filter(|deficit| *deficit > 0)?;
        let nanos = deficit.div_ceil(u128::from(self.rate));
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Tells whether more was taken out than there was, when it was last looked.
    fn is_in_deficit(&self) -> bool {
        self.level < 0
    }

    fn fill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.at).as_nanos();
        let earned = i128::try_from(elapsed).unwrap_or(i128::MAX).saturating_mul(i128::from(self.rate));
        let most = i128::from(self.burst) * i128::from(NANOS);
        self.level = self.level.saturating_add(earned).min(most);
        self.at = self.at.max(now);
    }
}

/// The processors are those of the process, so all its guests have their turns in one place.
static TURNS: Mutex<Turns> = Mutex::new(Turns::new());
/// Since when time is counted there.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn turns() -> MutexGuard<'static, Turns> {
    TURNS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns what tells an instance from all others of this process.
pub(crate) fn next_instance() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The meter of one allocation.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Tells it from others of the process.
    id: u64,
    began: Instant,
    rate: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bucket: Bucket,
    /// What it has had of its share.
    had: u64,
}

impl Meter {
    /// Returns the meter of the allocation `id`.
    pub(crate) fn new(id: u64, rate: FuelRate, burst: Fuel) -> Self {
        let bucket = Bucket::new(rate.0, burst.0, Duration::ZERO);
        let state = Mutex::new(State { bucket, had: 0 });
        Self { id, began: Instant::now(), rate: rate.0.max(1), state }
    }

    /// Takes note of fuel that was burned until `now`.
    pub(crate) fn debit(&self, burned: Fuel, now: Instant) {
        if burned.0 == 0 {
            return;
        }
        let now = now.saturating_duration_since(self.began);
        let share = u128::from(burned.0) * u128::from(NANOS) / u128::from(self.rate);
        let mut state = self.state();
        state.bucket.debit(now, burned.0);
        state.had = state.had.saturating_add(u64::try_from(share).unwrap_or(u64::MAX));
    }

    /// Returns how long an instance must wait for what was burned too fast; nothing if nothing was.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let mut state = self.state();
        // Time only adds, so without a deficit nobody need look at a clock.
        if !state.bucket.is_in_deficit() {
            return None;
        }
        state.bucket.wait(self.began.elapsed()).filter(|wait| *wait >= SHORTEST_WAIT)
    }

    /// Returns when what was burned too fast is earned.
    pub(crate) async fn earned(&self) {
        while let Some(wait) = self.wait() {
            tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
        }
    }

    /// Lets others run, and returns when it is the turn of `instance`, which computes.
    pub(crate) async fn turn(&self, instance: u64, held_up: Option<Duration>) {
        if let Some(held_up) = held_up {
            tokio::time::sleep(held_up.min(LONGEST_WAIT)).await;
        }
        self.earned().await;
        let processors = Handle::current().metrics().num_workers();
        while self.is_ahead(instance, processors) {
            tokio::time::sleep(AHEAD_WAIT).await;
        }
        // tokio's own way to yield goes to the back of the queue and lets it look for I/O and timers first.
        tokio::task::yield_now().await;
    }

    fn is_ahead(&self, instance: u64, processors: usize) -> bool {
        let mut state = self.state();
        let mut turns = turns();
        state.had = turns.note(BEGAN.elapsed(), self.id, instance, state.had);
        turns.is_ahead(self.id, state.had, processors)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_busy_guest_gets_its_burst_and_then_its_rate() {
        // It would burn ten times its rate, looks every 10 ms, and waits whenever it must.
        let (rate, burst, speed) = (50_000_000, 12_500_000, 500_000_000);
        let mut bucket = Bucket::new(rate, burst, ms(0));
        let (mut now, mut burned) = (ms(0), 0);
        while now < ms(10_000) {
            now += ms(10);
            burned += speed / 100;
            bucket.debit(now, speed / 100);
            now += bucket.wait(now).unwrap_or_default();
        }
        let expected = rate * 10 + burst;
        assert!(burned.abs_diff(expected) <= speed / 100, "{burned} is not {expected}");
    }

    #[test]
    fn what_is_saved_up_is_a_burst_at_most() {
        let mut bucket = Bucket::new(100, 50, ms(0));
        bucket.debit(ms(3_600_000), 51);
        assert_eq!(bucket.wait(ms(3_600_000)), Some(ms(10)));
        assert_eq!(bucket.wait(ms(3_600_010)), None);
    }

    #[test]
    fn a_deficit_is_earned_to_the_end_however_often_it_is_looked_at() {
        let mut bucket = Bucket::new(3, 1, ms(0));
        bucket.debit(ms(0), 4);
        for look in 0..1000 {
            assert!(bucket.wait(ms(look)).is_some(), "at {look} ms");
        }
        assert_eq!(bucket.wait(ms(1000)), None);
    }

    #[test]
    fn time_that_seems_to_go_back_earns_nothing_twice() {
        let mut bucket = Bucket::new(100, 100, ms(0));
        bucket.debit(ms(1000), 200);
        assert_eq!(bucket.wait(ms(500)), Some(ms(1000)));
        assert_eq!(bucket.wait(ms(1500)), Some(ms(500)));
    }

    #[test]
    fn the_largest_numbers_do_no_harm() {
        let mut bucket = Bucket::new(u64::MAX, u64::MAX, Duration::ZERO);
        bucket.debit(Duration::MAX, u64::MAX);
        bucket.debit(Duration::MAX, u64::MAX);
        assert!(bucket.wait(Duration::MAX).is_some());
        assert_eq!(Bucket::new(0, 0, Duration::ZERO).wait(ms(1)), None);
    }
}
