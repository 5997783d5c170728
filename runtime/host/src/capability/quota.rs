//! How much guests may keep in a folder: bytes and entries, counted here, for the kernel counts by user and not by
//! guest.
//!
//! What is counted is the length of each file, rounded up to whole blocks, so that a file with holes costs what it
//! could come to hold. A file that is removed while it is still open costs until it is closed. Every change of a
//! length happens in one place, [`OpenFile::change`], which looks at the length before and after; so nothing has to
//! be remembered and nothing can be forgotten.
//!
//! What an ended instance left behind counts until it is removed. Who finds no room meanwhile waits for that, so that
//! each instance has what the limit says, however soon it comes after another.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_model::{Bytes, LimitHit};
use wasmtime_wasi::p2::bindings::filesystem::types::MetadataHashValue;

/// What the smallest file takes on a disk.
const BLOCK: u64 = 4096;
/// How deep a folder may be that is counted.
const MAX_WALK_DEPTH: usize = 64;
/// How long who finds no room waits for what is being removed.
const LEAVING_WAIT: Duration = Duration::from_secs(5);

/// What several quotas may have together.
#[derive(Debug)]
pub(crate) struct Budget {
    name: &'static str,
    bytes: u64,
    entries: u64,
    state: Mutex<State>,
    given_back: Condvar,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    used: Used,
    /// How many quotas are of ended instances, whose folders are being removed.
    leaving: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    bytes: u64,
    entries: u64,
}

impl Budget {
    pub(crate) fn new(name: &'static str, bytes: Bytes, entries: u64) -> Self {
        let (state, given_back) = (Mutex::default(), Condvar::new());
        Self { name, bytes: bytes.0, entries, state, given_back, refused: AtomicU64::new(0) }
    }

    /// Returns how often there was no room.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn refuse(&self, hit: LimitHit) -> LimitHit {
        self.refused.fetch_add(1, Ordering::Relaxed);
        hit
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, used: Used, more: Used) -> bool {
        used.bytes.saturating_add(more.bytes) <= self.bytes
            && used.entries.saturating_add(more.entries) <= self.entries
    }

    /// Waits, on this thread, until there is room for so much more or nothing is being removed that could make some.
    fn state_after_removals(&self, more: Used) -> MutexGuard<'_, State> {
        let wants = |state: &mut State| state.leaving > 0 && !self.has_room(state.used, more);
        let waited = self.given_back.wait_timeout_while(self.state(), LEAVING_WAIT, wants);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// One file, as far as counting goes: its folder's file system and number in it.
type Key = (u64, u64);

/// What is counted of one folder. Dropping it gives everything back to its budget.
#[derive(Debug)]
pub(crate) struct Quota {
    budget: Arc<Budget>,
    own: Mutex<Own>,
    /// Held while names are changed, so that what was seen under a name is still there.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Own {
    used: Used,
    open: BTreeMap<Key, Open>,
    is_leaving: bool,
}

#[derive(Debug, Default)]
struct Open {
    handles: u32,
    is_removed: bool,
}

pub(crate) fn key(hash: &MetadataHashValue) -> Key {
    (hash.lower, hash.upper)
}

fn cost(length: u64) -> u64 {
    length.div_ceil(BLOCK).saturating_mul(BLOCK)
}

impl Quota {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, own: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Returns the quota of a folder in which something may be already.
    pub(crate) fn counted(budget: Arc<Budget>, folder: &Path) -> io::Result<Self> {
        let quota = Self::new(budget);
        let mut used = Used::default();
        walk(folder, &mut used, quota.budget.entries, MAX_WALK_DEPTH)?;
        quota.own().used = used;
        quota.budget.state().used = used;
        Ok(quota)
    }

    /// Waits until nobody else changes names.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Says that the instance whose folder this is has ended, and that the folder is being removed.
    pub(crate) fn leave(&self) {
        self.own().is_leaving = true;
        self.budget.state().leaving += 1;
    }

    /// Tells whether one more entry may be made, which holds so many bytes, and if not, which limit that hits.
    pub(crate) async fn has_room_for_entry(&self, length: u64) -> Result<(), LimitHit> {
        let more = Used { bytes: cost(length), entries: 1 };
        let is_worth_waiting = {
            let state = self.budget.state();
            state.leaving > 0 && !self.budget.has_room(state.used, more)
        };
        if is_worth_waiting {
            let budget = Arc::clone(&self.budget);
            let waiting = tokio::task::spawn_blocking(move || drop(budget.state_after_removals(more)));
            // Whether it was waited for or not, what counts is what is there now.
            drop(waiting.await);
        }
        let (used, budget) = (self.budget.state().used, &self.budget);
        if used.entries < budget.entries {
            return Ok(());
        }
        let name = format!("{} entries", budget.name);
        Err(budget.refuse(LimitHit::new(&name, budget.entries, used.entries + 1)))
    }

