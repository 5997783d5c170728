//! `dunlin coordinator`, `dunlin agent`, and the hidden commands which these start: the processes of a fleet.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use dunlin_agent::{CannotJoin, DEFAULT_INGRESS_PORT, Ended, GivenToken, Inherited, Orders, Programs};
use dunlin_coordinator::{DEFAULT_API_PORT, DEFAULT_FLEET_PORT, EtcdLocation, Profile};
use dunlin_model::{Bytes, CompileLimits, ComponentLimits, DurationMs, Feature, FuelRate, Metering, NodeId};
use dunlin_worker::{CodeKind, HostCallWatch};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::commands::next_program::{become_at_start, become_next};
use crate::commands::shared::SharedArgs;
use crate::error::CommandError;
use crate::memory;
use crate::output::Output;

/// The shortest and the longest that a node's certificate may be good.
const LEAST_LIFETIME: Duration = Duration::from_secs(20);
const MOST_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// How long a thread that waited for a disk waits for more to do: what it had of memory goes with it.
const THREAD_IDLE: Duration = Duration::from_secs(2);

/// Run a coordinator: it decides what runs where.
#[derive(Debug, Args)]
#[command(
    before_help = "Example: dunlin coordinator --state /var/lib/dunlin/coordinator --fleet 0.0.0.0:7400"
)]
pub(crate) struct CoordinatorArgs {
    /// The folder where everything is kept.
    #[arg(long, env = "DUNLIN_STATE", value_name = "DIR")]
    state: PathBuf,
    /// Where agents are awaited: by UDP, and by TCP those whose networks let no UDP through.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_FLEET_PORT)), value_name = "ADDRESS")]
    fleet: SocketAddr,
    /// Where the API is served (HTTPS).
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_API_PORT)), value_name = "ADDRESS")]
    api: SocketAddr,
    #[command(flatten)]
    shared: SharedArgs,
    /// Where other coordinators reach this one's API, as host:port; as --api if absent.
    #[arg(long, value_name = "HOST:PORT", requires = "store")]
    advertise_api: Option<String>,
    /// A host name or address under which the API is reached, besides loopback and --api; may be repeated.
    #[arg(long, value_name = "NAME")]
    api_name: Vec<String>,
    /// How patient the fleet is with silent nodes: `lan` 10 s, `edge` 30 s, `dark` 6 h.
    #[arg(long, value_enum, default_value_t = ProfileName::Edge, value_name = "PROFILE")]
    profile: ProfileName,
    /// How long nodes' certificates are good, at least 20s; they are renewed from half of that on.
    #[arg(long, default_value = "720h", value_name = "TIME")]
    node_certificates: DurationMs,
    /// How large or intricate an uploaded component may be: component_size=128MiB, functions, types, imports,
    /// data_segments or nesting; may be repeated. Nodes have limits of their own in their config files.
    #[arg(long, value_name = "NAME=VALUE")]
    limit: Vec<String>,
    #[command(flatten)]
    process: ProcessArgs,
}

impl CoordinatorArgs {
    fn lifetime(&self) -> Result<Duration, CommandError> {
        let lifetime = Duration::from(self.node_certificates);
        if (LEAST_LIFETIME..=MOST_LIFETIME).contains(&lifetime) {
            return Ok(lifetime);
        }
        let why = format!("`--node-certificates` is {}", self.node_certificates);
        let help = "give from 20s to 8760h; what is good for weeks survives weeks without a coordinator";
        Err(CommandError::usage("the coordinator cannot run").because(why).help(help))
    }

    /// Returns where the state is, if that is not the state folder.
    fn etcd(&self) -> Result<Option<EtcdLocation>, CommandError> {
        let location = self.shared.location("the coordinator cannot run")?;
        if location.is_some() && self.advertise_api.is_none() && self.api.ip().is_unspecified() {
            let why = format!("other coordinators cannot reach the API at {}", self.api);
            let help = "say under which address they can with `--advertise-api HOST:PORT`";
            return Err(CommandError::usage("the coordinator cannot run").because(why).help(help));
        }
        Ok(location)
    }

    fn limits(&self) -> Result<ComponentLimits, CommandError> {
        let mut limits = ComponentLimits::default();
        for text in &self.limit {
            let set = match text.split_once('=') {
                Some((name, value)) => limits.set(name, value),
                None => Err(format!("`{text}` is not NAME=VALUE")),
            };
            set.map_err(|error| {
                let help = "the book's page on limits lists C1 and C2 with their largest values";
                CommandError::usage("the coordinator cannot run").because(error).help(help)
            })?;
        }
        Ok(limits)
    }
}

