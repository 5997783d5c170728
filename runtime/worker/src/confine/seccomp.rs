//! The filter of system calls: those which a worker needs, and no others. The rest fail with `EPERM`, so that what
//! tries one goes on and is told; nothing but an attacker tries them.
//!
//! What a call may do is bounded by its arguments where they can be seen: a thread may be made but no process, a
//! socket that was passed may be used but not bound, connected or told to connect by sending.

use std::collections::BTreeMap;
use std::ffi::c_int;

use nix::libc;
use nix::unistd::getpid;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::Built;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Allows this process, and all threads that it has or will have, only the calls of this list.
pub(super) fn restrict_system_calls() -> Built {
    let programs = programs().map_err(|error| format!("the filter cannot be made: {error}"))?;
    for program in &programs {
        apply_filter_all_threads(program).map_err(|error| format!("the kernel refuses a filter: {error}"))?;
    }
    Ok("seccomp filter".to_owned())
}

fn programs() -> Result<[BpfProgram; 2], BackendError> {
    let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
    let refused = errno(libc::EPERM);
    let calls = ALLOWED.iter().chain(ALLOWED_HERE);
    let mut rules: Rules = calls.map(|number| (*number, Vec::new())).collect();
    rules.extend(by_arguments()?);
    // The arguments of `clone3` cannot be seen. The C library makes its threads by `clone` if there is no `clone3`,
    // and takes no other error for that. So it has a filter of its own, of which the other one then allows it: where
    // one of two filters refuses, the call is refused.
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let no_clone3 = SeccompFilter::new(unknown, SeccompAction::Allow, errno(libc::ENOSYS), architecture)?;
    rules.insert(libc::SYS_clone3, Vec::new());
    let allowed = SeccompFilter::new(rules, refused, SeccompAction::Allow, architecture)?;
    // After the second one, no filter can be installed any more.
    Ok([no_clone3.try_into()?, allowed.try_into()?])
}

fn errno(number: c_int) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

/// The calls which are allowed with some arguments only.
fn by_arguments() -> Result<Rules, BackendError> {
    let thread = flags(&[libc::CLONE_THREAD, libc::CLONE_VM]);
    let namespaces = flags(&[
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ]);
    let fast_open = flags(&[libc::MSG_FASTOPEN]);
    let own = u64::from(getpid().as_raw().unsigned_abs());
    let one_of = |argument: u8, values: &[u64]| -> Result<Vec<SeccompRule>, BackendError> {
        values.iter().map(|value| SeccompRule::new(vec![equal(argument, *value)?])).collect()
    };
    let options = |level: c_int, names: &[c_int]| -> Result<Vec<SeccompRule>, BackendError> {
        let rule =
            |name: &c_int| SeccompRule::new(vec![equal(1, flags(&[level]))?, equal(2, flags(&[*name]))?]);
        names.iter().map(rule).collect()
    };
    let option_names = [
        options(libc::SOL_TCP, &TCP_OPTIONS)?,
        options(libc::SOL_SOCKET, &SOCKET_OPTIONS)?,
        options(libc::IPPROTO_IP, &[libc::IP_TTL])?,
        options(libc::IPPROTO_IPV6, &[libc::IPV6_UNICAST_HOPS])?,
    ]
    .concat();
    Ok(BTreeMap::from([
        (libc::SYS_clone, vec![SeccompRule::new(vec![masked(0, thread | namespaces, thread)?])?]),
        (libc::SYS_tgkill, one_of(0, &[own])?),
        (libc::SYS_prlimit64, one_of(0, &[0])?),
        (libc::SYS_prctl, one_of(0, &PRCTL.map(|name| flags(&[name])))?),
        (libc::SYS_ioctl, one_of(1, &IOCTL)?),
        (libc::SYS_fcntl, one_of(1, &FCNTL.map(|name| flags(&[name])))?),
        (libc::SYS_setsockopt, option_names),
        // A pair of sockets leads nowhere else, if it is a stream.
        (
            libc::SYS_socketpair,
            vec![SeccompRule::new(vec![
                equal(0, flags(&[libc::AF_UNIX]))?,
                masked(1, 0xf, flags(&[libc::SOCK_STREAM]))?,
            ])?],
        ),
        // With an address, or with this flag, sending connects.
        (libc::SYS_sendto, vec![SeccompRule::new(vec![pointer(4, 0)?, masked(3, fast_open, 0)?])?]),
        (libc::SYS_sendmsg, vec![SeccompRule::new(vec![masked(2, fast_open, 0)?])?]),
    ]))
}

fn flags(flags: &[c_int]) -> u64 {
    flags.iter().fold(0, |all, flag| all | u64::from(flag.cast_unsigned()))
}

