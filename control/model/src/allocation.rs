//! What an agent says of one allocation.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AllocationId, Bytes, Fuel};

/// What an agent says of one allocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AllocationReport {
    /// Which.
    pub id: AllocationId,
    /// Where it stands.
    pub state: ObservedState,
    /// How often it was started again after its worker died or its start failed.
    pub restarts: u32,
    /// Fuel its instances have burned since its worker started.
    pub fuel: Fuel,
    /// The most memory one of its instances held.
    pub memory: Bytes,
    /// Requests it has answered, or items it has run.
    pub instances: u64,
    /// How many of these have failed: the instance ended badly, or the answer said so by a status of 500 and above.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Where an allocation stands, as its agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ObservedState {
    /// Its component is being brought to the node.
    Fetching,
    /// Its component is being compiled and loaded.
    Starting,
    /// It serves, or works on its items.
    Running,
    /// It failed and is tried again after a while.
    BackingOff {
        /// Why it failed.
        reason: String,
    },
    /// It runs and does not answer its health checks as it should: no requests go to it.
    Unhealthy {
        /// What the last check said.
        reason: String,
    },
    /// It is not to run as long as the coordinator is not heard: see [`OnPartition`](crate::OnPartition).
    Stopped {
        /// Why.
        reason: String,
    },
    /// It can never run on this node: refused, not failed.
    Refused {
        /// Why.
        reason: String,
    },
    /// A job's allocation: each of its items has a record.
    Finished,
}

impl ObservedState {
    /// Returns the name alone.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fetching => "fetching",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::BackingOff { .. } => "backing-off",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Stopped { .. } => "stopped",
            Self::Refused { .. } => "refused",
            Self::Finished => "finished",
        }
    }
}

impl fmt::Display for ObservedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::BackingOff { reason }
            | Self::Unhealthy { reason }
            | Self::Stopped { reason }
            | Self::Refused { reason } => write!(f, ": {reason}"),
            Self::Fetching | Self::Starting | Self::Running | Self::Finished => Ok(()),
        }
    }
}
