//! `dunlin secret`: values that guests read and nobody else.

use std::io::{IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use console::Term;
use dunlin_api::{SecretList, SecretStatus, SetSecret};
use dunlin_model::{MAX_SECRET, Name, SecretId, SecretValue};
use serde_json::json;
use zeroize::Zeroizing;

use crate::args::Global;
use crate::error::CommandError;
use crate::names::namespace_or_default;
use crate::output::{Output, table};
use crate::time::utc;

/// Set and delete secrets, which guests read from `wasi:config`.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin secret set DATABASE_URL < url.txt")]
pub(crate) struct SecretArgs {
    #[command(subcommand)]
    pub(crate) command: SecretCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    Set(SetArgs),
    List(ListArgs),
    Delete(DeleteArgs),
}

/// Set a secret; what reads it has the new value from its next request or item on.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin secret set team-a/DATABASE_URL --file url.txt")]
pub(crate) struct SetArgs {
    /// `NAME` or `namespace/NAME`; a workload that has it among its `secrets` finds it under this name.
    pub(crate) name: String,
    /// A value that was given here, and must not be.
    #[arg(hide = true)]
    pub(crate) value: Vec<String>,
    /// The file with the value. Else it is read from standard input, and asked for in a terminal. A line's end at its
    /// end is not part of it.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Show which secrets a namespace has, and what reads them.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin --namespace team-a secret list")]
pub(crate) struct ListArgs {}

/// Forget a secret that nothing reads.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin secret delete DATABASE_URL --yes")]
pub(crate) struct DeleteArgs {
    /// `NAME` or `namespace/NAME`.
    pub(crate) name: String,
    /// Yes, it is meant.
    #[arg(long)]
    pub(crate) yes: bool,
}

pub(crate) async fn run(global: &Global, args: SecretArgs, output: &Output) -> Result<(), CommandError> {
    let namespace = global.namespace.as_ref();
    match args.command {
        SecretCommand::Set(SetArgs { name, value: shown, file }) => {
            let id = secret(&name, namespace)?;
            if !shown.is_empty() {
                return Err(CommandError::usage(format!("cannot set secret `{id}`"))
                    .because(NOT_HERE)
                    .help(PIPE));
            }
            let value = value(&id, file.as_deref())?;
            let client = crate::client::connect(global)?;
            let set = client.set_secret(&id, &SetSecret { value }).await;
            let set =
                set.map_err(|error| CommandError::client(format!("cannot set secret `{id}`"), &error))?;
            output.result(&set, || said(&set))
        }
        SecretCommand::List(ListArgs {}) => {
            let namespace = namespace_or_default(namespace);
            let list = crate::client::connect(global)?.secrets(&namespace).await;
            let list = list.map_err(|error| {
                CommandError::client(format!("cannot list the secrets of namespace `{namespace}`"), &error)
            })?;
            output.result(&list, || all(&list))
        }
        SecretCommand::Delete(DeleteArgs { name, yes }) => {
            let id = secret(&name, namespace)?;
            if !yes {
                return Err(CommandError::usage(format!("secret `{id}` is not deleted"))
                    .because("the value of a deleted secret cannot be brought back")
                    .help(format!("`dunlin secret delete {id} --yes` does it")));
            }
            let deleted = crate::client::connect(global)?.delete_secret(&id).await;
            deleted.map_err(|error| CommandError::client(format!("cannot delete secret `{id}`"), &error))?;
            output.result(&json!({ "secret": id, "deleted": true }), || format!("secret `{id}` is deleted\n"))
        }
    }
}

/// Returns the secret named `NAME` or `namespace/NAME`.
fn secret(text: &str, namespace: Option<&Name>) -> Result<SecretId, CommandError> {
    // What is after it may be the value, which must not be shown.
    if let Some((name, _)) = text.split_once('=') {
        return Err(CommandError::usage(format!("cannot tell which secret `{name}=...` is"))
            .because(NOT_HERE)
            .help(PIPE));
    }
    let wrong = |error: &dyn std::error::Error| {
        CommandError::usage(format!("cannot tell which secret `{text}` is"))
            .caused_by(error)
            .help("name it like `DATABASE_URL` or `default/DATABASE_URL`; `dunlin secret list` shows all")
    };
    if text.contains('/') {
        return text.parse().map_err(|error| wrong(&error));
    }
    let name = text.parse().map_err(|error| wrong(&error))?;
    Ok(SecretId { namespace: namespace_or_default(namespace), name })
}

/// Returns the value that the user gives. Never on the command line: others on the machine can read that.
fn value(id: &SecretId, file: Option<&Path>) -> Result<SecretValue, CommandError> {
    let cannot = || format!("cannot set secret `{id}`");
    let stdin = std::io::stdin();
    let text = match file {
        Some(path) => std::fs::File::open(path).and_then(read).map_err(|error| {
            CommandError::usage(cannot())
                .because(format!("{}: {error}", path.display()))
                .help("name a file with the value, which is text in UTF-8; write bytes as base64")
        })?,
        None if stdin.is_terminal() => {
            let term = Term::stderr();
            let asked = term.write_str(&format!("Value of {id} (it is not shown): "));
            let asked = asked.and_then(|()| term.read_secure_line()).map(Zeroizing::new);
            asked.map_err(|error| CommandError::usage(cannot()).caused_by(&error).help(PIPE))?
        }
        None => {
            read(stdin.lock()).map_err(|error| CommandError::usage(cannot()).caused_by(&error).help(PIPE))?
        }
    };
    let trimmed =
        text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    SecretValue::new(Zeroizing::new(trimmed.to_owned()))
        .map_err(|error| CommandError::usage(cannot()).caused_by(&error).help(PIPE))
}

const NOT_HERE: &str = "a value is not given on the command line: others on the machine can read it there";
const PIPE: &str = "give the value by `--file FILE`, or through a pipe";

/// Reads no more than is needed to see that it is too much.
fn read(from: impl Read) -> std::io::Result<Zeroizing<String>> {
    let most = MAX_SECRET + 3;
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    from.take(most as u64).read_to_end(&mut bytes)?;
    // A letter that was cut through is none; so much is too much in any case.
    let whole = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) if bytes.len() == most && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return Err(std::io::Error::other("it is not text in UTF-8")),
    };
    Ok(Zeroizing::new(whole.to_owned()))
}

