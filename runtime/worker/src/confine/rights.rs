//! Rights: user, capabilities, what running a program gives, what others may look into, and how long it lives.

use anyhow::{bail, ensure};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Pid, Uid, getgid, getppid, getuid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::Built;

/// The most files that a process may have open: enough for every connection that its agent takes.
const MAX_FILES: u64 = 65_536;

/// Sets the limits that every kernel gives.
pub(super) fn limit_resources() -> nix::Result<()> {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_MSGQUEUE, 0, 0)?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let files = most.min(MAX_FILES);
    setrlimit(Resource::RLIMIT_NOFILE, files, files)
}

/// Gains nothing by running a program, for ever.
pub(super) fn renounce_new_privileges() -> Built {
    prctl::set_no_new_privs().map_err(|error| format!("the kernel refuses no_new_privs: {error}"))?;
    Ok("no_new_privs".to_owned())
}

/// Takes all capabilities from what this process could ever regain. Without rights it has nothing to take.
pub(super) fn empty_bounding_set() -> Built {
    let sets = capabilities(None).map_err(|error| format!("cannot read the capabilities: {error}"))?;
    if !sets.effective.contains(CapabilitySet::SETPCAP) {
        return Ok("no capabilities".to_owned());
    }
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // The kernel knows fewer than 64 and refuses the question for the rest.
        if capability_is_in_bounding_set(one) == Ok(true) {
            remove_capability_from_bounding_set(one)
                .map_err(|error| format!("capability {number} stays in the bounding set: {error}"))?;
        }
    }
    Ok("no capabilities".to_owned())
}

/// Becomes `user`, and the group of the same number, with no others.
pub(super) fn become_user(user: u32) -> Built {
    let refused = |error| format!("the kernel refuses to make this process user {user}: {error}");
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    setgroups(&[]).and_then(|()| setresgid(gid, gid, gid)).map_err(refused)?;
    setresuid(uid, uid, uid).map_err(refused)?;
    if (getuid(), getgid()) != (uid, gid) {
        return Err(format!("this process is not user {user}"));
    }
    Ok(format!("user {user}"))
}

/// Gives up the capabilities that this process has.
pub(super) fn drop_capabilities() -> Built {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    clear_ambient_capability_set()
        .and_then(|()| set_capabilities(None, none))
        .map_err(|error| format!("the capabilities cannot be given up: {error}"))?;
    Ok("no capabilities".to_owned())
}

/// No core dump, and nobody but root looks into this process. A change of user would undo it, so it comes after.
pub(super) fn forbid_dumps() -> Built {
    prctl::set_dumpable(false).map_err(|error| format!("the kernel does not forbid dumps: {error}"))?;
    Ok("not dumpable, no core files".to_owned())
}

/// Is killed when `agent`, which started it, ends. A change of user would undo it, so it comes after.
pub(super) fn die_with(agent: u32) -> anyhow::Result<Built> {
    if let Err(error) = prctl::set_pdeathsig(Some(Signal::SIGKILL)) {
        return Ok(Err(format!("the kernel does not tell of the agent's death: {error}")));
    }
    // It may have died just before that.
    let agent = Pid::from_raw(i32::try_from(agent).unwrap_or_default());
    ensure!(getppid() == agent, "the agent is gone");
    if prctl::get_pdeathsig() != Ok(Some(Signal::SIGKILL)) {
        bail!("the kernel forgot that this process is to end with its agent");
    }
    Ok(Ok("killed when its agent ends".to_owned()))
}
