//! The dunlin program: command line, coordinator, agent and worker in one binary.
//!
//! `args` says what may be asked, `commands` has one file per command, `client` finds the coordinator, `output` is
//! the only place that prints, and `error` is what a person sees when something could not be done.

mod args;
mod client;
mod commands;
mod context;
mod error;
mod memory;
mod names;
mod output;
mod registry;
mod time;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::Cli::of_process();
    let output = output::Output::new(cli.global.output, cli.global.quiet);
    match commands::run(cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
