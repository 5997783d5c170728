//! Writes the table of the files in `site/`, sorted by path, which `src/site.rs` includes: path, ETag and bytes of each.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The one name with a dot that is served: what others look for there must be found (RFC 8615).
const WELL_KNOWN: &str = "/.well-known";

fn main() {
    println!("cargo::rerun-if-changed=site");
    if let Err(error) = write_table() {
        println!("cargo::error={error}");
    }
}

fn write_table() -> Result<(), String> {
    let variable = |name| env::var(name).map_err(|error| format!("{name}: {error}"));
    let site = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("site");
    let mut files = Vec::new();
    collect(&site, "", &mut files)?;
    files.sort();
    let mut table = String::from("&[\n");
    for (path, file) in files {
        let bytes = fs::read(&file).map_err(about(&file))?;
        let etag = format!("\"{:016x}\"", digest(&bytes));
        writeln!(
            table,
            "    File {{ path: {path:?}, etag: {etag:?}, bytes: include_bytes!({file:?}) }},"
        )
        .map_err(about(&file))?;
    }
    table.push(']');
    let written = Path::new(&variable("OUT_DIR")?).join("files.rs");
    fs::write(&written, table).map_err(about(&written))
}

/// Adds the files below `folder`, whose path on the site is `at`.
fn collect(folder: &Path, at: &str, files: &mut Vec<(String, PathBuf)>) -> Result<(), String> {
    for entry in fs::read_dir(folder).map_err(about(folder))? {
        let entry = entry.map_err(about(folder))?;
        let place = entry.path();
        let name = entry.file_name();
        let name = name
            .to_str()
            .ok_or_else(|| format!("{}: its name is not UTF-8", place.display()))?;
        let path = format!("{at}/{name}");
        if name.starts_with('.') && path != WELL_KNOWN {
            continue;
        }
        let kind = entry.file_type().map_err(about(&place))?;
        if kind.is_dir() {
            collect(&place, &path, files)?;
        } else if kind.is_file() {
            files.push((path, place));
        } else {
            // A link could lead to anything on this machine, and all that is here is shown to everybody.
            return Err(format!(
                "{}: links and devices are not served; put the file itself there",
                place.display()
            ));
        }
    }
    Ok(())
}

/// Returns what makes a text of an error, with the path that it is about.
fn about<E: ToString>(path: &Path) -> impl Fn(E) -> String {
    move |error| format!("{}: {}", path.display(), error.to_string())
}

/// Returns the FNV-1a hash of the bytes. It tells versions of a file apart, and is the same in each build.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