/// How patient a fleet is with silent nodes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProfileName {
    /// Machines on one reliable network.
    Lan,
    /// Machines behind flaky links.
    Edge,
    /// Machines that are out of reach for hours.
    Dark,
}

/// Run an agent: it runs what a coordinator places on this node.
#[derive(Debug, Args)]
#[command(
    before_help = "Example: DUNLIN_JOIN_TOKEN=rlj1_... dunlin agent --node edge-7 --fleet fleet.example:7400 --state agent"
)]
pub(crate) struct AgentArgs {
    /// The node's config file (TOML).
    #[arg(long, value_name = "FILE", env = "DUNLIN_CONFIG")]
    config: Option<PathBuf>,
    /// The folder where everything is kept.
    #[arg(long, env = "DUNLIN_STATE", value_name = "DIR")]
    state: PathBuf,
    /// The name of this node.
    #[arg(long, value_name = "NAME")]
    node: NodeId,
    /// Where the fleet's coordinator awaits agents, as host:port; of several coordinators all, with commas.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    fleet: Vec<String>,
    /// The join token, needed at the first start; better in the environment than here, where others can read it.
    #[arg(long, env = "DUNLIN_JOIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    join_token: Option<String>,
    /// Where HTTP requests are taken (TCP).
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_INGRESS_PORT)), value_name = "ADDRESS")]
    ingress: SocketAddr,
    /// The UDP address of this node, toward the coordinator and other nodes.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), value_name = "ADDRESS")]
    endpoint: SocketAddr,
    /// Where GET /metrics tells Prometheus what runs here (TCP), unprotected; else as the config file says.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Where other nodes reach --endpoint, if that is not the address itself.
    #[arg(long, value_name = "ADDRESS")]
    advertise: Option<SocketAddr>,
    /// A label of this node, as key=value; may be repeated.
    #[arg(long, value_parser = label, value_name = "KEY=VALUE")]
    label: Vec<(String, String)>,
    /// Memory that guests may use, like 2GiB; what is available at start, less 128MiB, if absent.
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// Computing that guests may use, like 2G/s; measured at the first start if absent.
    #[arg(long, value_name = "RATE")]
    fuel_rate: Option<FuelRate>,
    /// Check the command line and the config file, and end.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    process: ProcessArgs,
}

/// What all processes of a fleet have in common.
#[derive(Clone, Copy, Debug, Args)]
struct ProcessArgs {
    /// Log as JSON lines.
    #[arg(long)]
    log_json: bool,
    /// End when standard input ends: for whoever starts this process and wants it gone with itself.
    #[arg(long, hide = true)]
    end_with_stdin: bool,
}

/// Run guests for the agent at the other end of standard input.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin worker --probe")]
pub(crate) struct WorkerArgs {
    /// Build the wall of a worker, print what was found of it, and end.
    #[arg(long)]
    probe: bool,
    #[command(flatten)]
    wall: WallArgs,
}

/// Compile the component on standard input, under limits.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin compile-component <hello.wasm >hello.cwasm")]
pub(crate) struct CompileArgs {
    /// Print for which platform this program compiles, and end. It stands for code of every kind.
    #[arg(long)]
    platform: bool,
    /// Compile for guests whose computing is counted so.
    #[arg(long, value_name = "WAY", value_enum, default_value = "fuel")]
    metering: MeteringName,
    /// Compile what is of WASI 0.3, and nothing else.
    #[arg(long = "wasi-0.3")]
    wasi_03: bool,
    /// The limits C1 to C4 as JSON; their defaults if absent.
    #[arg(long, value_name = "JSON", value_parser = compile_limits)]
    limits: Option<CompileLimits>,
    #[command(flatten)]
    wall: WallArgs,
}

fn compile_limits(json: &str) -> Result<CompileLimits, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MeteringName {
    /// By fuel.
    Fuel,
    /// By the time of a processor.
    Time,
}

/// What a process must know to confine itself.
#[derive(Clone, Copy, Debug, Args)]
struct WallArgs {
    /// The user and group to become.
    #[arg(long, value_name = "ID")]
    user: Option<u32>,
    /// The process with which to end; the one that started this one if absent.
    #[arg(long, value_name = "PID")]
    agent: Option<u32>,
    /// End where a part of the wall is missing.
    #[arg(long)]
    required: bool,
}

