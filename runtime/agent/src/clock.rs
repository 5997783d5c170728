//! The clock that the supervisor is told: milliseconds since the machine was started, those counted that it slept.
//!
//! A machine that sleeps hears nothing, so its sleep counts as silence. The monotonic clock of the standard library stands
//! still meanwhile.

use dunlin_model::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Returns how long the machine has been up.
pub(crate) fn since_boot() -> Timestamp {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has this clock");
    let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
    let milliseconds = u64::try_from(time.tv_nsec()).unwrap_or_default() / 1_000_000;
    // Zero is no moment at which anything was sent.
    Timestamp(seconds.saturating_mul(1_000).saturating_add(milliseconds).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on() {
        let first = since_boot();
        assert!(first.0 > 0 && since_boot() >= first);
    }
}
