//! `cargo x check`: what must pass beside the tests. CI runs this chore and has no list of its own.
//!
//! All steps are optimised builds: they share what build scripts and macros of dependencies have made for `test`.

use std::process::Command;

use anyhow::bail;

use crate::setup::{guests, setup};
use crate::step::{Step, cargo};

/// Runs every check; stops at the first that fails.
pub(crate) fn check() -> anyhow::Result<()> {
    setup()?;
    Step::new("format", cargo(["fmt", "--all", "--check"])).run()?;
    let guests_format = cargo(["fmt", "--all", "--check", "--manifest-path", "guests/Cargo.toml"]);
    Step::new("format of the guests", guests_format).run()?;
    let clippy =
        cargo(["clippy", "--release", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    Step::new("lints", clippy).run()?;
    let mut guests_clippy = guests(["clippy"]);
    guests_clippy.args(["--", "-D", "warnings"]);
    Step::new("lints of the guests", guests_clippy).run()?;
    Step::new("dependencies", deny()?).run()?;
    let mut documentation = cargo(["doc", "--release", "--locked", "--workspace", "--no-deps"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    Step::new("documentation", documentation).run()
}

/// Advisories are left out: they change without us, so they are looked at before a release and not at each commit.
fn deny() -> anyhow::Result<Command> {
    let installed = cargo(["deny", "--version"]).output().is_ok_and(|answer| answer.status.success());
    if !installed {
        bail!("cargo-deny is not installed; run `cargo install --locked cargo-deny`");
    }
    Ok(cargo(["deny", "check", "bans", "licenses", "sources"]))
}
