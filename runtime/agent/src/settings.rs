//! The node's config file: what an operator decides for one node. Strict: an unknown field is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context as _;
use dunlin_ingress::{AccessLog, CertificateFiles, Certificates, IngressConfig};
use dunlin_model::{
    AddressRange, Bytes, CompileLimits, ComponentLimits, DurationMs, Feature, LimitHit, LimitRow, LimitValue,
    Name, Overcommit, SignerKey, check_node_resources,
};
use minisign_verify::PublicKey;
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
    /// What is switched on though it is young. The node then has a label for it.
    pub features: BTreeSet<Feature>,
    /// How many the node has of each countable resource, of which an allocation takes whole ones: `gpu = 1`.
    pub resources: BTreeMap<String, u32>,
    /// How much of the node's capacity batch work may reserve, in per cent.
    pub batch_overcommit: Overcommit,
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
    /// What programs the agent may become.
    pub upgrade: UpgradeSettings,
    /// Public keys of minisign, for namespaces by name: this node runs only components there that are signed with one of
    /// them, whatever the coordinator says. Where a namespace is not named, it believes the coordinator.
    pub signers: BTreeMap<Name, BTreeSet<SignerKey>>,
}

/// What programs the agent may become that the fleet brings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpgradeSettings {
    /// The public keys of minisign that they may be signed with: the second line of a `.pub` file. Without any, none is
    /// taken.
    pub keys: Vec<ProgramKey>,
    /// How long one that was just become may go without a coordinator that speaks to it; then the agent becomes again what
    /// it was.
    #[serde(deserialize_with = "size")]
    pub trial: DurationMs,
}

impl UpgradeSettings {
    /// Returns the keys whose signatures count.
    pub(crate) fn keys(&self) -> Vec<PublicKey> {
        self.keys.iter().map(|key| key.0.clone()).collect()
    }
}

impl Default for UpgradeSettings {
    fn default() -> Self {
        Self { keys: Vec::new(), trial: DurationMs(300_000) }
    }
}

/// A public key of minisign.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ProgramKey(pub(crate) PublicKey);

impl TryFrom<String> for ProgramKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let key = PublicKey::from_base64(text.trim());
        key.map(Self).map_err(|error| {
            format!("`{text}` is no public key of minisign, as in the second line of a `.pub` file: {error}")
        })
    }
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

/// Says in one line what is wrong in a file, and where.
fn told(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let place = before.map(|before| {
        let (line, start) = (before.matches('\n').count() + 1, before.rfind('\n').map_or(0, |end| end + 1));
        format!("line {line}, column {}: ", before[start..].chars().count() + 1)
    });
    format!("{}{}", place.unwrap_or_default(), error.message().replace('\n', "; "))
}

impl Settings {
    /// Returns what the file `path` says.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        let wrong = |message| SettingsError::Wrong { path: path.to_owned(), message };
        let settings: Self = toml::from_str(&text).map_err(|error| wrong(told(&text, &error)))?;
        let WorkerUids { start, count } = settings.worker_uids;
        // Zero is root, and the highest number stands for nobody in system calls.
        if start == 0 || count == 0 || start.checked_add(count).is_none() {
            return Err(wrong("`worker_uids` is a range of users without root".to_owned()));
        }
        if let Some(error) = check_node_resources(&settings.resources).first() {
            return Err(wrong(error.to_string()));
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

/// How many connections of clients may be open if the operator does not say.
const MAX_CONNECTIONS: NonZeroU32 = NonZeroU32::new(8192).expect("it is not zero");

/// The front door.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngressSettings {
    /// Whether a client's connection is handed to the worker of the namespace for which its first request is.
    pub hand_off: bool,
    /// How many connections of clients may be open, wherever they are handed; further ones wait.
    pub max_connections: NonZeroU32,
    /// Address ranges of proxies, `10.0.0.0/8`, whose word on where a request comes from is believed.
    #[serde(deserialize_with = "ranges")]
    pub trusted_proxies: Vec<AddressRange>,
    /// Address ranges of load balancers that pass bytes on and say by the `PROXY` protocol for whom. Connections from there
    /// that do not begin with that are closed.
    #[serde(deserialize_with = "ranges")]
    pub proxy_protocol: Vec<AddressRange>,
    /// The file in which each request of a client is told of; none if absent. No connection is handed to a worker then.
    pub access_log: Option<PathBuf>,
    /// Where clients are served over TLS; nowhere if absent.
    pub tls: Option<TlsSettings>,
}

/// The front door for clients that speak TLS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// Where it listens (TCP).
    pub listen: SocketAddr,
    /// The port to which clients in the clear are sent, `443` for most; they are served in the clear if absent.
    #[serde(default)]
    pub redirect_port: Option<u16>,
    /// The certificates by which clients know services: the first one is for clients that ask for no name, or for one
    /// that no other is for.
    pub certificates: Vec<CertificateFiles>,
}

