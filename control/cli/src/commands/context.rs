//! `dunlin login` and `dunlin context`: the fleets that a user knows by names, and which of them is meant.
//!
//! What is needed for a fleet is kept under its name beside the context file; that file is a link to the one in use.
//! `dunlin up` writes the file itself, but not where it is such a link.

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
    /// Absent of the one that `dunlin up` has written.
    name: Option<Name>,
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
            drop(fs::remove_file(&draft));
            CommandError::failed(format!("cannot write {}", self.current.display()))
                .caused_by(&error)
                .help("is that folder yours?")
        })
    }

    /// Returns the one that has no name: `dunlin up` has written it.
    fn unnamed(&self) -> Option<Context> {
        let is_link = fs::read_link(&self.current).is_ok();
        if is_link { None } else { context::read(&self.current).ok().flatten() }
    }

    fn all(&self) -> Result<Vec<Known>, CommandError> {
        let unnamed = self.unnamed().map(|context| Known { name: None, url: context.url, in_use: true });
        let mut all: Vec<Known> = unnamed.into_iter().collect();
        for name in self.names()? {
            // One that is broken says so when it is used.
            let url = context::read(&self.file(&name, "toml")).ok().flatten().map(|context| context.url);
            let in_use = self.is_in_use(&name);
            all.push(Known { name: Some(name), url: url.unwrap_or_else(|| "?".to_owned()), in_use });
        }
        Ok(all)
    }

    /// Returns all names, in their order.
    fn names(&self) -> Result<Vec<Name>, CommandError> {
        let entries = match fs::read_dir(&self.named) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(CommandError::failed(format!("cannot read {}", self.named.display()))
                    .caused_by(&error)
                    .help("is that folder yours?"));
            }
        };
        let paths = entries.flatten().map(|entry| entry.path());
        let contexts = paths.filter(|path| path.extension().is_some_and(|ending| ending == "toml"));
        let mut names: Vec<Name> =
            contexts.filter_map(|path| path.file_stem()?.to_str()?.parse().ok()).collect();
        names.sort();
        Ok(names)
    }

    fn unknown(&self, name: &Name) -> CommandError {
        let names = self.names().unwrap_or_default();
        let names: Vec<&str> = names.iter().map(Name::as_str).collect();
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
            CommandError::failed(format!("cannot write {}", path.display()))
                .caused_by(&error)
                .help("is that folder yours, and is there room?")
        })?;
    }
    let kept = Context {
        url: url.clone(),
        token_file: format!("{name}.token").into(),
        authority_file: format!("{name}.pem").into(),
    };
    context::write(&shelf.file(&name, "toml"), &kept)?;
    chosen(&shelf, name, url, output)
}

/// Has a fleet be the one that is meant, and says so.
fn chosen(shelf: &Shelf, name: Name, url: String, output: &Output) -> Result<(), CommandError> {
    if let Some(former) = shelf.unnamed() {
        let file = former.token_file.ancestors().nth(2).map(|state| state.join("context.toml"));
        let file = file.filter(|file| file.exists()).map(|file| format!("; `--context {}`", file.display()));
        output.note(&format!(
            "the fleet at {} is not meant any more{}",
            former.url,
            file.unwrap_or_default()
        ));
    }
    shelf.choose(&name)?;
    for variable in ["DUNLIN_CONTEXT", "DUNLIN_COORDINATOR"] {
        if std::env::var_os(variable).is_some() {
            output.note(&format!("{variable} is set, and goes before it"));
        }
    }
    let text = format!("{name} at {url} is in use from now on");
    output.result(&Known { name: Some(name), url, in_use: true }, || text)
}

/// Returns the token that was typed, or that came through a pipe.
fn asked_for() -> Result<String, CommandError> {
    let cannot = |error: io::Error| {
        CommandError::usage("cannot read the token")
            .caused_by(&error)
            .help("name a file with it: `--token-file FILE`")
    };
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
                    let name = it.name.as_ref().map_or("(of `dunlin up`)", Name::as_str);
                    vec![mark.to_owned(), name.to_owned(), it.url.clone()]
                };
                table(&["USED", "NAME", "COORDINATOR"], all.iter().map(row).collect())
            })
        }
        ContextCommand::Use(UseArgs { name }) => {
            let Some(context) = context::read(&shelf.file(&name, "toml"))? else {
                return Err(shelf.unknown(&name));
            };
            chosen(&shelf, name, context.url, output)
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
            let text = format!("{name} is forgotten");
            output.result(&Known { name: Some(name), url: context.url, in_use: false }, || text)
        }
    }
}

fn delete(shelf: &Shelf, name: &Name) -> Result<(), CommandError> {
    // The token goes first, and the name last: what stops halfway can be done again.
    let mut files = vec![shelf.file(name, "token"), shelf.file(name, "pem")];
    files.extend(shelf.is_in_use(name).then(|| shelf.current.clone()));
    files.push(shelf.file(name, "toml"));
    for file in files {
        remove(&file).map_err(|error| {
            CommandError::failed(format!("cannot remove {}", file.display()))
                .caused_by(&error)
                .help("is that folder yours? Then try again")
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
