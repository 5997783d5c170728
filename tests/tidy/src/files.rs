//! The files of the project, as git sees them: what is tracked or about to be, and nothing that is ignored.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use walkdir::WalkDir;

/// One text file of the project.
pub struct File {
    /// Its path from the root, with forward slashes.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// Returns the folder of the whole project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns all text files, in order of their paths.
pub fn files() -> Vec<File> {
    let mut paths = listed_by_git().unwrap_or_else(walked);
    paths.sort();
    paths.dedup();
    let read = |path: String| Some(File { text: fs::read_to_string(root().join(&path)).ok()?, path });
    paths.into_iter().filter_map(read).collect()
}

/// Returns the text files under `folder` whose names end in `ending`.
pub fn files_under(folder: &str, ending: &str) -> Vec<File> {
    files().into_iter().filter(|file| file.path.starts_with(folder) && file.path.ends_with(ending)).collect()
}

/// Fails with `remedy` and every one of the `violations`, if there are any.
///
/// # Panics
///
/// If there are any.
pub fn assert_none(violations: &[String], remedy: &str) {
    assert!(violations.is_empty(), "\n{}\nremedy: {remedy}\n", violations.join("\n"));
}

fn listed_by_git() -> Option<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Without git, as in an unpacked archive: everything but build folders.
fn walked() -> Vec<String> {
    let root = root();
    let wanted = |entry: &walkdir::DirEntry| {
        entry.depth() == 0 || ![".git", "target"].iter().any(|skipped| entry.file_name() == *skipped)
    };
    let entries = WalkDir::new(&root).into_iter().filter_entry(wanted).filter_map(Result::ok);
    let path = |entry: walkdir::DirEntry| Some(entry.path().strip_prefix(&root).ok()?.to_str()?.to_owned());
    entries.filter(|entry| entry.file_type().is_file()).filter_map(path).collect()
}
