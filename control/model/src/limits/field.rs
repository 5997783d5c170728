//! The limits that a manifest can choose, one by one: each by its name, with its kind, so that reading, checking and
//! the table in the book need no list of their own.

use std::fmt;

use super::Limits;
use crate::{Bytes, DurationMs, Fuel, FuelRate, WorkloadKind};

/// The value of one limit, with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitValue {
    /// A number of things.
    Count(u64),
    /// Bytes.
    Bytes(Bytes),
    /// Fuel.
    Fuel(Fuel),
    /// Fuel per second.
    FuelRate(FuelRate),
    /// A length of time.
    Duration(DurationMs),
}

impl LimitValue {
    /// Returns the bare number in its base unit.
    pub const fn number(self) -> u64 {
        match self {
            Self::Count(value) => value,
            Self::Bytes(value) => value.0,
            Self::Fuel(value) => value.0,
            Self::FuelRate(value) => value.0,
            Self::Duration(value) => value.0,
        }
    }
}

impl fmt::Display for LimitValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(value) => value.fmt(f),
            Self::Bytes(value) => value.fmt(f),
            Self::Fuel(value) => value.fmt(f),
            Self::FuelRate(value) => value.fmt(f),
            Self::Duration(value) => value.fmt(f),
        }
    }
}

/// Where the value of a field is, by its kind.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    Count(fn(&mut Limits) -> &mut u32),
    Bytes(fn(&mut Limits) -> &mut Bytes),
    Fuel(fn(&mut Limits) -> &mut Fuel),
    FuelRate(fn(&mut Limits) -> &mut FuelRate),
    Duration(fn(&mut Limits) -> &mut DurationMs),
}

/// One field of [`Limits`].
#[derive(Clone, Copy)]
pub struct LimitField {
    /// Its name, as in the manifest and in every refusal.
    pub name: &'static str,
    pub(crate) access: Access,
    /// Whether zero has a meaning: nothing of it at all.
    pub(crate) may_be_zero: bool,
}

impl LimitField {
    /// Returns its value in `limits`.
    pub fn value(&self, limits: &Limits) -> LimitValue {
        let mut limits = *limits;
        match self.access {
            Access::Count(access) => LimitValue::Count(u64::from(*access(&mut limits))),
            Access::Bytes(access) => LimitValue::Bytes(*access(&mut limits)),
            Access::Fuel(access) => LimitValue::Fuel(*access(&mut limits)),
            Access::FuelRate(access) => LimitValue::FuelRate(*access(&mut limits)),
            Access::Duration(access) => LimitValue::Duration(*access(&mut limits)),
        }
    }
}

macro_rules! fields {
    ($($kind:ident $zero:ident $name:ident,)*) => {
        &[$(LimitField {
            name: stringify!($name),
            access: Access::$kind(|limits| &mut limits.$name),
            may_be_zero: fields!($zero),
        },)*]
    };
    (some) => { false };
    (none) => { true };
}

impl Limits {
    /// Every limit that a manifest can choose, in the order of the limits table.
    pub const FIELDS: &'static [LimitField] = fields![
        Bytes some memory,
        Count none table_elements,
        Count some core_instances,
        Count some memories,
        Count none tables,
        Fuel some fuel,
        FuelRate some fuel_rate,
        Fuel some fuel_burst,
        Duration some deadline,
        Bytes some host_call_bytes,
        Count some host_calls,
        Count some host_call_burst,
        Count some handles,
        Bytes none random_bytes,
        Bytes some header_bytes,
        Count some headers,
        Bytes none request_body,
        Bytes none response_body,
        Count some concurrency,
        Count none connections,
        Count none connection_rate,
        Duration some connect_timeout,
        Duration some first_byte_timeout,
        Duration some between_bytes_timeout,
        Bytes none log_rate,
        Bytes none log_burst,
        Bytes some log_line,
        Bytes none log_kept,
        Bytes none environment,
        Bytes none scratch,
    ];

    /// Returns the field of this name.
    pub fn field(name: &str) -> Option<&'static LimitField> {
        Self::FIELDS.iter().find(|field| field.name == name)
    }

    /// Returns what the manifest of a workload of this kind may ask for at most.
    pub const fn maximum_of(kind: &WorkloadKind) -> Self {
        match kind {
            WorkloadKind::Service(_) => Self::MAXIMUM_SERVICE,
            WorkloadKind::Job(_) => Self::MAXIMUM,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_limits_is_listed_once() {
        let json = serde_json::to_value(Limits::SERVICE).unwrap();
        let mut names: Vec<&str> = Limits::FIELDS.iter().map(|field| field.name).collect();
        let mut expected: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected);
        for field in Limits::FIELDS {
            assert_eq!(
                Some(field.value(&Limits::SERVICE).number()),
                json[field.name].as_u64(),
                "{}",
                field.name
            );
        }
    }

    #[test]
    fn no_default_is_beyond_its_maximum() {
        for (defaults, most) in [(Limits::SERVICE, Limits::MAXIMUM_SERVICE), (Limits::JOB, Limits::MAXIMUM)] {
            for field in Limits::FIELDS {
                assert!(field.value(&defaults).number() <= field.value(&most).number(), "{}", field.name);
            }
        }
    }
}
