//! How an instance ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Bytes, DurationMs, Fuel, LimitHit};

/// How one instance (a request, or one run of a job item) ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Outcome {
    /// It did what it was started for.
    Completed,
    /// It ended itself with an exit code other than zero.
    Exited {
        /// The code; WASI 0.2 only knows 0 and 1.
        code: u8,
    },
    /// It did something a guest must not do, or panicked.
    Trapped {
        /// What wasmtime says, with the guest's stack.
        reason: String,
    },
    /// It burned all the fuel it was given.
    OutOfFuel {
        /// `limits.fuel`.
        limit: Fuel,
    },
    /// It asked for more memory than it was given.
    OutOfMemory {
        /// `limits.memory`.
        limit: Bytes,
        /// What it would have held.
        observed: Bytes,
    },
    /// It was not done in time.
    DeadlineExceeded {
        /// `limits.deadline`.
        limit: DurationMs,
    },
    /// It hit another of its limits, and could not go on.
    LimitExceeded {
        /// Which, its value, and what was observed.
        hit: LimitHit,
    },
    /// It was ended from outside: the client went away, or the allocation was stopped.
    Cancelled,
    /// It could not be started at all.
    NotStarted {
        /// Why.
        reason: String,
    },
    /// Nobody knows what became of it, and it must not be started twice.
    Unknown {
        /// Why nobody knows.
        reason: String,
    },
}

impl Outcome {
    /// The names of all outcomes.
    pub const NAMES: &'static [&'static str] = &[
        "Completed",
        "Exited",
        "Trapped",
        "OutOfFuel",
        "OutOfMemory",
        "DeadlineExceeded",
        "LimitExceeded",
        "Cancelled",
        "NotStarted",
        "Unknown",
    ];

    /// Tells whether it did what it was started for.
    pub fn is_completed(&self) -> bool {
        matches!(self, Self::Completed)
    }

    /// Returns the name alone, as in the glossary and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Exited { .. } => "Exited",
            Self::Trapped { .. } => "Trapped",
            Self::OutOfFuel { .. } => "OutOfFuel",
            Self::OutOfMemory { .. } => "OutOfMemory",
            Self::DeadlineExceeded { .. } => "DeadlineExceeded",
            Self::LimitExceeded { .. } => "LimitExceeded",
            Self::Cancelled => "Cancelled",
            Self::NotStarted { .. } => "NotStarted",
            Self::Unknown { .. } => "Unknown",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Self::Completed | Self::Cancelled => f.write_str(name),
            Self::Exited { code } => write!(f, "{name}: code {code}"),
            Self::Trapped { reason } | Self::NotStarted { reason } | Self::Unknown { reason } => {
                write!(f, "{name}: {reason}")
            }
            Self::OutOfFuel { limit } => write!(f, "{name}: limit `fuel` is {limit}, all of it burned"),
            Self::OutOfMemory { limit, observed } => {
                write!(f, "{name}: limit `memory` is {limit}, observed {observed}")
            }
            Self::LimitExceeded { hit } => write!(f, "{name}: {hit}"),
            Self::DeadlineExceeded { limit } => {
                write!(f, "{name}: limit `deadline` is {limit}, it had passed")
            }
        }
    }
}
