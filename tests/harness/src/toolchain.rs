//! Programs of others that tests start: on the PATH, or where `cargo x setup` has unpacked them.

use std::path::{Path, PathBuf};

/// Returns where a program is, if this machine has it.
pub(crate) fn toolchain(program: &str) -> Option<PathBuf> {
    let toolchains = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/toolchains");
    let unpacked = toolchains.join(program).join("usr/bin").join(program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(program));
    on_path.chain([unpacked]).find(|path| path.is_file())
}
