//! How moments and lengths of time are shown to people.

use std::time::SystemTime;

use dunlin_model::{DurationMs, Timestamp};

/// Returns what the clock of this machine shows.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Returns the moment as RFC 3339 in UTC, to the millisecond.
pub(crate) fn utc(at: Timestamp) -> String {
    let (seconds, milliseconds) = (at.0 / 1000, at.0 % 1000);
    let (days, in_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

/// Returns the civil date of a day since the epoch, by Howard Hinnant's `civil_from_days`: the year begins in
/// March, so that the leap day is its last.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Returns about how long it is: `350ms`, `12.3s`, `4m05s`, `2h10m`, `3d04h`.
pub(crate) fn about(length: DurationMs) -> String {
    let seconds = length.0 / 1000;
    match length.0 {
        0..1_000 => format!("{}ms", length.0),
        1_000..60_000 => format!("{seconds}.{}s", length.0 % 1000 / 100),
        60_000..3_600_000 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600_000..86_400_000 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(Timestamp(951_782_400_001)), "2000-02-29T00:00:00.001Z");
        assert_eq!(utc(Timestamp(1_704_067_199_999)), "2023-12-31T23:59:59.999Z");
        assert_eq!(utc(Timestamp(4_107_542_400_000)), "2100-03-01T00:00:00.000Z");
        // A guest's clock may say anything; showing it must not end the program.
        assert!(!utc(Timestamp(u64::MAX)).is_empty());
    }

    #[test]
    fn lengths_are_short() {
        for (length, text) in
            [(0, "0ms"), (12_345, "12.3s"), (245_000, "4m05s"), (7_800_000, "2h10m"), (273_600_000, "3d04h")]
        {
            assert_eq!(about(DurationMs(length)), text);
        }
    }
}
