//! Schedules of jobs: which moments a cron text means in a time zone.
//!
//! Twice a year most clocks on walls are set. What is due **in each hour** goes by the hours that pass: it is due in
//! both hours that a wall shows twice, and never in one that it skips. What is due **at times of the day** is due once on
//! each of its days: the first of the two times that a wall shows twice, and, if the wall skips its time, the moment at
//! which the clock is set.
//!
//! The rules of all time zones are part of the program, so that a schedule means the same on each machine.
//!
//! Not here: what is done when one is due (`scheduler`).

use std::fmt;
use std::str::FromStr;

use jiff::ToSpan as _;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

use crate::check::shown;
use crate::{Cron, Timestamp};

/// Between two settings of the clock something is due, or there is nothing for years: so many are looked at.
const MAX_PERIODS: usize = 64;
/// Times on a wall that may lie in an hour which is shown twice, or skipped, at the most: one for each second of a day.
const MAX_TIMES: usize = 90_000;

/// When a job is run by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Schedule {
    /// When it is due, by the clock on a wall.
    pub cron: Cron,
    /// On which wall.
    #[serde(default)]
    pub time_zone: TimeZone,
    /// What is done about moments at which no coordinator was there.
    #[serde(default)]
    pub missed: Missed,
    /// What is done if an earlier run has not ended.
    #[serde(default)]
    pub overlap: Overlap,
}

/// What is done about moments at which no coordinator was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Missed {
    /// Nothing.
    #[default]
    Skip,
    /// One run is started for all of them.
    Once,
}

/// What is done if an earlier run of the job has not ended when the next is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Overlap {
    /// The next is not started.
    #[default]
    Skip,
    /// Both go on.
    Allow,
}

impl Schedule {
    /// Returns the first moment after `after` at which it is due; none if there is none within years.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = jiff::Timestamp::from_millisecond(i64::try_from(after.0).ok()?).ok()?;
        let found =
            if self.cron.is_each_hour() { self.in_each_hour(after) } else { self.at_times_of_day(after) };
        u64::try_from(found?.as_millisecond()).ok().map(Timestamp)
    }

    /// Looks at one time after the other between which the clock is not set.
    fn in_each_hour(&self, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let zone = &self.time_zone.zone;
        let mut from = jiff::Timestamp::from_second(after.as_second().checked_add(1)?).ok()?;
        for _ in 0..MAX_PERIODS {
            let offset = zone.to_offset(from);
            let end = zone.following(from).next().map(|set| set.timestamp());
            let moment = self.cron.at_or_after(offset.to_datetime(from));
            let moment = moment.and_then(|due| offset.to_timestamp(due).ok());
            match (moment, end) {
                (Some(moment), Some(end)) if moment < end => return Some(moment),
                (moment, None) => return moment,
                (_, Some(end)) => from = end,
            }
        }
        None
    }

    /// Looks at one time on the wall after the other. Those before `after` on the wall are not after it, as each stands
    /// for the first moment at which the wall shows it.
    fn at_times_of_day(&self, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let mut from = self.time_zone.zone.to_datetime(after);
        for _ in 0..MAX_TIMES {
            let due = self.cron.at_or_after(from)?;
            let moment = self.first_moment(due)?;
            if moment > after {
                return Some(moment);
            }
            from = due.checked_add(1.second()).ok()?;
        }
        None
    }

    /// Returns the first moment at which the wall shows a time; if it never does, when the clock is set.
    fn first_moment(&self, time: DateTime) -> Option<jiff::Timestamp> {
        let zone = &self.time_zone.zone;
        match zone.to_ambiguous_timestamp(time).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(time).ok(),
            AmbiguousOffset::Fold { before, after: _ } => before.to_timestamp(time).ok(),
            AmbiguousOffset::Gap { before, after: _ } => {
                let behind = before.to_timestamp(time).ok()?.checked_add(1.second()).ok()?;
                zone.preceding(behind).next().map(|set| set.timestamp())
            }
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.cron, self.time_zone)
    }
}

/// A time zone by its name in the IANA database, such as `Europe/Zurich`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeZone {
    name: String,
    zone: jiff::tz::TimeZone,
}

/// Why a text does not name a time zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no time zone `{text}`; write one like \"Europe/Zurich\" or \"UTC\"")]
pub struct TimeZoneError {
    /// The text, shortened and escaped.
    text: String,
}

impl Default for TimeZone {
    fn default() -> Self {
        Self { name: "UTC".to_owned(), zone: jiff::tz::TimeZone::UTC }
    }
}

impl FromStr for TimeZone {
    type Err = TimeZoneError;

    fn from_str(text: &str) -> Result<Self, TimeZoneError> {
        let unknown = || TimeZoneError { text: shown(text) };
        let zone = TimeZoneDatabase::bundled().get(text).map_err(|_| unknown())?;
        let name = zone.iana_name().ok_or_else(unknown)?.to_owned();
        Ok(Self { name, zone })
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl TryFrom<String> for TimeZone {
    type Error = TimeZoneError;

    fn try_from(text: String) -> Result<Self, TimeZoneError> {
        text.parse()
    }
}

impl From<TimeZone> for String {
    fn from(zone: TimeZone) -> Self {
        zone.name
    }
}

#[cfg(test)]
mod tests;
