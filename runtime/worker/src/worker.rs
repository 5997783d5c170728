//! The life of a worker: set up, do as the agent says, end with it.
//!
//! The thread that calls [`run`] only reads the control socket. Guests, and all that serves them, are on a runtime
//! of their own; so whatever they do, this thread sees the agent go and ends the process.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::{Context, bail};
use dunlin_compiled::{CodeKey, Platform};
use dunlin_engine::{Engine, EngineConfig, Item};
use dunlin_host::{Access, OfferedFolder};
use dunlin_model::Name;
use dunlin_protocol::{FromWorker, ToWorker, WorkerSetup};
use tokio::runtime::{Builder, Runtime};

use crate::allocations::Allocations;
use crate::channel::Passing;
use crate::confine::{close_inherited, confine};
use crate::control::{self, Agent};
use crate::handed::Connections;
use crate::kept::Kept;
use crate::log_queue::LogQueue;
use crate::outbound::AgentConnector;
use crate::passed;
use crate::resident::Resident;
use crate::services::Services;

/// After how many steps a thread of the runtime looks for I/O and timers. Computing guests make long steps, of up
/// to [`dunlin_engine::EPOCH_TICK`]; tokio's own 61 of them would let a request wait for half a second.
const STEPS_BETWEEN_IO: u32 = 7;

type Folders = BTreeMap<Name, OfferedFolder>;

/// The whole of the process `dunlin worker`, whose standard input is the control socket and whose standard output is
/// the channel; `tidy` gives back memory that the thread which calls it has freed. It returns when the agent is gone; the
/// process must then end at once.
pub fn run_from_stdin(tidy: fn()) -> anyhow::Result<()> {
    close_inherited();
    let control = std::io::stdin().as_fd().try_clone_to_owned().context("there is no control socket")?;
    let channel = std::io::stdout().as_fd().try_clone_to_owned().context("there is no channel")?;
    let mut control = UnixStream::from(control);
    let Some(setup) = read_setup(&mut control)? else { return Ok(()) };
    let before = Before::open(&setup);
    dunlin_engine::prepare_process();
    // There is one thread yet, so what it gives up, all those give up that it starts.
    confine(&setup.wall).context("cannot confine this process")?;
    run_with(setup, before, control, channel, tidy)
}

/// Does what comes over `control` until its other end is closed, without a wall around it. Guests may still be
/// running when it returns; they end with the process.
pub fn run(mut control: UnixStream, channel: OwnedFd) -> anyhow::Result<()> {
    match read_setup(&mut control)? {
        Some(setup) => {
            let before = Before::open(&setup);
            run_with(setup, before, control, channel, || {})
        }
        None => Ok(()),
    }
}

fn read_setup(control: &mut UnixStream) -> anyhow::Result<Option<WorkerSetup>> {
    match control::read(control)? {
        Some(ToWorker::Setup(setup)) => Ok(Some(*setup)),
        Some(_) => bail!("the agent's first message was not `setup`"),
        None => Ok(None),
    }
}

/// What must be had before there is a wall, since it is out of reach on the other side.
struct Before {
    /// What belongs to an operator.
    folders: Folders,
    /// How many processors there are for this process, as its control group says.
    processors: usize,
    /// Where the program's code is, as the system lists it.
    resident: Resident,
    /// What tells of the memory of this process.
    kept: Kept,
}

impl Before {
    fn open(setup: &WorkerSetup) -> Self {
        let open = |(name, folder): (&Name, &dunlin_protocol::OfferedFolder)| {
            (name.clone(), OfferedFolder::open(&folder.path, folder.writable))
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            folders: setup.folders.iter().map(open).collect(),
            processors,
            resident: Resident::of_this_process(),
            kept: Kept::of_this_process(),
        }
    }
}

fn run_with(
    setup: WorkerSetup,
    before: Before,
    control: UnixStream,
    channel: OwnedFd,
    tidy: fn(),
) -> anyhow::Result<()> {
    let agent = Agent::start(control.try_clone().context("cannot write to the agent")?)?;
    let runtime = Builder::new_multi_thread()
        .thread_name("guests")
        .worker_threads(before.processors)
        .event_interval(STEPS_BETWEEN_IO)
        .on_thread_park(tidy)
        .enable_all()
        .build()
        .context("cannot start the runtime of guests")?;
    let result = follow(control, channel, &runtime, agent, (setup, before));
    runtime.shutdown_background();
    result
}

