//! What a guest may use at most, and how a refusal says so.
//!
//! Defaults and hard maxima stand here, once; the manifest chooses between them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Bytes, DurationMs, Fuel, FuelRate};

/// What one instance, and one allocation, may use at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Limits {
    /// Linear memory of one instance, the sum over all its memories; also what an allocation reserves on its node.
    pub memory: Bytes,
    /// Fuel that one request or one job item may burn.
    pub fuel: Fuel,
    /// Fuel per second that one allocation reserves on its node.
    pub fuel_rate: FuelRate,
    /// Wall time of one request or one job item.
    pub deadline: DurationMs,
    /// Instances of one allocation that live at the same time.
    pub concurrency: u32,
}

impl Limits {
    /// The limits of a service whose manifest names none.
    pub const SERVICE: Self = Self {
        memory: Bytes(64 << 20),
        fuel: Fuel(1_000_000_000),
        fuel_rate: FuelRate(50_000_000),
        deadline: DurationMs(30_000),
        concurrency: 64,
    };

    /// The limits of a job whose manifest names none.
    pub const JOB: Self = Self {
        memory: Bytes(64 << 20),
        fuel: Fuel(60_000_000_000),
        fuel_rate: FuelRate(50_000_000),
        deadline: DurationMs(3_600_000),
        concurrency: 1,
    };

    /// The most that any manifest may ask for.
    pub const MAXIMUM: Self = Self {
        memory: Bytes(1 << 30),
        fuel: Fuel(1_000_000_000_000_000),
        fuel_rate: FuelRate(1_000_000_000_000),
        deadline: DurationMs(7 * 86_400_000),
        concurrency: 1024,
    };
}

/// A limit that was hit: what every refusal for want of room says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LimitHit {
    /// The name of the limit, as in the manifest or in the limits table of the book.
    pub limit: String,
    /// Its value, with unit.
    pub value: String,
    /// What was asked for or seen, with unit.
    pub observed: String,
}

impl LimitHit {
    /// Returns the refusal for `limit`, of which `value` are allowed and `observed` were seen.
    pub fn new(limit: &str, value: impl fmt::Display, observed: impl fmt::Display) -> Self {
        Self { limit: limit.to_owned(), value: value.to_string(), observed: observed.to_string() }
    }
}

impl fmt::Display for LimitHit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit `{}` is {}, observed {}", self.limit, self.value, self.observed)
    }
}
