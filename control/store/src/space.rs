//! Room on the disk: noticed before it runs out, and told apart from other failures when it has.

use std::io;
use std::path::Path;

use dunlin_model::Bytes;
use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

/// How much free space is left to the store itself, so that it can still delete when the disk is full.
pub const RESERVE: Bytes = Bytes(64 << 20);

/// Why nothing more can be written.
#[derive(Debug, thiserror::Error)]
pub enum NoSpace {
    /// The free space is below the reserve.
    #[error("{free} are free on the disk, and {reserve} are kept in reserve")]
    BelowReserve {
        /// How much is free.
        free: Bytes,
        /// How much is kept.
        reserve: Bytes,
    },
    /// The operating system says so.
    #[error("the operating system has no room for it")]
    Refused(#[source] io::Error),
}

/// Checks that a write leaves `reserve` untouched in the file system of `folder`.
pub(crate) fn check(folder: &Path, reserve: Bytes) -> io::Result<Result<(), NoSpace>> {
    if reserve == Bytes(0) {
        return Ok(Ok(()));
    }
    let status = statvfs(folder).map_err(io::Error::from)?;
    let free = Bytes(status.blocks_available().saturating_mul(status.fragment_size()));
    Ok(if free < reserve { Err(NoSpace::BelowReserve { free, reserve }) } else { Ok(()) })
}

/// Tells whether an error means that there is no room: on the disk, in the quota, or in the largest allowed file.
pub(crate) fn is_full(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG))
}
