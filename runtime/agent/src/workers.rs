//! The worker processes of this node, one for each namespace.
//!
//! A worker is started when its namespace gets its first allocation and ends when it has none. It inherits one end of
//! a Unix socket as standard input; when either process dies the other sees the end of that socket.
//!
//! A worker runs strangers' code and is not believed: it speaks only about allocations it was told to run.

mod control;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_ingress::{BoxedStream, Local};
use dunlin_model::{AllocationId, AssignedAllocation, DurationMs, MAX_ITEM_OUTPUT, Name, NodeId};
use dunlin_protocol::{FromWorker, ToWorker, WorkerSetup};
use dunlin_supervisor::Event;
use futures_util::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use self::control::{read, write};
use self::sockets::Sockets;
use crate::driver::Driver;
use crate::logs::Logs;

/// The workers of this node.
#[derive(Clone)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    node: NodeId,
    program: PathBuf,
    compiled: PathBuf,
    cache_key: [u8; 32],
    sockets: Sockets,
    logs: Arc<Logs>,
    running: Mutex<Running>,
    /// One task for each worker process that is not yet gone.
    attended: TaskTracker,
}

#[derive(Default)]
struct Running {
    by_namespace: BTreeMap<Name, Worker>,
    /// Set when the agent ends: then no worker is started any more.
    is_ending: bool,
}

/// What the agent holds of one worker process.
struct Worker {
    process: u32,
    // Unbounded on purpose: what goes in follows from the assignment, and a lost `Stop` would leave a guest running.
    messages: mpsc::UnboundedSender<ToWorker>,
    data_socket: PathBuf,
    /// What it is to run.
    allocations: BTreeSet<AllocationId>,
    /// What it may speak about: also what it was told to stop, until it says that it has.
    known: BTreeSet<AllocationId>,
}

impl Workers {
    /// Returns the workers of `node`, none of them running yet. `state` tells this agent from others on the machine.
    pub(crate) fn new(
        node: NodeId,
        program: PathBuf,
        (state, compiled): (&Path, PathBuf),
        cache_key: [u8; 32],
        logs: Arc<Logs>,
    ) -> io::Result<Self> {
        let sockets = Sockets::open(state)?;
        let (running, attended) = (Mutex::default(), TaskTracker::new());
        let shared = Shared { node, program, compiled, cache_key, sockets, logs, running, attended };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Starts `allocation` in the worker of its namespace, and that worker if it is not there.
    pub(crate) fn start(&self, allocation: AssignedAllocation, component: PathBuf, driver: &Driver) {
        let id = allocation.id;
        let namespace = allocation.workload.namespace.clone();
        let mut running = self.running();
        if running.is_ending {
            return;
        }
        if !running.by_namespace.contains_key(&namespace) {
            match self.spawn(&namespace, driver) {
                Ok(worker) => {
                    running.by_namespace.insert(namespace.clone(), worker);
                }
                Err(error) => {
                    let reason = format!("could not start a worker process: {error}");
                    driver.tell(Event::NotStarted { allocation: id, reason, refused: false });
                    return;
                }
            }
        }
        let worker = running.by_namespace.get_mut(&namespace).expect("it was just inserted");
        worker.allocations.insert(id);
        worker.known.insert(id);
        // A worker that takes no messages has died, which is told to the driver by who attends it.
        let _dying = worker.messages.send(ToWorker::Start { allocation: Box::new(allocation), component });
    }

    /// Stops `allocation`.
    pub(crate) fn stop(&self, allocation: AllocationId, namespace: &Name) {
        let mut running = self.running();
        let Some(worker) = running.by_namespace.get_mut(namespace) else { return };
        worker.allocations.remove(&allocation);
        let _dying = worker.messages.send(ToWorker::Stop { allocation });
    }

    /// Has an item run in the worker of `namespace`; false if there is none.
    pub(crate) fn run_item(&self, namespace: &Name, message: ToWorker) -> bool {
        let running = self.running();
        running.by_namespace.get(namespace).is_some_and(|worker| worker.messages.send(message).is_ok())
    }

    /// Ends all workers: closes their control sockets, which is their order to exit, and waits until they are gone.
    pub(crate) async fn end(&self, time: Duration) {
        {
            let mut running = self.running();
            running.is_ending = true;
            running.by_namespace.clear();
        }
        self.shared.attended.close();
        // Who takes longer is killed with the runtime.
        let _late = tokio::time::timeout(time, self.shared.attended.wait()).await;
        self.shared.sockets.remove();
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, namespace: &Name, driver: &Driver) -> io::Result<Worker> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(&self.shared.program);
        // A clean environment: nothing of the agent's reaches guests, and RUST_BACKTRACE costs requests. A process
        // group of its own: Ctrl-C in a terminal ends the agent, which drains before it ends its workers.
        command.arg0("dunlin").arg("worker").env_clear().kill_on_drop(true).process_group(0);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::inherit());
        if let Ok(filter) = std::env::var("DUNLIN_LOG") {
            command.env("DUNLIN_LOG", filter);
        }
        let child = command.spawn()?;
        let process = child.id().unwrap_or_default();
        let (reader, writer) = UnixStream::from_std(ours)?.into_split();

