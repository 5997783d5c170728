//! `dunlin completions` and `dunlin man`: what shells and `man` want to know of this program.

use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::CommandError;
use crate::output::Output;

/// Print the completions of commands and options for a shell.
#[derive(Debug, Args)]
#[command(
    before_help = "Example: dunlin completions bash > ~/.local/share/bash-completion/completions/dunlin"
)]
pub(crate) struct CompletionsArgs {
    /// For which one.
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Write the manual pages, one for each command.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin man ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// The folder for them; it is made if it is not there.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Prints them.
pub(crate) fn completions(args: CompletionsArgs, output: &Output) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "dunlin", &mut script);
    output.text(&String::from_utf8_lossy(&script))
}

/// Writes them.
pub(crate) fn man(args: ManArgs, output: &Output) -> Result<(), CommandError> {
    let ManArgs { folder } = args;
    let failed = |error: io::Error| {
        CommandError::failed(format!("cannot write the manual pages to {}", folder.display()))
            .caused_by(&error)
            .help("name a folder in which you may write")
    };
    std::fs::create_dir_all(&folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &folder).map_err(failed)?;
    output.note(&format!("the manual pages are in {}", folder.display()));
    Ok(())
}
