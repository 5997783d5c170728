//! `dunlin login` and `dunlin context`: the fleets that a user knows by names, and which of them is meant.
//!
//! What is needed for a fleet is kept under its name beside the context file; that file is a link to the one in use. So
//! `dunlin up`, which writes the file itself, takes nothing away: a fleet that was logged into is still there by name.

use std::fs;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use console::Term;
use dunlin_model::Name;
use serde::Serialize;

use crate::args::Global;
use crate::client;
use crate::context::{self, Context};
use crate::error::CommandError;
use crate::output::{Output, table};

/// The most bytes of a token.
const MAX_TOKEN: u64 = 4 << 10;

/// Keep what is needed to speak to a fleet, and use it from now on.
#[derive(Debug, Args)]
#[command(
    before_help = "Example: dunlin login north --coordinator https://10.0.0.1:7401 --ca-file ca.pem < token"
)]
#[command(
    after_help = "The token is read from --token-file, else from standard input, and asked for in a terminal."
)]
pub(crate) struct LoginArgs {
    /// What the fleet is to be called here.
    name: Name,
}

/// Show the fleets that are known, and say which is meant.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin context use north")]
pub(crate) struct ContextArgs {
    #[command(subcommand)]
    command: Option<ContextCommand>,
}

#[derive(Debug, Subcommand)]
enum ContextCommand {
    List(ListArgs),
    Use(UseArgs),
    Delete(DeleteArgs),
}

/// Show the fleets that are known.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin context list")]
struct ListArgs {}

/// Speak to this fleet from now on.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin context use north")]
struct UseArgs {
    /// Which.
    name: Name,
}

/// Forget a fleet, and the token for it.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin context delete north --yes")]
struct DeleteArgs {
    /// Which.
    name: Name,
    /// Yes, it is meant.
    #[arg(long)]
    yes: bool,
}

/// A fleet that is known.
#[derive(Debug, Serialize)]
struct Known {
    name: String,
    url: String,
    /// Whether it is the one that is meant where none is named.
    in_use: bool,
}

/// Where contexts are kept.
struct Shelf {
    /// The file that is read where nothing is named.
    current: PathBuf,
    /// The folder of those with names.
    named: PathBuf,
}

impl Shelf {
    fn of_user() -> Result<Self, CommandError> {
        let current = context::default_path().ok_or_else(|| {
            CommandError::failed("there is no place for contexts")
                .because("neither XDG_CONFIG_HOME nor HOME is set")
                .help("set one of them, or name all three: `--coordinator`, `--token-file`, `--ca-file`")
        })?;
        let named = context::named_folder(&current);
        Ok(Self { current, named })
    }

    fn file(&self, name: &Name, ending: &str) -> PathBuf {
        self.named.join(format!("{name}.{ending}"))
    }

    /// Tells whether the file that is read where nothing is named is that of `name`.
    fn is_in_use(&self, name: &Name) -> bool {
        fs::read_link(&self.current).is_ok_and(|target| target == self.file(name, "toml"))
    }

    /// Makes a context the one that is meant.
    fn choose(&self, name: &Name) -> Result<(), CommandError> {
        let file = self.file(name, "toml");
        let mut draft = self.current.as_os_str().to_owned();
        draft.push(format!(".{}.new", std::process::id()));
        let draft = PathBuf::from(draft);
        let chosen =
            std::os::unix::fs::symlink(file, &draft).and_then(|()| fs::rename(&draft, &self.current));
        chosen.map_err(|error| {
            CommandError::failed(format!("cannot write {}", self.current.display()))
                .caused_by(&error)
                .help("is that folder yours?")
        })
    }

    fn all(&self) -> Result<Vec<Known>, CommandError> {
        let entries = match fs::read_dir(&self.named) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(
                    CommandError::failed(format!("cannot read {}", self.named.display())).caused_by(&error)
                );
            }
        };
        let mut all = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            let stem = path.file_stem().and_then(|stem| stem.to_str()?.parse::<Name>().ok());
            let is_context = path.extension().is_some_and(|ending| ending == "toml");
            let Some(name) = stem.filter(|_| is_context) else { continue };
            if let Some(context) = context::read(&path)? {
                all.push(Known { in_use: self.is_in_use(&name), name: name.to_string(), url: context.url });
            }
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    fn unknown(&self, name: &Name) -> CommandError {
        let known = self.all().unwrap_or_default();
        let names: Vec<String> = known.into_iter().map(|known| known.name).collect();
        let help = match names.is_empty() {
            true => format!("`dunlin login {name}` makes one"),
            false => format!("there are: {}", names.join(", ")),
        };
        CommandError::usage(format!("there is no context `{name}`")).help(help)
    }
}