        let data_socket = self.shared.sockets.path(process);
        let (messages, waiting) = mpsc::unbounded_channel();
        let setup = ToWorker::Setup(WorkerSetup {
            namespace: namespace.clone(),
            node: self.shared.node.clone(),
            cache: self.shared.compiled.join(namespace.as_str()),
            cache_key: namespace_key(&self.shared.cache_key, namespace),
            data_socket: data_socket.clone(),
        });
        messages.send(setup).map_err(|_| io::ErrorKind::BrokenPipe)?;
        tokio::spawn(write(writer, waiting));
        self.shared.attended.spawn(self.clone().attend(namespace.clone(), child, reader, driver.clone()));
        tracing::info!(%namespace, process, "worker started");
        let (allocations, known) = (BTreeSet::new(), BTreeSet::new());
        Ok(Worker { process, messages, data_socket, allocations, known })
    }

    /// Listens to one worker until it is gone, then says so.
    async fn attend(
        self,
        namespace: Name,
        mut child: Child,
        mut reader: tokio::net::unix::OwnedReadHalf,
        driver: Driver,
    ) {
        let process = child.id().unwrap_or_default();
        while let Some(message) = read(&mut reader).await {
            self.take(&namespace, process, message, &driver);
        }
        // The socket is closed: the process is dead, or must be.
        let _already_dead = child.start_kill();
        let status = child.wait().await;
        self.shared.sockets.remove_one(process);
        let mut running = self.running();
        let is_current = running.by_namespace.get(&namespace).is_some_and(|worker| worker.process == process);
        if is_current {
            running.by_namespace.remove(&namespace);
            // Told under the lock: a worker that is started after this cannot be meant.
            driver.tell(Event::WorkerDied { namespace: namespace.clone() });
        }
        drop(running);
        match status {
            Ok(status) if is_current => tracing::warn!(%namespace, process, %status, "worker died"),
            Ok(status) => tracing::info!(%namespace, process, %status, "worker ended"),
            Err(error) => tracing::warn!(%namespace, process, %error, "worker could not be awaited"),
        }
    }

    /// Believes a worker what it says of its own allocations, and nothing else.
    fn take(&self, namespace: &Name, process: u32, message: FromWorker, driver: &Driver) {
        let mut running = self.running();
        let worker = running.by_namespace.get_mut(namespace).filter(|worker| worker.process == process);
        let Some(worker) = worker else { return };
        match message {
            FromWorker::Ready => tracing::debug!(%namespace, "worker ready"),
            FromWorker::Stopped { allocation } => {
                // It may have been started again meanwhile, and then is still spoken about.
                if !worker.allocations.contains(&allocation) {
                    worker.known.remove(&allocation);
                }
                self.end_if_idle(&mut running, namespace);
            }
            FromWorker::NotStarted { allocation, reason, refused } if worker.known.contains(&allocation) => {
                worker.allocations.remove(&allocation);
                worker.known.remove(&allocation);
                driver.tell(Event::NotStarted { allocation, reason, refused });
                self.end_if_idle(&mut running, namespace);
            }
            FromWorker::Logs { mut records } => {
                records.retain(|record| worker.known.contains(&record.instance.allocation));
                drop(running);
                self.shared.logs.keep(records);
            }
            message => {
                if let Some(event) = event(message, &worker.known) {
                    driver.tell(event);
                } else {
                    tracing::warn!(%namespace, process, "a worker spoke of an allocation that is not its own");
                }
            }
        }
    }

    /// Ends the worker of a namespace that has no allocations any more: an idle namespace costs nothing.
    fn end_if_idle(&self, running: &mut Running, namespace: &Name) {
        let is_idle = |worker: &Worker| worker.allocations.is_empty() && worker.known.is_empty();
        if running.by_namespace.get(namespace).is_some_and(is_idle) {
            // Dropping the sender ends the writer task, which closes the socket.
            running.by_namespace.remove(namespace);
        }
    }
}

/// Returns what a message of a worker means to the supervisor, if it is about one of its `own` allocations.
fn event(message: FromWorker, own: &BTreeSet<AllocationId>) -> Option<Event> {
    let (allocation, event) = match message {
        FromWorker::Started { allocation } => (allocation, Event::Started { allocation }),
        FromWorker::ItemEnded {
            allocation,
            item,
            outcome,
            fuel,
            memory,
            wall_ms,
            mut output,
            output_cut,
        } => {
            let (wall, is_long) = (DurationMs(wall_ms), output.len() > MAX_ITEM_OUTPUT);
            if is_long {
                output.truncate(output.floor_char_boundary(MAX_ITEM_OUTPUT));
            }
            let output_cut = output_cut || is_long;
            (
                allocation,
                Event::ItemEnded { allocation, item, outcome, fuel, memory, wall, output, output_cut },
            )
        }
        FromWorker::Usage { allocation, fuel, memory, instances } => {
            (allocation, Event::Usage { allocation, fuel, memory, instances })
        }
        FromWorker::NotStarted { .. }
        | FromWorker::Ready
        | FromWorker::Stopped { .. }
        | FromWorker::Logs { .. } => return None,
    };
    own.contains(&allocation).then_some(event)
}

impl Local for Workers {
    fn connect(&self, namespace: &Name) -> BoxFuture<'_, io::Result<BoxedStream>> {
        let socket = self.running().by_namespace.get(namespace).map(|worker| worker.data_socket.clone());
        Box::pin(async move {
            let socket: PathBuf = socket.ok_or(io::ErrorKind::NotConnected)?;
            let stream = UnixStream::connect::<&Path>(&socket).await?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }
}

/// Returns the key for one namespace's compiled code: who knows it can forge code for that namespace only.
fn namespace_key(node_key: &[u8; 32], namespace: &Name) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(b"dunlin compiled code of a namespace");
    hash.update(node_key);
    hash.update(namespace.as_str());
    hash.finalize().into()
}
