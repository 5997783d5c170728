//! The node's config file: what an operator decides for one node. Strict: an unknown field is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dunlin_model::{Bytes, LimitHit, LimitRow, LimitValue, Name};
use serde::Deserialize;

/// What the node's config file says; everything has a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which guests share a worker process.
    pub isolation: Isolation,
    /// What to do where the kernel cannot confine workers as it should.
    pub hardening: Hardening,
    /// The users which worker processes become where the agent runs as root.
    pub worker_uids: WorkerUids,
    /// What is switched on though it is young.
    pub features: BTreeSet<Feature>,
    /// Where `GET /metrics` is answered; nowhere if absent. It is not protected, so an address of this machine alone.
    pub metrics: Option<SocketAddr>,
    /// The front door.
    pub ingress: IngressSettings,
    /// Where guests may connect to.
    pub egress: EgressSettings,
    /// What guests may use of this node, beyond what their manifests say.
    pub limits: NodeLimits,
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
        let wrong = |message| SettingsError::Wrong { path: path.to_owned(), message };
        let settings: Self =
            toml::from_str(&text).map_err(|error| wrong(error.to_string().trim().replace('\n', "; ")))?;
        let WorkerUids { start, count } = settings.worker_uids;
        // Zero is root, and the highest number stands for nobody in system calls.
        if start == 0 || count == 0 || start.checked_add(count).is_none() {
            return Err(wrong("`worker_uids` is a range of users without root".to_owned()));
        }
        if let Some(hit) = settings.limits.wrong() {
            return Err(wrong(hit.to_string()));
        }
        Ok(settings)
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

/// The users, and groups of the same numbers, which worker processes become: one for each namespace. Nobody else may
/// have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerUids {
    /// The first of them.
    pub start: u32,
    /// How many there are.
    pub count: u32,
}

impl WorkerUids {
    /// Tells whether `user` is one of them.
    pub(crate) fn contains(self, user: u32) -> bool {
        user.checked_sub(self.start).is_some_and(|offset| offset < self.count)
    }
}

impl Default for WorkerUids {
    /// Beyond what distributions and containers use.
    fn default() -> Self {
        Self { start: 0x7000_0000, count: 0x1_0000 }
    }
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

/// What guests may use of this node, beyond what their manifests say. The ids are those of the limits table in the book,
/// which has the defaults and the largest values.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeLimits {
    /// G14: instances that live at the same time, over all allocations of a namespace.
    pub namespace_concurrency: u32,
    /// G21: bytes of a core dump.
    #[serde(deserialize_with = "size")]
    pub coredump_size: Bytes,
    /// G21: core dumps that are kept of an allocation.
    pub coredumps: u32,
    /// G21: bytes of all core dumps that are kept.
    #[serde(deserialize_with = "size")]
    pub coredump_disk: Bytes,
}

impl NodeLimits {
    /// Returns which limit is wrong, if one is.
    fn wrong(&self) -> Option<LimitHit> {
        let count = |value: u32| LimitValue::Count(value.into());
        let values = [
            ("namespace_concurrency", count(self.namespace_concurrency)),
            ("coredump_size", LimitValue::Bytes(self.coredump_size)),
            ("coredumps", count(self.coredumps)),
            ("coredump_disk", LimitValue::Bytes(self.coredump_disk)),
        ];
        values.into_iter().find_map(|(name, value)| LimitRow::refused(name, value))
    }
}

impl Default for NodeLimits {
    fn default() -> Self {
        let number = |name| LimitRow::default_of(name).number();
        let count = |name| u32::try_from(number(name)).unwrap_or(u32::MAX);
        let bytes = |name| Bytes(number(name));
        Self {
            namespace_concurrency: count("namespace_concurrency"),
            coredump_size: bytes("coredump_size"),
            coredumps: count("coredumps"),
            coredump_disk: bytes("coredump_disk"),
        }
    }
}

/// Where guests may connect to, beyond what their manifests say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressSettings {
    /// Address ranges that are not public and to which guests may connect all the same: `10.0.0.0/8`.
    pub allow: BTreeSet<String>,
    /// A file of certificates in PEM, of authorities whose servers guests may believe beside those of the public.
    pub ca_file: Option<PathBuf>,
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
    /// How much it may hold, if guests may write to it.
    #[serde(default = "OfferedFolder::default_quota", deserialize_with = "size")]
    pub quota: Bytes,
    /// The namespaces whose guests may see it.
    pub namespaces: BTreeSet<Name>,
}

/// Reads a size as people write it: `4MiB`.
fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

impl OfferedFolder {
    fn default_quota() -> Bytes {
        Bytes(1 << 30)
    }
}
