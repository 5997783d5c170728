//! What the tests need of others: the compilers of the guests that are not written in Rust, installed from PyPI and npm
//! by their ordinary clients, a server that speaks the language of S3, from npm, a tester of HTTP APIs, from PyPI, and etcd
//! and a registry of OCI artifacts, from Debian's packages.
//!
//! They are kept under `target/toolchains`, in the versions that `guests/examples/languages` pins, and are installed
//! again only when these change. `tests/guest-artifacts` knows the same folders, and says to run this chore when they
//! are not there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::step::{Step, root, say};

/// Where the files that pin the versions are.
const LANGUAGES: &str = "guests/examples/languages";
/// The file in a toolchain's folder that says what is installed there: the text of what pins it.
const INSTALLED: &str = "installed";

const PYTHON_HELP: [&str; 3] = [
    "The guests in C, Zig, Go and Python need compilers from PyPI, the tests of the API a tester, and they could not be had.",
    "  help: they need Python 3.10 or later with venv (Debian: python3-venv) and a network to PyPI.",
    "  help: what pip said stands above; a mirror is set by its own configuration.",
];

const NODE_HELP: [&str; 3] = [
    "The guests in JavaScript need a compiler from npm, and it could not be installed.",
    "  help: it needs Node.js 20 or later with npm, and a network to the npm registry.",
    "  help: what npm said stands above; a mirror is set by its own configuration.",
];

const ETCD_HELP: [&str; 4] = [
    "The tests of several coordinators need etcd 3.4 or later, and it could not be had: they will be skipped.",
    "  help: on Debian and its like, run `apt-get update` once, so that its packages are known.",
    "  help: elsewhere, put an `etcd` on the PATH.",
    "  help: what apt-get said stands above; all other tests run without it.",
];

const REGISTRY_HELP: [&str; 3] = [
    "The tests of OCI artifacts need docker-registry, and it could not be had: they will be skipped.",
    "  help: on Debian and its like, run `apt-get update` once; elsewhere, put a `docker-registry` on the PATH.",
    "  help: what apt-get said stands above; all other tests run without it.",
];

/// Installs what is missing.
pub(crate) fn install() -> anyhow::Result<()> {
    python().inspect_err(|_| PYTHON_HELP.iter().for_each(say))?;
    javascript().inspect_err(|_| NODE_HELP.iter().for_each(say))?;
    s3_server().inspect_err(|_| NODE_HELP.iter().for_each(say))?;
    api_tester().inspect_err(|_| PYTHON_HELP.iter().for_each(say))?;
    if unpacked("etcd", "etcd-server").is_err() {
        ETCD_HELP.iter().for_each(say);
    }
    if unpacked("docker-registry", "docker-registry").is_err() {
        REGISTRY_HELP.iter().for_each(say);
    }
    Ok(())
}

/// A server for tests that speaks the language of S3.
const S3_SERVER: &str = "s3rver@3.7.1";

fn s3_server() -> anyhow::Result<()> {
    let folder = folder("s3");
    if is_installed(&folder, S3_SERVER) {
        return Ok(());
    }
    emptied(&folder)?;
    fs::write(folder.join("package.json"), "{}")
        .with_context(|| format!("could not write to {}", folder.display()))?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error", S3_SERVER]);
    npm.current_dir(&folder);
    Step::new("a server that speaks the language of S3", npm).run()?;
    note_installed(&folder, S3_SERVER)
}

/// Unpacks Debian's package with a program beside the others, unless there is one on the PATH; nothing is installed.
fn unpacked(program: &str, package: &str) -> anyhow::Result<()> {
    let folder = folder(program);
    let there = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if there || folder.join("usr/bin").join(program).is_file() {
        return Ok(());
    }
    emptied(&folder)?;
    let mut download = Command::new("apt-get");
    download.args(["download", "--quiet", package]).current_dir(&folder);
    Step::new(format!("{program}, for tests"), download).run()?;
    let package = fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).next();
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(package.context("apt-get downloaded nothing")?).arg(&folder);
    Step::new(format!("{program}, unpacked"), unpack).run()
}

fn folder(name: &str) -> PathBuf {
    root().join("target/toolchains").join(name)
}

fn python() -> anyhow::Result<()> {
    let requirements = root().join(LANGUAGES).join("requirements.txt");
    let pinned = read(&requirements)?;
    from_pypi("compilers of C, Zig, Go and Python", "python", &pinned)
}

/// What asks a coordinator for all that its OpenAPI document describes.
const API_TESTER: &str = "schemathesis==4.32.5";

fn api_tester() -> anyhow::Result<()> {
    from_pypi("a tester of HTTP APIs", "schemathesis", API_TESTER)
}

/// Installs what is pinned into an environment of its own.
fn from_pypi(title: &str, name: &str, pinned: &str) -> anyhow::Result<()> {
    let folder = folder(name);
    if is_installed(&folder, pinned) {
        return Ok(());
    }
    emptied(&folder)?;
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(&folder);
    Step::new(format!("a place for {title}"), venv).run()?;
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, pinned).with_context(|| format!("could not write to {}", folder.display()))?;
    let mut pip = Command::new(folder.join("bin/python3"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"])
        .arg("--requirement")
        .arg(&requirements);
    Step::new(title, pip).run()?;
    note_installed(&folder, pinned)
}

fn javascript() -> anyhow::Result<()> {
    let package = root().join(LANGUAGES).join("javascript/package.json");
    let folder = folder("javascript");
    let pinned = read(&package)?;
    if is_installed(&folder, &pinned) {
        return Ok(());
    }
    emptied(&folder)?;
    fs::write(folder.join("package.json"), &pinned)
        .with_context(|| format!("could not write to {}", folder.display()))?;
    let mut npm = Command::new("npm");
    // Without a lock file: one that is made where a registry offers only this machine's optional packages is
    // refused by `npm ci`, here and elsewhere. What matters is pinned in package.json.
    npm.args([
        "install",
        "--include=dev",
        "--no-package-lock",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]);
    npm.current_dir(&folder);
    Step::new("the compiler of JavaScript", npm).run()?;
    note_installed(&folder, &pinned)
}

fn is_installed(folder: &Path, pinned: &str) -> bool {
    fs::read_to_string(folder.join(INSTALLED)).is_ok_and(|installed| installed == pinned)
}

fn note_installed(folder: &Path, pinned: &str) -> anyhow::Result<()> {
    let file = folder.join(INSTALLED);
    fs::write(&file, pinned).with_context(|| format!("could not write {}", file.display()))
}

fn emptied(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("could not remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) => bail!("could not read {}: {error}", path.display()),
    }
}
