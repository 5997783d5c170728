//! `cargo x check`: what must pass beside the tests. CI runs this chore and has no list of its own.
//!
//! All steps are in the profile of the tests: they share what build scripts and macros of dependencies have made for `test`.

use std::process::Command;

use anyhow::bail;

use crate::setup::{guests, sdk, setup};
use crate::step::{Step, built, cargo, say};

/// Runs every check; stops at the first that fails.
pub(crate) fn check() -> anyhow::Result<()> {
    setup()?;
    Step::new("format", cargo(["fmt", "--all", "--check"])).run()?;
    let guests_format = cargo(["fmt", "--all", "--check", "--manifest-path", "guests/Cargo.toml"]);
    Step::new("format of the guests", guests_format).run()?;
    let mut clippy = built(["clippy", "--locked", "--workspace", "--all-targets"]);
    clippy.args(["--", "-D", "warnings"]);
    Step::new("lints", clippy).run()?;
    let mut planted = built(["clippy", "--locked", "--package", "dunlin-simulation", "--all-targets"]);
    planted.args(["--features", "planted-bugs", "--", "-D", "warnings"]);
    Step::new("lints of the planted bugs", planted).run()?;
    let mut planted = built(["clippy", "--locked", "--package", "dunlin-planted"]);
    planted.args(["--features", "on", "--", "-D", "warnings"]);
    Step::new("lints of the bugs planted in processes", planted).run()?;
    let mut guests_clippy = guests(["clippy"]);
    guests_clippy.args(["--", "-D", "warnings"]);
    Step::new("lints of the guests", guests_clippy).run()?;
    let mut sdk_clippy = sdk(["clippy"]);
    sdk_clippy.args(["--all-targets", "--", "-D", "warnings"]);
    Step::new("lints of the guest SDK", sdk_clippy).run()?;
    Step::new("dependencies", deny(&["bans", "licenses", "sources"])?).run()?;
    advisories()?;
    let mut documentation = built(["doc", "--locked", "--workspace", "--no-deps"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    Step::new("documentation", documentation).run()
}

/// Asks the advisory database, where it can be reached: without a network that is said, and nothing else fails.
fn advisories() -> anyhow::Result<()> {
    let fetched = cargo(["deny", "fetch", "db"]).output();
    if fetched.is_ok_and(|answer| answer.status.success()) {
        return Step::new("advisories", deny(&["advisories"])?).run();
    }
    say("    advisories not checked: their database cannot be reached from here");
    Ok(())
}

/// Returns cargo-deny with these checks.
fn deny(checks: &[&str]) -> anyhow::Result<Command> {
    let installed = cargo(["deny", "--version"]).output().is_ok_and(|answer| answer.status.success());
    if !installed {
        bail!("cargo-deny is not installed; run `cargo install --locked cargo-deny`");
    }
    let mut command = cargo(["deny", "check"]);
    command.args(checks);
    Ok(command)
}
