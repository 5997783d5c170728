//! Protocol versions and how two sides agree on one.

use serde::{Deserialize, Serialize};

/// The ALPN of the connection between agent and coordinator.
pub const ALPN_FLEET: &[u8] = b"dunlin-fleet/1";
/// The ALPN of the connection on which a node joins.
pub const ALPN_JOIN: &[u8] = b"dunlin-join/1";
/// The ALPN of the connection between two nodes.
pub const ALPN_PEER: &[u8] = b"dunlin-peer/1";

/// A version of the messages between agent and coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u16);

impl Version {
    /// The oldest version this program speaks.
    pub const MIN: Self = Self(1);
    /// The newest version this program speaks.
    pub const MAX: Self = Self(1);
}

/// Returns the newest version that both this program and a side which speaks `min..=max` understand.
pub fn agree(min: Version, max: Version) -> Option<Version> {
    let newest = max.min(Version::MAX);
    (newest >= min && newest >= Version::MIN).then_some(newest)
}
