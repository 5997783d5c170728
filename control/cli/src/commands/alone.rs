//! What `dunlin run` and `dunlin serve` have in common: one component on this machine, in the sandbox of a fleet's
//! nodes and with no fleet.
//!
//! Options become the spec that a manifest would give. What only slows a guest down is left wide open, since there is
//! no neighbour to protect; what ends it has the defaults of a manifest.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes as Buffer;
use clap::Args;
use dunlin_admission::{World, admit_within, is_core_module, needed_features, ungranted};
use dunlin_agent::{OfferedFolder, Settings, SoloConfig, SoloError, SoloGuest, solo_namespace};
use dunlin_model::{
    AppName, AppSpec, Bytes, Capabilities, ComponentLimits, Digest, DurationMs, Feature, FolderGrant, Fuel,
    Limits, LogRecord, LogSource, Name, WorkloadKind, WorkloadSpec,
};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::deploy::wrapped;
use crate::args::Format;
use crate::error::{CommandError, help_for};
use crate::output::Output;

/// How much a folder may hold into which a guest may write: it is the user's own, and bounded by the disk.
const FOLDER_QUOTA: Bytes = Bytes(1 << 50);

/// What is run, and what it may touch.
#[derive(Debug, Args)]
pub(crate) struct SandboxArgs {
    /// The component; a core module of WASI preview 1 is made into one.
    pub(crate) component: PathBuf,
    /// Fuel that it may burn, for each request if it answers requests, like 60G.
    #[arg(long, value_name = "FUEL")]
    fuel: Option<Fuel>,
    /// Memory that one instance of it may hold, like 64MiB.
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// How long it may take, for each request if it answers requests, like 30s.
    #[arg(long, value_name = "TIME")]
    deadline: Option<DurationMs>,
    /// Where it may send HTTP requests, like `https://api.example.com` or `http://*.example.org:8080`; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    allow_http: Vec<String>,
    /// Where it may open TCP connections, like `db.example.com:5432` or `*.example.org:6379`; may be repeated.
    #[arg(long, value_name = "HOST:PORT")]
    allow_socket: Vec<String>,
    /// Addresses that are not public and to which it may connect all the same, like 127.0.0.0/8; may be repeated.
    #[arg(long, value_name = "RANGE")]
    allow_address: Vec<String>,
    /// A folder that it sees, as GUEST=HOST, or GUEST=HOST:rw to let it write; may be repeated.
    #[arg(long, value_name = "GUEST=HOST[:rw]", value_parser = folder)]
    folder: Vec<Folder>,
    /// Where it sees a folder of its own that is empty at first, like /tmp.
    #[arg(long, value_name = "PATH")]
    scratch: Option<String>,
    /// A variable of its environment; without a value it is the caller's own; may be repeated.
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = variable)]
    env: Vec<(String, String)>,
    /// A value that it finds in `wasi:config`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    config: Vec<(String, String)>,
    /// What is young and off unless it is switched on, like wasi-0.3; may be repeated.
    #[arg(long, value_name = "FEATURE", value_parser = feature)]
    feature: Vec<Feature>,
    /// Where the core dump of an instance that traps is written; a later one replaces it.
    #[arg(long, value_name = "FILE")]
    coredump: Option<PathBuf>,
    /// The config file of a node (TOML), to be confined as there.
    #[arg(long, value_name = "FILE")]
    node_config: Option<PathBuf>,
}

/// A folder that a guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Folder {
    guest: String,
    host: PathBuf,
    writable: bool,
}

fn folder(text: &str) -> Result<Folder, String> {
    let (guest, host) = text.split_once('=').ok_or("a folder is GUEST=HOST, like /data=./data")?;
    let (host, writable) = match host.strip_suffix(":rw") {
        Some(host) => (host, true),
        None => (host.strip_suffix(":ro").unwrap_or(host), false),
    };
    if host.is_empty() {
        return Err("a folder is GUEST=HOST, neither of them empty".to_owned());
    }
    let host =
        fs::canonicalize(host).map_err(|error| format!("the folder `{host}` cannot be used: {error}"))?;
    if !host.is_dir() {
        return Err(format!("`{}` is not a folder", host.display()));
    }
    Ok(Folder { guest: guest.to_owned(), host, writable })
}

