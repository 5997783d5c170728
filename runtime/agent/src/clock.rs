//! The clock that the supervisor is told: milliseconds that pass also while the machine sleeps, from a beginning which
//! no other start of an agent has.
//!
//! A machine that sleeps hears nothing, so its sleep counts as silence. The monotonic clock of the standard library stands
//! still meanwhile. That no two starts share a clock lets the supervisor see that an answer is one to its own report, and
//! not to one of before the machine was started again.

use dunlin_model::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// A clock of one start of the agent.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    /// What it showed when the machine was started.
    base: u64,
}

impl Clock {
    /// Returns a clock that begins at a moment drawn by chance.
    pub(crate) fn new() -> Self {
        let mut random = [0; 8];
        // Without randomness all clocks begin with their machine.
        let _ = getrandom::fill(&mut random);
        // It begins far from the end of the numbers.
        Self { base: u64::from_le_bytes(random) >> 16 }
    }

    /// Returns what it shows now; never zero, which is no moment at which anything was sent.
    pub(crate) fn now(self) -> Timestamp {
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has this clock");
        let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
        let milliseconds = u64::try_from(time.tv_nsec()).unwrap_or_default() / 1_000_000;
        let up = seconds.saturating_mul(1_000).saturating_add(milliseconds);
        Timestamp(self.base.saturating_add(up).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on() {
        let clock = Clock::new();
        let first = clock.now();
        assert!(first.0 > 0 && clock.now() >= first);
    }

    #[test]
    fn no_two_begin_alike() {
        let (first, second) = (Clock::new().now(), Clock::new().now());
        assert!(first.0.abs_diff(second.0) > 60_000, "{first:?} and {second:?}");
    }
}
