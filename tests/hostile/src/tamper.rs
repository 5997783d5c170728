//! What a thief of the disk might do to compiled code: each change must be noticed before a worker loads it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::case::{Tampering, Verdict};
use crate::run::Arena;

/// Returns the files with compiled code of the hostile namespace.
pub(crate) fn compiled(folder: &Path) -> Vec<PathBuf> {
    compiled_of(folder, "hostile")
}

/// Returns which files these are, and how long each is.
pub(crate) fn identities(files: &[PathBuf]) -> Vec<(u64, u64)> {
    let of = |path: &PathBuf| path.metadata().ok().map(|metadata| (metadata.ino(), metadata.len()));
    files.iter().filter_map(of).collect()
}

/// Returns the files with compiled code of a namespace.
pub(crate) fn compiled_of(folder: &Path, namespace: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_of = |word: &str| path.components().any(|part| part.as_os_str() == word);
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if kind.is_file() && is_of(namespace) && (is_of("compiled") || is_of("cache")) => {
                    files.push(path);
                }
                _ => {}
            }
        }
    }
    files.sort();
    files
}

/// Changes every file of compiled code, has the worker begin anew, and looks at what it does.
pub(crate) async fn tried(arena: &mut Arena, way: Tampering) -> anyhow::Result<Verdict> {
    let files = compiled(&arena.state());
    anyhow::ensure!(!files.is_empty(), "no compiled code was found under {}", arena.state().display());
    let genuine = files.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
    for (index, path) in files.iter().enumerate() {
        let bytes = changed(way, &genuine[index], &genuine[(index + 1) % genuine.len()]);
        // Another file in its place, as a thief would do it: the one that is there may be open or mapped.
        let beside = path.with_extension("beside");
        fs::write(&beside, bytes)?;
        fs::rename(&beside, path)?;
    }
    let worker = arena.hostile_worker().context("the hostile namespace has a worker")?;
    kill(Pid::from_raw(worker.try_into()?), Signal::SIGKILL)?;
    arena.until_answers("/hostile/fine").await;
    arena.renew().await;
    let kept = files
        .iter()
        .zip(&genuine)
        .filter(|(path, genuine)| fs::read(path).is_ok_and(|bytes| bytes == **genuine));
    Ok(Verdict::Contained(format!(
        "{} files changed, {} made again, and it serves",
        files.len(),
        kept.count()
    )))
}

fn changed(way: Tampering, genuine: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = genuine.to_vec();
    match way {
        Tampering::Flip => {
            let step = (bytes.len() / 16).max(1);
            for byte in bytes.iter_mut().step_by(step) {
                *byte ^= 0x10;
            }
        }
        Tampering::Cut => bytes.truncate(bytes.len() / 2),
        Tampering::Replace => bytes = b"\x7fELF\x02\x01\x01".iter().copied().chain([0; 65_536]).collect(),
        Tampering::Swap => bytes = if other == genuine { Vec::new() } else { other.to_vec() },
        Tampering::Empty => bytes.clear(),
    }
    bytes
}