impl TlsSettings {
    /// Reads the certificates.
    ///
    /// # Errors
    ///
    /// One of them cannot be used, or there is none.
    pub fn read(&self) -> anyhow::Result<Certificates> {
        anyhow::ensure!(
            !self.certificates.is_empty(),
            "`[ingress.tls] certificates` is empty, and nobody can be served over TLS without one"
        );
        Certificates::read(self.certificates.iter().cloned())
            .context("`[ingress.tls] certificates` cannot be used")
    }
}

impl IngressSettings {
    /// Returns what the front door must know.
    ///
    /// # Errors
    ///
    /// The file of the access log cannot be had.
    pub(crate) fn config(&self) -> anyhow::Result<IngressConfig> {
        Ok(IngressConfig {
            access_log: self.open_access_log()?,
            hand_off: self.hand_off,
            max_connections: self.max_connections.get(),
            trusted_proxies: self.trusted_proxies.clone(),
            proxy_protocol: self.proxy_protocol.clone(),
            redirect_port: self.tls.as_ref().and_then(|tls| tls.redirect_port),
            ..IngressConfig::default()
        })
    }

    /// Tells whether the access log can be opened, if there is to be one; makes no file.
    ///
    /// # Errors
    ///
    /// It cannot.
    pub fn check_access_log(&self) -> anyhow::Result<()> {
        let Some(path) = &self.access_log else { return Ok(()) };
        let checked = AccessLog::check(path);
        checked.with_context(|| format!("`[ingress] access_log` cannot be written: {}", path.display()))
    }

    /// Opens the access log, if there is to be one.
    ///
    /// # Errors
    ///
    /// Its file cannot be had.
    fn open_access_log(&self) -> anyhow::Result<Option<Arc<AccessLog>>> {
        let open = |path: &PathBuf| {
            let log = AccessLog::open(path.clone());
            log.with_context(|| format!("`[ingress] access_log` cannot be written: {}", path.display()))
        };
        Ok(self.access_log.as_ref().map(open).transpose()?.map(Arc::new))
    }
}

impl Default for IngressSettings {
    fn default() -> Self {
        Self {
            hand_off: true,
            max_connections: MAX_CONNECTIONS,
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            access_log: None,
            tls: None,
        }
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
    /// C1: bytes of a component.
    #[serde(deserialize_with = "size")]
    pub component_size: Bytes,
    /// C2: functions of a component.
    pub functions: u64,
    /// C2: types of a component.
    pub types: u64,
    /// C2: imports of a component.
    pub imports: u64,
    /// C2: data segments of a component.
    pub data_segments: u64,
    /// C2: how deep the parts of a component nest.
    pub nesting: u64,
    /// C3: memory of the compiler.
    #[serde(deserialize_with = "size")]
    pub compile_memory: Bytes,
    /// C3: time of a processor for the compiler.
    #[serde(deserialize_with = "size")]
    pub compile_time: DurationMs,
    /// C4: bytes of a compiled component.
    #[serde(deserialize_with = "size")]
    pub compiled_size: Bytes,
    /// C4: bytes of compiled code that are kept of a namespace, beyond what is assigned.
    #[serde(deserialize_with = "size")]
    pub compiled_kept: Bytes,
    /// W1: memory of a worker process beyond that of its guests.
    #[serde(deserialize_with = "size")]
    pub worker_reserve: Bytes,
}

impl NodeLimits {
    /// Returns those that bind a component before it is compiled.
    pub fn component(&self) -> ComponentLimits {
        let Self { component_size, functions, types, imports, data_segments, nesting, .. } = *self;
        ComponentLimits { component_size, functions, types, imports, data_segments, nesting }
    }

