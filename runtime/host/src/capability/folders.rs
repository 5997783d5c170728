//! Folders of the node: what its operator offers, opened once for all that are granted it.
//!
//! A guest never names a path of the node. It gets an open folder and names what is below; that nothing leads out
//! of it (`..`, absolute paths, symbolic links) is the work of cap-primitives within wasmtime's WASI.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use dunlin_model::{Bytes, FolderGrant, Name};
use wasmtime_wasi::filesystem::{Dir, FsPerms, OpenMode};

use super::NotGranted;
use super::quota::{Budget, Quota};

/// The most files and folders below an offered folder into which guests may write.
const MAX_ENTRIES: u64 = 100_000;

/// A folder which the node's operator offers.
pub struct OfferedFolder(Result<Offered, String>);

struct Offered {
    to_read: Dir,
    /// With how much is in it already and may be; absent if it is for reading only.
    to_write: Option<(Dir, Arc<Quota>)>,
}

impl OfferedFolder {
    /// Opens the folder `path`, into which guests may write if `writable` says how much it may hold. That it cannot be
    /// opened is said to those who are granted it. To be called while this process may still open it: before it has
    /// given up its rights.
    pub fn open(path: &Path, writable: Option<Bytes>) -> Self {
        Self(Offered::open(path, writable).map_err(|error| error.to_string()))
    }
}

impl Offered {
    fn open(path: &Path, writable: Option<Bytes>) -> io::Result<Self> {
        let to_write = match writable {
            None => None,
            Some(limit) => {
                let budget = Arc::new(Budget::new("folder", limit, MAX_ENTRIES));
                Some((open_folder(path, true)?, Arc::new(Quota::counted(budget, path)?)))
            }
        };
        Ok(Self { to_read: open_folder(path, false)?, to_write })
    }
}

/// A folder as one allocation's guests see it.
#[derive(Clone)]
pub(crate) struct Opened {
    /// The path at which they see it.
    pub(crate) guest_path: String,
    pub(crate) folder: Dir,
    /// Absent if it is for reading only.
    pub(crate) quota: Option<Arc<Quota>>,
}

/// All that is offered.
#[derive(Default)]
pub(super) struct Folders(BTreeMap<Name, OfferedFolder>);

impl Folders {
    pub(super) fn new(offered: BTreeMap<Name, OfferedFolder>) -> Self {
        Self(offered)
    }

    pub(super) fn open(&self, grants: &BTreeMap<String, FolderGrant>) -> Result<Vec<Opened>, NotGranted> {
        grants.iter().map(|(path, grant)| self.open_one(path, grant)).collect()
    }

    fn open_one(&self, guest_path: &str, grant: &FolderGrant) -> Result<Opened, NotGranted> {
        let name = &grant.folder;
        let OfferedFolder(offered) =
            self.0.get(name).ok_or_else(|| NotGranted::NotOffered { folder: name.clone() })?;
        let offered = offered
            .as_ref()
            .map_err(|reason| NotGranted::Unusable { folder: name.clone(), reason: reason.clone() })?;
        let (folder, quota) = match (grant.writable, &offered.to_write) {
            (false, _) => (offered.to_read.clone(), None),
            (true, Some((folder, quota))) => (folder.clone(), Some(Arc::clone(quota))),
            (true, None) => return Err(NotGranted::NotWritable { folder: name.clone() }),
        };
        Ok(Opened { guest_path: guest_path.to_owned(), folder, quota })
    }
}

/// Opens a folder to be given to guests.
pub(super) fn open_folder(path: &Path, writable: bool) -> io::Result<Dir> {
    let folder = File::open(path)?;
    if !folder.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let (permissions, mode) = match writable {
        true => (FsPerms::ReadWrite, OpenMode::READ | OpenMode::WRITE),
        false => (FsPerms::ReadOnly, OpenMode::READ),
    };
    Ok(Dir::new(folder, permissions, mode, false))
}
