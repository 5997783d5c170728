//! Namespaces: there is no network in this process, and no name by which it could meet another one.

use std::fs;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::Built;

/// Makes a user namespace if the agent could give no `user`: in it, this process may make the other namespaces, and
/// rights over them are no rights over anything else.
pub(super) fn become_alone(user: Option<u32>) -> Built {
    if user.is_some() {
        return Ok(String::new());
    }
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| {
        format!("the agent does not run as root, and the kernel refuses a user namespace: {error}")
    })?;
    // Mapped to itself, so that its files are still its own.
    let mapped = fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", format!("{user} {user} 1")))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("{group} {group} 1")));
    match mapped {
        Ok(()) => Ok("user namespace".to_owned()),
        Err(error) => Err(format!("the user namespace cannot be set up: {error}")),
    }
}

/// Leaves the network: the new one has no interface that is up.
pub(super) fn leave_network() -> Built {
    let left = unshare(CloneFlags::CLONE_NEWNET);
    left.map(|()| "network namespace without an interface".to_owned())
        .map_err(|error| format!("the kernel refuses a network namespace: {error}"))
}

/// Leaves what processes share by name: message queues, shared memory, semaphores and the host's name.
pub(super) fn leave_names() -> Built {
    let left = unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS);
    left.map(|()| "IPC and UTS namespaces".to_owned())
        .map_err(|error| format!("the kernel refuses IPC and UTS namespaces: {error}"))
}
