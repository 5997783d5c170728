//! Landlock: which files there are for this process, whoever owns them.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::Built;

/// The newest rules that are asked for; of an older kernel, those that it knows.
const RULES: ABI = ABI::V6;

/// Leaves this process the files beneath `read` and `write`, no TCP port to bind or connect, and nobody outside to
/// signal. What is not there is left out. Paths are looked up now, with the rights that the process still has.
pub(super) fn restrict_files(read: &[PathBuf], write: &[PathBuf]) -> Built {
    let status = restrict(read, write).map_err(|error| format!("Landlock failed: {error}"))?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
            Err("Landlock is not in this kernel's list of security modules".to_owned())
        }
        (RulesetStatus::NotEnforced, _) => Err("this kernel has no Landlock".to_owned()),
        (_, LandlockStatus::Available { effective_abi, kernel_abi }) => {
            let version =
                kernel_abi.map_or_else(|| format!("{effective_abi:?}"), |version| format!("V{version}"));
            Ok(format!("Landlock {version}"))
        }
        (_, _) => Ok("Landlock".to_owned()),
    }
}

fn restrict(read: &[PathBuf], write: &[PathBuf]) -> Result<RestrictionStatus, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        .scope(Scope::from_all(RULES))?
        .create()?
        .add_rules(path_beneath_rules(read, reading()))?
        .add_rules(path_beneath_rules(write, writing()))?
        .restrict_self()
}

fn reading() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// No devices, no sockets, no pipes, and nothing is executed.
fn writing() -> BitFlags<AccessFs> {
    reading()
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}
