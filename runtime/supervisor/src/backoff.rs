//! How long to wait after a failure: doubled each time, up to a longest wait.

use dunlin_model::{DurationMs, Timestamp};

use crate::Config;

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failure and returns when to try again.
    pub(crate) fn failed(&mut self, now: Timestamp, config: &Config) -> Timestamp {
        self.failures = self.failures.max(1);
        self.wait(now, config)
    }

    /// Notes a death and returns when to try again: at once after the first one, since a service that has been
    /// killed once by a neighbour in its worker should be back within a second.
    pub(crate) fn died(&mut self, now: Timestamp, config: &Config) -> Timestamp {
        self.wait(now, config)
    }

    /// Forgets the failures, since what failed has been well for long enough.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    fn wait(&mut self, now: Timestamp, config: &Config) -> Timestamp {
        let wait = match self.failures.checked_sub(1) {
            None => DurationMs(0),
            Some(doublings) => {
                let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
                DurationMs(config.backoff_first.0.saturating_mul(factor)).min(config.backoff_longest)
            }
        };
        self.failures = self.failures.saturating_add(1);
        now.plus(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(mut step: impl FnMut(&mut Backoff) -> Timestamp) -> Vec<u64> {
        let mut backoff = Backoff::default();
        (0..12).map(|_| step(&mut backoff).0 / 1000).collect()
    }

    #[test]
    fn the_wait_doubles_from_a_second_to_five_minutes() {
        let config = Config::default();
        assert_eq!(
            waits(|backoff| backoff.failed(Timestamp(0), &config)),
            [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
        );
    }

    #[test]
    fn the_first_death_costs_no_wait() {
        let config = Config::default();
        assert_eq!(
            waits(|backoff| backoff.died(Timestamp(0), &config)),
            [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
        );
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let config = Config::default();
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.failed(Timestamp(0), &config), Timestamp(300_000));
    }
}