    pub(crate) fn entry_made(&self) {
        self.change(0, 0, 1, 0);
    }

    pub(crate) fn entry_removed(&self) {
        self.change(0, 0, 0, 1);
    }

    /// Counts a name that is gone: its file's bytes, unless the file is still open.
    pub(crate) fn file_removed(&self, key: Key, length: u64) {
        self.entry_removed();
        let still_open = match self.own().open.get_mut(&key) {
            Some(open) => {
                open.is_removed = true;
                true
            }
            None => false,
        };
        if !still_open {
            self.change(0, cost(length), 0, 0);
        }
    }

    /// Counts a file that was cut to nothing while it was opened, or a link that was not made after all.
    pub(crate) fn truncated(&self, length: u64) {
        self.change(0, cost(length), 0, 0);
    }

    /// Returns a file of this folder that was opened just now.
    pub(crate) fn open(self: &Arc<Self>, file: Arc<File>, key: Key) -> Arc<OpenFile> {
        self.own().open.entry(key).or_default().handles += 1;
        Arc::new(OpenFile { file, key, quota: Arc::clone(self) })
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a link to another name, which takes room of its own.
    pub(crate) fn take_length(&self, length: u64) -> Result<(), LimitHit> {
        self.take(cost(length))
    }

    /// Takes bytes if they are there.
    fn take(&self, bytes: u64) -> Result<(), LimitHit> {
        self.take_from(self.budget.state(), bytes)
    }

    /// Takes bytes if they are there, or will be once what is being removed is gone. It blocks.
    fn take_after_removals(&self, bytes: u64) -> Result<(), LimitHit> {
        self.take_from(self.budget.state_after_removals(Used { bytes, entries: 0 }), bytes)
    }

    fn take_from(&self, mut state: MutexGuard<'_, State>, bytes: u64) -> Result<(), LimitHit> {
        let wanted = state.used.bytes.saturating_add(bytes);
        if wanted > self.budget.bytes {
            let hit = LimitHit::new(self.budget.name, Bytes(self.budget.bytes), Bytes(wanted));
            return Err(self.budget.refuse(hit));
        }
        state.used.bytes = wanted;
        drop(state);
        self.own().used.bytes += bytes;
        Ok(())
    }

    fn change(&self, more_bytes: u64, fewer_bytes: u64, more_entries: u64, fewer_entries: u64) {
        let apply = |used: &mut Used| {
            used.bytes = used.bytes.saturating_add(more_bytes).saturating_sub(fewer_bytes);
            used.entries = used.entries.saturating_add(more_entries).saturating_sub(fewer_entries);
        };
        apply(&mut self.own().used);
        apply(&mut self.budget.state().used);
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let (own, is_leaving) = {
            let own = self.own();
            (own.used, own.is_leaving)
        };
        let mut state = self.budget.state();
        state.used.bytes = state.used.bytes.saturating_sub(own.bytes);
        state.used.entries = state.used.entries.saturating_sub(own.entries);
        state.leaving = state.leaving.saturating_sub(u32::from(is_leaving));
        self.budget.given_back.notify_all();
    }
}

/// A file that is open, by a handle or a stream of a guest.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: Arc<File>,
    key: Key,
    quota: Arc<Quota>,
}

impl OpenFile {
    /// Makes a change after which the file is at most as long as `length` says of how long it is now, or as long as
    /// it is now if that is more. It blocks: not to be called where others wait.
    pub(crate) fn change<T>(
        &self,
        length: impl FnOnce(u64) -> u64,
        make: impl FnOnce(&File) -> io::Result<T>,
    ) -> io::Result<T> {
        let _turn = self.quota.turn.blocking_lock();
        let now = self.file.metadata()?.len();
        let before = cost(now);
        let reserved = cost(length(now)).saturating_sub(before);
        self.quota
            .take_after_removals(reserved)
            .map_err(|_hit| io::Error::from(io::ErrorKind::StorageFull))?;
        let made = make(&self.file);
        // Without an answer of the system, what was reserved stays taken.
        let after = self.file.metadata().map_or(before + reserved, |metadata| cost(metadata.len()));
        self.quota.change(after, before + reserved, 0, 0);
        made
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut own = self.quota.own();
        let Some(open) = own.open.get_mut(&self.key) else { return };
        open.handles -= 1;
        if open.handles > 0 {
            return;
        }
        let is_removed = open.is_removed;
        own.open.remove(&self.key);
        drop(own);
        if is_removed && let Ok(metadata) = self.file.metadata() {
            self.quota.change(0, cost(metadata.len()), 0, 0);
        }
    }
}

