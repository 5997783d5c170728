//! Quantities with their unit in the type: bytes, fuel, fuel rate, time.
//!
//! People write them with a unit (`"64MiB"`, `"500M"`, `"2s"`); a bare number is refused, since it leaves the
//! reader guessing. Machines (API, wire, store) exchange the bare number in the base unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// There is no number before the unit.
    #[error("`{text}` should be a whole number and a unit, like {example}")]
    Malformed {
        /// The text, shortened and escaped.
        text: String,
        /// A correct one.
        example: &'static str,
    },
    /// The unit is missing or unknown.
    #[error("`{text}` needs one of the units {units}, like {example}")]
    WrongUnit {
        /// The text, shortened and escaped.
        text: String,
        /// The units there are.
        units: &'static str,
        /// A correct one.
        example: &'static str,
    },
    /// The number does not fit.
    #[error("`{text}` is too large")]
    TooLarge {
        /// The text, shortened and escaped.
        text: String,
    },
}

struct Units {
    factors: &'static [(&'static str, u64)],
    listed: &'static str,
    example: &'static str,
}

fn parse(text: &str, units: &Units) -> Result<u64, QuantityError> {
    let shown = || text.chars().take(80).flat_map(char::escape_default).collect::<String>();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() || unit.starts_with('.') {
        return Err(QuantityError::Malformed { text: shown(), example: units.example });
    }
    let Some((_, factor)) = units.factors.iter().find(|(name, _)| *name == unit.trim()) else {
        return Err(QuantityError::WrongUnit { text: shown(), units: units.listed, example: units.example });
    };
    let number: u64 = number.parse().map_err(|_| QuantityError::TooLarge { text: shown() })?;
    number.checked_mul(*factor).ok_or_else(|| QuantityError::TooLarge { text: shown() })
}

/// Prints the number with the largest unit that needs no fraction.
fn print(f: &mut fmt::Formatter<'_>, value: u64, units: &Units) -> fmt::Result {
    let largest =
        units.factors.iter().rev().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    let (unit, factor) = largest.unwrap_or(&units.factors[0]);
    f.pad(&format!("{}{unit}", value / factor))
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $units:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub struct $name(pub u64);

        impl FromStr for $name {
            type Err = QuantityError;

            fn from_str(text: &str) -> Result<Self, QuantityError> {
                parse(text, &$units).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                print(f, self.0, &$units)
            }
        }

        impl $name {
            /// Returns the sum, or the largest value if it does not fit.
            #[must_use]
            pub const fn plus(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }

            /// Returns the difference, or zero if `other` is larger.
            #[must_use]
            pub const fn minus(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }
    };
}

const BYTES: Units = Units {
    factors: &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)],
    listed: "B, KiB, MiB, GiB, TiB",
    example: "\"64MiB\"",
};
const FUEL: Units = Units {
    factors: &[("", 1), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000)],
    listed: "k, M, G, T (or none)",
    example: "\"500M\"",
};
const FUEL_RATE: Units = Units {
    factors: &[("/s", 1), ("k/s", 1_000), ("M/s", 1_000_000), ("G/s", 1_000_000_000)],
    listed: "k/s, M/s, G/s",
    example: "\"50M/s\"",
};
const DURATION: Units = Units {
    factors: &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)],
    listed: "ms, s, m, h, d",
    example: "\"30s\"",
};

quantity!(
    /// A number of bytes.
    Bytes, BYTES
);
quantity!(
    /// An amount of executed work, in wasmtime's fuel.
    Fuel, FUEL
);
quantity!(
    /// Fuel per second.
    FuelRate, FUEL_RATE
);
quantity!(
    /// A length of time, in milliseconds.
    DurationMs, DURATION
);

impl From<DurationMs> for Duration {
    fn from(duration: DurationMs) -> Self {
        Self::from_millis(duration.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_in_words_are_understood() {
        assert_eq!("64MiB".parse(), Ok(Bytes(64 << 20)));
        assert_eq!("64 MiB".parse(), Ok(Bytes(64 << 20)));
        assert_eq!("500M".parse(), Ok(Fuel(500_000_000)));
        assert_eq!("50M/s".parse(), Ok(FuelRate(50_000_000)));
        assert_eq!("1500ms".parse(), Ok(DurationMs(1500)));
    }

    #[test]
    fn wrong_units_and_sizes_are_refused() {
        for text in ["", "64", "64MB", "MiB", "-1MiB", "1.5MiB", "99999999TiB", "1e3MiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text:?} should be refused");
        }
        assert!("2".parse::<DurationMs>().is_err());
        assert!("50M".parse::<FuelRate>().is_err());
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for bytes in [0, 1, 1023, 1024, 3 << 20, 1 << 40] {
            assert_eq!(Bytes(bytes).to_string().parse(), Ok(Bytes(bytes)));
        }
        assert_eq!(Bytes(0).to_string(), "0B");
        assert_eq!(DurationMs(90_000).to_string(), "90s");
    }
}
