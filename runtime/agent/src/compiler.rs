//! Compiled code: made by a child process from components on this node, kept and authenticated for the workers.
//!
//! A compiler is a large program that reads bytes from strangers. It runs behind the same wall as a worker, for one
//! component, one at a time; the agent feeds it, judges how it ended, and keeps what it made under a MAC. The code of
//! what is assigned to this node stays on disk, since workers load it whenever it is asked for, and so does that to
//! which a rollout may go back; of the rest, the least recently used goes first.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use dunlin_compiled::{CodeKind, Platform, file_name, is_genuine, seal};
use dunlin_model::{AllocationId, Bytes, CompileLimits, Digest, LimitRow};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;

use self::child::Child;
pub(crate) use self::child::platform_of;
use crate::NodeLimits;
use crate::homes::{Home, Homes, share};

mod child;

/// The most bytes that all compiled code on this node may have; beyond it the oldest goes.
const MAX_KEPT: u64 = 4 << 30;
/// How many files of code are looked at at a time. Each takes a thread meanwhile, and a node that starts has them all to
/// look at.
const LOOKING: usize = 4;

/// Why a component has no compiled code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CompileError {
    /// It never will: the component itself is at fault.
    #[error("{0}")]
    Refused(String),
    /// It may another time.
    #[error("{0}")]
    Failed(String),
}

/// Who starts compilers and keeps what they make.
pub(crate) struct Compiler {
    program: PathBuf,
    homes: Arc<Homes>,
    /// Whether compilers end where a part of the wall is missing.
    required: bool,
    platform: Platform,
    limits: CompileLimits,
    /// C4: how much compiled code each home keeps, unless more of it is needed.
    kept: Bytes,
    /// C3: one compiler at a time. Who waits for it may find the code on disk afterwards.
    turn: Semaphore,
    looking: Semaphore,
    /// The code that must stay.
    assigned: Mutex<BTreeMap<AllocationId, PathBuf>>,
    /// The names of the files of code that must stay though nothing runs it.
    pinned: Mutex<BTreeSet<String>>,
}

impl Compiler {
    /// Returns a compiler which is the program `program`.
    pub(crate) fn new(program: PathBuf, homes: Arc<Homes>, required: bool, platform: Platform) -> Self {
        let (turn, looking) = (Semaphore::new(1), Semaphore::new(LOOKING));
        let (assigned, pinned) = Default::default();
        let limits = CompileLimits::default();
        let kept = Bytes(LimitRow::default_of("compiled_kept").number());
        Self { program, homes, required, platform, limits, kept, turn, looking, assigned, pinned }
    }

    /// Returns the same with these limits on what is compiled and kept.
    pub(crate) fn within(self, limits: &NodeLimits) -> Self {
        Self { limits: limits.compile(), kept: limits.compiled_kept, ..self }
    }

    /// Returns the file with the code of this kind of the component `digest`, whose bytes are in the file `component`, in
    /// `home`. It stays there until [`Self::forget`] is called for `allocation`.
    pub(crate) fn compiled(
        self: &Arc<Self>,
        home: &Home,
        allocation: AllocationId,
        component: PathBuf,
        (digest, kind): (Digest, CodeKind),
    ) -> impl Future<Output = Result<PathBuf, CompileError>> + use<> {
        let path = home.compiled(&file_name(self.platform.for_code(kind), digest));
        // Noted at once: whoever forgets the allocation does so later.
        self.assigned().insert(allocation, path.clone());
        let (this, home) = (Arc::clone(self), home.clone());
        async move {
            this.have(&home, &path, &component, (digest, kind)).await?;
            Ok(path)
        }
    }

    async fn have(
        &self,
        home: &Home,
        path: &Path,
        component: &Path,
        (digest, kind): (Digest, CodeKind),
    ) -> Result<(), CompileError> {
        let platform = self.platform.for_code(kind);
        let looking = self.looking.acquire().await.expect("the semaphore is never closed");
        if is_usable(home, path, platform, digest).await? {
            return Ok(());
        }
        drop(looking);
        let _turn = self.turn.acquire().await.expect("the semaphore is never closed");
        if is_usable(home, path, platform, digest).await? {
            return Ok(());
        }
        let bytes = read_component(component, digest, self.limits.component.component_size).await?;
        let (program, required, limits) = (self.program.as_path(), self.required, &self.limits);
        let child = Child { program, user: home.user, required, limits };
        let code = child.compile(bytes, kind).await?;
        let (key, target) = (home.code_key, path.to_owned());
        let keeping = tokio::task::spawn_blocking(move || {
            let mac = seal(key, platform, digest, &code);
            keep(&target, &mac, &code)
        });
        let kept = keeping.await.map_err(io::Error::other).and_then(|kept| kept);
        kept.map_err(|error| {
            CompileError::Failed(format!("its compiled code cannot be kept on disk: {error}"))
        })?;
        if let Err(error) = self.make_room(home) {
            tracing::warn!(%error, "old compiled code could not be removed");
        }
        Ok(())
    }

