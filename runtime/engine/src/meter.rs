//! The fuel rate of an allocation: what it has burned too fast it waits for, and nobody waits on a thread.
//!
//! A [`Bucket`] fills at the rate and holds the burst at most. What was burned is taken out, also more than there is;
//! whoever finds the bucket in deficit sleeps until the deficit is earned. Where the processors cannot give all guests
//! their rates, [`Turns`] shares them out in the ratio of the rates: whoever is ahead lets those pass who queue behind.
//!
//! Time is passed in, so that both are tested without any; [`Meter`] is the shell around them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dunlin_model::{Fuel, FuelRate};

const NANOS: u64 = 1_000_000_000;
/// A wait shorter than this is not waited for: timers are no finer.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// The longest sleep at once: after it, it is looked again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Who has queued for less than this had the processor for itself.
const QUEUED: Duration = Duration::from_millis(1);

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

    fn fill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.at).as_nanos();
        let earned = i128::try_from(elapsed).unwrap_or(i128::MAX).saturating_mul(i128::from(self.rate));
        let most = i128::from(self.burst) * i128::from(NANOS);
        self.level = self.level.saturating_add(earned).min(most);
        self.at = self.at.max(now);
    }
}

/// Who queues for a processor, and how much of its share it has had: what it burned over its rate, as time.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    queued: BTreeMap<u64, Queued>,
    /// Below this nobody begins: who was idle has saved up nothing.
    floor: u64,
}

#[derive(Debug)]
struct Queued {
    had: u64,
    count: u32,
}

impl Turns {
    const fn new() -> Self {
        Self { queued: BTreeMap::new(), floor: 0 }
    }

    /// Begins to queue, having had so much, and returns what counts as had.
    fn queue(&mut self, who: u64, had: u64) -> u64 {
        let had = had.max(self.floor);
        let queued = self.queued.entry(who).or_insert(Queued { had, count: 0 });
        queued.had = queued.had.max(had);
        queued.count += 1;
        let had = queued.had;
        self.floor = self.floor.max(self.least(None).unwrap_or(0));
        had
    }

    /// Queues no more.
    fn leave(&mut self, who: u64) {
        if let Some(queued) = self.queued.get_mut(&who) {
            queued.count -= 1;
            if queued.count == 0 {
                self.queued.remove(&who);
            }
        }
    }

    /// Tells whether somebody else queues who has had less.
    fn is_ahead(&self, who: u64, had: u64) -> bool {
        self.least(Some(who)).is_some_and(|least| least < had)
    }

    /// Returns the least that any who queues has had.
    fn least(&self, but: Option<u64>) -> Option<u64> {
        self.queued.iter().filter(|(who, _)| Some(**who) != but).map(|(_, queued)| queued.had).min()
    }
}

/// The processors are those of the process, so all its guests queue in one place.
static TURNS: Mutex<Turns> = Mutex::new(Turns::new());

fn turns() -> MutexGuard<'static, Turns> {
    TURNS.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Takes note of fuel that was burned.
    pub(crate) fn debit(&self, burned: Fuel) {
        if burned.0 == 0 {
            return;
        }
        let now = self.began.elapsed();
        let share = u128::from(burned.0) * u128::from(NANOS) / u128::from(self.rate);
        let mut state = self.state();
        state.bucket.debit(now, burned.0);
        state.had = state.had.saturating_add(u64::try_from(share).unwrap_or(u64::MAX));
    }

    /// Returns how long an instance must wait for what was burned too fast; nothing if nothing was.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let now = self.began.elapsed();
        self.state().bucket.wait(now).filter(|wait| *wait >= SHORTEST_WAIT)
    }

    /// Returns when what was burned too fast is earned.
    pub(crate) async fn earned(&self) {
        while let Some(wait) = self.wait() {
            tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
        }
    }

    /// Lets others run, and returns when it is this allocation's turn again.
    pub(crate) async fn turn(self: Arc<Self>, held_up: Option<Duration>) {
        if let Some(held_up) = held_up {
            tokio::time::sleep(held_up.min(LONGEST_WAIT)).await;
        }
        self.earned().await;
        loop {
            let began = Instant::now();
            let queueing = Queueing::begin(&self);
            // tokio's own way to yield goes to the back of the queue and lets it look for I/O and timers first.
            tokio::task::yield_now().await;
            let had = queueing.had;
            drop(queueing);
            if began.elapsed() < QUEUED || !turns().is_ahead(self.id, had) {
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is in the queue as long as it lives, also if the waiting is given up.
struct Queueing {
    id: u64,
    had: u64,
}

impl Queueing {
    fn begin(meter: &Meter) -> Self {
        let mut state = meter.state();
        state.had = turns().queue(meter.id, state.had);
        Self { id: meter.id, had: state.had }
    }
}

impl Drop for Queueing {
    fn drop(&mut self) {
        turns().leave(self.id);
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

    /// Has guests with these rates queue for one processor, and returns how many slices each had.
    fn share(rates: &[u64], slices: u64) -> Vec<u64> {
        let mut turns = Turns::default();
        let mut had = vec![0; rates.len()];
        let mut ran = vec![0; rates.len()];
        let mut queue: std::collections::VecDeque<usize> = (0..rates.len()).collect();
        for (who, had) in had.iter_mut().enumerate() {
            *had = turns.queue(who as u64, *had);
        }
        let mut left = slices;
        while left > 0 {
            let who = queue.pop_front().unwrap();
            turns.leave(who as u64);
            if !turns.is_ahead(who as u64, had[who]) {
                ran[who] += 1;
                had[who] += NANOS / rates[who];
                left -= 1;
            }
            had[who] = turns.queue(who as u64, had[who]);
            queue.push_back(who);
        }
        ran
    }

    #[test]
    fn processors_are_shared_in_the_ratio_of_the_rates() {
        assert_eq!(share(&[1, 1], 1000), [500, 500]);
        let ran = share(&[10, 20, 30], 6000);
        for (ran, expected) in ran.iter().zip([1000_u64, 2000, 3000]) {
            assert!(ran.abs_diff(expected) <= 5, "{ran} is not {expected}");
        }
    }

    #[test]
    fn who_was_idle_has_saved_up_no_turns() {
        let mut turns = Turns::default();
        turns.queue(1, 1_000_000);
        assert_eq!(turns.queue(2, 0), 1_000_000);
        assert!(!turns.is_ahead(1, 1_000_000));
        turns.leave(1);
        turns.leave(2);
        assert!(!turns.is_ahead(1, u64::MAX), "nobody queues");
    }
}
