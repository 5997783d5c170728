//! What a guest may use at most, and how a refusal says so.
//!
//! Defaults and hard maxima stand here, once; the manifest chooses between them.

mod component;
mod field;
mod rows;
mod table;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::component::{CompileLimits, ComponentLimits};
pub(crate) use self::field::Access;
pub use self::field::{LimitField, LimitValue};
pub use self::table::{LimitRow, SetIn};
use crate::{Bytes, DurationMs, Fuel, FuelRate};

/// What one instance, and one allocation, may use at most. The ids (G1 ...) are those of the limits table in the book.
///
/// A field that an older message or record does not have takes the default of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Limits {
    /// G1: linear memory of one instance, the sum over all its memories; also what an allocation reserves on its node.
    pub memory: Bytes,
    /// G2: elements of all tables of one instance.
    pub table_elements: u32,
    /// G3: core instances of one instance.
    pub core_instances: u32,
    /// G3: memories of one instance.
    pub memories: u32,
    /// G3: tables of one instance.
    pub tables: u32,
    /// G6: fuel that one request or one job item may burn.
    pub fuel: Fuel,
    /// Fuel per second that one allocation reserves on its node, and beyond which it is slowed down.
    pub fuel_rate: FuelRate,
    /// Fuel that an allocation may burn at once after it was idle, beyond its rate.
    pub fuel_burst: Fuel,
    /// G7: wall time of one request or one job item.
    pub deadline: DurationMs,
    /// G8: bytes which one host call may copy from the guest.
    pub host_call_bytes: Bytes,
    /// G9: host calls of one instance per second; beyond it the instance is slowed down.
    pub host_calls: u32,
    /// G9: host calls that an instance may make at once, beyond its rate.
    pub host_call_burst: u32,
    /// G10: handles (streams, pollables, header objects, ...) which one instance may hold.
    pub handles: u32,
    /// G11: random bytes which one host call may give.
    pub random_bytes: Bytes,
    /// G12: bytes of all header fields of one request or response.
    pub header_bytes: Bytes,
    /// G12: header fields of one request or response.
    pub headers: u32,
    /// G13: bytes of one request's body.
    pub request_body: Bytes,
    /// G13: bytes of one response's body.
    pub response_body: Bytes,
    /// G14: instances of one allocation that live at the same time.
    pub concurrency: u32,
    /// G15: outbound connections which one instance may have open.
    pub connections: u32,
    /// G15: outbound connections which one instance may open in a second.
    pub connection_rate: u32,
    /// G16: time to connect.
    pub connect_timeout: DurationMs,
    /// G16: time from a request that was sent to the first byte of its response.
    pub first_byte_timeout: DurationMs,
    /// G16: time between two pieces of a response's body.
    pub between_bytes_timeout: DurationMs,
    /// G17: bytes of log per second; what is beyond is dropped and counted.
    pub log_rate: Bytes,
    /// G17: bytes of log at once, beyond the rate.
    pub log_burst: Bytes,
    /// G17: bytes of one line of log; a longer one is cut.
    pub log_line: Bytes,
    /// G17: bytes of log which the node keeps of one allocation.
    pub log_kept: Bytes,
    /// G18: bytes of all variables and of all configuration given to a guest, names and values together.
    pub environment: Bytes,
    /// G19: bytes of the scratch folder of one allocation, if it is granted one.
    pub scratch: Bytes,
}

impl Limits {
    /// The limits of a service whose manifest names none.
    pub const SERVICE: Self = Self {
        memory: Bytes(64 << 20),
        table_elements: 100_000,
        core_instances: 64,
        memories: 8,
        tables: 32,
        fuel: Fuel(1_000_000_000),
        fuel_rate: FuelRate(50_000_000),
        fuel_burst: Self::burst_of(FuelRate(50_000_000)),
        deadline: DurationMs(30_000),
        host_call_bytes: Bytes(4 << 20),
        host_calls: 50_000,
        host_call_burst: 100_000,
        handles: 10_000,
        random_bytes: Bytes(64 << 10),
        header_bytes: Bytes(32 << 10),
        headers: 100,
        request_body: Bytes(10 << 20),
        response_body: Bytes(64 << 20),
        concurrency: 64,
        connections: 32,
        connection_rate: 10,
        connect_timeout: DurationMs(5_000),
        first_byte_timeout: DurationMs(30_000),
        between_bytes_timeout: DurationMs(30_000),
        log_rate: Bytes(64 << 10),
        log_burst: Bytes(1 << 20),
        log_line: Bytes(8 << 10),
        log_kept: Bytes(16 << 20),
        environment: Bytes(64 << 10),
        scratch: Bytes(64 << 20),
    };

    /// The limits of a job whose manifest names none.
    pub const JOB: Self =
        Self { fuel: Fuel(60_000_000_000), deadline: DurationMs(3_600_000), concurrency: 1, ..Self::SERVICE };

    /// The most that the manifest of a service may ask for: somebody waits for its answer.
    pub const MAXIMUM_SERVICE: Self =
        Self { fuel: Fuel(60_000_000_000), deadline: DurationMs(600_000), ..Self::MAXIMUM };

    /// The most that any manifest may ask for.
    pub const MAXIMUM: Self = Self {
        memory: Bytes(1 << 30),
        table_elements: 1_000_000,
        core_instances: 256,
        memories: 16,
        tables: 64,
        fuel: Fuel(1_000_000_000_000_000),
        fuel_rate: FuelRate(1_000_000_000_000),
        fuel_burst: Fuel(1_000_000_000_000),
        deadline: DurationMs(7 * 86_400_000),
        host_call_bytes: Bytes(32 << 20),
        host_calls: 10_000_000,
        host_call_burst: 10_000_000,
        handles: 100_000,
        random_bytes: Bytes(1 << 20),
        header_bytes: Bytes(64 << 10),
        headers: 200,
        request_body: Bytes(1 << 30),
        response_body: Bytes(1 << 30),
        concurrency: 1024,
        connections: 256,
        connection_rate: 100,
        connect_timeout: DurationMs(600_000),
        first_byte_timeout: DurationMs(600_000),
        between_bytes_timeout: DurationMs(600_000),
        log_rate: Bytes(16 << 20),
        log_burst: Bytes(64 << 20),
        log_line: Bytes(64 << 10),
        log_kept: Bytes(1 << 30),
        environment: Bytes(256 << 10),
        scratch: Bytes(1 << 30),
    };

    /// Returns the burst of an allocation whose manifest names only its rate: what a quarter of a second gives.
    pub const fn burst_of(rate: FuelRate) -> Fuel {
        // A burst of nothing would let nothing begin.
        Fuel(if rate.0 < 4 { 1 } else { rate.0 / 4 })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::SERVICE
    }
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
