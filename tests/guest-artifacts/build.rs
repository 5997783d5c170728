//! Compiles the guests, once, and copies each component to where `src/component.rs` takes it from.
//!
//! The inner cargo must not see what the outer one tells its build scripts: flags, wrappers (clippy is one) and
//! job server belong to the machine's build. Its target folder is `guests/target`, the same that developers and
//! `dunlin deploy` use, so that nothing is compiled twice; the copies keep a running test from seeing a later build.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "wasm32-wasip2";

const PROGRAMS: [&str; 30] = [
    "ask-http",
    "calls",
    "cat",
    "config-http",
    "empty-std",
    "env",
    "exit-code",
    "fetch-http",
    "files-http",
    "flood",
    "flood-http",
    "hello",
    "hello-v2",
    "hog",
    "hog-http",
    "hostile",
    "hostile-http",
    "json",
    "n-body",
    "say-http",
    "sha256",
    "sleep",
    "sleep-http",
    "sockets-http",
    "spin",
    "spin-http",
    "tell-http",
    "trap",
    "trap-http",
    "word-count",
];

/// Those that are libraries, by the names of their files: what is of WASI 0.3 has no `main`.
const LIBRARIES: [&str; 2] = ["wasi3_command", "wasi3_service"];

/// Those that are built with debug information.
const TRACED: [&str; 1] = ["traced-http"];

const TEXTS: [&str; 4] = ["config", "core-module", "empty", "missing-import"];

const MISSING_TARGET: [&str; 5] = [
    "the guests cannot be compiled: this Rust toolchain has no target wasm32-wasip2.",
    "help: run `rustup target add wasm32-wasip2`.",
    "help: without rustup, install it as your distribution packages it (Debian: libstd-rust-dev-wasm32, where new \
     enough to hold this target), or install Rust from https://rustup.rs.",
    "help: which compiler is asked: `rustc --print sysroot` shows it.",
    "help: offline, copy lib/rustlib/wasm32-wasip2 from the same Rust version into that folder.",
];

fn main() {
    if let Err(lines) = build() {
        for line in lines {
            tell(&format!("error={line}"));
        }
    }
}

fn build() -> Result<(), Vec<String>> {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests");
    for watched in ["Cargo.toml", "Cargo.lock", "computing", "examples", "fixtures", "sdk", "wasi3", "../wit"]
    {
        tell(&format!("rerun-if-changed={}", guests.join(watched).display()));
    }
    tell("rerun-if-changed=build.rs");
    if !has_target() {
        return Err(MISSING_TARGET.map(str::to_owned).to_vec());
    }
    compile(&guests, &["--release"])?;
    let traced: Vec<&str> = TRACED.iter().flat_map(|program| ["--bin", program]).collect();
    compile(&guests, &[&["--profile", "traced"], &traced[..]].concat())?;
    let out = PathBuf::from(variable("OUT_DIR"));
    let traced = TRACED.iter().map(|program| (program, "traced"));
    let released = PROGRAMS.iter().chain(&LIBRARIES).map(|program| (program, "release"));
    for (program, profile) in released.chain(traced) {
        let file = format!("{program}.wasm");
        let from = guests.join("target").join(TARGET).join(profile).join(&file);
        fs::copy(&from, out.join(&file)).map_err(|error| said("copy", &from, &error))?;
    }
    for text in TEXTS {
        let from = guests.join("fixtures/wat").join(format!("{text}.wat"));
        let bytes = wat::parse_file(&from).map_err(|error| said("parse", &from, &error))?;
        let to = out.join(format!("{text}.wasm"));
        fs::write(&to, bytes).map_err(|error| said("write", &to, &error))?;
    }
    Ok(())
}

/// Tells whether the standard library for wasm is there. If rustc does not even answer, the inner cargo will say why.
fn has_target() -> bool {
    let answer =
        Command::new(variable("RUSTC")).args(["--print", "target-libdir", "--target", TARGET]).output();
    answer.map_or(true, |answer| Path::new(String::from_utf8_lossy(&answer.stdout).trim()).is_dir())
}

fn compile(guests: &Path, what: &[&str]) -> Result<(), Vec<String>> {
    let manifest = guests.join("Cargo.toml");
    let mut cargo = Command::new(variable("CARGO"));
    cargo.args(["build", "--locked", "--target", TARGET, "--manifest-path"]).arg(&manifest).args(what);
    cargo.arg("--target-dir").arg(guests.join("target"));
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_of_the_outer_cargo) {
            cargo.env_remove(name);
        }
    }
    let output = cargo.output().map_err(|error| said("start cargo for", &manifest, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let mut lines = vec![format!("the guests could not be compiled ({}):", output.status)];
    lines.extend(String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned));
    Err(lines)
}

/// Variables that cargo sets for build scripts and rustc. Those by which people configure it (registries, network,
/// home) stay.
fn is_of_the_outer_cargo(name: &str) -> bool {
    const CONFIGURED: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_ALIAS_",
    ];
    const SET: [&str; 14] = [
        "DEBUG",
        "HOST",
        "MAKEFLAGS",
        "MFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC",
        "RUSTC_LINKER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "TARGET",
    ];
    SET.contains(&name)
        || name.starts_with("DEP_")
        || name.starts_with("CLIPPY_")
        || name.starts_with("CARGO") && !CONFIGURED.iter().any(|configured| name.starts_with(configured))
}

fn said(verb: &str, path: &Path, error: &dyn std::fmt::Display) -> Vec<String> {
    vec![format!("could not {verb} {}: {error}", path.display())]
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for each build script"))
}

fn tell(directive: &str) {
    println!("cargo::{directive}");
}