pub(crate) fn feature(text: &str) -> Result<Feature, String> {
    let known = Feature::ALL.map(Feature::name).join(", ");
    Feature::named(text).ok_or_else(|| format!("there is no such feature; there is: {known}"))
}

pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("this is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn variable(text: &str) -> Result<(String, String), String> {
    match pair(text) {
        Ok(pair) => Ok(pair),
        Err(_) => match std::env::var(text) {
            Ok(value) => Ok((text.to_owned(), value)),
            Err(_) => Err(format!("`{text}` has no value here; write `{text}=VALUE`")),
        },
    }
}

/// What is to be done with the component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    Run,
    Serve,
}

/// A component, ready to be started.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) config: SoloConfig,
    pub(crate) guest: SoloGuest,
    /// Where core dumps go.
    pub(crate) coredump: Option<PathBuf>,
    intent: Intent,
    path: PathBuf,
    bytes: Buffer,
}

impl SandboxArgs {
    /// Reads the component and makes the spec by which it is started. `log` is how much its worker logs.
    pub(crate) fn prepare(
        self,
        intent: Intent,
        kind: WorkloadKind,
        log: String,
    ) -> Result<Prepared, CommandError> {
        let Self { component: path, node_config, .. } = &self;
        let path = path.clone();
        let what = || cannot(intent, &path);
        let mut settings = match node_config {
            None => Settings::default(),
            Some(file) => Settings::read(file)
                .map_err(|error| what().caused_by(&error).help("mend the config file and try again"))?,
        };
        let cache = cache().ok_or_else(|| {
            what()
                .because("neither XDG_CACHE_HOME nor HOME is set")
                .help("set one of them: compiled code is kept there")
        })?;
        let is_file = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
        let read = read(&path).map_err(|error| {
            what()
                .caused_by(&error)
                .help("give the file of a component, like target/wasm32-wasip2/release/hello.wasm")
        })?;
        let is_module = is_core_module(&read);
        // That it is wrapped is no news to who only wants to run it.
        let bytes = wrapped(read, &path, &Output::new(Format::Table, true))?;
        settings.egress.allow.extend(self.allow_address.iter().cloned());
        settings.features.extend(self.feature.iter().copied());
        let needed = needed_features(&bytes);
        if let Some(missing) = needed.iter().find(|feature| !settings.features.contains(feature)) {
            let name = missing.name();
            return Err(what()
                .because(format!(
                    "the component needs {name}, which is young and off unless it is switched on"
                ))
                .help(format!(
                    "`--feature {name}` switches it on; the book's page on security says what to think of"
                )));
        }
        // The guest sees what its user grants here, and nothing that a node's operator might.
        settings.folders.clear();
        let (name, coredump) = (name(&path), self.coredump.clone());
        let mut spec = self.spec(kind, Digest::of(&bytes), &mut settings);
        check(&name, &spec).map_err(|error| CommandError::usage(what().what().to_owned()).because(error).help(
            "`dunlin run --help` has an example of each option; the book's page on limits has the largest values",
        ))?;
        Feature::set_labels(&mut spec.node_labels, needed);
        let given = (is_module || !is_file).then(|| bytes.clone());
        let guest = SoloGuest { name, component: path.clone(), bytes: given, spec };
        let config = SoloConfig { cache, program: "/proc/self/exe".into(), settings, log };
        Ok(Prepared { config, guest, coredump, intent, path, bytes })
    }

    fn spec(self, kind: WorkloadKind, component: Digest, settings: &mut Settings) -> WorkloadSpec {
        let defaults = match kind {
            WorkloadKind::Service(_) => Limits::SERVICE,
            WorkloadKind::Job(_) => Limits::JOB,
        };
        let limits = Limits {
            fuel: self.fuel.unwrap_or(defaults.fuel),
            memory: self.memory.unwrap_or(defaults.memory),
            deadline: self.deadline.unwrap_or(defaults.deadline),
            ..unhindered(defaults)
        };
        let mut folders = BTreeMap::new();
        for (number, Folder { guest, host, writable }) in self.folder.into_iter().enumerate() {
            let name: Name = format!("folder-{number}").parse().expect("it follows the rules of names");
            let namespaces = [solo_namespace()].into();
            let offered = OfferedFolder { path: host, writable, quota: FOLDER_QUOTA, namespaces };
            settings.folders.insert(name.clone(), offered);
            folders.insert(guest, FolderGrant { folder: name, writable });
        }
        let capabilities = Capabilities {
            outbound_http: self.allow_http,
            sockets: self.allow_socket,
            config: self.config.into_iter().collect(),
            folders,
            secrets: Default::default(),
            scratch: self.scratch,
        };
        WorkloadSpec {
            component,
            kind,
            limits,
            environment: self.env.into_iter().collect(),
            node_labels: BTreeMap::new(),
            capabilities,
            instances: Default::default(),
            metering: Default::default(),
            coredump: self.coredump.is_some(),
            signed: None,
            placement: Default::default(),
            priority: Default::default(),
        }
    }
}

