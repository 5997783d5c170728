//! `dunlin` as a user runs it who is no part of a test's fleet: with a home of its own and nothing in the environment.

use std::path::Path;
use std::process::Stdio;

use dunlin_harness::{PATIENCE, program};
use tokio::process::Command;

use crate::{Printed, printed};

/// Returns the command which runs `dunlin` with `home` as the user's folder and nothing else of the user.
pub fn outside(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    let inherited = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("DUNLIN_"));
    for name in inherited {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .current_dir(home)
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("XDG_STATE_HOME", home.join("state"))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs `command` to its end and returns what it printed.
///
/// # Panics
///
/// When it cannot be run, or does not end within [`PATIENCE`].
pub async fn ended(mut command: Command) -> Printed {
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("this did not end: {command:?}"));
    printed(&output.expect("the program can be run"))
}