impl WallArgs {
    fn bare(self) -> dunlin_worker::BareWall {
        let agent = self.agent.unwrap_or_else(std::os::unix::process::parent_id);
        dunlin_worker::BareWall { user: self.user, required: self.required, agent }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is key=value")?;
    if key.is_empty() || value.is_empty() {
        return Err("a label is key=value, neither of them empty".to_owned());
    }
    if Feature::is_label(key) {
        return Err(format!(
            "labels that begin with `{}` come from `features` in the node's config file",
            Feature::LABEL_PREFIX
        ));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Runs a coordinator until it is told to stop.
pub(crate) fn coordinator(args: CoordinatorArgs) -> Result<(), CommandError> {
    let (limits, etcd) = (args.limits()?, args.etcd()?);
    start_log(args.process);
    open_many();
    let config = dunlin_coordinator::Config {
        limits,
        etcd,
        objects: args.shared.components.clone(),
        advertise_api: args.advertise_api.clone(),
        node_lifetime: args.lifetime()?,
        state: args.state,
        fleet: args.fleet,
        api: args.api,
        api_names: args.api_name,
        profile: match args.profile {
            ProfileName::Lan => Profile::Lan,
            ProfileName::Edge => Profile::Edge,
            ProfileName::Dark => Profile::Dark,
        },
    };
    tracing::info!(?config, "coordinator starts");
    let work = run_until_stopped(args.process, |stop| dunlin_coordinator::run(config, stop));
    match work.map_err(|error| failed("the coordinator cannot run", &error))? {
        dunlin_coordinator::Ended::Stopped => Ok(()),
        dunlin_coordinator::Ended::ToStartAgain => Err(start_again()),
    }
}

/// Starts this program again in the same process, with the same command line; returns why it could not.
fn start_again() -> CommandError {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // Itself, also after the file was replaced by a newer version.
    let error = std::process::Command::new("/proc/self/exe").args(arguments).exec();
    CommandError::failed("the coordinator could not start itself again").caused_by(&error).help("start it")
}

/// Runs an agent until it is told to stop; at SIGHUP and when the fleet has brought another program, it becomes the one
/// that is chosen by then: that, or the one that is installed.
pub(crate) fn agent(args: AgentArgs, output: &Output) -> Result<(), CommandError> {
    let process = args.process;
    let programs = Programs::find(&args.state);
    if args.check {
        let config = agent_config(args, programs)?;
        if let Some(tls) = &config.settings.ingress.tls {
            let _certificates = tls.read().map_err(|error| failed("the agent cannot run", &error))?;
        }
        let log = config.settings.ingress.check_access_log();
        log.map_err(|error| failed("the agent cannot run", &error))?;
        return output.text("the command line and the config file are in order\n");
    }
    start_log(process);
    open_many();
    // First of all: what is in the config file may be for the other program.
    let choice = programs.at_start();
    if !choice.is_here {
        tracing::info!(program = %choice.program.display(), "the agent becomes the program that was chosen");
        let error = become_at_start(&choice);
        tracing::error!(error = &*error as &dyn std::error::Error, "the agent stays what it is");
        // From the beginning: what was tried has changed this process.
        let error = become_at_start(&programs.stay());
        tracing::warn!(error = &*error as &dyn std::error::Error, "the agent goes on as it is");
    }
    let inherited =
        Inherited::take().map_err(|error| failed("the agent cannot run", &anyhow::Error::new(error)))?;
    let config = agent_config(args, programs.clone())?;
    tracing::info!(?config, "agent starts");
    let orders = Orders::default();
    let next = programs.clone();
    let started = run_until_stopped(process, |stop| async {
        let orders = Orders { stop, ..orders };
        let mut hang_up = signal(SignalKind::hangup()).context("could not listen for SIGHUP")?;
        let (start_again, programs) = (orders.start_again.clone(), programs.clone());
        tokio::spawn(async move {
            while hang_up.recv().await.is_some() {
                let programs = programs.clone();
                let next = tokio::task::spawn_blocking(move || programs.next().program).await;
                let Ok(next) = next else { return };
                match dunlin_agent::check(&next).await {
                    Ok(()) => return start_again.cancel(),
                    Err(error) => tracing::error!("SIGHUP: the agent does not start again: {error:#}"),
                }
            }
        });
        match dunlin_agent::run(config, inherited, orders).await? {
            Ended::Stopped => Ok(()),
            // At once: while the runtime ends, workers that are to go on would be killed.
            Ended::ToStartAgain { sockets, workers } => Err(become_next(&next.next(), &sockets, &workers)),
        }
    });
    started.map_err(|error| failed("the agent cannot run", &error))
}

fn agent_config(args: AgentArgs, programs: Programs) -> Result<dunlin_agent::Config, CommandError> {
    let mut settings = match args.config {
        None => dunlin_agent::Settings::default(),
        Some(path) => dunlin_agent::Settings::read(&path)
            .map_err(|error| failed("the agent cannot run", &anyhow::Error::new(error)))?,
    };
    settings.metrics = args.metrics.or(settings.metrics);
    Ok(dunlin_agent::Config {
        state: args.state,
        node: args.node,
        coordinators: args.fleet,
        join_token: args.join_token.map(GivenToken),
        ingress: args.ingress,
        endpoint: args.endpoint,
        advertise: args.advertise,
        labels: args.label.into_iter().collect::<BTreeMap<_, _>>(),
        memory: args.memory,
        fuel_rate: args.fuel_rate,
        // Itself, also after the file was replaced by a newer version: agent and workers must be of one version.
        program: "/proc/self/exe".into(),
        programs,
        settings,
        tidy: memory::tidy,
        let_go_of_code: dunlin_worker::let_go_of_code,
    })
}

/// Runs a worker: its agent is at the other end of standard input.
pub(crate) fn worker(args: WorkerArgs, output: &Output) -> Result<(), CommandError> {
    start_worker_log();
    if args.probe {
        let found = dunlin_worker::probe(args.wall.bare());
        return output.json_line(&found.map_err(|error| failed("the wall cannot be built", &error))?);
    }
    dunlin_worker::run_from_stdin(memory::tidy).map_err(|error| failed("the worker cannot run", &error))
}

/// Compiles one component from standard input to standard output, under limits, and ends.
pub(crate) fn compile_component(args: CompileArgs, output: &Output) -> Result<(), CommandError> {
    if args.platform {
        let platform = dunlin_worker::platform();
        let error = |error| CommandError::failed("cannot tell the platform").caused_by(&error);
        return output.text(&platform.map_err(error)?);
    }
    let metering = match args.metering {
        MeteringName::Fuel => Metering::Fuel,
        MeteringName::Time => Metering::Time,
    };
    // It is judged by its exit code alone: whoever started it reads nothing else.
    let kind = CodeKind { metering, wasi03: args.wasi_03 };
    let limits = args.limits.unwrap_or_default();
    std::process::exit(i32::from(dunlin_worker::compile_component(args.wall.bare(), kind, &limits)))
}

/// Measures and prints this machine's fuel rate.
pub(crate) fn calibrate(output: &Output) -> Result<(), CommandError> {
    let measured = dunlin_worker::calibrate();
    let rate =
        measured.map_err(|error| CommandError::failed("cannot measure the fuel rate").caused_by(&error))?;
    output.text(&rate.0.to_string())
}

/// Logs only what a person must act on, unless the environment says otherwise; returns what was chosen.
pub(crate) fn start_quiet_log() -> String {
    let filter = std::env::var("DUNLIN_LOG").unwrap_or_else(|_| "error".to_owned());
    let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&filter)).with_writer(io::stderr);
    log.with_ansi(false).init();
    filter
}

/// Has this process open as many files and connections as it may, within reason: systems give each a limit that programs
/// of another age need, and leave room above it.
fn open_many() {
    const MANY: u64 = 1 << 16;
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    let raised = limit.and_then(|(now, most)| {
        let wanted = most.min(MANY).max(now);
        setrlimit(Resource::RLIMIT_NOFILE, wanted, most)
    });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

fn start_log(process: ProcessArgs) {
    let log = tracing_subscriber::fmt().with_env_filter(log_filter()).with_writer(io::stderr);
    if process.log_json { log.json().init() } else { log.with_ansi(false).init() }
}

/// Starts the log of a worker, which notes the calls of its guests into the host as well.
fn start_worker_log() {
    let log =
        tracing_subscriber::fmt().with_env_filter(log_filter()).with_writer(io::stderr).with_ansi(false);
    HostCallWatch::new(log.finish()).init();
    // After the log: how much programs that do not use `tracing` log is decided by what it wants by then.
    dunlin_worker::watch_host_calls();
}

fn log_filter() -> EnvFilter {
    EnvFilter::try_from_env("DUNLIN_LOG").unwrap_or_else(|_| EnvFilter::new("info"))
}

fn run_until_stopped<W, F, T>(process: ProcessArgs, work: W) -> anyhow::Result<T>
where
    W: FnOnce(CancellationToken) -> F,
    F: Future<Output = anyhow::Result<T>>,
{
    // A core file would have keys and secrets in it. Who takes them through a pipe need not heed the limit.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("could not switch off core files")?;
    prctl::set_dumpable(false).context("could not switch off core files")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_keep_alive(THREAD_IDLE)
        .on_thread_park(memory::tidy)
        .enable_all()
        .build();
    let runtime = runtime.context("could not start the threads of this process")?;
    let done = runtime.block_on(async {
        let stop = stop_token(process.end_with_stdin)?;
        work(stop).await
    });
    // What still waits for a disk or a peer is not waited for.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done
}

/// Returns a token that is cancelled by SIGINT, SIGTERM or, if wanted, the end of standard input.
fn stop_token(ends_with_stdin: bool) -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut stop = Stop::new()?;
    let signalled = token.clone();
    tokio::spawn(async move {
        stop.asked().await;
        signalled.cancel();
    });
    if ends_with_stdin {
        let ended = token.clone();
        // A thread of its own: a blocking read on the runtime's pool would hold up its end.
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            let mut byte = [0];
            while matches!(io::stdin().read(&mut byte), Ok(1..)) {}
            ended.cancel();
        })?;
    }
    Ok(token)
}

