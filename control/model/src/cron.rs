//! When a schedule is due, as cron writes it: which seconds of which days, by the clock on a wall.
//!
//! A text has five fields (minute, hour, day of the month, month, day of the week), or six with the second before them.
//! Each is a set of numbers, kept as bits. If both the day of the month and the day of the week are restricted, a day
//! that fits either is one.
//!
//! Not here: which moment a time on a wall is in a time zone (`schedule`).

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time, Weekday};
use serde::{Deserialize, Serialize};

use crate::check::shown;

/// The most characters of a text.
const MAX_TEXT: usize = 256;
/// So many days and months are looked at for the next that fits: 29 February may be eight years away.
const MAX_LOOKS: usize = 2_000;

/// When a schedule is due, by the clock on a wall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    text: String,
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// Sunday is 0.
    weekdays: u64,
}

/// Why a text is not one that says when.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// It is too long.
    #[error("a schedule may have {MAX_TEXT} characters, this one has {observed}")]
    TooLong {
        /// How many it has.
        observed: usize,
    },
    /// It has too few or too many fields.
    #[error(
        "a schedule has five fields (minute, hour, day of the month, month, day of the week), or six with the second \
         before them, or is one of @hourly, @daily, @weekly, @monthly and @yearly; `{text}` has {observed}"
    )]
    Fields {
        /// The text, shortened and escaped.
        text: String,
        /// How many it has.
        observed: usize,
    },
    /// One field is not understood.
    #[error("`{text}` is no {field}: {reason}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it says, shortened and escaped.
        text: String,
        /// Why it is not understood.
        reason: String,
    },
    /// No day fits.
    #[error("`{text}` is never due: none of its months has any of its days")]
    Never {
        /// The text.
        text: String,
    },
}

/// What one field may say.
struct Field {
    name: &'static str,
    min: u8,
    max: u8,
    /// Words for the numbers from `min` on.
    words: &'static [&'static str],
}

const SECOND: Field = Field { name: "second", min: 0, max: 59, words: &[] };
const MINUTE: Field = Field { name: "minute", min: 0, max: 59, words: &[] };
const HOUR: Field = Field { name: "hour", min: 0, max: 23, words: &[] };
const DAY: Field = Field { name: "day of the month", min: 1, max: 31, words: &[] };
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    words: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
/// Both 0 and 7 are Sunday.
const WEEKDAY: Field = Field {
    name: "day of the week",
    min: 0,
    max: 7,
    words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        if text.len() > MAX_TEXT {
            return Err(CronError::TooLong { observed: text.chars().count() });
        }
        let text = text.trim();
        let meant = match text.to_ascii_lowercase().as_str() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            _ => text,
        };
        let fields: Vec<&str> = meant.split_whitespace().collect();
        let (second, rest) = match fields.as_slice() {
            [second, rest @ ..] if rest.len() == 5 => (*second, rest),
            rest => ("0", rest),
        };
        let [minute, hour, day, month, weekday] = rest else {
            return Err(CronError::Fields { text: shown(text), observed: fields.len() });
        };
        let weekdays = WEEKDAY.set(weekday)?;
        let sunday = (weekdays >> 7) & 1;
        let cron = Self {
            text: text.to_owned(),
            seconds: SECOND.set(second)?,
            minutes: MINUTE.set(minute)?,
            hours: HOUR.set(hour)?,
            days: DAY.set(day)?,
            months: MONTH.set(month)?,
            weekdays: (weekdays | sunday) & !(1 << 7),
        };
        // A leap year has all days that there are.
        let leap = DateTime::constant(2024, 1, 1, 0, 0, 0, 0);
        match cron.at_or_after(leap) {
            Some(_) => Ok(cron),
            None => Err(CronError::Never { text: text.to_owned() }),
        }
    }
}

impl Cron {
    /// Returns the first time on a wall, at or after `from`, at which it is due. Parts of a second do not count.
    pub(crate) fn at_or_after(&self, from: DateTime) -> Option<DateTime> {
        let (mut date, mut time) = (from.date(), from.time());
        for _ in 0..MAX_LOOKS {
            if !has(self.months, date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
            } else {
                if let Some(found) = self.is_day(date).then(|| self.time_at_or_after(time)).flatten() {
                    return Some(date.to_datetime(found));
                }
                date = date.tomorrow().ok()?;
            }
            time = Time::midnight();
        }
        None
    }

    /// Tells whether it is due at this time on a wall.
    #[cfg(test)]
    pub(crate) fn matches(&self, at: DateTime) -> bool {
        self.at_or_after(at) == Some(at)
    }