    /// Returns those that bind a component until it is compiled.
    pub fn compile(&self) -> CompileLimits {
        let Self { compile_memory, compile_time, compiled_size, .. } = *self;
        CompileLimits { component: self.component(), compile_memory, compile_time, compiled_size }
    }

    /// Returns which limit is wrong, if one is.
    fn wrong(&self) -> Option<LimitHit> {
        let count = |value: u32| LimitValue::Count(value.into());
        let values = [
            ("namespace_concurrency", count(self.namespace_concurrency)),
            ("coredump_size", LimitValue::Bytes(self.coredump_size)),
            ("coredumps", count(self.coredumps)),
            ("coredump_disk", LimitValue::Bytes(self.coredump_disk)),
            ("compile_memory", LimitValue::Bytes(self.compile_memory)),
            ("compile_time", LimitValue::Duration(self.compile_time)),
            ("compiled_size", LimitValue::Bytes(self.compiled_size)),
            ("compiled_kept", LimitValue::Bytes(self.compiled_kept)),
            ("worker_reserve", LimitValue::Bytes(self.worker_reserve)),
        ];
        values
            .into_iter()
            .chain(self.component().values())
            .find_map(|(name, value)| LimitRow::refused(name, value))
    }
}

impl Default for NodeLimits {
    fn default() -> Self {
        let number = |name| LimitRow::default_of(name).number();
        let count = |name| u32::try_from(number(name)).unwrap_or(u32::MAX);
        let bytes = |name| Bytes(number(name));
        let CompileLimits { component, compile_memory, compile_time, compiled_size } =
            CompileLimits::default();
        let ComponentLimits { component_size, functions, types, imports, data_segments, nesting } = component;
        Self {
            namespace_concurrency: count("namespace_concurrency"),
            coredump_size: bytes("coredump_size"),
            coredumps: count("coredumps"),
            coredump_disk: bytes("coredump_disk"),
            component_size,
            functions,
            types,
            imports,
            data_segments,
            nesting,
            compile_memory,
            compile_time,
            compiled_size,
            compiled_kept: bytes("compiled_kept"),
            worker_reserve: bytes("worker_reserve"),
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

/// Reads ranges of addresses.
fn ranges<'de, D>(deserializer: D) -> Result<Vec<AddressRange>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let ranges = Vec::<String>::deserialize(deserializer)?;
    ranges.iter().map(|range| range.parse().map_err(serde::de::Error::custom)).collect()
}

/// Reads a size, or a time, as people write it: `4MiB`, `30s`.
fn size<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

impl OfferedFolder {
    fn default_quota() -> Bytes {
        Bytes(1 << 30)
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::SetIn;

    use super::*;

    fn read_all(text: &str) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.toml");
        std::fs::write(&file, text).unwrap();
        Settings::read(&file).map_err(|error| error.to_string())
    }

    fn read(limits: &str) -> Result<NodeLimits, String> {
        read_all(&format!("[limits]\n{limits}\n")).map(|settings| settings.limits)
    }

    #[test]
    fn every_limit_of_the_node_is_a_field_with_the_default_and_the_maximum_of_the_table() {
        for row in LimitRow::TABLE {
            let SetIn::Node { default, most } = row.set_in else { continue };
            let text = |value: LimitValue| match value {
                LimitValue::Count(count) => count.to_string(),
                other => format!("\"{other}\""),
            };
            let name = row.name;
            assert_eq!(read(&format!("{name} = {}", text(default))), Ok(NodeLimits::default()), "{name}");
            let largest = read(&format!("{name} = {}", text(most))).unwrap();
            assert_ne!(largest, NodeLimits::default(), "{name}");
            let more = match most {
                LimitValue::Count(count) => (count + 1).to_string(),
                LimitValue::Bytes(size) => format!("\"{}B\"", size.0 + 1),
                LimitValue::Duration(time) => format!("\"{}ms\"", time.0 + 1),
                LimitValue::Fuel(_) | LimitValue::FuelRate(_) => panic!("`{name}` has another unit"),
            };
            let error = read(&format!("{name} = {more}")).unwrap_err();
            assert!(error.contains(&format!("limit `{name}` is more than 0 and at most {most}")), "{error}");
        }
        assert!(read("fuel = 7").unwrap_err().contains("unknown field"));
    }

    #[test]
    fn countable_resources_and_overcommit_are_declared_within_their_limits() {
        let unsaid = read_all("").unwrap();
        assert_eq!((unsaid.resources.len(), unsaid.batch_overcommit.percent()), (0, 100));
        for text in [
            "batch_overcommit = 150\nresources = { gpu = 1, port-cam = 2 }\n",
            "batch_overcommit = 150\n[resources]\ngpu = 1\nport-cam = 2\n",
        ] {
            let said = read_all(text).unwrap();
            assert_eq!((said.resources["gpu"], said.resources["port-cam"]), (1, 2));
            assert_eq!(said.batch_overcommit.percent(), 150);
        }
        for (text, part) in [
            ("[resources]\ngpu = 0", "`resources.gpu`: limit `resource` is 1 to 1000000, observed 0"),
            ("[resources]\nmemory = 1", "`memory` is no countable resource"),
            ("[resources]\n\"a b\" = 1", "`a b` cannot stand in a label"),
            ("[resources]\ngpu = -1", "invalid value"),
            ("batch_overcommit = 99", "99 is not from 100 to 1000"),
            ("batch_overcommit = 1001", "1001 is not from 100 to 1000"),
            (
                "hardening = \"required\"\n  batch_overcomit = 99",
                "line 2, column 3: unknown field `batch_overcomit`",
            ),
        ] {
            let error = read_all(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_front_door_is_as_the_file_says() {
        let settings: Settings =
            toml::from_str("[ingress]\nmax_connections = 1\nhand_off = false\n").unwrap();
        let config = settings.ingress.config().unwrap();
        assert!(config.max_connections == 1 && !config.hand_off);
        let (unsaid, default) = (IngressSettings::default().config().unwrap(), IngressConfig::default());
        assert_eq!(unsaid.max_connections, default.max_connections);
        assert!(toml::from_str::<Settings>("[ingress]\nmax_connections = 0\n").is_err());
        let error = read_all("[ingress]\ntrusted_proxies = [\"10.0.0.0/8\", \"lb.example\"]\n").unwrap_err();
        assert!(error.contains("`lb.example` is not a range of addresses"), "{error}");
    }

    #[test]
    fn tls_needs_a_certificate_that_can_be_read() {
        let tls = |certificates: &str| {
            let text = format!("[ingress.tls]\nlisten = \"127.0.0.1:0\"\ncertificates = {certificates}\n");
            let settings: Settings = toml::from_str(&text).unwrap();
            format!("{:#}", settings.ingress.tls.unwrap().read().unwrap_err())
        };
        assert!(tls("[]").contains("nobody can be served over TLS"), "{}", tls("[]"));
        let absent = tls("[{ chain = \"/no/such.pem\", key = \"/no/such.key\" }]");
        assert!(absent.contains("cannot read /no/such.pem"), "{absent}");
    }
}
