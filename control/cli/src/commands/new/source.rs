//! Where templates come from.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dunlin_model::nearest;
use include_dir::{Dir, include_dir};

use super::{File, Files};
use crate::error::CommandError;

/// The templates of this program.
static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../guests/templates");
/// The SDK that goes with it.
static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../guests/sdk");
/// The most bytes of a template of the user's own: more is a mistake, such as the folder of a home.
const MOST: u64 = 16 << 20;

/// A folder with files.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// One that is in this program.
    BuiltIn(&'static Dir<'static>),
    /// One on the disk.
    Folder(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(folder) => write!(f, "`{}`", folder.path().display()),
            Self::Folder(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Source {
    /// Returns the templates that are in this program, by their names.
    pub(super) fn built_in() -> Vec<(String, Self)> {
        let mut all: Vec<(String, Self)> = TEMPLATES
            .dirs()
            .map(|folder| (folder.path().to_string_lossy().into_owned(), Self::BuiltIn(folder)))
            .collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// Returns the SDK for guests in Rust.
    pub(super) fn sdk() -> Self {
        Self::BuiltIn(&SDK)
    }

    /// Returns the folder at `path`.
    pub(super) fn at(path: &Path) -> Self {
        Self::Folder(path.to_owned())
    }

    /// Returns the template of this name, or the folder at this path.
    pub(super) fn find(template: &str) -> Result<Self, CommandError> {
        let built_in = Self::built_in();
        if let Some((_, source)) = built_in.iter().find(|(name, _)| name == template) {
            return Ok(source.clone());
        }
        let path = Path::new(template);
        if path.is_dir() {
            return Ok(Self::at(path));
        }
        let names: Vec<&str> = built_in.iter().map(|(name, _)| &**name).collect();
        let help = format!("{} A folder of your own is named by its path", nearest(template, &names));
        Err(CommandError::usage(format!("there is no template `{template}`")).help(help))
    }

    /// Returns its files, each with its path in there.
    pub(super) fn files(&self) -> Result<Files, CommandError> {
        let mut files = Files::new();
        match self {
            Self::BuiltIn(folder) => embedded(folder, folder.path(), &mut files),
            Self::Folder(path) => {
                let mut left = MOST;
                read(path, path, &mut files, &mut left).map_err(|error| {
                    CommandError::failed(format!("cannot read the template {}", path.display()))
                        .caused_by(&error)
                        .help(
                            "a template is a folder with folders and files in it, of 16MiB together at most",
                        )
                })?;
            }
        }
        Ok(files)
    }
}

fn embedded(folder: &Dir<'_>, root: &Path, files: &mut Files) {
    for file in folder.files() {
        let path = file.path().strip_prefix(root).unwrap_or(file.path());
        files.insert(path.to_owned(), File { bytes: file.contents().to_vec(), is_executable: false });
    }
    folder.dirs().for_each(|folder| embedded(folder, root, files));
}

fn read(folder: &Path, root: &Path, files: &mut Files, left: &mut u64) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // What a version control keeps is no part of the template.
        if path.file_name().is_some_and(|name| name == ".git") {
            continue;
        }
        let about = fs::symlink_metadata(&path)?;
        if about.is_dir() {
            read(&path, root, files, left)?;
        } else if about.is_file() {
            let mut bytes = Vec::new();
            fs::File::open(&path)?.take(*left + 1).read_to_end(&mut bytes)?;
            *left = left
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| io::Error::other("it is larger than 16MiB"))?;
            let is_executable = about.permissions().mode() & 0o100 != 0;
            files.insert(path.strip_prefix(root).unwrap_or(&path).to_owned(), File { bytes, is_executable });
        } else {
            // A link may lead anywhere, and round; and nobody writes to the other end of a pipe.
            return Err(io::Error::other(format!("{} is neither a file nor a folder", path.display())));
        }
    }
    Ok(())
}