    /// The code of `allocation` is no longer needed for it.
    pub(crate) fn forget(&self, allocation: AllocationId) {
        self.assigned().remove(&allocation);
    }

    /// The code of these components stays, of whatever kind it is and in whichever home; that of no others does for
    /// this reason.
    pub(crate) fn pin(&self, components: &BTreeSet<Digest>) {
        let names = components.iter().flat_map(|component| {
            CodeKind::ALL.map(|kind| file_name(self.platform.for_code(kind), *component))
        });
        *self.pinned.lock().unwrap_or_else(PoisonError::into_inner) = names.collect();
    }

    /// Removes the oldest code that nobody needs until the rest is within the limits: in `home`, to which some was just
    /// added, and in all of them. Whoever deploys much pushes out what is his own.
    fn make_room(&self, home: &Home) -> io::Result<()> {
        let assigned: BTreeSet<PathBuf> = self.assigned().values().cloned().collect();
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_pinned =
            |path: &Path| path.file_name().and_then(OsStr::to_str).is_some_and(|name| pinned.contains(name));
        let is_needed = |path: &Path| assigned.contains(path) || is_pinned(path);
        remove_oldest(&[home.compiled_folder()], is_needed, self.kept.0)?;
        remove_oldest(&self.homes.compiled()?, is_needed, MAX_KEPT)
    }

    fn assigned(&self) -> std::sync::MutexGuard<'_, BTreeMap<AllocationId, PathBuf>> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells whether genuine code is there, and notes that it was used.
async fn is_usable(
    home: &Home,
    path: &Path,
    platform: Platform,
    digest: Digest,
) -> Result<bool, CompileError> {
    let (key, path) = (home.code_key, path.to_owned());
    let looking = tokio::task::spawn_blocking(move || match is_genuine(&path, key, platform, digest) {
        Ok(true) => {
            let used = FileTimes::new().set_modified(SystemTime::now());
            let noted = File::options().write(true).open(&path).and_then(|file| file.set_times(used));
            if let Err(error) = noted {
                tracing::debug!(%error, path = %path.display(), "use of compiled code not noted");
            }
            true
        }
        Ok(false) => {
            tracing::warn!(path = %path.display(), "compiled code is not genuine; it is compiled again");
            drop(fs::remove_file(&path));
            false
        }
        Err(_) => false,
    });
    looking.await.map_err(|error| CompileError::Failed(format!("looking for its code ended early: {error}")))
}

async fn read_component(path: &Path, digest: Digest, most: Bytes) -> Result<Vec<u8>, CompileError> {
    let failed = |error: io::Error| CompileError::Failed(format!("could not read the component: {error}"));
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that admission sees that it is too large and says so.
    file.take(most.0 + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    let actual = Digest::of(&bytes);
    if actual != digest {
        return Err(CompileError::Failed(format!("the component should be {digest} but is {actual}")));
    }
    Ok(bytes)
}

/// Writes code to disk. A file is complete or not there.
fn keep(path: &Path, mac: &[u8], code: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(mac)?;
    file.write_all(code)?;
    share(file.as_file())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn remove_oldest(folders: &[PathBuf], is_needed: impl Fn(&Path) -> bool, limit: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for folder in folders {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((modified, metadata.len(), entry.path()));
            }
        }
    }
    files.sort();
    let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
    for (_, length, path) in files {
        if total <= limit {
            break;
        }
        if !is_needed(&path) {
            fs::remove_file(path)?;
            total -= length;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_code_goes_first_and_what_is_needed_never() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = ["a", "b", "c"].iter().map(|name| folder.path().join(name)).collect();
        for (index, path) in paths.iter().enumerate() {
            fs::write(path, [0; 10]).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(index as u64 + 1);
            let file = File::options().write(true).open(path).unwrap();
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
        }
        let left = |needed: &[PathBuf], limit| {
            let is_needed = |path: &Path| needed.iter().any(|it| it == path);
            remove_oldest(&[folder.path().to_owned(), folder.path().join("none")], is_needed, limit).unwrap();
            paths.iter().map(|path| path.exists()).collect::<Vec<_>>()
        };
        assert_eq!(left(&[], 30), [true, true, true]);
        assert_eq!(left(&paths[..1], 20), [true, false, true]);
        assert_eq!(left(&paths, 0), [true, false, true]);
        assert_eq!(left(&[], 0), [false, false, false]);
    }
}
