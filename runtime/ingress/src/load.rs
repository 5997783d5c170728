//! How many requests are under way, and how many may be sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long an allocation that had too much to do counts as one that has.
const BUSY_FOR: Duration = Duration::from_millis(500);
/// So much it counts for, which is more than anybody has.
const BUSY: usize = usize::MAX / 4;

/// That an allocation had too much to do. It refuses at once, and so seems to have little. Clones know the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy(Arc<BusyUntil>);

#[derive(Debug, Default)]
struct BusyUntil {
    /// Whether there is a moment, so that the usual request takes no lock.
    is_any: AtomicBool,
    moment: Mutex<Option<Instant>>,
}

impl Busy {
    pub(crate) fn mark(&self, now: Instant) {
        *self.0.moment.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + BUSY_FOR);
        self.0.is_any.store(true, Ordering::Release);
    }

    /// Returns what is added to its load.
    pub(crate) fn now(&self) -> usize {
        if !self.0.is_any.load(Ordering::Acquire) {
            return 0;
        }
        let mut moment = self.0.moment.lock().unwrap_or_else(PoisonError::into_inner);
        if moment.is_some_and(|moment| Instant::now() < moment) {
            return BUSY;
        }
        *moment = None;
        self.0.is_any.store(false, Ordering::Release);
        0
    }
}

/// How many requests, or connections, of one allocation or service are under way. Clones count the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load(Arc<AtomicUsize>);

/// One of them, for as long as it exists.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<AtomicUsize>);

impl Load {
    /// Counts one more until what is returned is dropped.
    pub(crate) fn begin(&self) -> UnderWay {
        self.0.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(&self.0))
    }

    pub(crate) fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Each so many requests pay for one that is sent twice.
const SHARE: u32 = 5;
/// The most that may have been saved, in requests: what a node with many clients needs when another one dies.
const MOST: u32 = 1_000 * SHARE;
/// So many a second may be sent twice anyhow, or a service that is asked seldom would have none.
const ANYHOW: f64 = 10.0;

/// How many requests to a service may be sent again after they may have been begun, or because an allocation had too much to
/// do: a fifth of all, and ten a second. Without a bound a service that fails under load would get three times that load.
#[derive(Debug, Default)]
pub(crate) struct RetryBudget {
    /// In parts of [`SHARE`] for one.
    saved: AtomicU32,
    anyhow: Mutex<Anyhow>,
}

/// What there is each second.
#[derive(Debug)]
struct Anyhow {
    left: f64,
    looked: Option<Instant>,
}

impl Default for Anyhow {
    fn default() -> Self {
        Self { left: ANYHOW, looked: None }
    }
}

impl RetryBudget {
    /// Takes note of a request that is sent for the first time.
    pub(crate) fn save(&self) {
        // One that is missed, or one too many, does no harm.
        if self.saved.load(Ordering::Relaxed) < MOST {
            self.saved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells whether one request may be sent again, and takes it off.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let paid = |saved: u32| saved.checked_sub(SHARE);
        if self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid).is_ok() {
            return true;
        }
        let mut anyhow = self.anyhow.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = anyhow.looked.map_or(0.0, |looked| now.saturating_duration_since(looked).as_secs_f64());
        anyhow.left = (anyhow.left + passed * ANYHOW).min(ANYHOW);
        anyhow.looked = Some(now);
        let is_paid = anyhow.left >= 1.0;
        if is_paid {
            anyhow.left -= 1.0;
        }
        is_paid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_counted_until_it_is_dropped() {
        let load = Load::default();
        let (one, two) = (load.begin(), load.clone().begin());
        assert_eq!(load.now(), 2);
        drop((one, two));
        assert_eq!(load.now(), 0);
    }

    #[test]
    fn ten_a_second_may_be_sent_again_and_a_fifth_of_all() {
        let (budget, start) = (RetryBudget::default(), Instant::now());
        let taken = |at: Duration| (0..10_000).filter(|_| budget.take(start + at)).count();
        assert_eq!(taken(Duration::ZERO), 10);
        assert_eq!(taken(Duration::from_millis(10)), 0);
        assert_eq!(taken(Duration::from_millis(510)), 5);
        assert_eq!(taken(Duration::from_secs(3600)), 10, "more is not saved by waiting");
        (0..500).for_each(|_| budget.save());
        assert_eq!(taken(Duration::from_secs(3600)), 100);
        (0..100_000).for_each(|_| budget.save());
        assert_eq!(taken(Duration::from_secs(3600)), 1000, "nor without end by being asked");
    }

    #[test]
    fn however_often_is_asked_there_are_ten_a_second() {
        for pause in [3, 30, 39, 95] {
            let (budget, start) = (RetryBudget::default(), Instant::now());
            let asked = (0..10_000 / pause).map(|time| start + Duration::from_millis(time * pause));
            let taken = asked.filter(|now| budget.take(*now)).count();
            assert!((104..=110).contains(&taken), "every {pause} ms: {taken}");
        }
    }
}
