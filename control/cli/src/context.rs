//! The context file: which coordinator this user speaks to. Written by `dunlin up` and `dunlin login`, read by all others.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use dunlin_model::Name;
use serde::{Deserialize, Serialize};

use crate::error::CommandError;

/// The most bytes of a context, a token or a certificate; more is a mistaken path.
const MAX_FILE: u64 = 256 << 10;

/// Which coordinator, and where the secrets for it are. Paths may be relative to the context file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// The coordinator's address.
    pub(crate) url: String,
    /// The file with the token.
    pub(crate) token_file: PathBuf,
    /// The file with the certificate of the fleet's authority, PEM.
    pub(crate) authority_file: PathBuf,
}

/// Returns where the context is if nobody says otherwise: `$XDG_CONFIG_HOME/dunlin/context.toml`, or below
/// `~/.config`; nothing if there is no home.
pub(crate) fn default_path() -> Option<PathBuf> {
    path_from(|name| std::env::var_os(name).map(PathBuf::from))
}

fn path_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // The standard says that a relative path in the variable is to be ignored.
    let configured = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let folder = configured.or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(folder.join("dunlin").join("context.toml"))
}

/// Returns the folder of the contexts that have names, beside the one that is read where nothing is named.
pub(crate) fn named_folder(current: &Path) -> PathBuf {
    current.with_file_name("contexts")
}

/// Returns the file of the context that `--context` names: a file, or what `dunlin login` keeps under that name.
pub(crate) fn meant(named: &Path, current: Option<&Path>) -> PathBuf {
    // What can be a name is one, whatever lies about in the folder: else who has written that would be told the token.
    let name = named.to_str().and_then(|text| text.parse::<Name>().ok());
    let kept = name.zip(current).map(|(name, current)| named_folder(current).join(format!("{name}.toml")));
    kept.unwrap_or_else(|| named.to_owned())
}

/// Returns the context in a file, nothing if there is no such file. Paths in it are relative to where it really is.
pub(crate) fn read(path: &Path) -> Result<Option<Context>, CommandError> {
    let what = || CommandError::failed(format!("cannot read the context {}", path.display()));
    let text = match read_text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(what().caused_by(&error)),
    };
    let mut context: Context = toml::from_str(&text).map_err(|error| {
        what().because(error.to_string().trim_end().to_owned()).help(
            "it has `url`, `token_file` and `authority_file`; `dunlin up` and `dunlin login` write it anew",
        )
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let target = fs::read_link(path).map_or_else(|_| path.to_owned(), |target| folder.join(target));
    let folder = target.parent().unwrap_or(Path::new(""));
    context.token_file = folder.join(context.token_file);
    context.authority_file = folder.join(context.authority_file);
    Ok(Some(context))
}

/// Writes a context, whole or not at all, readable by its owner alone.
pub(crate) fn write(path: &Path, context: &Context) -> Result<(), CommandError> {
    let what = |error: &dyn std::error::Error| {
        CommandError::failed(format!("cannot write the context {}", path.display())).caused_by(error)
    };
    let text = toml::to_string(context).map_err(|error| what(&error))?;
    write_private(path, text.as_bytes()).map_err(|error| what(&error))
}

/// Writes a file, whole or not at all, readable by its owner alone.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(draft);
    let written = (|| {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    })();
    if written.is_err() {
        drop(fs::remove_file(&draft));
    }
    written
}

/// Returns the text of a small file.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {MAX_FILE} bytes"),
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use expect_test::expect;

    use super::*;

    fn context() -> Context {
        Context {
            url: "https://127.0.0.1:7300".to_owned(),
            token_file: "token".into(),
            authority_file: "/etc/dunlin/authority.pem".into(),
        }
    }

    #[test]
    fn what_is_written_is_read_back_with_whole_paths() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/context.toml");
        write(&path, &context()).unwrap();
        write(&path, &context()).unwrap();
        let read = read(&path).unwrap().unwrap();
        assert_eq!(read.token_file, folder.path().join("deep/er/token"));
        assert_eq!(read.authority_file, Path::new("/etc/dunlin/authority.pem"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_context_has_a_name_or_is_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let current = folder.path().join("context.toml");
        let north = folder.path().join("contexts/north.toml");
        let meant_by = |named: &str| meant(Path::new(named), Some(&current));
        assert_eq!(meant_by("north"), north);
        for file in ["./north", "north.toml", "a/north", current.to_str().unwrap()] {
            assert_eq!(meant_by(file), Path::new(file));
        }
        // What a link leads to says where the token is.
        write(&north, &Context { authority_file: "north.pem".into(), ..context() }).unwrap();
        std::os::unix::fs::symlink(&north, &current).unwrap();
        assert_eq!(read(&current).unwrap().unwrap().authority_file, folder.path().join("contexts/north.pem"));
    }

    #[test]
    fn no_file_is_no_context() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(&folder.path().join("context.toml")).unwrap(), None);
    }

    #[test]
    fn a_mistake_is_shown_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("context.toml");
        fs::write(&path, "url = \"https://a\"\ntokenfile = \"b\"\n").unwrap();
        let error = read(&path).unwrap_err().to_string().replace(folder.path().to_str().unwrap(), "FOLDER");
        expect![[r#"
            error: cannot read the context FOLDER/context.toml
              cause: TOML parse error at line 2, column 1
                       |
                     2 | tokenfile = "b"
                       | ^^^^^^^^^
                     unknown field `tokenfile`, expected one of `url`, `token_file`, `authority_file`
              help: it has `url`, `token_file` and `authority_file`; `dunlin up` and `dunlin login` write it anew
        "#]]
        .assert_eq(&error);
    }

    #[test]
    fn the_file_is_where_the_standard_says() {
        let path = |pairs: &'static [(&str, &str)]| {
            path_from(move |name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))
            })
        };
        let home = Some(PathBuf::from("/of-ann/.config/dunlin/context.toml"));
        assert_eq!(path(&[("HOME", "/of-ann")]), home);
        assert_eq!(path(&[("HOME", "/of-ann"), ("XDG_CONFIG_HOME", "relative")]), home);
        assert_eq!(
            path(&[("HOME", "/of-ann"), ("XDG_CONFIG_HOME", "/c")]),
            Some(PathBuf::from("/c/dunlin/context.toml"))
        );
        assert_eq!(path(&[]), None);
    }
}