/// Asks the fleet whether it takes the token, and keeps both.
pub(crate) async fn login(global: &Global, args: LoginArgs, output: &Output) -> Result<(), CommandError> {
    let LoginArgs { name } = args;
    let shelf = Shelf::of_user()?;
    let cannot = || CommandError::usage(format!("cannot log in to `{name}`"));
    let Some(url) = global.coordinator.clone() else {
        return Err(cannot()
            .because("no coordinator is named")
            .help("name it: `--coordinator https://HOST:7401`"));
    };
    let Some(authority) = &global.ca_file else {
        return Err(cannot().because("there is no certificate to know it by").help(
            "give that of the fleet's authority, `ca.pem` in the coordinator's folder: `--ca-file ca.pem`",
        ));
    };
    let authority = client::read(authority, "certificate of the fleet's authority", "--ca-file")?;
    let token = match &global.token_file {
        Some(file) => client::read(file, "token", "--token-file")?,
        None => asked_for()?,
    };
    let token = token.trim().to_owned();
    let asked = client::with(&url, token.clone(), authority.clone())?;
    asked
        .status()
        .await
        .map_err(|error| CommandError::client(format!("cannot log in to `{name}` at {url}"), &error))?;
    let files = [("token", token + "\n"), ("pem", authority)];
    for (ending, text) in files {
        let path = shelf.file(&name, ending);
        context::write_private(&path, text.as_bytes()).map_err(|error| {
            CommandError::failed(format!("cannot write {}", path.display())).caused_by(&error)
        })?;
    }
    let kept = Context {
        url: url.clone(),
        token_file: format!("{name}.token").into(),
        authority_file: format!("{name}.pem").into(),
    };
    context::write(&shelf.file(&name, "toml"), &kept)?;
    shelf.choose(&name)?;
    let known = Known { name: name.to_string(), url, in_use: true };
    output.result(&known, || format!("{} at {} is in use from now on", known.name, known.url))
}

/// Returns the token that was typed, or that came through a pipe.
fn asked_for() -> Result<String, CommandError> {
    let cannot = |error: io::Error| CommandError::usage("cannot read the token").caused_by(&error);
    if io::stdin().is_terminal() {
        drop(Term::stderr().write_str("token: "));
        return Term::stderr().read_secure_line().map_err(cannot);
    }
    let mut token = String::new();
    io::stdin().lock().take(MAX_TOKEN).read_to_string(&mut token).map_err(cannot)?;
    Ok(token)
}

/// Lists the contexts, chooses one, or forgets one.
pub(crate) fn run(args: ContextArgs, output: &Output) -> Result<(), CommandError> {
    let shelf = Shelf::of_user()?;
    match args.command.unwrap_or(ContextCommand::List(ListArgs {})) {
        ContextCommand::List(ListArgs {}) => {
            let all = shelf.all()?;
            output.result(&all, || {
                let row = |it: &Known| {
                    let mark = if it.in_use { "*" } else { "" };
                    vec![mark.to_owned(), it.name.clone(), it.url.clone()]
                };
                table(&["USED", "NAME", "COORDINATOR"], all.iter().map(row).collect())
            })
        }
        ContextCommand::Use(UseArgs { name }) => {
            let Some(context) = context::read(&shelf.file(&name, "toml"))? else {
                return Err(shelf.unknown(&name));
            };
            shelf.choose(&name)?;
            let known = Known { name: name.to_string(), url: context.url, in_use: true };
            output.result(&known, || format!("{} at {} is in use from now on", known.name, known.url))
        }
        ContextCommand::Delete(DeleteArgs { name, yes }) => {
            let Some(context) = context::read(&shelf.file(&name, "toml"))? else {
                return Err(shelf.unknown(&name));
            };
            if !yes {
                return Err(CommandError::usage(format!("`{name}` is not forgotten"))
                    .because(format!("the token for {} would be gone with it", context.url))
                    .help(format!("`dunlin context delete {name} --yes` does it")));
            }
            delete(&shelf, &name)?;
            let known = Known { name: name.to_string(), url: context.url, in_use: false };
            output.result(&known, || format!("{} is forgotten", known.name))
        }
    }
}

fn delete(shelf: &Shelf, name: &Name) -> Result<(), CommandError> {
    let mut files = vec![shelf.file(name, "toml"), shelf.file(name, "token"), shelf.file(name, "pem")];
    if shelf.is_in_use(name) {
        // A link to what is gone would be told as a fault of the file.
        files.push(shelf.current.clone());
    }
    for file in files {
        remove(&file).map_err(|error| {
            CommandError::failed(format!("cannot remove {}", file.display())).caused_by(&error)
        })?;
    }
    Ok(())
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