    /// Tells whether it is due in each hour, so that it goes by the hours that pass rather than by times of the day.
    pub(crate) fn is_each_hour(&self) -> bool {
        self.hours == HOUR.all()
    }

    fn is_day(&self, date: Date) -> bool {
        let by_day = has(self.days, date.day());
        let by_weekday = has(self.weekdays, weekday(date));
        let are_both_restricted = self.days != DAY.all() && self.weekdays != (1 << 7) - 1;
        has(self.months, date.month())
            && if are_both_restricted { by_day || by_weekday } else { by_day && by_weekday }
    }

    fn time_at_or_after(&self, from: Time) -> Option<Time> {
        let (hour, minute, second) = (from.hour(), from.minute(), from.second());
        if has(self.hours, hour) {
            if let Some(second) = next(self.seconds, second).filter(|_| has(self.minutes, minute)) {
                return Time::new(hour, minute, second, 0).ok();
            }
            if let Some(minute) = next(self.minutes, minute + 1) {
                return Time::new(hour, minute, next(self.seconds, 0)?, 0).ok();
            }
        }
        let hour = next(self.hours, hour + 1)?;
        Time::new(hour, next(self.minutes, 0)?, next(self.seconds, 0)?, 0).ok()
    }
}

/// Returns the number of a day of the week, Sunday as 0.
fn weekday(date: Date) -> i8 {
    match date.weekday() {
        Weekday::Sunday => 0,
        Weekday::Monday => 1,
        Weekday::Tuesday => 2,
        Weekday::Wednesday => 3,
        Weekday::Thursday => 4,
        Weekday::Friday => 5,
        Weekday::Saturday => 6,
    }
}

/// Tells whether a number is in a set.
fn has(set: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| number < u64::BITS && set >> number & 1 == 1)
}

/// Returns the first number in a set that is at least `from`.
fn next(set: u64, from: i8) -> Option<i8> {
    let from = u32::try_from(from).ok().filter(|from| *from < u64::BITS)?;
    let later = set >> from << from;
    if later == 0 { None } else { i8::try_from(later.trailing_zeros()).ok() }
}

impl Field {
    /// Returns all that there are.
    const fn all(&self) -> u64 {
        Self::between(self.min, self.max)
    }

    const fn between(first: u8, last: u8) -> u64 {
        let up_to = if last >= 63 { u64::MAX } else { (1 << (last + 1)) - 1 };
        up_to >> first << first
    }

    /// Returns the numbers that a text stands for: `*`, `3`, `1-5`, `*/15`, `mon-fri`, and several of them with commas.
    fn set(&self, text: &str) -> Result<u64, CronError> {
        let wrong = |reason: String| CronError::Field { field: self.name, text: shown(text), reason };
        let mut set = 0;
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, Some(step)),
                None => (part, None),
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (self.min, self.max),
                Some((first, last)) => {
                    (self.number(first).map_err(&wrong)?, self.number(last).map_err(&wrong)?)
                }
                None => {
                    let first = self.number(range).map_err(&wrong)?;
                    // `5/15` is from 5 on.
                    (first, if step.is_some() { self.max } else { first })
                }
            };
            if first > last {
                return Err(wrong(format!(
                    "{first} is after {last}; write `{first}-{},{}-{last}`",
                    self.max, self.min
                )));
            }
            let step = match step {
                None => 1,
                Some(step) => plain(step).filter(|step| *step > 0).ok_or_else(|| {
                    wrong(
                        "after `/` stands how far it is from one to the next, a number from 1 on".to_owned(),
                    )
                })?,
            };
            set |= (first..=last).step_by(usize::from(step)).fold(0, |set, number| set | 1 << number);
        }
        Ok(set)
    }

    fn number(&self, text: &str) -> Result<u8, String> {
        let word = self.words.iter().position(|word| word.eq_ignore_ascii_case(text));
        let word = word.and_then(|index| u8::try_from(index).ok()).map(|index| index + self.min);
        let number = word.or_else(|| plain(text)).filter(|number| (self.min..=self.max).contains(number));
        number.ok_or_else(|| {
            let words = match (self.words.first(), self.words.last()) {
                (Some(first), Some(last)) => format!(", or {first} to {last}"),
                _ => String::new(),
            };
            format!("there are {} to {}{words}", self.min, self.max)
        })
    }
}

/// Reads a number without a sign.
fn plain(text: &str) -> Option<u8> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Cron {
    type Error = CronError;

    fn try_from(text: String) -> Result<Self, CronError> {
        text.parse()
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.text
    }
}
