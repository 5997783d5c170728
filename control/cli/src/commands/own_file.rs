//! The file of this program, which may hold another version by the time this one is to become it.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use command_fds::{CommandFdExt as _, FdMapping};
use dunlin_agent::{Inherited, Sockets};

/// How long a program may take to say whether it would run.
const CHECK_TIME: Duration = Duration::from_secs(10);
/// The first descriptor that is passed on, as `sd_listen_fds(3)` has it.
const FIRST_DESCRIPTOR: i32 = 3;

/// Where this program came from.
#[derive(Clone, Debug)]
pub(crate) struct OwnFile(PathBuf);

impl OwnFile {
    /// Finds it. To be called early: the file may be replaced.
    pub(crate) fn find() -> Self {
        // Without `/proc` there would be no workers either.
        Self(std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into()))
    }

    /// Finds out whether what is in the file now would run with this command line.
    pub(crate) async fn check(&self) -> anyhow::Result<()> {
        let mut command = tokio::process::Command::new(&self.0);
        command.args(std::env::args_os().skip(1)).arg("--check");
        command.stdin(Stdio::null()).kill_on_drop(true);
        let checked = tokio::time::timeout(CHECK_TIME, command.output()).await;
        let output = checked
            .with_context(|| format!("{} says nothing within {CHECK_TIME:?}", self.0.display()))?
            .with_context(|| format!("could not run {}", self.0.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} would not run: {}", self.0.display(), said.trim_end());
        Ok(())
    }

    /// Becomes what is in the file now, in the same process, with the same command line, with these sockets and with the
    /// word that these workers go on; or this program once more if that cannot be. Returns why neither was possible.
    pub(crate) fn become_it(&self, sockets: &Sockets, workers: &[u32]) -> anyhow::Error {
        let error = exec(&self.0, sockets, workers);
        tracing::error!(
            file = %self.0.display(), error = error.as_ref() as &dyn std::error::Error,
            "the agent cannot become the program in its file, and starts as it was"
        );
        exec(Path::new("/proc/self/exe"), sockets, workers).context(error)
    }
}

fn exec(program: &Path, sockets: &Sockets, workers: &[u32]) -> anyhow::Error {
    let mut command = std::process::Command::new(program);
    let workers = workers.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    command.args(std::env::args_os().skip(1)).env(Inherited::FORMER_WORKERS, workers);
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
    anyhow::Error::new(command.exec()).context(format!("could not become {}", program.display()))
}
