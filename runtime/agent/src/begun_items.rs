//! How far the node had come with the items of its jobs, told by an agent that is started again on purpose to the one that
//! comes right after it. With it no item that has ended is run again, and of those that may be started at most once the
//! others still are.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use dunlin_model::Begun;

use crate::authenticated;

/// Where that is told.
pub(crate) struct BegunItems {
    path: PathBuf,
    key: [u8; 32],
    /// Which process this is. It stays the same when it becomes another program.
    process: String,
}

impl BegunItems {
    /// Returns the keeper of the file at `path`, authenticated by a key of this node.
    pub(crate) fn at(path: PathBuf, node_key: &[u8; 32]) -> Self {
        let key = blake3::derive_key("dunlin 2026-11-29 begun items", node_key);
        Self { path, key, process: this_process() }
    }

    /// Takes what was told, if it can be believed. It is told once: what is begun from now on, it does not know.
    pub(crate) fn take(&self) -> Vec<Begun> {
        match self.try_take() {
            Ok(begun) => begun,
            Err(error) => {
                let error = error.as_ref() as &dyn std::error::Error;
                tracing::warn!(file = %self.path.display(), error, "it is not believed how far items had come");
                Vec::new()
            }
        }
    }

    fn try_take(&self) -> anyhow::Result<Vec<Begun>> {
        let told: Option<(String, Vec<Begun>)> = authenticated::read(&self.path, &self.key)?;
        let Some((process, begun)) = told else { return Ok(Vec::new()) };
        let is_of_now = process == self.process;
        std::fs::remove_file(&self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        // What another process has told is older than what was begun since.
        Ok(if is_of_now { begun } else { Vec::new() })
    }

    /// Tells it to the next agent.
    pub(crate) fn save(&self, begun: &[Begun]) -> io::Result<()> {
        authenticated::replace(&self.path, &self.key, &(&self.process, begun))
    }
}

/// Returns what no other process has, this or another time that the machine runs.
fn this_process() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (stat, boot) = (read("/proc/self/stat"), read("/proc/sys/kernel/random/boot_id"));
    // After the name, which may hold anything: the state, then 18 more, then when it was started.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let started = after_name.split_whitespace().nth(19).unwrap_or_default();
    format!("{} {started} {}", std::process::id(), boot.trim())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dunlin_model::{AllocationId, RunId};

    use super::*;

    #[test]
    fn it_is_told_once_and_believed_if_nobody_has_changed_it() {
        let folder = tempfile::tempdir().unwrap();
        let items = BegunItems::at(folder.path().join("begun"), &[7; 32]);
        assert_eq!(items.take(), Vec::new());
        let begun = Begun {
            allocation: AllocationId::new(1),
            run: RunId::new(2),
            next: 7,
            done: BTreeSet::from([9]),
            running: BTreeSet::from([3]),
            again: BTreeSet::new(),
        };
        items.save(std::slice::from_ref(&begun)).unwrap();
        assert_eq!(items.take(), vec![begun.clone()]);
        assert_eq!(items.take(), Vec::new());
        let other =
            BegunItems { process: "another".to_owned(), ..BegunItems::at(items.path.clone(), &[7; 32]) };
        other.save(std::slice::from_ref(&begun)).unwrap();
        assert_eq!(items.take(), Vec::new());
        assert!(items.process.split(' ').all(|part| !part.is_empty()), "{}", items.process);
        items.save(&[begun]).unwrap();
        let mut bytes = std::fs::read(&items.path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&items.path, bytes).unwrap();
        assert_eq!(items.take(), Vec::new());
    }
}