/// Counts what is below a folder, without following links, and stops at `most` entries.
fn walk(folder: &Path, used: &mut Used, most: u64, depth: usize) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::other("it is too deep to be counted"));
    }
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        used.entries += 1;
        if used.entries > most {
            return Err(io::Error::other(format!("it has more than {most} entries")));
        }
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            walk(&entry.path(), used, most, depth - 1)?;
        } else {
            used.bytes = used.bytes.saturating_add(cost(metadata.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn quota(bytes: u64) -> Arc<Quota> {
        Arc::new(Quota::new(Arc::new(Budget::new("scratch", Bytes(bytes), 10))))
    }

    fn used(quota: &Quota) -> u64 {
        quota.budget.state().used.bytes
    }

    #[test]
    fn a_file_costs_its_length_whether_it_is_written_or_not() {
        let quota = quota(3 * BLOCK);
        let file = Arc::new(tempfile::tempfile().unwrap());
        let open = quota.open(file, (1, 1));
        open.change(|_| 1 << 40, |file| file.set_len(1 << 40)).unwrap_err();
        assert_eq!(used(&quota), 0);
        open.change(|_| 2 * BLOCK, |file| file.set_len(2 * BLOCK)).unwrap();
        open.change(|_| 1, |file| file.write_at(b"x", 0)).unwrap();
        assert_eq!(used(&quota), 2 * BLOCK);
        open.change(|_| 0, |file| file.set_len(1)).unwrap();
        assert_eq!(used(&quota), BLOCK);
        open.change(|_| BLOCK + 1, |_| io::Result::<()>::Err(io::ErrorKind::Other.into())).unwrap_err();
        assert_eq!(used(&quota), BLOCK, "what was not written is given back");
    }

    #[test]
    fn a_removed_file_costs_until_it_is_closed() {
        let quota = quota(2 * BLOCK);
        let file = Arc::new(tempfile::tempfile().unwrap());
        let first = quota.open(Arc::clone(&file), (1, 1));
        let second = quota.open(file, (1, 1));
        quota.entry_made();
        first.change(|_| BLOCK, |file| file.set_len(BLOCK)).unwrap();
        quota.file_removed((1, 1), BLOCK);
        drop(first);
        assert_eq!(used(&quota), BLOCK);
        drop(second);
        assert_eq!(quota.budget.state().used, Used::default());
    }

    #[tokio::test]
    async fn who_finds_no_room_waits_for_what_is_being_removed_and_for_nothing_else() {
        let budget = Arc::new(Budget::new("scratch", Bytes(2 * BLOCK), 2));
        let (ended, next) = (Quota::new(Arc::clone(&budget)), Arc::new(Quota::new(Arc::clone(&budget))));
        ended.take(2 * BLOCK).unwrap();
        ended.entry_made();
        ended.entry_made();
        assert_eq!(next.has_room_for_entry(0).await.unwrap_err().limit, "scratch entries");
        let file = next.open(Arc::new(tempfile::tempfile().unwrap()), (1, 1));
        let full = |file: Arc<OpenFile>| {
            tokio::task::spawn_blocking(move || file.change(|_| BLOCK, |file| file.set_len(BLOCK)))
        };
        full(Arc::clone(&file)).await.unwrap().unwrap_err();
        ended.leave();
        let (entry, bytes) = (next.has_room_for_entry(0), full(file));
        let gone = async { drop(ended) };
        let (entry, bytes, ()) = tokio::join!(entry, bytes, gone);
        entry.unwrap();
        bytes.unwrap().unwrap();
        assert_eq!(budget.state().leaving, 0);
    }

    #[test]
    fn quotas_share_a_budget_and_give_back_all_they_took() {
        let budget = Arc::new(Budget::new("scratch", Bytes(2 * BLOCK), 2));
        let (first, second) = (Quota::new(Arc::clone(&budget)), Quota::new(Arc::clone(&budget)));
        first.take(2 * BLOCK).unwrap();
        first.entry_made();
        second.entry_made();
        let hit = second.take(1).unwrap_err();
        assert_eq!(hit.to_string(), "limit `scratch` is 8KiB, observed 8193B");
        assert_eq!(budget.refused(), 1);
        drop(first);
        second.take(BLOCK).unwrap();
        drop(second);
        assert_eq!(budget.state().used, Used::default());
    }

    #[test]
    fn what_is_in_a_folder_already_counts() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        std::fs::write(folder.path().join("inner/file"), vec![0; 5000]).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("link")).unwrap();
        let quota =
            Quota::counted(Arc::new(Budget::new("folder", Bytes(1 << 20), 5)), folder.path()).unwrap();
        assert_eq!(quota.budget.state().used, Used { bytes: 3 * BLOCK, entries: 3 });
        let small = Budget::new("folder", Bytes(1 << 20), 2);
        assert!(Quota::counted(Arc::new(small), folder.path()).is_err());
    }
}
