//! The clock on the wall, which some machines do not have: without a battery it begins in 1970 after each power cut, and
//! is set when the network is there, if ever.
//!
//! A machine knows that it is at least as late as when its own certificate was made. A clock that shows less is not set,
//! and is not believed: certificates are judged by what is known.

use std::time::{Duration, Instant, SystemTime};

use rustls_pki_types::UnixTime;

use crate::Identity;
use crate::identity::validity;

/// This was written after that, so no machine that runs it is earlier. In seconds after 1970: 2026-11-01.
const WRITTEN: u64 = 1_793_491_200;

/// The time as far as a machine knows it.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// It is at least so late,
    known: SystemTime,
    /// as of then.
    since: Instant,
}

impl WallClock {
    /// Returns the clock of a machine with this identity.
    pub fn of(identity: &Identity) -> Self {
        Self { known: identity.made(), since: Instant::now() }
    }

    /// Returns the clock of a machine that has no identity yet.
    pub(crate) fn of_a_stranger() -> Self {
        Self { known: Self::least(), since: Instant::now() }
    }

    /// Returns a moment that has passed on every machine.
    pub(crate) fn least() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(WRITTEN)
    }

    /// Returns the present moment.
    pub fn now(&self) -> SystemTime {
        self.at(SystemTime::now())
    }

    fn at(&self, shown: SystemTime) -> SystemTime {
        shown.max(self.known + self.since.elapsed())
    }

    /// Returns the moment at which a certificate is judged when the machine's clock shows `shown`. Where that is not set, a
    /// certificate that was made later than anything that is known here has begun.
    pub(crate) fn judging(&self, certificate: &[u8], shown: UnixTime) -> UnixTime {
        let shown = SystemTime::UNIX_EPOCH + Duration::from_secs(shown.as_secs());
        let now = self.at(shown);
        let begun = match validity(certificate) {
            Some((not_before, _)) if is_unset(shown, self.known) => now.max(not_before),
            _ => now,
        };
        UnixTime::since_unix_epoch(begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

/// Tells whether a clock that shows `shown` is not set where it is at least `known`. Clocks differ a little.
pub(crate) fn is_unset(shown: SystemTime, known: SystemTime) -> bool {
    shown + crate::authority::CLOCK_TOLERANCE < known
}
