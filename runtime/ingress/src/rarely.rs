//! What is said now and then, though it may happen all the time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long nothing is said after something was.
const PAUSE: Duration = Duration::from_secs(60);

/// Whether it is time to say something again.
#[derive(Debug, Default)]
pub(crate) struct Rarely {
    last: Mutex<Option<Instant>>,
}

impl Rarely {
    /// Tells whether it is to be said `now`; for a minute after it was it is not.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_a_minute() {
        let (rarely, now) = (Rarely::default(), Instant::now());
        let said = [0, 1, 59, 60, 61, 200].map(|after| rarely.is_due(now + Duration::from_secs(after)));
        assert_eq!(said, [true, false, false, true, false, true]);
    }
}
