//! What a node is and has.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{Bytes, FuelRate};

/// Amounts of what is reserved: memory and computing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Resources {
    /// Memory of guests.
    pub memory: Bytes,
    /// Fuel per second.
    pub fuel_rate: FuelRate,
}

impl Resources {
    /// Returns the sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { memory: self.memory.plus(other.memory), fuel_rate: self.fuel_rate.plus(other.fuel_rate) }
    }

    /// Returns what is left after `other` is taken, zero where it does not suffice.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self { memory: self.memory.minus(other.memory), fuel_rate: self.fuel_rate.minus(other.fuel_rate) }
    }

    /// Tells whether `other` fits into this.
    pub fn holds(&self, other: &Self) -> bool {
        self.memory >= other.memory && self.fuel_rate >= other.fuel_rate
    }
}

/// What an agent tells of its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// What guests may use on it.
    pub capacity: Resources,
    /// What operators say about it: `zone = "a"`.
    pub labels: BTreeMap<String, String>,
    /// Where its ingress listens for HTTP.
    pub ingress: SocketAddr,
    /// Where other nodes reach it over QUIC.
    pub peer: SocketAddr,
    /// The version of its agent.
    pub version: String,
}
