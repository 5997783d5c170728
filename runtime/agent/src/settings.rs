//! The node's config file: what an operator decides for one node. Strict: an unknown field is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use dunlin_model::Name;
use serde::Deserialize;

/// What the node's config file says; everything has a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which guests share a worker process.
    pub isolation: Isolation,
    /// What to do where the kernel cannot confine workers as it should.
    pub hardening: Hardening,
    /// What is switched on though it is young.
    pub features: BTreeSet<Feature>,
    /// The front door.
    pub ingress: IngressSettings,
    /// Where guests may connect to.
    pub egress: EgressSettings,
    /// Folders that guests may be granted, by name.
    pub folders: BTreeMap<Name, OfferedFolder>,
}

/// Why a node's config file is not used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("cannot read the config file {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It does not say what a config file can say.
    #[error("the config file {} is wrong: {message}", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
}

impl Settings {
    /// Returns what the file `path` says.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| SettingsError::Wrong {
            path: path.to_owned(),
            message: error.to_string().trim().replace('\n', "; "),
        })
    }
}

/// Which guests share a worker process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Those of one namespace.
    #[default]
    Namespace,
    /// All of them: for a node with one tenant.
    Shared,
}

/// What to do where the kernel cannot confine workers as it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hardening {
    /// Confine them as well as it can be done, and say in the log what is missing.
    #[default]
    Preferred,
    /// Run no guest.
    Required,
}

/// What is switched on though it is young.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Feature {
    /// Components of WASI 0.3.
    #[serde(rename = "wasi-0.3")]
    Wasi03,
}

/// The front door.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngressSettings {
    /// Whether a client's connection is handed to the worker of the namespace for which its first request is.
    pub hand_off: bool,
}

impl Default for IngressSettings {
    fn default() -> Self {
        Self { hand_off: true }
    }
}

/// Where guests may connect to, beyond what their manifests say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressSettings {
    /// Address ranges that are not public and to which guests may connect all the same: `10.0.0.0/8`.
    pub allow: BTreeSet<String>,
}

/// A folder of this node that guests may be granted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferedFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Whether guests may write to it.
    #[serde(default)]
    pub writable: bool,
    /// The namespaces whose guests may see it.
    pub namespaces: BTreeSet<Name>,
}