fn said(set: &SecretStatus) -> String {
    let readers = match set.readers.len() {
        0 => "no workload reads it yet".to_owned(),
        1 => format!("`{}` reads it", set.readers[0]),
        count => format!("{count} workloads read it"),
    };
    format!("secret `{}` is set; {readers}\n", set.secret)
}

fn all(list: &SecretList) -> String {
    if list.secrets.is_empty() {
        return "there are no secrets; `dunlin secret set NAME` sets one\n".to_owned();
    }
    let rows = list.secrets.iter().map(|secret| {
        let readers: Vec<String> = secret.readers.iter().map(ToString::to_string).collect();
        vec![secret.secret.to_string(), utc(secret.updated_ms), readers.join(", ")]
    });
    table(&["SECRET", "SET", "READ BY"], rows.collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use expect_test::expect;

    use super::*;
    use crate::args::Format;

    fn of_file(text: &[u8]) -> Result<SecretValue, CommandError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        value(&"default/KEY".parse().unwrap(), Some(file.path()))
    }

    #[test]
    fn the_end_of_the_last_line_is_not_part_of_the_value() {
        for text in ["hunter2", "hunter2\n", "hunter2\r\n"] {
            assert_eq!(of_file(text.as_bytes()).unwrap().expose(), "hunter2");
        }
        assert_eq!(of_file(b"two\nlines\n\n").unwrap().expose(), "two\nlines\n");
        assert!(of_file(b"\n").is_err() && of_file(&[0xff]).is_err());
        assert!(of_file(&[b'a'; MAX_SECRET]).is_ok());
        let error = of_file(&[b'a'; MAX_SECRET + 5]).unwrap_err().to_string();
        assert!(error.contains("limit `secret_size` is 64KiB"), "{error}");
        let error = of_file("\u{20ac}".repeat(MAX_SECRET).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("limit `secret_size` is 64KiB"), "{error}");
    }

    #[tokio::test]
    async fn nothing_is_deleted_by_accident() {
        let command = SecretCommand::Delete(DeleteArgs { name: "KEY".to_owned(), yes: false });
        let output = Output::new(Format::Table, true);
        let error = run(&Global::default(), SecretArgs { command }, &output).await.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        expect![[r#"
            error: secret `default/KEY` is not deleted
              cause: the value of a deleted secret cannot be brought back
              help: `dunlin secret delete default/KEY --yes` does it
        "#]]
        .assert_eq(&error.to_string());
    }

    #[test]
    fn a_name_that_is_none_is_explained() {
        let error = secret("a/b/c", None).unwrap_err();
        expect![[r#"
            error: cannot tell which secret `a/b/c` is
              cause: `b/c` cannot name a secret: use 1 to 128 letters, digits, `-`, `_` and `.`, with a letter, digit or `_` at the beginning, as in `DATABASE_URL`
              help: name it like `DATABASE_URL` or `default/DATABASE_URL`; `dunlin secret list` shows all
        "#]].assert_eq(&error.to_string());
    }

    #[tokio::test]
    async fn a_value_on_the_command_line_is_refused_and_not_shown() {
        for (name, value) in [("KEY=hunter2", None), ("KEY", Some("hunter2".to_owned()))] {
            let args = SetArgs { name: name.to_owned(), value: value.into_iter().collect(), file: None };
            let output = Output::new(Format::Table, true);
            let args = SecretArgs { command: SecretCommand::Set(args) };
            let error = run(&Global::default(), args, &output).await.unwrap_err();
            let told = error.to_string();
            assert!(error.exit_code() == 2 && told.contains("is not given on the command line"), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
}