fn equal(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn pointer(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)
}

/// The options of a socket that a guest may choose, and those which the ingress needs.
const TCP_OPTIONS: [c_int; 5] =
    [libc::TCP_NODELAY, libc::TCP_QUICKACK, libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT];
const SOCKET_OPTIONS: [c_int; 4] = [libc::SO_LINGER, libc::SO_KEEPALIVE, libc::SO_RCVBUF, libc::SO_SNDBUF];
const PRCTL: [c_int; 2] = [libc::PR_SET_NAME, libc::PR_SET_VMA];
const IOCTL: [u64; 4] = [libc::FIONBIO, libc::FIOCLEX, libc::FIONREAD, PAGEMAP_SCAN];
/// Tells which pages of this process were written, so that the memory of an instance can be made clean.
const PAGEMAP_SCAN: u64 = 0xc060_6610;
const FCNTL: [c_int; 8] = [
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_ADD_SEALS,
    libc::F_GET_SEALS,
];

/// The calls which are allowed with any arguments.
#[rustfmt::skip]
const ALLOWED: &[i64] = &[
    // Memory. Code is loaded, so memory may be made executable.
    libc::SYS_brk, libc::SYS_madvise, libc::SYS_memfd_create, libc::SYS_mincore, libc::SYS_mmap, libc::SYS_mprotect,
    libc::SYS_mremap, libc::SYS_munmap, libc::SYS_membarrier,
    // Threads and their end.
    libc::SYS_exit, libc::SYS_exit_group, libc::SYS_futex, libc::SYS_get_robust_list, libc::SYS_getpid,
    libc::SYS_getppid, libc::SYS_gettid, libc::SYS_restart_syscall, libc::SYS_rseq, libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield, libc::SYS_set_robust_list, libc::SYS_set_tid_address, libc::SYS_getcpu,
    // Signals to itself, which is how guests trap.
    libc::SYS_rt_sigaction, libc::SYS_rt_sigpending, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait, libc::SYS_sigaltstack,
    // Time, chance, and what it is.
    libc::SYS_clock_getres, libc::SYS_clock_gettime, libc::SYS_clock_nanosleep, libc::SYS_getrandom,
    libc::SYS_gettimeofday, libc::SYS_nanosleep, libc::SYS_getegid, libc::SYS_geteuid, libc::SYS_getgid,
    libc::SYS_getrusage, libc::SYS_getuid, libc::SYS_sysinfo, libc::SYS_times, libc::SYS_uname,
    // Waiting.
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_eventfd2,
    libc::SYS_pipe2, libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_timerfd_create, libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    // Descriptors which it has.
    libc::SYS_close, libc::SYS_close_range, libc::SYS_dup, libc::SYS_dup3, libc::SYS_lseek, libc::SYS_pread64,
    libc::SYS_preadv, libc::SYS_preadv2, libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_pwritev2, libc::SYS_read,
    libc::SYS_readv, libc::SYS_write, libc::SYS_writev,
    // Sockets which it was passed.
    libc::SYS_getpeername, libc::SYS_getsockname, libc::SYS_getsockopt, libc::SYS_recvfrom, libc::SYS_recvmsg,
    libc::SYS_shutdown,
    // Files; which of them, Landlock decides.
    libc::SYS_chdir, libc::SYS_copy_file_range, libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_fadvise64,
    libc::SYS_fallocate, libc::SYS_fdatasync, libc::SYS_flock, libc::SYS_fstat, libc::SYS_fstatfs, libc::SYS_fsync,
    libc::SYS_ftruncate, libc::SYS_getcwd, libc::SYS_getdents64, libc::SYS_linkat, libc::SYS_mkdirat,
    libc::SYS_newfstatat, libc::SYS_openat, libc::SYS_openat2, libc::SYS_readlinkat, libc::SYS_renameat,
    libc::SYS_renameat2, libc::SYS_sendfile, libc::SYS_statx, libc::SYS_symlinkat, libc::SYS_sync_file_range,
    libc::SYS_unlinkat, libc::SYS_utimensat,
];

/// The older forms of some of them, which this architecture still has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[i64] = &[
    libc::SYS_access, libc::SYS_arch_prctl, libc::SYS_dup2, libc::SYS_epoll_create, libc::SYS_epoll_wait,
    libc::SYS_eventfd, libc::SYS_getdents, libc::SYS_link, libc::SYS_lstat, libc::SYS_mkdir, libc::SYS_open,
    libc::SYS_pipe, libc::SYS_poll, libc::SYS_readlink, libc::SYS_rename, libc::SYS_rmdir, libc::SYS_select,
    libc::SYS_stat, libc::SYS_symlink, libc::SYS_time, libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = &[];
