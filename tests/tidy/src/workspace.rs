//! The crates of the workspace, as cargo sees them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::root;

/// A member of the workspace.
pub struct Member {
    /// Its folder from the root: `control/model`.
    pub folder: String,
    /// Its package name: `dunlin-model`.
    pub package: String,
    /// What it names in its `Cargo.toml`.
    pub dependencies: Vec<Dependency>,
}

/// One line under `[dependencies]` and the like.
pub struct Dependency {
    /// The package.
    pub package: String,
    /// Under which heading.
    pub kind: Kind,
}

/// What a dependency is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The crate itself.
    Normal,
    /// Its build script.
    Build,
    /// Its tests.
    Tests,
}

/// Returns all members, with what they depend on directly.
pub fn members() -> anyhow::Result<Vec<Member>> {
    let text = cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"])?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata did not answer with JSON")?;
    let top = Path::new(string(&metadata["workspace_root"])?).to_owned();
    array(&metadata["packages"])?.iter().map(|package| member(package, &top)).collect()
}

/// Returns the names of all packages that become part of `package`, in whatever depth.
pub fn tree(package: &str) -> anyhow::Result<Vec<String>> {
    let text = cargo(&["tree", "--offline", "--edges", "normal", "--prefix", "none", "--package", package])?;
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

fn member(package: &Value, top: &Path) -> anyhow::Result<Member> {
    let manifest = Path::new(string(&package["manifest_path"])?);
    let folder = manifest.parent().and_then(|folder| folder.strip_prefix(top).ok());
    let folder = folder.and_then(Path::to_str).context("a member lies outside of the workspace")?.to_owned();
    let dependencies =
        array(&package["dependencies"])?.iter().map(dependency).collect::<anyhow::Result<_>>()?;
    Ok(Member { folder, package: string(&package["name"])?.to_owned(), dependencies })
}

fn dependency(line: &Value) -> anyhow::Result<Dependency> {
    let kind = match line["kind"].as_str() {
        None => Kind::Normal,
        Some("build") => Kind::Build,
        Some("dev") => Kind::Tests,
        Some(other) => bail!("cargo metadata names a kind of dependency unknown here: {other}"),
    };
    Ok(Dependency { package: string(&line["name"])?.to_owned(), kind })
}

fn cargo(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .current_dir(root())
        .output()
        .context("could not start cargo")?;
    if !output.status.success() {
        bail!("cargo {} failed:\n{}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).context("cargo did not answer in UTF-8")
}

fn string(value: &Value) -> anyhow::Result<&str> {
    value.as_str().with_context(|| format!("cargo metadata should have a text where {value} is"))
}

fn array(value: &Value) -> anyhow::Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("cargo metadata should have a list where {value} is"))
}
