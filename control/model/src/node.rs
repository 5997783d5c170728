//! What a node is and has.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{Bytes, FuelRate, ProgramReport};

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
    /// How many it has of each countable resource that operators declare: `gpu = 1`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, u32>,
    /// How much more than its capacity batch work may reserve.
    #[serde(default, skip_serializing_if = "Overcommit::is_none")]
    pub batch_overcommit: Overcommit,
    /// Whether its clock shows a time before its own certificate was made, as that of a board without a battery does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clock_unset: bool,
    /// What its agent says of the program that it is; nothing if it takes none from the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramReport>,
}

/// How much of a node's capacity may be reserved, in per cent: from 100, the default, to 1000.
///
/// Who reserves seldom uses all of it. Batch work, which can wait and be tried again, may so be given more than there
/// is; services never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Overcommit(u32);

/// A number is not an overcommit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{observed} is not from 100 to 1000: it is how much of the node's capacity may be reserved, in per cent, so 100 is \
     just what there is and 150 half as much again"
)]
pub struct OvercommitError {
    /// The number.
    pub observed: u32,
}

impl Overcommit {
    /// Just what there is.
    pub const NONE: Self = Self(100);
    /// Ten times what there is.
    pub const MOST: Self = Self(1000);

    /// Returns the overcommit of so many per cent, from 100 to 1000.
    pub const fn new(percent: u32) -> Result<Self, OvercommitError> {
        if percent < Self::NONE.0 || percent > Self::MOST.0 {
            return Err(OvercommitError { observed: percent });
        }
        Ok(Self(percent))
    }

    /// Returns how many per cent of the capacity may be reserved.
    pub const fn percent(self) -> u32 {
        self.0
    }

    /// Returns how much of `capacity` may be reserved.
    #[must_use]
    pub fn of(self, capacity: Resources) -> Resources {
        let of = |amount: u64| {
            let product = u128::from(amount) * u128::from(self.0) / 100;
            u64::try_from(product).unwrap_or(u64::MAX)
        };
        Resources { memory: Bytes(of(capacity.memory.0)), fuel_rate: FuelRate(of(capacity.fuel_rate.0)) }
    }

    /// Tells whether it is just what there is.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl Default for Overcommit {
    fn default() -> Self {
        Self::NONE
    }
}

impl TryFrom<u32> for Overcommit {
    type Error = OvercommitError;

    fn try_from(percent: u32) -> Result<Self, OvercommitError> {
        Self::new(percent)
    }
}

impl From<Overcommit> for u32 {
    fn from(overcommit: Overcommit) -> Self {
        overcommit.0
    }
}

impl fmt::Display for Overcommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overcommit_is_of_the_capacity_and_never_less_than_it() {
        let capacity = Resources { memory: Bytes(1000), fuel_rate: FuelRate(u64::MAX) };
        assert_eq!(Overcommit::default().of(capacity), capacity);
        let more = Overcommit::new(150).unwrap().of(capacity);
        assert_eq!(more, Resources { memory: Bytes(1500), fuel_rate: FuelRate(u64::MAX) });
        for percent in [0, 99, 1001, u32::MAX] {
            assert!(Overcommit::new(percent).is_err(), "{percent}");
        }
    }

    #[test]
    fn what_an_older_agent_tells_of_its_node_is_understood_and_nothing_new_is_said_in_vain() {
        let older = r#"{"capacity":{"memory":1,"fuel_rate":2},"labels":{"zone":"a"},"ingress":"10.0.0.1:7480","peer":"10.0.0.1:7481","version":"0.1.0"}"#;
        let mut info: NodeInfo = serde_json::from_str(older).unwrap();
        assert_eq!((info.resources.len(), info.batch_overcommit), (0, Overcommit::NONE));
        assert!(!info.clock_unset);
        assert_eq!(serde_json::to_string(&info).unwrap(), older);
        info.resources.insert("gpu".to_owned(), 2);
        (info.batch_overcommit, info.clock_unset) = (Overcommit::MOST, true);
        let json = serde_json::to_string(&info).unwrap();
        assert_eq!(serde_json::from_str::<NodeInfo>(&json).unwrap(), info);
        assert!(serde_json::from_str::<NodeInfo>(&json.replace(":1000,", ":99,")).is_err());
    }
}
