//! The inputs of a run: finds the files, sends those which the coordinator lacks, then the list of all.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dunlin_api::Client;
use dunlin_model::{Digest, ItemInput, MAX_ITEMS};
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::error::CommandError;
use crate::output::Output;

/// The most bytes of one input; the coordinator may allow less.
const MAX_INPUT: u64 = 64 << 20;
/// How many files are on the way at the same time.
const PARALLEL: usize = 8;
/// Asking whether a smaller file is there takes longer than sending it.
const WORTH_ASKING: usize = 64 << 10;

/// Sends the files which match `patterns` below `folder`; returns the digest of their list and how many they are.
pub(crate) async fn send_inputs(
    client: &Client,
    folder: &Path,
    patterns: &[String],
    output: &Output,
) -> Result<(Digest, u32), CommandError> {
    let files = find(folder, patterns)?;
    let progress = output.progress_of_count("sending inputs", files.len() as u64);
    let mut sending = futures_util::stream::iter(files)
        .map(|file| async move { send_file(client, folder, &file).await })
        .buffered(PARALLEL);
    let mut inputs = Vec::new();
    while let Some(input) = sending.try_next().await? {
        inputs.push(input);
        progress.set(inputs.len() as u64);
    }
    progress.finish();
    let count = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
    Ok((send_list(client, &inputs).await?, count))
}

/// Sends what is written to standard input, as the input of a single item.
pub(super) async fn send_standard_input(client: &Client) -> Result<Digest, CommandError> {
    let mut bytes = Vec::new();
    let failed = || CommandError::failed("cannot read the input from standard input");
    std::io::stdin()
        .lock()
        .take(MAX_INPUT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed().caused_by(&error))?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(failed()
            .because(format!("limit `input` is {}, observed more", dunlin_model::Bytes(MAX_INPUT)))
            .help("split it into several files and give them with `--input`: each is one item"));
    }
    let digest = Digest::of(&bytes);
    let sent = client.upload_input(&digest, bytes.into()).await;
    sent.map_err(|error| CommandError::client("cannot send standard input", &error))?;
    send_list(client, &[ItemInput { name: "-".to_owned(), digest }]).await
}

async fn send_list(client: &Client, inputs: &[ItemInput]) -> Result<Digest, CommandError> {
    let list = serde_json::to_vec(inputs)
        .map_err(|error| CommandError::failed("cannot write the list of inputs").caused_by(&error))?;
    let digest = Digest::of(&list);
    client
        .upload_input(&digest, Bytes::from(list))
        .await
        .map_err(|error| CommandError::client("cannot send the list of inputs", &error))?;
    Ok(digest)
}

async fn send_file(client: &Client, folder: &Path, file: &Path) -> Result<ItemInput, CommandError> {
    let bytes = read(file)?;
    let digest = Digest::of(&bytes);
    let failed = |error| CommandError::client(format!("cannot send {}", file.display()), &error);
    let is_there = bytes.len() >= WORTH_ASKING && client.has_input(&digest).await.map_err(failed)?;
    if !is_there {
        client.upload_input(&digest, bytes).await.map_err(failed)?;
    }
    let name = file.strip_prefix(folder).unwrap_or(file);
    Ok(ItemInput { name: name.to_string_lossy().into_owned(), digest })
}

/// Returns the files in order of path, each once, so that the same folder always gives the same items.
fn find(folder: &Path, patterns: &[String]) -> Result<Vec<PathBuf>, CommandError> {
    let base = glob::Pattern::escape(&folder.to_string_lossy());
    let mut files = BTreeSet::new();
    for pattern in patterns {
        let wrong = |error: &dyn std::error::Error| {
            CommandError::usage(format!("cannot look for `{pattern}`"))
                .caused_by(error)
                .help("a pattern is like `texts/*.md`, or `texts/**/*.md` for all folders below")
        };
        let absolute = Path::new(pattern).is_absolute();
        let whole = if absolute { pattern.clone() } else { format!("{base}/{pattern}") };
        for path in glob::glob(&whole).map_err(|error| wrong(&error))? {
            let path = path.map_err(|error| wrong(&error))?;
            if path.is_file() {
                files.insert(path);
            }
        }
    }
    let listed = || patterns.iter().map(|pattern| format!("`{pattern}`")).collect::<Vec<_>>().join(", ");
    if files.is_empty() {
        return Err(CommandError::failed(format!("no file matches {}", listed()))
            .help(format!("patterns are relative to the folder {}", folder.display())));
    }
    if files.len() > MAX_ITEMS as usize {
        return Err(CommandError::failed(format!("too many files match {}", listed()))
            .because(format!("limit `items` is {MAX_ITEMS}, observed {}", files.len()))
            .help("start several runs, each with a part of the files"));
    }
    Ok(files.into_iter().collect())
}

fn read(file: &Path) -> Result<Bytes, CommandError> {
    let failed = || CommandError::failed(format!("cannot read the input {}", file.display()));
    let mut bytes = Vec::new();
    fs::File::open(file)
        .and_then(|file| file.take(MAX_INPUT + 1).read_to_end(&mut bytes))
        .map_err(|error| failed().caused_by(&error))?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(failed()
            .because(format!("limit `input` is {}, observed more", dunlin_model::Bytes(MAX_INPUT)))
            .help("split it into several files: each is one item"));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn files_come_in_order_of_path_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("we[ird");
        fs::create_dir_all(base.join("deep/er")).unwrap();
        for name in ["b.md", "a.md", "a.txt", "deep/er/c.md"] {
            fs::write(base.join(name), name).unwrap();
        }
        let patterns = ["**/*.md".to_owned(), "a.*".to_owned()];
        let found = find(&base, &patterns).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(&base).unwrap()).collect();
        assert_eq!(names, ["a.md", "a.txt", "b.md", "deep/er/c.md"].map(Path::new));
    }

    #[test]
    fn patterns_that_find_nothing_are_told() {
        let none = find(Path::new("."), &["nothing/*.here".to_owned()]).unwrap_err();
        let wrong = find(Path::new("."), &["a***".to_owned()]).unwrap_err();
        expect![[r#"
            error: no file matches `nothing/*.here`
              help: patterns are relative to the folder .
            error: cannot look for `a***`
              cause: Pattern syntax error near position 5: wildcards are either regular `*` or recursive `**`
              help: a pattern is like `texts/*.md`, or `texts/**/*.md` for all folders below
        "#]]
        .assert_eq(&format!("{none}{wrong}"));
    }
}
