//! Identities and counters.
//!
//! Ids are counted by the coordinator's brain, never drawn, so that the same inputs give the same ids.
//! Each kind has a type of its own and a letter before the number, so that one cannot be taken for another.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{DurationMs, Name, NameError};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct IdError {
    text: String,
    expected: &'static str,
}

impl IdError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).flat_map(char::escape_default).collect(), expected }
    }
}

macro_rules! counted_id {
    ($(#[$doc:meta])* $name:ident, $letter:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(u64);

        impl $name {
            /// Returns the id with this number.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// Returns the number.
            pub const fn number(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let wrong = || IdError::new(text, $expected);
                let digits = text.strip_prefix($letter).ok_or_else(wrong)?;
                // `u64::from_str` takes a sign; an id has none.
                if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(wrong());
                }
                digits.parse().map(Self).map_err(|_| wrong())
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

counted_id!(
    /// One allocation, as `a12`. Never used again.
    AllocationId, "a", "an allocation id like `a12`"
);
counted_id!(
    /// One run of a job, as `r3`.
    RunId, "r", "a run id like `r3`"
);

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub struct $name(pub u64);

        impl $name {
            /// Returns the one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

counter!(
    /// Counts the accepted sets of specs of one app, from 1.
    Revision
);
counter!(
    /// Counts coordinators in charge. Every start of a coordinator takes the next one.
    Term
);
counter!(
    /// Counts the assignments to one node within a term.
    Generation
);

/// One sandbox: the allocation it lives in and its number there, as `a12.345`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceId {
    /// The allocation it lives in.
    pub allocation: AllocationId,
    /// Counts the instances of this allocation since its worker started.
    pub number: u64,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.allocation, self.number)
    }
}

impl FromStr for InstanceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::new(text, "an instance id like `a12.345`");
        let (allocation, number) = text.split_once('.').ok_or_else(wrong)?;
        let allocation = allocation.parse().map_err(|_| wrong())?;
        // As for the others: `u64::from_str` takes a sign.
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        Ok(Self { allocation, number: number.parse().map_err(|_| wrong())? })
    }
}

/// A node, known by the name it joined with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub Name);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NodeId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self)
    }
}

/// A fleet, known by a random name that it got when its coordinator was first started.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub Name);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ClusterId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self)
    }
}

/// A moment, in milliseconds since the Unix epoch as the shell's never-backward clock tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns the moment `duration` later.
    #[must_use]
    pub const fn plus(self, duration: DurationMs) -> Self {
        Self(self.0.saturating_add(duration.0))
    }

    /// Returns the time since `earlier`, zero if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> DurationMs {
        DurationMs(self.0.saturating_sub(earlier.0))
    }

    /// Returns it as it is written in the world (RFC 3339, in UTC): `2026-11-30T03:18:00.123Z`.
    pub fn rfc3339(self) -> String {
        let moment = i64::try_from(self.0).ok().and_then(|time| jiff::Timestamp::from_millisecond(time).ok());
        // Beyond the year 9999 there is no such way.
        moment.unwrap_or(jiff::Timestamp::MAX).to_string()
    }

    /// Returns the moment that [`Self::rfc3339`] wrote; nothing if it is none, or before 1970.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let moment: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(moment.as_millisecond()).ok().map(Self)
    }

    /// Returns the time until `later`, zero if that has passed.
    #[must_use]
    pub const fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_the_world_does() {
        assert_eq!(Timestamp(1_796_008_680_123).rfc3339(), "2026-11-30T03:18:00.123Z");
        assert_eq!(Timestamp::from_rfc3339("2026-11-30T03:18:00.123Z"), Some(Timestamp(1_796_008_680_123)));
        assert_eq!(Timestamp::from_rfc3339("2026-11-30"), None);
        assert_eq!(Timestamp::from_rfc3339("1969-12-31T23:59:59Z"), None);
        assert_eq!(Timestamp(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert!(Timestamp(u64::MAX).rfc3339().starts_with("9999-12-30T"));
    }

    #[test]
    fn an_id_reads_back_what_it_prints() {
        let id = AllocationId::new(12);
        assert_eq!(id.to_string(), "a12");
        assert_eq!("a12".parse(), Ok(id));
    }

    #[test]
    fn an_instance_id_reads_back_what_it_prints_and_nothing_else() {
        let id = InstanceId { allocation: AllocationId::new(12), number: 345 };
        assert_eq!(id.to_string(), "a12.345");
        assert_eq!("a12.345".parse(), Ok(id));
        for text in ["a12", "a12.", "a12.+3", "12.3", "a12.3.4", ""] {
            assert!(text.parse::<InstanceId>().is_err(), "{text:?} should be refused");
        }
    }

    #[test]
    fn ids_of_another_kind_or_form_are_refused() {
        for text in ["12", "r12", "a", "a-1", "a+1", "a 1", "a99999999999999999999", ""] {
            assert!(text.parse::<AllocationId>().is_err() || text == "a", "{text:?} should be refused");
        }
        assert!("a".parse::<AllocationId>().is_err());
    }
}
