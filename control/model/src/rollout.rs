//! How a service passes from one revision to the next, and how it is known to be well.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::check::{Broken, between, route_path};
use crate::{DurationMs, OnPartition};

/// The longest that a rollout may take, and the longest that a new revision is watched.
const MAX_TIME: DurationMs = DurationMs(7 * 86_400_000);
/// The most restarts that a rollout may overlook, and the most checks in a row that count as one.
const MAX_TIMES: u32 = 1_000;

/// How a service passes from one revision to the next: `[service.NAME.rollout]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutSpec {
    /// How many allocations more than it should have there may be meanwhile.
    pub max_surge: Amount,
    /// How many less than it should have may serve meanwhile.
    pub max_unavailable: Amount,
    /// How many allocations of the new revision run beside the old ones until it is promoted; all follow at once if
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Amount>,
    /// Which share of the requests goes to the canaries; as much as to any other allocations if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_share: Option<Percent>,
    /// What promotes canaries.
    pub promote: Promote,
    /// How long all must be well before the canaries are promoted, and again before the rollout is over.
    pub bake: DurationMs,
    /// How long it may take until all are well; counted anew when canaries are promoted.
    pub deadline: DurationMs,
    /// Whether the revision before is restored when the new one fails; if not, the rollout stops where it is.
    pub rollback: bool,
    /// How often allocations of the new revision may be started again.
    pub max_restarts: u32,
    /// How large the share of requests that fail may be, of that of the revision before; shares below one in a hundred
    /// count as that.
    pub max_errors: Percent,
    /// How much fuel a request may burn, of what it burned in the revision before; not looked at if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_fuel: Option<Percent>,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            max_surge: Amount::Count(1),
            max_unavailable: Amount::Count(0),
            canary: None,
            canary_share: None,
            promote: Promote::Auto,
            bake: DurationMs(10_000),
            deadline: DurationMs(600_000),
            rollback: true,
            max_restarts: 3,
            max_errors: Percent(200),
            max_fuel: None,
        }
    }
}

impl RolloutSpec {
    /// Returns that of a service which says nothing of it: of a singleton the old allocation goes before the new one comes.
    pub fn default_for(on_partition: OnPartition) -> Self {
        if on_partition.is_singleton() {
            Self { max_surge: Amount::Count(0), max_unavailable: Amount::Count(1), ..Self::default() }
        } else {
            Self::default()
        }
    }

    /// Tells whether it is that of a service which says nothing of it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Says of each field whether it breaks a rule. `everywhere` tells that the service runs on each node.
    pub(crate) fn check(&self, everywhere: bool, note: &mut dyn FnMut(&'static str, Result<(), Broken>)) {
        let Self { max_surge, max_unavailable, canary, canary_share, bake, deadline, max_restarts, .. } =
            self;
        if max_surge.is_none() && max_unavailable.is_none() {
            let message =
                "nothing could ever be replaced: let `max_surge` or `max_unavailable` be more than 0";
            note("max_unavailable", Err(Broken::new(message)));
        }
        if canary.is_some_and(|canary| canary.is_none()) {
            note(
                "canary",
                Err(Broken::new("no canaries tell nothing; leave this out, or let it be more than 0")),
            );
        }
        if canary.is_some() && everywhere {
            let message =
                "a service that runs everywhere goes from node to node, without canaries; leave this out";
            note("canary", Err(Broken::new(message)));
        }
        if let Some(share) = canary_share {
            note("canary_share", crate::check::between("canary_share", 100, share.0));
            if canary.is_none() {
                let message = "there are no canaries to have a share; let `canary` say how many there are";
                note("canary_share", Err(Broken::new(message)));
            }
        }
        if *bake > MAX_TIME {
            note("bake", Err(Broken::limit("bake", MAX_TIME, bake)));
        }
        if *deadline > MAX_TIME || deadline.0 == 0 {
            let limit = format!("more than 0ms and at most {MAX_TIME}");
            note("deadline", Err(Broken::limit("deadline", limit, deadline)));
        }
        note("max_restarts", crate::check::at_most("max_restarts", MAX_TIMES, *max_restarts));
    }
}

/// What promotes canaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Promote {
    /// That they have been well for a while.
    #[default]
    Auto,
    /// A person: `dunlin promote`.
    ByHand,
}

/// How it is known that an allocation is well: `[service.NAME.health]`. One of a service without is well as soon as it
/// is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthSpec {
    /// The path that is asked for, with `GET`; an answer from 200 to 399 says that all is well.
    pub path: String,
    /// How long after one check the next follows.
    pub interval: DurationMs,
    /// How long an answer may take.
    pub timeout: DurationMs,
    /// So many bad answers in a row make it unwell, and no requests go to it.
    pub failures: u32,
    /// So many good answers in a row make it well.
    pub successes: u32,
    /// After so many bad answers in a row it is started again; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_after: Option<u32>,
}

