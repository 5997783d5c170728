//! Asks a process that builds the wall around itself what it found.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use dunlin_protocol::{WallFinding, WallPart};
use tokio::process::Command;

use crate::Settings;

/// How long that may take, on a busy machine.
const PROBE_TIME: Duration = Duration::from_secs(20);

/// Why it is not known what this machine gives.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The process could not be run.
    #[error("could not run `dunlin worker --probe`")]
    Run(#[source] io::Error),
    /// It did not end.
    #[error("`dunlin worker --probe` took more than 20 s")]
    Late,
    /// It did not say what it found.
    #[error("`dunlin worker --probe` ended with {status} and said: {said}")]
    Said {
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        said: String,
    },
}

/// Returns what such a process found, and whether it can be given a user of its own.
pub(super) async fn probe(
    program: &Path,
    settings: &Settings,
) -> Result<(Vec<WallFinding>, bool), ProbeError> {
    if nix::unistd::geteuid().is_root() {
        let findings = probe_as(program, Some(settings.worker_uids.start)).await?;
        let is_user = |finding: &WallFinding| finding.part == WallPart::User && !finding.is_missing();
        if findings.iter().any(is_user) {
            return Ok((findings, true));
        }
        // Root of a container may have no such users; then it may still have a user namespace.
    }
    Ok((probe_as(program, None).await?, false))
}

async fn probe_as(program: &Path, user: Option<u32>) -> Result<Vec<WallFinding>, ProbeError> {
    let mut command = Command::new(program);
    command.arg0("dunlin").args(["worker", "--probe", "--agent", &std::process::id().to_string()]);
    if let Some(user) = user {
        command.args(["--user", &user.to_string()]);
    }
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PROBE_TIME, command.output());
    let output = output.await.map_err(|_| ProbeError::Late)?.map_err(ProbeError::Run)?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ProbeError::Said { status: output.status, said }
    })
}
