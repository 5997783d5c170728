//! What the process gives up before it sees the first guest.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};

/// Gives up, for good, what a worker never needs: more rights by running other programs, being looked into or
/// dumped to disk, and files that others can read.
pub(crate) fn confine() -> nix::Result<()> {
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    Ok(())
}
