//! How this process becomes another program: the one that was chosen, or one that has taken the place of its own file.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use command_fds::{CommandFdExt as _, FdMapping};
use dunlin_agent::{Choice, Inherited, Sockets};

/// The first descriptor that is passed on, as `sd_listen_fds(3)` has it.
const FIRST_DESCRIPTOR: i32 = 3;

/// Becomes a program before this one has done anything, with the same command line and all that was passed to it. Returns
/// why that was not possible.
pub(crate) fn become_at_start(choice: &Choice) -> anyhow::Error {
    let mut command = same(&choice.program);
    set(&mut command, choice);
    failed(command.exec(), &choice.program)
}

/// Becomes a program in the same process, with the same command line, with these sockets and with the word that these
/// workers go on; or this program once more if that cannot be. Returns why neither was possible.
pub(crate) fn become_next(choice: &Choice, sockets: &Sockets, workers: &[u32]) -> anyhow::Error {
    let error = exec(&choice.program, Some(choice), sockets, workers);
    tracing::error!(
        file = %choice.program.display(), error = error.as_ref() as &dyn std::error::Error,
        "the agent cannot become the program that was chosen, and starts as it was"
    );
    exec(Path::new("/proc/self/exe"), None, sockets, workers).context(error)
}

fn exec(program: &Path, choice: Option<&Choice>, sockets: &Sockets, workers: &[u32]) -> anyhow::Error {
    let mut command = same(program);
    if let Some(choice) = choice {
        set(&mut command, choice);
    }
    let workers = workers.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    command.env(Inherited::FORMER_WORKERS, workers);
    let passed = sockets.ingress.try_clone().map(OwnedFd::from).and_then(|ingress| {
        let endpoint = OwnedFd::from(sockets.endpoint.try_clone()?);
        let tls = sockets.ingress_tls.as_ref().map(TcpListener::try_clone).transpose()?;
        Ok([ingress, endpoint].into_iter().chain(tls.map(OwnedFd::from)).collect::<Vec<_>>())
    });
    let passed = match passed {
        Ok(passed) => passed,
        Err(error) => return anyhow::Error::new(error).context("could not pass the sockets on"),
    };
    command.env("LISTEN_FDS", passed.len().to_string()).env("LISTEN_PID", std::process::id().to_string());
    command.env_remove("LISTEN_FDNAMES");
    let mappings = (FIRST_DESCRIPTOR..).zip(passed);
    let mappings = mappings.map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd }).collect();
    if let Err(error) = command.fd_mappings(mappings) {
        return anyhow::Error::new(error).context("could not pass the sockets on");
    }
    failed(command.exec(), program)
}

/// Returns what runs a program with the command line of this one.
fn same(program: &Path) -> Command {
    let mut command = Command::new(program);
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    command.args(arguments);
    command
}

fn set(command: &mut Command, choice: &Choice) {
    if let Some(time) = choice.ready_within {
        // It goes over to the next program, and ends that unless it is ready by then.
        let _none_was_set = nix::unistd::alarm::set(u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
    }
    for (name, value) in &choice.environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}

fn failed(error: std::io::Error, program: &Path) -> anyhow::Error {
    let _this_one_is_good = nix::unistd::alarm::cancel();
    anyhow::Error::new(error).context(format!("could not become {}", program.display()))
}