/// Ctrl-C and SIGTERM.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// From now on these signals end nothing by themselves.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("could not listen for Ctrl-C")?;
        let terminate = signal(SignalKind::terminate()).context("could not listen for SIGTERM")?;
        Ok(Self { interrupt, terminate })
    }

    /// Returns when one of them came.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Returns what to tell a person of an error that ended a process.
pub(crate) fn failed(what: &str, error: &anyhow::Error) -> CommandError {
    let kind =
        error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind).next();
    let help = match kind {
        Some(io::ErrorKind::AddrInUse) => {
            "another program has this address; end that one, or choose another (port 0 takes any that is free)"
        }
        Some(io::ErrorKind::PermissionDenied) => "run it as a user who may use this folder and this address",
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            "free space on this disk and start again"
        }
        Some(_) | None if error.downcast_ref::<CannotJoin>().is_some() => {
            "is --fleet right? `dunlin token create` at its coordinator makes a token for DUNLIN_JOIN_TOKEN"
        }
        Some(_) | None => {
            "mend the cause named last and start again; the book's troubleshooting page explains each"
        }
    };
    CommandError::failed(what).caused_by(error.as_ref()).help(help)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_process_that_cannot_run_says_what_to_do() {
        let mut text = String::new();
        for kind in [io::ErrorKind::AddrInUse, io::ErrorKind::PermissionDenied, io::ErrorKind::StorageFull] {
            let error =
                anyhow::Error::new(io::Error::from(kind)).context("could not listen on 127.0.0.1:7401");
            text += &failed("the coordinator cannot run", &error).to_string();
        }
        let error = anyhow::anyhow!("the join token has expired");
        text += &failed("the agent cannot run", &error).to_string();
        text += &failed("the agent cannot run", &error.context(CannotJoin)).to_string();
        expect![[r#"
            error: the coordinator cannot run
              cause: could not listen on 127.0.0.1:7401
              cause: address in use
              help: another program has this address; end that one, or choose another (port 0 takes any that is free)
            error: the coordinator cannot run
              cause: could not listen on 127.0.0.1:7401
              cause: permission denied
              help: run it as a user who may use this folder and this address
            error: the coordinator cannot run
              cause: could not listen on 127.0.0.1:7401
              cause: no storage space
              help: free space on this disk and start again
            error: the agent cannot run
              cause: the join token has expired
              help: mend the cause named last and start again; the book's troubleshooting page explains each
            error: the agent cannot run
              cause: could not join the fleet
              cause: the join token has expired
              help: is --fleet right? `dunlin token create` at its coordinator makes a token for DUNLIN_JOIN_TOKEN
        "#]].assert_eq(&text);
    }

    #[test]
    fn a_label_has_two_sides() {
        assert_eq!(label("zone=a"), Ok(("zone".to_owned(), "a".to_owned())));
        for text in ["zone", "=a", "zone="] {
            assert!(label(text).is_err(), "{text}");
        }
    }
}