impl HealthSpec {
    /// How long after one check the next follows, where nobody says.
    pub const INTERVAL: DurationMs = DurationMs(10_000);
    /// How long an answer may take, where nobody says.
    pub const TIMEOUT: DurationMs = DurationMs(2_000);
    /// How many bad answers in a row count, where nobody says.
    pub const FAILURES: u32 = 3;
    /// How many good answers in a row count, where nobody says.
    pub const SUCCESSES: u32 = 1;

    /// Says of each field whether it breaks a rule.
    pub(crate) fn check(&self, note: &mut dyn FnMut(&'static str, Result<(), Broken>)) {
        let Self { path, interval, timeout, failures, successes, restart_after } = self;
        note("path", route_path(path));
        for (name, time) in [("interval", interval), ("timeout", timeout)] {
            let most = DurationMs(3_600_000);
            let least = DurationMs(100);
            if *time < least || *time > most {
                note(name, Err(Broken::limit(name, format!("{least} to {most}"), time)));
            }
        }
        note("failures", between("failures", MAX_TIMES, *failures));
        note("successes", between("successes", MAX_TIMES, *successes));
        // One that has not been told to be unwell yet is not started again for it.
        if let Some(observed) = restart_after.filter(|after| after < failures || *after > MAX_TIMES) {
            let range = format!("`failures`, which is {failures}, to {MAX_TIMES}");
            note("restart_after", Err(Broken::limit("restart_after", range, observed)));
        }
    }
}

/// So many allocations, or such a share of those that a service should have: `2` or `"25%"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Amount {
    /// So many.
    Count(u32),
    /// Such a share.
    Share(Percent),
}

impl Amount {
    /// Returns how many of `all` these are; a part of one counts as one.
    pub fn of_up(self, all: u32) -> u32 {
        self.of(all, |share| share.div_ceil(100))
    }

    /// Returns how many of `all` these are; a part of one does not count.
    pub fn of_down(self, all: u32) -> u32 {
        self.of(all, |share| share / 100)
    }

    fn of(self, all: u32, round: impl FnOnce(u64) -> u64) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Share(Percent(share)) => {
                u32::try_from(round(u64::from(all) * u64::from(share))).unwrap_or(u32::MAX)
            }
        }
    }

    /// Tells whether it is none, of whatever.
    const fn is_none(self) -> bool {
        matches!(self, Self::Count(0) | Self::Share(Percent(0)))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Share(share) => share.fmt(f),
        }
    }
}

/// A share in hundredths: `"25%"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "25%"))]
pub struct Percent(
    /// How many hundredths.
    pub u32,
);

/// A text is not a share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{observed}` is no share: write it like \"25%\", from 0% to 10000%")]
pub struct PercentError {
    /// The text, cut.
    pub observed: String,
}

impl FromStr for Percent {
    type Err = PercentError;

    fn from_str(text: &str) -> Result<Self, PercentError> {
        let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'%');
        match number.filter(|number| *number <= 10_000 && is_plain) {
            Some(number) => Ok(Self(number)),
            None => Err(PercentError { observed: crate::check::shown(text).to_string() }),
        }
    }
}

impl TryFrom<String> for Percent {
    type Error = PercentError;

    fn try_from(text: String) -> Result<Self, PercentError> {
        text.parse()
    }
}

impl From<Percent> for String {
    fn from(share: Percent) -> Self {
        share.to_string()
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_to_the_safe_side() {
        let quarter = Amount::Share("25%".parse().unwrap());
        assert_eq!((quarter.of_up(10), quarter.of_down(10)), (3, 2));
        assert_eq!((quarter.of_up(1), quarter.of_down(1)), (1, 0));
        assert_eq!((quarter.of_up(0), Amount::Count(2).of_down(10)), (0, 2));
        assert_eq!(Amount::Share(Percent(10_000)).of_up(u32::MAX), u32::MAX);
    }

    #[test]
    fn only_a_share_is_read_as_one() {
        for text in ["", "%", "25", "-1%", "+5%", "10001%", "1 %", "99999999999%", "2.5%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
        assert_eq!("0%".parse(), Ok(Percent(0)));
    }

    #[test]
    fn an_amount_is_a_number_or_a_share_in_json() {
        let both: Vec<Amount> = serde_json::from_str(r#"[2,"25%"]"#).unwrap();
        assert_eq!(both, [Amount::Count(2), Amount::Share(Percent(25))]);
        assert_eq!(serde_json::to_string(&both).unwrap(), r#"[2,"25%"]"#);
        assert!(serde_json::from_str::<Amount>(r#""2""#).is_err());
    }
}