fn follow(
    mut control: UnixStream,
    channel: OwnedFd,
    runtime: &Runtime,
    agent: Agent,
    (setup, before): (WorkerSetup, Before),
) -> anyhow::Result<()> {
    let _inside = runtime.enter();
    let WorkerSetup {
        namespace,
        node,
        code_key,
        platform,
        scratch,
        authorities,
        namespace_concurrency,
        coredump_size,
        processor_rate,
        folders: _,
        wall: _,
    } = setup;
    dunlin_engine::set_namespace_concurrency(namespace_concurrency);
    let (code_key, platform) = (CodeKey(code_key), Platform(platform));
    // One namespace may have so many; how many have their guests here otherwise, nobody knows yet.
    let instances = namespace.as_ref().map_or(EngineConfig::MOST_INSTANCES, |_| namespace_concurrency);
    let engine = Engine::new(EngineConfig { code_key, platform, instances })?;
    engine.set_processor_rate(processor_rate);
    engine.set_coredump_size(coredump_size);
    let passing = Passing::new(channel).context("cannot use the channel")?;
    let logs = Arc::new(LogQueue::new(passing.clone()));
    let services = Arc::new(Services::default());
    let connector = AgentConnector { passing: passing.clone(), services: services.clone() };
    let mut access = Access::none().folders(before.folders).connector(Arc::new(connector), authorities);
    if let Some(scratch) = scratch {
        access = access.scratch(scratch);
    }
    let allocations = Arc::new(Allocations::new(engine, access, node, agent.clone(), logs.clone()));
    services.run_by(&allocations);
    let connections = Arc::new(Connections::new(allocations.clone(), passing.clone()));
    let taking = runtime.spawn(passed::take(passing, allocations.clone(), connections.clone()));
    let (ended, told) = (connections.clone(), agent.clone());
    runtime.spawn(async move { ended.tell_ended(&told).await });
    let usage = allocations.clone();
    runtime.spawn(async move { usage.tell_usage(before.kept).await });
    let started = allocations.clone();
    runtime.spawn(async move { started.let_go(&before.resident).await });
    let ended = allocations.clone();
    runtime.spawn(async move { ended.tell_items().await });
    let pump = agent.clone();
    runtime.spawn(async move { logs.pump(&pump).await });
    runtime.spawn(async move { agent.send(FromWorker::Ready).await });
    let namespace = namespace.as_ref().map_or("all namespaces", Name::as_str);
    tracing::info!(namespace, "worker ready");

    if obey(&mut control, runtime, &allocations, &connections, &services)? {
        tracing::info!("the agent is started again; this worker ends with its last connection");
        runtime.block_on(async {
            // Those that were handed off last may still be on their way here.
            let _panicked = taking.await;
            connections.outlive().await;
        });
    }
    Ok(())
}

/// Does what the agent says until it is gone; tells whether this is to outlive it.
fn obey(
    control: &mut UnixStream,
    runtime: &Runtime,
    allocations: &Arc<Allocations>,
    connections: &Connections,
    services: &Services,
) -> anyhow::Result<bool> {
    let mut outlives = false;
    while let Some(message) = control::read(control)? {
        match message {
            ToWorker::Setup(_) => bail!("the agent sent `setup` twice"),
            ToWorker::Outlive => outlives = true,
            ToWorker::Start { allocation, compiled, secrets } => {
                allocations.start(*allocation, compiled, secrets);
            }
            ToWorker::Secrets { allocation, secrets } => allocations.change_secrets(allocation, secrets),
            ToWorker::Stop { allocation, at_once } => {
                let allocations = allocations.clone();
                runtime.spawn(async move { allocations.stop(allocation, at_once).await });
            }
            ToWorker::Routes { namespace, version, routes } => {
                services.set(&namespace, routes.services);
                connections.set_routes(namespace, version, routes.routes);
            }
            ToWorker::RunItems { allocation, range } => allocations.run_items(allocation, range),
            ToWorker::RunAttached { allocation, arguments } => {
                let allocations = allocations.clone();
                runtime.spawn(async move { allocations.run_attached(allocation, arguments).await });
            }
            ToWorker::RunItem { allocation, item, arguments, input } => {
                let allocations = allocations.clone();
                let item = Item { number: item, arguments, input };
                runtime.spawn(async move { allocations.run_item(allocation, item).await });
            }
        }
    }
    Ok(outlives)
}
