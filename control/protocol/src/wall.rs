//! The wall around a process that handles what strangers wrote: what it is to be, and what was found of it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The wall that a process builds around itself before it handles the first byte from a stranger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WallSetup {
    /// The user and group which it becomes; absent if the agent may not give it one, and it must do with a user
    /// namespace.
    pub user: Option<u32>,
    /// Its working directory. It holds all that belongs to the process, since what lies above it may be closed to its
    /// user.
    pub folder: PathBuf,
    /// What it may read; relative paths begin at `folder`.
    pub read: Vec<PathBuf>,
    /// What it may read, write and change.
    pub write: Vec<PathBuf>,
    /// The process id of its agent.
    pub agent: u32,
    /// Whether it ends rather than go on where a part of the wall cannot be built.
    pub required: bool,
}

/// A part of the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WallPart {
    /// A user of its own, or a user namespace.
    User,
    /// A network namespace with nothing in it.
    Network,
    /// Namespaces of its own for what processes exchange by name.
    Names,
    /// No capability.
    Capabilities,
    /// No right is gained by running a program.
    NewPrivileges,
    /// Only the system calls that a worker needs.
    SystemCalls,
    /// Only its own files.
    Files,
    /// No core dump, and nobody else looks into its memory.
    Dumps,
    /// It ends with its agent.
    Orphans,
    /// A limit on the memory of the whole process, kept by the kernel.
    Memory,
    /// A limit on its threads, kept by the kernel.
    Processes,
}

impl WallPart {
    /// Returns its name, as it is serialised.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Network => "network",
            Self::Names => "names",
            Self::Capabilities => "capabilities",
            Self::NewPrivileges => "new-privileges",
            Self::SystemCalls => "system-calls",
            Self::Files => "files",
            Self::Dumps => "dumps",
            Self::Orphans => "orphans",
            Self::Memory => "memory",
            Self::Processes => "processes",
        }
    }
}

impl fmt::Display for WallPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was found of one part of the wall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WallFinding {
    /// Which part.
    pub part: WallPart,
    /// Whether it is there.
    #[serde(flatten)]
    pub state: WallState,
}

/// Whether a part of the wall is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", content = "detail", rename_all = "kebab-case")]
pub enum WallState {
    /// It is; the text says by which means.
    Present(String),
    /// It is not; the text says why.
    Missing(String),
}

impl WallFinding {
    /// Tells whether the part is missing.
    pub fn is_missing(&self) -> bool {
        matches!(self.state, WallState::Missing(_))
    }

    /// Returns by which means the part is there, or why it is missing.
    pub fn detail(&self) -> &str {
        match &self.state {
            WallState::Present(text) | WallState::Missing(text) => text,
        }
    }
}
