//! `dunlin sign`: vouches for the components of an app, with a key of minisign.
//!
//! What is signed is a short text, one for each workload: which component, for which workload, which version, from when on.
//! The files can be looked at with `cat`, and checked with `minisign -V`.

use std::fs;
use std::io::{self, Cursor, IsTerminal as _};
use std::ops::{Range, RangeFrom};
use std::path::{Path, PathBuf};

use clap::Args;
use console::Term;
use ct_codecs::{Base64, Decoder as _};
use dunlin_model::{Digest, DurationMs, Name, Statement, Timestamp};
use minisign::{SecretKey, SecretKeyBox};
use semver::Version;
use serde::Serialize;

use super::deploy::{self, SIGN_PASSWORD, signature_files};
use crate::args::Global;
use crate::error::CommandError;
use crate::output::{Output, table};

/// How far the clock of a fleet may be behind that of who signs.
const CLOCKS_DIFFER: DurationMs = DurationMs(3_600_000);

/// Where a secret key says how it is sealed, by two bytes; zeros stand for a key without a password.
const HOW_SEALED: Range<usize> = 2..4;
/// Where it has its checksum: at its end.
const CHECKSUM: RangeFrom<usize> = 126..;

/// Vouch for an app's components with a key.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin sign --key release.key --version 1.4.0")]
#[command(
    after_help = "`minisign -G -p release.pub -s release.key` makes a key, and `dunlin namespace set NAME --signer release.pub` \
                  lets only what it has signed be deployed there. The password of the key is asked for, or taken from \
                  DUNLIN_SIGN_PASSWORD."
)]
pub(crate) struct SignArgs {
    /// The folder of the app, or its manifest.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// The secret key, a file of minisign.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Which version of the app this is; an older one is not deployed over it.
    #[arg(long, value_name = "VERSION")]
    version: Version,
    /// From when on it may be deployed, as `2026-11-30T00:00:00Z`; from an hour ago if absent, as clocks differ.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    not_before: Option<Timestamp>,
    /// Take the components as they are; do not run `[build] command`.
    #[arg(long)]
    no_build: bool,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::from_rfc3339(text)
        .ok_or_else(|| "it is no time of RFC 3339, like `2026-11-30T00:00:00Z`".to_owned())
}

/// One workload whose component was signed.
#[derive(Debug, Serialize)]
struct Line {
    workload: Name,
    component: Digest,
    /// The statement; its signature is beside it.
    statement: PathBuf,
}

/// Signs and prints.
pub(crate) async fn run(global: &Global, args: SignArgs, output: &Output) -> Result<(), CommandError> {
    let SignArgs { path, key, version, not_before, no_build } = args;
    // Before the build, which may take long.
    let key = open(&key, std::env::var(SIGN_PASSWORD).ok())?;
    let built = deploy::build(&path, !no_build, global.namespace.as_ref(), output).await?;
    let an_hour_ago = || Timestamp(crate::time::now().0.saturating_sub(CLOCKS_DIFFER.0));
    let not_before = not_before.unwrap_or_else(an_hour_ago);
    let mut lines = Vec::new();
    for (workload, spec) in built.spec.workloads {
        let (app, component) = (built.spec.name.app.clone(), spec.component);
        let stated =
            Statement { component, app, workload: workload.clone(), version: version.clone(), not_before };
        let statement = stated.text();
        let signature = minisign::sign(None, &key, Cursor::new(&statement), None, None);
        let signature = signature
            .map_err(|error| CommandError::failed(format!("cannot sign `{workload}`")).caused_by(&error))?;
        let [to, beside] = signature_files(&workload).map(|file| built.folder.join(file));
        write(&to, &statement)?;
        write(&beside, &signature.into_string())?;
        lines.push(Line { workload, component, statement: to });
    }
    output.result(&lines, || {
        let row = |line: &Line| {
            vec![line.workload.to_string(), line.component.short(), line.statement.display().to_string()]
        };
        table(&["WORKLOAD", "COMPONENT", "STATEMENT"], lines.iter().map(row).collect())
    })
}

