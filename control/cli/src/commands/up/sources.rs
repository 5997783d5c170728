//! What an app is built from: whether that has changed since it was looked at last.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ignore::WalkBuilder;

/// The most files that are looked at: more are not the sources of one app.
const MOST: usize = 20_000;
/// Folders that hold what tools have made, also where no `.gitignore` says so.
const MADE: [&str; 3] = ["node_modules", "target", "__pycache__"];

/// The files of a folder as they are at one moment, without what `.gitignore` leaves out, hidden files, and what is built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources(BTreeMap<PathBuf, (Option<SystemTime>, u64)>);

impl Sources {
    /// Looks at all files of `folder` but those of `built`.
    pub(super) fn of(folder: &Path, built: &BTreeSet<PathBuf>) -> Self {
        let mut walk = WalkBuilder::new(folder);
        // A project need not be in a repository, and what is said of all repositories of a user or above it is not of this one.
        walk.require_git(false).parents(false).git_global(false).git_exclude(false);
        walk.filter_entry(|entry| !MADE.iter().any(|made| entry.file_name() == *made));
        // What cannot be looked at now can later, or is none of the sources.
        let entries = walk.build().filter_map(Result::ok);
        let files = entries.filter(|entry| !built.contains(entry.path())).filter_map(|entry| {
            let about = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            Some((entry.into_path(), (about.modified().ok(), about.len())))
        });
        Self(files.take(MOST).collect())
    }

    /// Returns one of the files in which both differ.
    pub(super) fn changed<'a>(&'a self, before: &'a Self) -> Option<&'a Path> {
        let is_new = |(path, state): &(&PathBuf, &_)| before.0.get(*path) != Some(state);
        let new = self.0.iter().find(is_new).map(|(path, _)| path.as_path());
        let gone = || before.0.keys().find(|path| !self.0.contains_key(*path)).map(PathBuf::as_path);
        new.or_else(gone)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn sources_are_what_is_written_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let look = || Sources::of(folder.path(), &BTreeSet::from([path("guest.wasm")]));
        for made in ["target", "src", ".git"] {
            fs::create_dir(path(made)).unwrap();
        }
        fs::write(path(".gitignore"), "*.log\n").unwrap();
        fs::write(path("src/main.rs"), "fn main() {}").unwrap();
        let before = look();
        for made in ["target/main", "guest.wasm", "a.log", ".git/index"] {
            fs::write(path(made), "made").unwrap();
        }
        assert_eq!(look().changed(&before), None);
        fs::write(path("src/main.rs"), "fn main() { }").unwrap();
        assert_eq!(look().changed(&before), Some(&*path("src/main.rs")));
        let before = look();
        fs::write(path("dunlin.toml"), "").unwrap();
        let after = look();
        assert_eq!(after.changed(&before), Some(&*path("dunlin.toml")));
        fs::remove_file(path("dunlin.toml")).unwrap();
        assert_eq!(look().changed(&after), Some(&*path("dunlin.toml")));
    }
}
