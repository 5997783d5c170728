//! Descriptors that came with the process: three are meant for it, and what else its launcher left open is not.

use nix::libc;

/// Closes all descriptors but standard input, output and error. To be called before this process has opened any.
#[expect(unsafe_code, reason = "no safe function closes descriptors that nobody in this process owns")]
pub(crate) fn close_inherited() {
    const FIRST: u32 = 3;
    // SAFETY: The process has just begun and has opened nothing, so no value in it owns one of these descriptors. The
    // call takes three numbers. A kernel before 5.9 does not know it; there they stay open, as they did before.
    let _unknown_to_old_kernels = unsafe { libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, 0_u32) };
}
