//! Time as the brain sees it: milliseconds since the Unix epoch that never run backward, and only while it could hear.
//!
//! The wall clock is read once, at start; from then on the monotonic clock counts. A wall clock which is set back
//! or jumps ahead later changes no lease, and one that is behind at the next start is not believed: time goes on
//! where it was last seen.
//!
//! A lease is over when a node was silent for so long. While this process is stopped or waits for a slow disk, nodes
//! may speak and nobody hears them; when it wakes, their words stand in a queue behind a clock that says they are
//! lost. So time that passed unheard is not counted. The driver reads the clock at least once a second, and of a
//! longer gap between two readings only so much counts as a busy process may explain. All of the brain's time is
//! shifted by the rest: no deadline comes nearer than another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dunlin_model::Timestamp;

/// How often the clock is read at least.
pub(crate) const READ_EVERY: Duration = Duration::from_secs(1);
/// How much of a gap between two readings counts: the expected one, and a second for a busy machine.
const MAX_GAP: Duration = Duration::from_secs(2);

/// What shows the brain's time to everybody else: as of the brain's last look at its own clock.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    shown: Arc<AtomicU64>,
}

impl Clock {
    /// Returns the present moment.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.shown.load(Ordering::Relaxed))
    }
}

/// The clock of the brain, read by the driver alone: a reading is the word that it hears.
#[derive(Debug)]
pub(crate) struct BrainClock {
    started: Instant,
    heard: Heard,
    shown: Arc<AtomicU64>,
}

impl BrainClock {
    /// Returns a clock which shows the present wall time, or `seen` if that is later.
    pub(crate) fn start(seen: Timestamp) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX));
        if wall < seen {
            tracing::warn!(
                wall = wall.0,
                seen = seen.0,
                "the wall clock was set back; time goes on as it was seen"
            );
        }
        let start = wall.max(seen);
        let shown = Arc::new(AtomicU64::new(start.0));
        Self { started: Instant::now(), heard: Heard::since(start), shown }
    }

    /// Returns the present moment, and counts the time since the last call as heard, up to a limit.
    pub(crate) fn read(&mut self) -> Timestamp {
        let unheard = self.heard.unheard;
        let now = self.heard.read(self.started.elapsed());
        if self.heard.unheard > unheard {
            let stalled = self.heard.unheard - unheard;
            tracing::warn!(?stalled, "the coordinator could not hear for a while; the time is not counted");
        }
        self.shown.store(now.0, Ordering::Relaxed);
        now
    }

    /// Returns what shows this clock's time to others.
    pub(crate) fn shown(&self) -> Clock {
        Clock { shown: Arc::clone(&self.shown) }
    }
}

/// Counts the time that was heard, from readings of a monotonic clock.
#[derive(Debug)]
struct Heard {
    start: Timestamp,
    last: Duration,
    unheard: Duration,
}

impl Heard {
    fn since(start: Timestamp) -> Self {
        Self { start, last: Duration::ZERO, unheard: Duration::ZERO }
    }

    /// Returns the moment that it is when the monotonic clock shows `reading`.
    fn read(&mut self, reading: Duration) -> Timestamp {
        self.unheard += reading.saturating_sub(self.last).saturating_sub(MAX_GAP);
        self.last = self.last.max(reading);
        let heard = self.last.saturating_sub(self.unheard);
        Timestamp(self.start.0.saturating_add(u64::try_from(heard.as_millis()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(readings: &[u64]) -> Vec<u64> {
        let mut heard = Heard::since(Timestamp(1_000_000));
        readings.iter().map(|reading| heard.read(Duration::from_millis(*reading)).0 - 1_000_000).collect()
    }

    #[test]
    fn time_that_is_heard_counts_in_full() {
        assert_eq!(after(&[0, 1, 1_000, 2_000, 4_000, 4_001]), [0, 1, 1_000, 2_000, 4_000, 4_001]);
    }

    #[test]
    fn of_a_gap_only_two_seconds_count_and_the_rest_never_comes_back() {
        assert_eq!(after(&[1_000, 61_000, 62_000, 72_500, 73_000]), [1_000, 3_000, 4_000, 6_000, 6_500]);
    }

    #[test]
    fn parts_of_a_millisecond_are_not_lost() {
        let mut heard = Heard::since(Timestamp(0));
        let readings = (1..=10_000).map(|step| Duration::from_micros(step * 300));
        assert_eq!(readings.map(|reading| heard.read(reading)).last(), Some(Timestamp(3_000)));
    }

    #[test]
    fn time_never_runs_backward() {
        assert_eq!(after(&[5_000, 4_000, 5_500]), [2_000, 2_000, 2_500]);
    }

    #[test]
    fn a_wall_clock_that_was_set_back_is_not_believed() {
        let seen = Timestamp(u64::MAX / 2);
        let mut clock = BrainClock::start(seen);
        assert!(clock.read() >= seen);
        assert!(clock.shown().now() >= seen);
        assert!(BrainClock::start(Timestamp(0)).read() > Timestamp(1_700_000_000_000));
    }
}
