//! `cargo x setup`: the one thing that cargo does not bring by itself, the target that guests are compiled to.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::step::{Step, cargo, root, say};

const TARGET: &str = "wasm32-wasip2";

const HELP: [&str; 6] = [
    "The guests need the Rust target wasm32-wasip2, and it could not be added through rustup.",
    "  help: with rustup and a network, run `rustup target add wasm32-wasip2` and read what it says.",
    "  help: without rustup, install it as your distribution packages it (Debian: libstd-rust-dev-wasm32,",
    "        where new enough to hold this target), or install Rust from https://rustup.rs.",
    "  help: offline, copy lib/rustlib/wasm32-wasip2 of the same Rust version into the folder that",
    "        `rustc --print sysroot` shows.",
];

/// Adds the target if it is missing.
pub(crate) fn setup() -> anyhow::Result<()> {
    if has_target()? {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]).current_dir(root());
    let added = Step::new(format!("the target {TARGET}"), rustup).run();
    if has_target()? {
        return Ok(());
    }
    HELP.iter().for_each(say);
    match added {
        Ok(()) => bail!("rustup added the target {TARGET} to another toolchain than the one in use"),
        Err(error) => Err(error.context(format!("could not add the target {TARGET}"))),
    }
}

/// Cargo for the workspace of the guests: `verb` (build, clippy) for their target.
pub(crate) fn guests<const N: usize>(verb: [&str; N]) -> Command {
    let mut command = cargo(verb);
    command.args(["--release", "--locked", "--target", TARGET, "--manifest-path", "guests/Cargo.toml"]);
    command
}

/// Cargo for the SDK and the guests that show it: `verb` (test, clippy) for this machine, where fakes stand in for a host.
pub(crate) fn sdk<const N: usize>(verb: [&str; N]) -> Command {
    let mut command = cargo(verb);
    command.args(["--locked", "--all-features", "--manifest-path", "guests/Cargo.toml"]);
    let packages = [
        "dunlin-guest",
        "dunlin-guest-macros",
        "sdk-example",
        "auth-proxy",
        "log-analyser",
        "thumbnailer",
        "url-shortener",
    ];
    command.args(packages.iter().flat_map(|package| ["--package", package]));
    command
}

fn has_target() -> anyhow::Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let answer = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(root())
        .output()
        .context("could not ask rustc for its targets; is Rust installed, from https://rustup.rs?")?;
    Ok(Path::new(String::from_utf8_lossy(&answer.stdout).trim()).is_dir())
}
