//! How long to wait before the next attempt: longer after each failure, never the same for all.
//!
//! Pure: the caller brings the randomness and does the waiting.

use std::time::Duration;

use crate::limits::CONNECT_TIME;

/// Waits between attempts, from 0.5 to 30 seconds.
///
/// Each wait is drawn evenly between the shortest wait and a ceiling, which begins at one second and doubles. So a
/// fleet that lost its coordinator does not come back in one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The shortest wait.
    pub const SHORTEST: Duration = Duration::from_millis(500);
    /// The longest wait.
    pub const LONGEST: Duration = Duration::from_secs(30);
    /// How long it takes at most until an agent that was without a coordinator for long tries one that is back: the
    /// longest wait after an attempt that took as long as it may.
    pub const LONGEST_ABSENCE: Duration = Self::LONGEST.saturating_add(CONNECT_TIME);

    /// Returns a back-off that has seen no failure.
    pub const fn new() -> Self {
        Self { failures: 0 }
    }

    /// Returns how long to wait after one more failure; `random` is any evenly drawn number.
    pub fn next(&mut self, random: u64) -> Duration {
        let shortest = u64::try_from(Self::SHORTEST.as_millis()).expect("a constant fits");
        let longest = u64::try_from(Self::LONGEST.as_millis()).expect("a constant fits");
        self.failures = self.failures.saturating_add(1);
        // Six doublings exceed the longest wait; more would overflow in the end.
        let ceiling = (shortest << self.failures.min(6)).min(longest);
        Duration::from_millis(shortest + random % (ceiling - shortest + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_but_stay_within_bounds() {
        let mut longest = Backoff::new();
        let ceilings: Vec<u128> = [500, 1500, 3500, 7500, 15_500, 29_500, 29_500]
            .map(|random| longest.next(random).as_millis())
            .to_vec();
        assert_eq!(ceilings, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        for random in [0, 1, 12_345, u64::MAX] {
            let mut backoff = Backoff::new();
            for _ in 0..100 {
                let wait = backoff.next(random);
                assert!(wait >= Backoff::SHORTEST && wait <= Backoff::LONGEST, "{wait:?}");
            }
        }
    }
}
