//! The wall around the processes that handle what strangers wrote: what this machine can give of it.
//!
//! Most of the wall each process builds around itself. Here it is found out once, by a process that builds it and
//! ends, what the kernel gives; the users and control groups, which only the agent can give, are kept here.

mod advice;
mod cgroup;
mod probe;
mod users;

use std::io;
use std::path::Path;

use dunlin_model::Bytes;
use dunlin_protocol::WallFinding;

use crate::Settings;
use crate::settings::Hardening;

pub use self::advice::{Advice, advice};
pub(crate) use self::cgroup::Cgroup;
use self::cgroup::Cgroups;
pub use self::probe::ProbeError;
pub(crate) use self::users::Users;

/// What this machine gives of the wall.
#[derive(Debug)]
pub(crate) struct Wall {
    findings: Vec<WallFinding>,
    cgroups: Cgroups,
    hardening: Hardening,
    gives_users: bool,
}

impl Wall {
    /// Finds out what this machine gives. `state` tells this agent's control groups from another's.
    pub(crate) async fn examine(
        program: &Path,
        state: &Path,
        settings: &Settings,
    ) -> Result<Self, ProbeError> {
        let cgroups = Cgroups::open(state);
        let (mut findings, gives_users) = probe::probe(program, settings).await?;
        findings.extend(cgroups.findings());
        Ok(Self { findings, cgroups, hardening: settings.hardening, gives_users })
    }

    /// Says in the log what is there, and what is not.
    pub(crate) fn log(&self) {
        for finding in &self.findings {
            let (part, detail) = (finding.part, finding.detail());
            if finding.is_missing() {
                let help = advice(part).help;
                tracing::warn!(%part, reason = detail, help, "a part of the wall around guests is missing");
            } else {
                tracing::info!(%part, means = detail, "a part of the wall around guests is there");
            }
        }
    }

    /// Puts `process` into a control group called after `owner`, as far as there are control groups.
    pub(crate) fn confine(&self, owner: &str, process: u32, memory: Bytes) -> io::Result<Cgroup> {
        match self.cgroups.confine(owner, process, memory) {
            Err(error) if !self.is_required() => {
                tracing::warn!(owner, process, %error, "worker runs without a control group");
                Ok(Cgroup::none())
            }
            other => other,
        }
    }

    /// Leaves nothing behind, once no worker is left.
    pub(crate) fn close(&self) {
        self.cgroups.remove();
    }

    /// Whether processes are to end rather than go on without a part of the wall.
    pub(crate) fn is_required(&self) -> bool {
        self.hardening == Hardening::Required
    }

    /// Returns why no guest may run on this node, if none may.
    pub(crate) fn refusal(&self) -> Option<String> {
        let missing: Vec<_> = self.findings.iter().filter(|finding| finding.is_missing()).collect();
        if !self.is_required() || missing.is_empty() {
            return None;
        }
        let each = missing.iter().map(|finding| {
            let WallFinding { part, .. } = finding;
            format!("`{part}` is missing ({}): {}", finding.detail(), advice(*part).help)
        });
        let each: Vec<_> = each.collect();
        Some(format!("this node's config says hardening = \"required\", and {}", each.join("; ")))
    }

    /// Tells whether processes can be given users of their own.
    pub(crate) fn gives_users(&self) -> bool {
        self.gives_users
    }
}

/// Finds out what this machine gives, changing nothing: for `dunlin doctor`.
pub async fn examine(program: &Path, settings: &Settings) -> Result<Vec<WallFinding>, ProbeError> {
    let (mut findings, _) = probe::probe(program, settings).await?;
    findings.extend(cgroup::look());
    Ok(findings)
}
