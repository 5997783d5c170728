//! Which workload goes first where there is not room for all.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which workload goes first where there is not room for all: from 0 to 100, and 50 if nobody says.
///
/// Of what waits the higher goes first. Batch work of a lower one makes way for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(maximum = 100))]
pub struct Priority(u8);

/// A number is not a priority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{observed} is no priority: it is a number from 0 to 100, of which the higher goes first; 50 is the default"
)]
pub struct PriorityError {
    /// The number.
    pub observed: i64,
}

impl Priority {
    /// The one that goes last.
    pub const LOWEST: Self = Self(0);
    /// That of a workload which names none.
    pub const DEFAULT: Self = Self(50);
    /// The one that goes first.
    pub const HIGHEST: Self = Self(100);

    /// Returns the priority of this number, from 0 to 100.
    pub fn new(number: i64) -> Result<Self, PriorityError> {
        match u8::try_from(number) {
            Ok(number) if number <= Self::HIGHEST.0 => Ok(Self(number)),
            Ok(_) | Err(_) => Err(PriorityError { observed: number }),
        }
    }

    /// Returns its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Tells whether it is that of a workload which names none.
    pub fn is_default(&self) -> bool {
        *self == Self::DEFAULT
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<u8> for Priority {
    type Error = PriorityError;

    fn try_from(number: u8) -> Result<Self, PriorityError> {
        Self::new(number.into())
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_a_number_from_0_to_100_and_50_if_nobody_says() {
        assert_eq!(Priority::default().number(), 50);
        for number in [0, 50, 100] {
            let priority = Priority::new(number).unwrap();
            assert_eq!(serde_json::to_string(&priority).unwrap(), number.to_string());
            assert_eq!(serde_json::from_str::<Priority>(&number.to_string()).unwrap(), priority);
        }
        for number in ["101", "255", "256", "-1", "1.5", "\"50\""] {
            assert!(serde_json::from_str::<Priority>(number).is_err(), "{number}");
        }
        assert!(Priority::new(-1).is_err() && Priority::new(i64::MAX).is_err());
        assert!(Priority::HIGHEST > Priority::DEFAULT && Priority::DEFAULT > Priority::LOWEST);
    }
}
