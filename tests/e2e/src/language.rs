//! The guests in other languages than Rust, built from their sources where the compilers come from a package registry.
//!
//! The compilers are those that `cargo x setup` installs into `target/toolchains`. A guest is built by `dunlin deploy`
//! itself, with the command in its manifest, in a copy of its sources under `target/languages`; the copy is named for
//! what it holds, so that the same sources are built once. Where a compiler is missing, the test fails and says so.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use dunlin_harness::Fleet;
use dunlin_model::Digest;

use crate::{Printed, printed};

/// A guest of `guests/examples/languages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// A job, by `zig cc`.
    C,
    /// A job, by Go's own compiler.
    Go,
    /// A service, by `componentize-js`.
    JavaScript,
    /// A service, by `componentize-py`.
    Python,
    /// A job, by `zig`.
    Zig,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::C, Self::Go, Self::JavaScript, Self::Python, Self::Zig];

    /// Returns the name of its folder.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Go => "go",
            Self::JavaScript => "javascript",
            Self::Python => "python",
            Self::Zig => "zig",
        }
    }

    /// Builds its guest, if these sources have not been built before, and deploys it. Returns what `dunlin` printed.
    ///
    /// # Panics
    ///
    /// If its compiler is not installed, or it cannot be deployed.
    pub async fn deploy(self, fleet: &Fleet) -> Printed {
        self.assert_installed();
        let copy = self.copy();
        let app = copy.join(self.folder());
        let built = copy.join("built");
        // Compiling an interpreter takes a busy node longer than `dunlin deploy` waits without being told.
        let mut arguments = vec!["deploy", ".", "--timeout", "180s"];
        if built.exists() {
            arguments.push("--no-build");
        }
        let mut command = fleet.command(&app, &arguments);
        let output = command.envs(environment()).output().await.expect("the program can be run");
        let printed = printed(&output);
        printed.assert_done();
        fs::write(built, "").expect("the target folder can be written");
        printed
    }

    /// Returns the command in its manifest.
    ///
    /// # Panics
    ///
    /// If it has none.
    pub fn build_command(self) -> String {
        let manifest = languages().join(self.folder()).join("dunlin.toml");
        let manifest = fs::read_to_string(manifest).expect("each language has a manifest");
        let line = manifest.lines().find_map(|line| line.strip_prefix("command = \""));
        line.and_then(|line| line.strip_suffix('"')).expect("each manifest builds").to_owned()
    }

    fn assert_installed(self) {
        let (folder, pins) = match self {
            Self::JavaScript => ("javascript", "javascript/package.json"),
            Self::C | Self::Go | Self::Python | Self::Zig => ("python", "requirements.txt"),
        };
        let wanted = fs::read_to_string(languages().join(pins)).expect("the pins can be read");
        let installed = fs::read_to_string(toolchains().join(folder).join("installed")).ok();
        assert!(
            installed.as_ref() == Some(&wanted),
            "the compiler for {self:?} is not installed, or not in the version that {pins} wants: run `cargo x \
             setup`, which needs a network to PyPI and npm"
        );
    }

    /// Returns the folder with a copy of its sources, under a name that tells what they are.
    fn copy(self) -> PathBuf {
        let mut sources = Vec::new();
        for folder in ["wit", "wit/deps", self.folder()] {
            collect(&languages(), folder, &mut sources);
        }
        sources.push(("requirements.txt".to_owned(), read(&languages().join("requirements.txt"))));
        sources.sort();
        let texts: Vec<u8> =
            sources.iter().flat_map(|(path, text)| [path.as_bytes(), text].concat()).collect();
        let digest = Digest::of(&texts).to_string();
        let digest: String = digest.chars().rev().take(16).collect();
        let copies = root().join("target/languages").join(self.folder());
        let copy = copies.join(digest);
        if !copy.join("built").exists() {
            // What earlier sources were built to, or a build that was broken off.
            drop(fs::remove_dir_all(&copies));
            for (path, text) in &sources {
                let to = copy.join(path);
                let parent = to.parent().expect("a file in a folder has a parent");
                fs::create_dir_all(parent).expect("the target folder can be written");
                fs::write(to, text).expect("the target folder can be written");
            }
            if self == Self::JavaScript {
                let modules = node_modules();
                let link = copy.join("javascript/node_modules");
                std::os::unix::fs::symlink(modules, link).expect("the target folder can be written");
            }
        }
        copy
    }
}

/// Returns the folder with the packages of JavaScript that `cargo x setup` has installed.
pub fn node_modules() -> PathBuf {
    toolchains().join("javascript/node_modules")
}

fn root() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    folder.canonicalize().expect("the sources are there")
}

fn languages() -> PathBuf {
    root().join("guests/examples/languages")
}

/// Returns the folder into which `cargo x setup` installs what tests need of others.
pub fn toolchains() -> PathBuf {
    root().join("target/toolchains")
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("could not read {}: {error}", path.display()))
}

/// Adds the files of one folder, without what a build by hand leaves there.
fn collect(from: &Path, folder: &str, sources: &mut Vec<(String, Vec<u8>)>) {
    let entries = fs::read_dir(from.join(folder)).expect("the sources are there");
    for path in entries.map(|entry| entry.expect("the sources can be listed").path()) {
        let is_built = path.extension().is_some_and(|ending| ending == "wasm");
        if path.is_file() && !is_built {
            let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
            sources.push((format!("{folder}/{name}"), read(&path)));
        }
    }
}

/// Returns what the builds need beside their own folder: the compilers, and places for what they keep.
///
/// # Panics
///
/// If a folder of the project has a colon in its name.
pub fn environment() -> Vec<(&'static str, OsString)> {
    let kept = |name: &str| toolchains().join(name).into_os_string();
    let own = [toolchains().join("python/bin"), toolchains().join("javascript/node_modules/.bin")];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path)));
    vec![
        ("PATH", path.expect("the folder of the project has no colon in its name")),
        ("ZIG_GLOBAL_CACHE_DIR", kept("kept-by-zig")),
        ("GOCACHE", kept("kept-by-go")),
        ("GOPATH", kept("kept-by-go-modules")),
        ("GOPROXY", "off".into()),
        ("GOTOOLCHAIN", "local".into()),
        ("npm_config_cache", kept("kept-by-npm")),
    ]
}
