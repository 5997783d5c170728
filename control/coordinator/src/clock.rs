//! Time as the brain sees it: milliseconds since the Unix epoch that never run backward.
//!
//! The wall clock is read once, at start; from then on the monotonic clock counts. A wall clock which is set back
//! or jumps ahead later changes no lease.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dunlin_model::Timestamp;

/// A clock that never runs backward.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Timestamp,
    started: Instant,
}

impl Clock {
    /// Returns a clock which shows the present wall time.
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX));
        Self { start, started: Instant::now() }
    }

    /// Returns the present moment.
    pub(crate) fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.start.0.saturating_add(passed))
    }
}
