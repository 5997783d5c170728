//! When to renew a certificate, by the clock on the wall.

use std::time::{Duration, SystemTime};

use crate::{Identity, WallClock};

/// The wall's clock may be set, and a machine may sleep: it is looked at again after so long.
const LOOK: Duration = Duration::from_secs(600);
/// Never sooner than this after the last time, whatever the clocks say.
const LEAST: Duration = Duration::from_secs(1);
/// Never later than this after an attempt that failed.
const MOST: Duration = Duration::from_secs(3600);

/// When to renew a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    at: SystemTime,
    clock: WallClock,
}

impl Renewal {
    /// At half of its life; and not before a tenth of what is left, should the clocks not agree.
    pub fn of(identity: &Identity) -> Self {
        let clock = WallClock::of(identity);
        let now = clock.now();
        let left = identity.not_after().duration_since(now).unwrap_or_default();
        Self { at: identity.renew_at().max(now + left / 10), clock }
    }

    /// After an attempt that failed: in a tenth of what is left, an hour at most.
    pub fn again(identity: &Identity) -> Self {
        let clock = WallClock::of(identity);
        let now = clock.now();
        let left = identity.not_after().duration_since(now).unwrap_or_default();
        Self { at: now + (left / 10).clamp(LEAST, MOST), clock }
    }

    /// In an hour.
    pub fn in_an_hour(identity: &Identity) -> Self {
        let clock = WallClock::of(identity);
        Self { at: clock.now() + MOST, clock }
    }

    /// Waits until it is due, and at least a second.
    pub async fn due(&self) {
        tokio::time::sleep(LEAST).await;
        while let Ok(left) = self.at.duration_since(self.clock.now()) {
            tokio::time::sleep(left.clamp(Duration::from_millis(10), LOOK)).await;
        }
    }
}
