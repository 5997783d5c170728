//! The life of a worker: set up, do as the agent says, end with it.
//!
//! The thread that calls [`run`] only reads the control socket. Guests, and all that serves them, are on a runtime
//! of their own; so whatever they do, this thread sees the agent go and ends the process.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use dunlin_engine::{Compiler, Engine, EngineConfig, Item};
use dunlin_protocol::{FromWorker, ToWorker, WorkerSetup};
use tokio::runtime::{Builder, Runtime};

use crate::allocations::Allocations;
use crate::confine::confine;
use crate::control::{self, Agent};
use crate::data;
use crate::log_queue::LogQueue;

/// After how many steps a thread of the runtime looks for I/O and timers. Computing guests make long steps, of up
/// to [`dunlin_engine::EPOCH_TICK`]; tokio's own 61 of them would let a request wait for half a second.
const STEPS_BETWEEN_IO: u32 = 7;

/// The whole of the process `dunlin worker`, whose standard input is the control socket. It returns when the agent
/// is gone; the process must then end at once.
pub fn run_from_stdin() -> anyhow::Result<()> {
    confine().context("cannot confine this process")?;
    let control = std::io::stdin().as_fd().try_clone_to_owned().context("there is no control socket")?;
    // This very program, also if its file was replaced since it was started.
    run(UnixStream::from(control), Compiler::Child(PathBuf::from("/proc/self/exe")))
}

/// Does what comes over `control` until its other end is closed. Guests may still be running when it returns; they
/// end with the process.
pub fn run(mut control: UnixStream, compiler: Compiler) -> anyhow::Result<()> {
    let Some(first) = control::read(&mut control)? else { return Ok(()) };
    let ToWorker::Setup(setup) = first else { bail!("the agent's first message was not `setup`") };
    let agent = Agent::start(control.try_clone().context("cannot write to the agent")?)?;
    let runtime = Builder::new_multi_thread()
        .thread_name("guests")
        .event_interval(STEPS_BETWEEN_IO)
        .enable_all()
        .build()
        .context("cannot start the runtime of guests")?;
    let result = follow(control, &runtime, agent, setup, compiler);
    runtime.shutdown_background();
    result
}

fn follow(
    mut control: UnixStream,
    runtime: &Runtime,
    agent: Agent,
    setup: WorkerSetup,
    compiler: Compiler,
) -> anyhow::Result<()> {
    let _inside = runtime.enter();
    let WorkerSetup { namespace, node, cache, cache_key, data_socket } = setup;
    let engine = Engine::new(EngineConfig { cache, cache_key, compiler })?;
    let logs = Arc::new(LogQueue::default());
    let allocations = Arc::new(Allocations::new(engine, node, agent.clone(), logs.clone()));
    let listener = data::listen(&data_socket)
        .with_context(|| format!("cannot listen on the data socket {}", data_socket.display()))?;
    runtime.spawn(data::serve(listener, allocations.clone()));
    let usage = allocations.clone();
    runtime.spawn(async move { usage.tell_usage().await });
    let pump = agent.clone();
    runtime.spawn(async move { logs.pump(&pump).await });
    runtime.spawn(async move { agent.send(FromWorker::Ready).await });
    tracing::info!(%namespace, "worker ready");

    while let Some(message) = control::read(&mut control)? {
        match message {
            ToWorker::Setup(_) => bail!("the agent sent `setup` twice"),
            ToWorker::Start { allocation, component } => allocations.start(*allocation, component),
            ToWorker::Stop { allocation } => {
                let allocations = allocations.clone();
                runtime.spawn(async move { allocations.stop(allocation).await });
            }
            ToWorker::RunItem { allocation, item, arguments, input } => {
                let allocations = allocations.clone();
                let item = Item { number: item, arguments, input };
                runtime.spawn(async move { allocations.run_item(allocation, item).await });
            }
        }
    }
    Ok(())
}
