//! The wall: what a process gives up before it handles the first byte from a stranger.
//!
//! Everything here is done by the process to itself, for good, while it has one thread; threads which it starts
//! afterwards have given up the same. Each mechanism has a file and says what it has found: a part that the kernel
//! does not give is reported, and where the node's operator wants all of them, the process ends instead.
//!
//! Not here: the limits on memory and threads of the whole process, which the agent sets from outside.

mod descriptors;
mod landlock;
mod namespaces;
mod rights;
mod seccomp;

use anyhow::Context;
use dunlin_protocol::{WallFinding, WallPart, WallSetup, WallState};

pub(crate) use self::descriptors::close_inherited;

/// Builds the wall around this process and returns what was found of each part.
///
/// # Errors
///
/// The process must end: a part of the wall is missing that is required, or what every kernel gives was not given.
pub(crate) fn confine(setup: &WallSetup) -> anyhow::Result<Vec<WallFinding>> {
    let findings = build(setup)?;
    let missing: Vec<_> = findings.iter().filter(|finding| finding.is_missing()).collect();
    if let (true, Some(first)) = (setup.required, missing.first()) {
        anyhow::bail!("the wall is required, and `{}` is missing: {}", first.part, first.detail());
    }
    for finding in &findings {
        tracing::debug!(part = %finding.part, state = ?finding.state, "wall");
    }
    Ok(findings)
}

/// The order matters: what needs rights comes before they are given up, and the filter of system calls comes last.
fn build(setup: &WallSetup) -> anyhow::Result<Vec<WallFinding>> {
    rights::limit_resources().context("cannot limit this process")?;
    std::env::set_current_dir(&setup.folder)
        .with_context(|| format!("cannot enter {}", setup.folder.display()))?;
    let user_namespace = namespaces::become_alone(setup.user);
    let network = namespaces::leave_network();
    let names = namespaces::leave_names();
    let new_privileges = rights::renounce_new_privileges();
    let files = landlock::restrict_files(&setup.read, &setup.write);
    let bounds = rights::empty_bounding_set();
    let user = match setup.user {
        Some(user) => rights::become_user(user),
        None => user_namespace,
    };
    let capabilities = rights::drop_capabilities().and(bounds);
    let dumps = rights::forbid_dumps();
    let orphans = rights::die_with(setup.agent)?;
    let system_calls = seccomp::restrict_system_calls();
    Ok(vec![
        found(WallPart::User, user),
        found(WallPart::Network, network),
        found(WallPart::Names, names),
        found(WallPart::Capabilities, capabilities),
        found(WallPart::NewPrivileges, new_privileges),
        found(WallPart::SystemCalls, system_calls),
        found(WallPart::Files, files),
        found(WallPart::Dumps, dumps),
        found(WallPart::Orphans, orphans),
    ])
}

/// By which means a part of the wall was built, or why it could not be.
type Built = Result<String, String>;

fn found(part: WallPart, built: Built) -> WallFinding {
    let state = match built {
        Ok(means) => WallState::Present(means),
        Err(reason) => WallState::Missing(reason),
    };
    WallFinding { part, state }
}
