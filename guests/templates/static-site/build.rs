//! Writes the table of the files in `site/`, sorted by path, which `src/site.rs` includes: path, ETag and bytes of each.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let site = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("site");
    println!("cargo::rerun-if-changed=site");
    let mut files = Vec::new();
    collect(&site, "", &mut files)?;
    files.sort();
    let mut table = String::from("&[\n");
    for (path, file) in files {
        let etag = format!("\"{:016x}\"", digest(&fs::read(&file)?));
        writeln!(
            table,
            "    File {{ path: {path:?}, etag: {etag:?}, bytes: include_bytes!({file:?}) }},"
        )?;
    }
    table.push(']');
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("files.rs"), table)?;
    Ok(())
}

/// Adds the files below `folder`, whose path on the site is `at`. What begins with a dot is left out.
fn collect(
    folder: &Path,
    at: &str,
    files: &mut Vec<(String, PathBuf)>,
) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|name| format!("{} is not UTF-8", name.display()))?;
        let path = format!("{at}/{name}");
        if name.starts_with('.') {
            continue;
        } else if entry.file_type()?.is_dir() {
            collect(&entry.path(), &path, files)?;
        } else {
            files.push((path, entry.path()));
        }
    }
    Ok(())
}

/// Returns the FNV-1a hash of the bytes. It tells versions of a file apart, and is the same in each build.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
