//! Where an agent keeps what, and how a file is replaced so that a power cut leaves the old or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use dunlin_planted::{Point, fails};

/// The folders of one agent, all readable by its user alone.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    root: PathBuf,
}

impl Folders {
    /// Makes the folders which are missing.
    pub(crate) fn create(root: PathBuf) -> io::Result<Self> {
        let folders = Self { root: std::path::absolute(root)? };
        for folder in [
            folders.root.clone(),
            folders.identity(),
            folders.components(),
            folders.logs(),
            folders.secrets(),
            folders.workers(),
        ] {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        Ok(folders)
    }

    /// Returns the folders below `root`, of which only that one is made: workers make their own.
    pub(crate) fn bare(root: PathBuf) -> io::Result<Self> {
        let folders = Self { root: std::path::absolute(root)? };
        DirBuilder::new().recursive(true).mode(0o700).create(&folders.root)?;
        Ok(folders)
    }

    /// The node's key and certificates.
    pub(crate) fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    /// Components by digest.
    pub(crate) fn components(&self) -> PathBuf {
        self.root.join("components")
    }

    /// Secrets that allocations are granted, sealed.
    pub(crate) fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// What guests printed.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What belongs to worker processes, a folder for each.
    pub(crate) fn workers(&self) -> PathBuf {
        self.root.join("workers")
    }

    /// The agent's own folder, in which all others are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A file right in the agent's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// Replaces the file at `path` as a whole, durably, readable by its user alone.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    fails(Point::SnapshotWrite)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fails(Point::SnapshotRename)?;
    fs::rename(&temporary, path)?;
    File::open(parent)?.sync_all()
}