/// Returns the secret key in a file; its password is asked for if it has one and none is given.
fn open(path: &Path, password: Option<String>) -> Result<SecretKey, CommandError> {
    let cannot = || CommandError::failed(format!("cannot use the key {}", path.display()));
    let text = crate::context::read_text(path).map_err(|error| {
        cannot().caused_by(&error).help("`minisign -G -p release.pub -s release.key` makes a pair of keys")
    })?;
    let bytes = text.lines().nth(1).and_then(|line| Base64::decode_to_vec(line.trim(), None).ok());
    let sealed = bytes.as_ref().and_then(|bytes| SecretKey::from_bytes(bytes).ok());
    let (Some(bytes), Some(key)) = (bytes, sealed) else {
        return Err(cannot()
            .because("it is no secret key of minisign")
            .help("name the one that `minisign -G -s FILE` writes; the public one signs nothing"));
    };
    let sealed = SecretKeyBox::from(text);
    if bytes[HOW_SEALED] == [0, 0] {
        // The tool writes no checksum of a key that has no password, and the crate does not take such a one.
        if bytes[CHECKSUM].iter().all(|byte| *byte == 0) {
            return Ok(key);
        }
        return sealed.into_unencrypted_secret_key().map_err(|error| {
            cannot().caused_by(&error).help("bring the file from where it was made once more")
        });
    }
    let password = match password {
        Some(password) => password,
        None if io::stdin().is_terminal() => {
            drop(Term::stderr().write_str("password of the key: "));
            Term::stderr().read_secure_line().map_err(|error| cannot().caused_by(&error))?
        }
        None => {
            return Err(cannot()
                .because("it has a password, and there is no terminal at which that could be asked for")
                .help(format!("put it into {SIGN_PASSWORD}")));
        }
    };
    sealed.into_secret_key(Some(password)).map_err(|error| {
        cannot().caused_by(&error).help(format!("is it right? It is taken from {SIGN_PASSWORD}, or typed"))
    })
}

fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    made.map_err(|error: io::Error| {
        CommandError::failed(format!("cannot write {}", path.display()))
            .caused_by(&error)
            .help("the statements are kept beside the manifest; make that folder writable")
    })
}

#[cfg(test)]
mod tests {
    use ct_codecs::Encoder as _;
    use expect_test::expect;
    use minisign::KeyPair;

    use super::*;

    #[test]
    fn a_key_is_opened_and_what_is_none_is_told_with_its_help() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let bare = KeyPair::generate_unencrypted_keypair().unwrap();
        let bare_file = file("bare.key", &bare.sk.to_box(None).unwrap().into_string());
        assert!(open(&bare_file, None).is_ok());
        let changed = |at: RangeFrom<usize>, byte: u8| {
            let mut bytes = bare.sk.to_bytes();
            bytes[at].fill(byte);
            format!("untrusted comment: x\n{}\n", Base64::encode_to_string(bytes).unwrap())
        };
        // As the tool writes it with `-W`.
        let opened = open(&file("tool.key", &changed(CHECKSUM, 0)), None).unwrap();
        assert_eq!(opened.to_bytes()[..126], bare.sk.to_bytes()[..126]);
        let locked = KeyPair::generate_encrypted_keypair(Some("swordfish".to_owned())).unwrap();
        let locked_file = file("locked.key", &locked.sk.to_box(None).unwrap().into_string());
        assert!(open(&locked_file, Some("swordfish".to_owned())).is_ok());
        let errors = [
            open(&locked_file, Some("wrong".to_owned())),
            open(&file("release.pub", &bare.pk.to_box().unwrap().into_string()), None),
            open(&file("empty.key", ""), None),
            open(&file("torn.key", &changed(CHECKSUM, 7)), None),
            open(&folder.path().join("absent.key"), None),
        ];
        let told: String =
            errors.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
        expect![[r#"
            error: cannot use the key FOLDER/locked.key
              cause: Wrong password for that key
              help: is it right? It is taken from DUNLIN_SIGN_PASSWORD, or typed
            error: cannot use the key FOLDER/release.pub
              cause: it is no secret key of minisign
              help: name the one that `minisign -G -s FILE` writes; the public one signs nothing
            error: cannot use the key FOLDER/empty.key
              cause: it is no secret key of minisign
              help: name the one that `minisign -G -s FILE` writes; the public one signs nothing
            error: cannot use the key FOLDER/torn.key
              cause: Corrupted key
              help: bring the file from where it was made once more
            error: cannot use the key FOLDER/absent.key
              cause: No such file or directory (os error 2)
              help: `minisign -G -p release.pub -s release.key` makes a pair of keys
        "#]]
        .assert_eq(&told.replace(folder.path().to_str().unwrap(), "FOLDER"));
    }
}
