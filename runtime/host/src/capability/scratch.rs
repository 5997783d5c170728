//! Scratch: an empty folder for each instance, gone with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dunlin_model::{AllocationId, Bytes, InstanceId};

use super::folders::{Opened, open_folder};
use super::quota::{Budget, Quota};

/// The most files and folders in all scratch folders of one allocation.
pub(crate) const MAX_ENTRIES: u64 = 10_000;

/// Where the scratch folders of one allocation's instances are made.
pub(crate) struct ScratchBase {
    guest_path: String,
    folder: PathBuf,
    budget: Arc<Budget>,
}

/// The scratch folder of one instance.
pub(crate) struct Scratch {
    path: PathBuf,
    /// What it holds is given back when the folder is gone.
    quota: Option<Arc<Quota>>,
}

impl ScratchBase {
    pub(super) fn new(guest_path: String, base: &Path, allocation: AllocationId, limit: Bytes) -> Self {
        let folder = base.join(allocation.to_string());
        Self { guest_path, folder, budget: Arc::new(Budget::new("scratch", limit, MAX_ENTRIES)) }
    }

    /// Returns how often there was no room in any of them.
    pub(crate) fn refused(&self) -> u64 {
        self.budget.refused()
    }

    /// Makes an empty folder for `instance`.
    pub(crate) fn make(&self, instance: InstanceId) -> io::Result<(Scratch, Opened)> {
        let path = self.folder.join(instance.number.to_string());
        fs::create_dir_all(&self.folder)?;
        if fs::symlink_metadata(&path).is_ok() {
            // Of a worker that died: numbers begin anew, and no instance may see what another one left.
            remove_tree(&path)?;
        }
        fs::create_dir(&path)?;
        let quota = Arc::new(Quota::new(Arc::clone(&self.budget)));
        let scratch = Scratch { path: path.clone(), quota: Some(Arc::clone(&quota)) };
        let folder = open_folder(&path, true)?;
        Ok((scratch, Opened { guest_path: self.guest_path.clone(), folder, quota: Some(quota) }))
    }
}

impl Drop for ScratchBase {
    fn drop(&mut self) {
        // Only if it is empty: an instance that is just being removed removes its own.
        let _not_made_or_not_empty = fs::remove_dir(&self.folder);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let quota = self.quota.take();
        if let Some(quota) = &quota {
            quota.leave();
        }
        let remove = move || {
            if let Err(error) = remove_tree(&path) {
                // Nothing more can be done here; the worker's base is emptied when a worker starts.
                drop((error, quota));
            }
        };
        // Ten thousand files take a while, and an instance may be dropped on a thread that others wait for.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Removes a folder and all in it, however deep, with two levels open at most: a folder's folders are moved up
/// before it is removed, so neither the stack nor the descriptors of this process grow with the depth.
fn remove_tree(root: &Path) -> io::Result<()> {
    let moved = AtomicU64::new(0);
    loop {
        let mut is_empty = true;
        for entry in fs::read_dir(root)? {
            is_empty = false;
            remove_entry(root, &entry?, &moved)?;
        }
        if is_empty {
            return fs::remove_dir(root);
        }
    }
}

fn remove_entry(root: &Path, entry: &fs::DirEntry, moved: &AtomicU64) -> io::Result<()> {
    let path = entry.path();
    if !entry.file_type()?.is_dir() {
        return fs::remove_file(path);
    }
    for inner in fs::read_dir(&path)? {
        let inner = inner?;
        if !inner.file_type()?.is_dir() {
            fs::remove_file(inner.path())?;
            continue;
        }
        loop {
            // A guest may have given the same name to a folder of its own.
            let target = root.join(format!(".{}", moved.fetch_add(1, Ordering::Relaxed)));
            if fs::symlink_metadata(&target).is_err() {
                fs::rename(inner.path(), target)?;
                break;
            }
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_any_depth_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        let outside = folder.path().join("outside");
        fs::write(&outside, "canary").unwrap();
        fs::create_dir_all(root.join(".0/.1/.2")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join(".0/link")).unwrap();
        std::os::unix::fs::symlink(folder.path(), root.join("up")).unwrap();
        // Made from the inside out, since no path could name the innermost.
        for _ in 0..3000 {
            let shell = folder.path().join("shell");
            fs::create_dir(&shell).unwrap();
            fs::write(shell.join("file"), "x").unwrap();
            fs::rename(&root, shell.join("d")).unwrap();
            fs::rename(&shell, &root).unwrap();
        }
        remove_tree(&root).unwrap();
        assert!(!root.exists());
        assert_eq!(fs::read_to_string(outside).unwrap(), "canary");
    }
}