impl Prepared {
    /// Returns what to tell of a guest that was not started.
    pub(crate) fn not_started(&self, error: &SoloError) -> CommandError {
        let what = cannot(self.intent, &self.path);
        match error {
            SoloError::Refused(reason) => self.refused(what, reason),
            SoloError::NotStarted(reason) => what
                .because(reason.clone())
                .help("`dunlin doctor` shows what this machine gives; DUNLIN_LOG=info shows what was done"),
            SoloError::WorkerDied => what
                .caused_by(error)
                .help("did this machine run out of memory? DUNLIN_LOG=info shows what was done"),
            SoloError::Machine(cause) => what
                .caused_by(cause.as_ref())
                .help("`dunlin doctor` shows what this machine gives; is the user's cache folder writable?"),
        }
    }

    fn refused(&self, what: CommandError, reason: &str) -> CommandError {
        let is_of_wasi_03 = self.guest.spec.needs(Feature::Wasi03);
        let handler = if is_of_wasi_03 { "wasi:http/handler" } else { "wasi:http/incoming-handler" };
        let (wanted, other, command) = match self.intent {
            Intent::Run => (
                World::Command,
                format!("this is a service: it exports `{handler}` and not `wasi:cli/run`"),
                "dunlin serve",
            ),
            Intent::Serve => (
                World::Service,
                format!("this is a program: it exports `wasi:cli/run` and not `{handler}`"),
                "dunlin run",
            ),
        };
        match admit_within(&self.bytes, &self.config.settings.limits.component()) {
            Err(refusal) => what.because(refusal.to_string()).help(help_for(refusal.code())),
            Ok(admitted) if !admitted.is(wanted) => {
                what.because(other).help(format!("use `{command} {}`", self.path.display()))
            }
            Ok(_) => what.because(reason).help("build it as a component for WASI 0.2"),
        }
    }

    /// Returns a line for everything that the component imports and is not granted.
    pub(crate) fn ungranted(&self) -> Vec<String> {
        let found = ungranted(&self.bytes, &self.guest.spec.capabilities);
        let line = |ungranted: dunlin_admission::Ungranted| {
            let option = if ungranted.line.starts_with("outbound_http") {
                "--allow-http https://api.example.com"
            } else if ungranted.line.starts_with("sockets") {
                "--allow-socket db.example.com:5432"
            } else {
                "--config key=value"
            };
            format!("it imports {}, which is denied: `{option}` would allow it", ungranted.what)
        };
        found.into_iter().map(line).collect()
    }

    /// Returns what to do instead, if the component also answers HTTP requests.
    pub(crate) fn instead(&self) -> Option<String> {
        let admitted = admit_within(&self.bytes, &self.config.settings.limits.component()).ok()?;
        let path = self.path.display();
        let help = || {
            format!("it also exports `wasi:http/incoming-handler`: a service is for `dunlin serve {path}`")
        };
        admitted.is(World::Service).then(help)
    }

    /// Returns the file's name alone.
    pub(crate) fn label(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }
}

/// Returns limits that do not slow a guest down, as there is no neighbour to protect; what ends it stays.
pub(crate) fn unhindered(limits: Limits) -> Limits {
    let most = Limits::MAXIMUM;
    Limits {
        fuel_rate: most.fuel_rate,
        fuel_burst: most.fuel_burst,
        host_calls: most.host_calls,
        host_call_burst: most.host_call_burst,
        log_rate: most.log_rate,
        log_burst: most.log_burst,
        ..limits
    }
}

fn cannot(intent: Intent, path: &Path) -> CommandError {
    let verb = match intent {
        Intent::Run => "run",
        Intent::Serve => "serve",
    };
    CommandError::failed(format!("cannot {verb} {}", path.display()))
}

