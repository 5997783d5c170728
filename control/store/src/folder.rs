//! A folder that belongs to one process, and in which names are durable.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";

/// A folder that is held by this process until it ends.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The operating system takes the lock back when the process ends, however it ends.
    _lock: File,
}

/// Why a folder could not be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    #[error("another process holds it")]
    InUse { pid: String },
    #[error("could not open the folder")]
    Io(#[from] io::Error),
}

impl Folder {
    /// Takes the folder, and makes it if it is not there. Nobody but its owner can look into it from then on.
    pub(crate) fn take(path: &Path) -> Result<Self, FolderError> {
        fs::create_dir_all(path)?;
        // Asked first: a folder of somebody else that is private already needs no change, and would not allow one.
        if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        }
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                (&lock).take(20).read_to_string(&mut pid)?;
                return Err(FolderError::InUse { pid: pid.trim().to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes what was created, renamed or removed in `folder` durable.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
