//! The last assignment, kept on disk: with it a node that starts without its coordinator carries on,
//! and knows which orders are too old to obey.

use std::io;
use std::path::PathBuf;

use dunlin_model::Assignment;

use crate::folders;

/// Where the last assignment is kept.
#[derive(Clone, Debug)]
pub(crate) struct LastAssignment {
    path: PathBuf,
}

/// Why the last assignment cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LastAssignmentError {
    /// The file is there but cannot be read.
    #[error("could not read the last assignment from {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not an assignment.
    #[error("the last assignment in {path} is damaged; remove the file to start this node empty")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What the decoder says.
        source: serde_json::Error,
    },
}

impl LastAssignment {
    /// Returns the keeper of the file at `path`.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Returns what was saved last, if anything was.
    pub(crate) fn load(&self) -> Result<Option<Assignment>, LastAssignmentError> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LastAssignmentError::Read { path: self.path.clone(), source }),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| LastAssignmentError::Damaged { path: self.path.clone(), source })
    }

    /// Saves `assignment`; when this returns, a power cut does not lose it.
    pub(crate) fn save(&self, assignment: &Assignment) -> io::Result<()> {
        folders::replace(&self.path, &serde_json::to_vec(assignment)?)
    }
}