fn check(name: &Name, spec: &WorkloadSpec) -> Result<(), String> {
    let app = "run".parse().expect("it follows the rules of names");
    let app = AppSpec {
        name: AppName { namespace: solo_namespace(), app },
        workloads: [(name.clone(), spec.clone())].into(),
    };
    let below = format!("workloads.{name}.");
    match app.check().first() {
        None => Ok(()),
        Some(error) => {
            let field = error.field.strip_prefix(&below).unwrap_or(&error.field);
            Err(format!("`{field}`: {}", error.message))
        }
    }
}

/// Returns what a guest in the file `path` is called: the file's name, as far as it is one.
fn name(path: &Path) -> Name {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let letters = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let name: String = stem.chars().map(letters).take(Name::MAX_LENGTH).collect();
    let fallback = || "guest".parse().expect("it follows the rules of names");
    name.trim_matches('-').parse().unwrap_or_else(|_| fallback())
}

fn read(path: &Path) -> std::io::Result<Buffer> {
    let mut bytes = Vec::new();
    // One byte more than allowed, so that it is refused and not cut.
    fs::File::open(path)?.take(ComponentLimits::maximum().component_size.0 + 1).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

/// Copies a core dump to where the caller wants it, and says so.
pub(crate) fn take_dump(from: &Path, to: &Path, output: &Output) {
    // A file of the user's own, and readable by nobody else, as the dump is where it comes from.
    let copied = fs::copy(from, to);
    match copied {
        Ok(length) => output.note(&format!("its core dump is in {}: {}", to.display(), Bytes(length))),
        Err(error) => output.note(&format!("its core dump cannot be written to {}: {error}", to.display())),
    }
}

/// Returns where compiled code is kept: `$XDG_CACHE_HOME/dunlin/run`, or below `~/.cache`.
pub(crate) fn cache() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let configured = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let base = configured.or_else(|| Some(variable("HOME")?.join(".cache")))?;
    Some(base.join("dunlin/run"))
}

/// Shows what is logged until `done`, then what is left of it. `shown` makes the line of a record, or none.
pub(crate) async fn show_logs(
    mut logs: Receiver<LogRecord>,
    done: CancellationToken,
    output: Output,
    mut shown: impl FnMut(&LogRecord) -> Option<String>,
) {
    loop {
        let record = tokio::select! {
            record = logs.recv() => record,
            () = done.cancelled() => break,
        };
        match record {
            Ok(record) => output.line_to_stderr(&record, || shown(&record)),
            Err(RecvError::Lagged(lines)) => output.note(&format!("{lines} lines of the log were dropped")),
            Err(RecvError::Closed) => return,
        }
    }
    while let Ok(record) = logs.try_recv() {
        output.line_to_stderr(&record, || shown(&record));
    }
}

/// Returns what a line of the log came through.
pub(crate) fn source(source: LogSource) -> &'static str {
    match source {
        LogSource::Stdout => "stdout",
        LogSource::Stderr => "stderr",
        LogSource::Debug => "debug",
        LogSource::Info => "info",
        LogSource::Warn => "warn",
        LogSource::Error => "error",
        LogSource::Host => "host",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_a_name() {
        for (path, expected) in [
            ("a/Hello_World.wasm", "hello-world"),
            ("count", "count"),
            ("日本.wasm", "guest"),
            ("", "guest"),
            ("-x-.wasm", "x"),
        ] {
            assert_eq!(name(Path::new(path)).as_str(), expected, "{path}");
        }
        assert!(name(Path::new(&"x".repeat(200))).as_str().len() <= Name::MAX_LENGTH);
    }

    #[test]
    fn a_folder_is_read_only_unless_it_says_otherwise() {
        let folder_of = |text: &str| folder(text).map(|folder| (folder.guest, folder.writable));
        assert_eq!(folder_of("/data=/"), Ok(("/data".to_owned(), false)));
        assert_eq!(folder_of("/data=/:ro"), Ok(("/data".to_owned(), false)));
        assert_eq!(folder_of("/data=/:rw"), Ok(("/data".to_owned(), true)));
        for text in ["/data", "/data=", "/data=/does/not/exist", "/data=/proc/self/exe"] {
            assert!(folder_of(text).is_err(), "{text}");
        }
    }
}
