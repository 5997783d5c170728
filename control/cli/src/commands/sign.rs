//! `dunlin sign`: vouches for the components of an app, with a key of minisign.
//!
//! What is signed is a short text, one for each workload: which component, for which workload, which version, from when on.
//! The files can be looked at with `cat`, and checked with `minisign -V`.

use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use clap::Args;
use dunlin_model::{Digest, Name, Statement, Timestamp};
use minisign::{SecretKey, SecretKeyBox};
use semver::Version;
use serde::Serialize;

use super::deploy::{self, signature_files};
use crate::args::Global;
use crate::error::CommandError;
use crate::output::{Output, table};

/// Where the password of a key is looked for, before it is asked for.
const PASSWORD: &str = "DUNLIN_SIGN_PASSWORD";

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
    /// From when on it may run, as `2026-11-30T00:00:00Z`; from now on if absent.
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
    let built = deploy::build(&path, !no_build, global.namespace.as_ref(), output).await?;
    let key = open(&key)?;
    let not_before = not_before.unwrap_or_else(crate::time::now);
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

/// Returns the secret key in a file.
fn open(path: &Path) -> Result<SecretKey, CommandError> {
    let cannot = || CommandError::failed(format!("cannot use the key {}", path.display()));
    let text = crate::context::read_text(path).map_err(|error| {
        cannot().caused_by(&error).help("`minisign -G -p release.pub -s release.key` makes a pair of them")
    })?;
    let no_key = |error: &dyn std::error::Error| {
        cannot().caused_by(error).help("it is a secret key of minisign, as `minisign -G` writes it with `-s`")
    };
    let sealed = SecretKeyBox::from_string(&text).map_err(|error| no_key(&error))?;
    // Looked at in the clear first: only then is it known whether it is.
    if let Ok(key) = SecretKeyBox::from_string(&text).and_then(SecretKeyBox::into_unencrypted_secret_key) {
        return Ok(key);
    }
    // Without one in the environment it is asked for at the terminal.
    let password = std::env::var(PASSWORD).ok();
    sealed.into_secret_key(password).map_err(|error| {
        cannot()
            .caused_by(&error)
            .help(format!("is its password right? It is read from {PASSWORD}, or typed"))
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
