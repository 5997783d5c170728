//! What each part of the wall is for, and what to do where it is missing.

use dunlin_protocol::WallPart;

/// What a person is told of one part of the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What it keeps a guest from that has broken out of its sandbox.
    pub meaning: &'static str,
    /// What to do where it is missing.
    pub help: &'static str,
}

/// Returns what a person is told of `part`.
pub fn advice(part: WallPart) -> Advice {
    let (meaning, help) = match part {
        WallPart::User => (
            "workers own nothing of the agent's or of each other's",
            "run the agent as root, or allow user namespaces (sysctl user.max_user_namespaces, and \
             kernel.apparmor_restrict_unprivileged_userns=0 where it is set)",
        ),
        WallPart::Network => (
            "there is no network in a worker; it has only connections which it was passed",
            "run the agent as root, or allow user namespaces; in a container, allow CAP_SYS_ADMIN or unshare",
        ),
        WallPart::Names => (
            "workers cannot meet other processes by shared memory or message queues",
            "run the agent as root, or allow user namespaces; in a container, allow CAP_SYS_ADMIN or unshare",
        ),
        WallPart::Capabilities => ("workers have no right of root", "report it: every kernel gives this"),
        WallPart::NewPrivileges => {
            ("workers gain nothing by running a program", "report it: every kernel since 3.5 gives this")
        }
        WallPart::SystemCalls => (
            "most of the kernel cannot be called at all",
            "use a kernel with CONFIG_SECCOMP_FILTER; in a container, allow the seccomp system call",
        ),
        WallPart::Files => (
            "workers see their own files only, whoever owns the others",
            "use a kernel since 5.13 with CONFIG_SECURITY_LANDLOCK and `landlock` in its lsm= list",
        ),
        WallPart::Dumps => {
            ("the memory of workers is not written or shown to others", "report it: every kernel gives this")
        }
        WallPart::Orphans => ("no worker outlives its agent", "report it: every kernel gives this"),
        WallPart::Memory => (
            "the kernel ends a worker that takes more memory than its allocations may have",
            "give the agent a control group with `memory` that it may divide: root on cgroup v1, or a systemd \
             service with Delegate=yes on cgroup v2",
        ),
        WallPart::Processes => (
            "a worker cannot fill the machine with threads",
            "give the agent a control group with `pids` that it may divide: root on cgroup v1, or a systemd \
             service with Delegate=yes on cgroup v2",
        ),
    };
    Advice { meaning, help }
}
