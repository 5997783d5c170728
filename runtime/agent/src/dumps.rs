//! Core dumps of instances that trapped: bounded files on the node, which outlive worker and agent.
//!
//! A dump holds the guest's memory, and with it what the guest was told. It is readable by the agent's user alone, and
//! leaves the node only for who has the token of the API. A worker is not believed: what it passes is read as far as a
//! dump may be long, and kept under a name of the agent's own.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use dunlin_model::{AllocationId, Bytes, InstanceId};
use tokio::sync::watch;

use crate::NodeLimits;

/// How a file's name ends; before it stands the instance.
const EXTENSION: &str = ".wasm";
/// What a dump is called while it is written.
const UNFINISHED: &str = "unfinished";

/// How many dumps are kept, and how large they may be.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    size: Bytes,
    each: usize,
    disk: Bytes,
}

impl Bounds {
    fn of(limits: &NodeLimits) -> Self {
        let each = usize::try_from(limits.coredumps).unwrap_or(usize::MAX);
        Self { size: limits.coredump_size, each, disk: limits.coredump_disk }
    }
}

/// The core dumps on this node.
pub(crate) struct Dumps {
    folder: PathBuf,
    /// Held while files are changed.
    bounds: Mutex<Bounds>,
    latest: watch::Sender<Option<InstanceId>>,
}

impl Dumps {
    /// Returns the dumps kept in `folder`, within the default limits.
    pub(crate) fn open(folder: PathBuf) -> Self {
        let bounds = Mutex::new(Bounds::of(&NodeLimits::default()));
        Self { folder, bounds, latest: watch::channel(None).0 }
    }

    /// From now on these limits hold.
    pub(crate) fn bind(&self, limits: &NodeLimits) {
        *self.bounds.lock().unwrap_or_else(PoisonError::into_inner) = Bounds::of(limits);
    }

    /// Returns which dump was kept last, as it changes.
    pub(crate) fn latest(&self) -> watch::Receiver<Option<InstanceId>> {
        self.latest.subscribe()
    }

    /// Keeps the dump of `instance` which is in the file `from`, and removes what there is no more room for.
    pub(crate) fn keep(&self, instance: InstanceId, from: OwnedFd) -> io::Result<()> {
        let from = File::from(from);
        // What is no file may never end, or let whoever reads it wait.
        if !from.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        let bounds = self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let unfinished = self.folder.join(UNFINISHED);
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&unfinished)?;
        let written = io::copy(&mut from.take(bounds.size.0 + 1), &mut file)?;
        if written > bounds.size.0 {
            fs::remove_file(&unfinished)?;
            let limit = format!("limit `coredump_size` is {}, observed more", bounds.size);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, limit));
        }
        fs::rename(&unfinished, self.path(instance))?;
        self.make_room(*bounds, instance.allocation)?;
        drop(bounds);
        self.latest.send_replace(Some(instance));
        Ok(())
    }

    /// Removes the oldest dumps of `allocation`, and of all, until the rest is within the bounds.
    fn make_room(&self, bounds: Bounds, allocation: AllocationId) -> io::Result<()> {
        let mut kept = self.kept()?;
        let surplus = kept.iter().filter(|dump| dump.instance.allocation == allocation).count();
        let mut surplus = surplus.saturating_sub(bounds.each);
        let mut total: u64 = kept.iter().map(|dump| dump.length).sum();
        kept.sort_unstable_by_key(|dump| (dump.written, dump.instance));
        for dump in kept {
            let is_of_it = dump.instance.allocation == allocation;
            if (is_of_it && surplus > 0) || total > bounds.disk.0 {
                fs::remove_file(self.path(dump.instance))?;
                surplus = surplus.saturating_sub(usize::from(is_of_it));
                total -= dump.length;
            }
        }
        Ok(())
    }

    /// Opens the dump of `instance`, and returns how long it is.
    pub(crate) fn read(&self, instance: InstanceId) -> io::Result<(File, u64)> {
        let file = File::open(self.path(instance))?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// Returns where the dump of `instance` is, if it is there.
    pub(crate) fn path(&self, instance: InstanceId) -> PathBuf {
        self.folder.join(format!("{instance}{EXTENSION}"))
    }

    /// Removes all dumps.
    pub(crate) fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn kept(&self) -> io::Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Some(instance) = instance(&entry.path()) else { continue };
            let metadata = entry.metadata()?;
            kept.push(Kept { written: metadata.modified()?, instance, length: metadata.len() });
        }
        Ok(kept)
    }
}

struct Kept {
    written: SystemTime,
    instance: InstanceId,
    length: u64,
}

/// Returns whose dump this file is.
fn instance(path: &Path) -> Option<InstanceId> {
    path.file_name()?.to_str()?.strip_suffix(EXTENSION)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dunlin_descriptors::file_in_memory;

    use super::*;

    fn id(allocation: u64, number: u64) -> InstanceId {
        InstanceId { allocation: AllocationId::new(allocation), number }
    }

    fn dumps(folder: &Path) -> Dumps {
        let dumps = Dumps::open(folder.join("coredumps"));
        let (coredump_size, coredump_disk) = (Bytes(10), Bytes(50));
        dumps.bind(&NodeLimits { coredump_size, coredumps: 3, coredump_disk, ..NodeLimits::default() });
        dumps
    }

    fn keep(dumps: &Dumps, instance: InstanceId, length: usize) -> io::Result<()> {
        dumps.keep(instance, file_in_memory(&vec![7; length]).unwrap())?;
        // Files get older as they come, whatever the clock of the disk can tell apart.
        for dump in dumps.kept()? {
            let file = File::options().write(true).open(dumps.path(dump.instance))?;
            file.set_modified(dump.written - Duration::from_secs(10))?;
        }
        Ok(())
    }

    fn kept(dumps: &Dumps) -> Vec<String> {
        let mut kept: Vec<InstanceId> = dumps.kept().unwrap().into_iter().map(|dump| dump.instance).collect();
        kept.sort_unstable();
        kept.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn of_core_dumps_the_latest_are_kept_within_both_bounds() {
        let folder = tempfile::tempdir().unwrap();
        for number in 1..=5 {
            // Each is an agent of its own.
            keep(&dumps(folder.path()), id(1, number), 10).unwrap();
        }
        let dumps = dumps(folder.path());
        assert_eq!(kept(&dumps), ["a1.3", "a1.4", "a1.5"], "three of one allocation");
        for number in 1..=3 {
            keep(&dumps, id(2, number), 10).unwrap();
        }
        assert_eq!(kept(&dumps), ["a1.4", "a1.5", "a2.1", "a2.2", "a2.3"], "fifty bytes of all");
        let (mut file, length) = dumps.read(id(2, 3)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!((length, bytes), (10, vec![7; 10]));
        assert!(dumps.read(id(2, 4)).is_err());
        assert_eq!(*dumps.latest().borrow(), Some(id(2, 3)));
    }

    #[test]
    fn what_a_worker_passes_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let dumps = dumps(folder.path());
        let error = keep(&dumps, id(1, 1), 11).unwrap_err();
        assert_eq!(error.to_string(), "limit `coredump_size` is 10B, observed more");
        let (reader, _writer) = io::pipe().unwrap();
        let error = dumps.keep(id(1, 1), reader.into()).unwrap_err();
        assert_eq!(error.to_string(), "it is no file");
        assert_eq!(kept(&dumps), Vec::<String>::new());
        assert_eq!(fs::read_dir(folder.path().join("coredumps")).unwrap().count(), 0);
    }
}
