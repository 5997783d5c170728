//! The clock of a machine: it goes a little too fast or too slow, and begins anew, anywhere, whenever an agent starts.

use dunlin_model::{DurationMs, Timestamp};

use crate::options::{Kind, Options, Sabotage};
use crate::random::Random;

/// By how much a clock may be too fast or too slow: one per cent, in millionths.
const SKEW: u64 = 10_000;
/// As many parts as a second has in which its pace is given.
const WHOLE: u64 = 1_000_000;

/// A clock that has its own opinion of how fast time passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// How many of its own parts pass while a million of the world's do.
    pace: u64,
    /// When it was set, by the world's time.
    set: Timestamp,
    /// What it showed then.
    shown: u64,
}

impl Clock {
    /// Draws the clock of a machine.
    pub(crate) fn draw(random: &mut Random, options: &Options) -> Self {
        let drawn = random.between(WHOLE - SKEW, WHOLE + SKEW);
        let pace = match options.sabotage {
            Sabotage::SlowClocks => WHOLE / 2,
            _ if options.allows(Kind::Clocks) => drawn,
            _ => WHOLE,
        };
        Self { pace, set: Timestamp(0), shown: 0 }
    }

    /// Lets it begin anew.
    pub(crate) fn set(&mut self, now: Timestamp, random: &mut Random) {
        (self.set, self.shown) = (now, random.between(1, 1 << 40));
    }

    /// Returns what it shows at a moment of the world.
    pub(crate) fn at(&self, now: Timestamp) -> Timestamp {
        Timestamp(self.shown + now.since(self.set).0 * self.pace / WHOLE)
    }

    /// Returns how long it takes in the world until it shows `then`.
    pub(crate) fn until(&self, now: Timestamp, then: Timestamp) -> DurationMs {
        let due = self.set.plus(DurationMs((then.0.saturating_sub(self.shown) * WHOLE).div_ceil(self.pace)));
        due.since(now)
    }
}
