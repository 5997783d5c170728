//! The folder in which workers make their data sockets.
//!
//! Not in the agent's state folder, since the path of a Unix socket has at most 107 bytes. Its name is made from that
//! folder, so that what a killed agent left is found and cleared by the next one.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use sha2::{Digest as _, Sha256};

/// The folder in which workers make their data sockets.
pub(super) struct Sockets {
    folder: PathBuf,
}

impl Sockets {
    /// Opens the folder for the agent which keeps its state in `state`: empty, and open to this user alone.
    pub(super) fn open(state: &Path) -> io::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
        let base = runtime.unwrap_or_else(std::env::temp_dir);
        let hash = Sha256::digest(state.as_os_str().as_encoded_bytes());
        let folder = base.join(format!("dunlin-{}", hex::encode(&hash[..6])));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        // In a folder for all users somebody else may have made it first, to listen in.
        let found = fs::symlink_metadata(&folder)?;
        if !found.is_dir() || found.uid() != geteuid().as_raw() || found.mode() & 0o077 != 0 {
            let reason = format!("{} belongs to somebody else; remove it", folder.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        for entry in fs::read_dir(&folder)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(Self { folder })
    }

    /// Returns where the worker with this process id listens.
    pub(super) fn path(&self, process: u32) -> PathBuf {
        self.folder.join(process.to_string())
    }

    /// Removes the socket of a worker that is gone.
    pub(super) fn remove_one(&self, process: u32) {
        // It has none if it died before it made one.
        let _ = fs::remove_file(self.path(process));
    }

    /// Removes the folder.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::debug!(%error, "the folder for sockets could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_agent_left_is_cleared() {
        let state = tempfile::tempdir().unwrap();
        let first = Sockets::open(state.path()).unwrap();
        fs::write(first.path(1), b"").unwrap();
        let second = Sockets::open(state.path()).unwrap();
        assert_eq!(second.folder, first.folder);
        assert!(!second.path(1).exists());
        second.remove();
        assert!(!second.folder.exists());
    }
}
