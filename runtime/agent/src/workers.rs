//! The worker processes of this node, one for each namespace.
//!
//! A worker is started when its namespace gets its first allocation and ends when it has none. It inherits one end of
//! a Unix socket as standard input; when either process dies the other sees the end of that socket.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_ingress::{BoxedStream, Local};
use dunlin_model::{AllocationId, AssignedAllocation, Name, NodeId};
use dunlin_protocol::{FromWorker, ToWorker, WorkerSetup, decode, encode, frame_length};
use dunlin_supervisor::Event;
use futures_util::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::driver::Driver;
use crate::logs::Logs;

/// How many messages may wait for a worker.
const MAX_WAITING: usize = 4096;

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
    sockets: tempfile::TempDir,
    logs: Arc<Logs>,
    running: Mutex<BTreeMap<Name, Worker>>,
    /// One task for each worker process that is not yet gone.
    attended: TaskTracker,
}

/// What the agent holds of one worker process.
struct Worker {
    process: u32,
    messages: mpsc::Sender<ToWorker>,
    data_socket: PathBuf,
    allocations: BTreeSet<AllocationId>,
}

impl Workers {
    /// Returns the workers of `node`, none of them running yet.
    pub(crate) fn new(
        node: NodeId,
        program: PathBuf,
        compiled: PathBuf,
        cache_key: [u8; 32],
        logs: Arc<Logs>,
    ) -> io::Result<Self> {
        // Not in the agent's folder: the path of a Unix socket has at most 107 bytes.
        let sockets = tempfile::Builder::new().prefix("dunlin-").tempdir()?;
        let (running, attended) = (Mutex::default(), TaskTracker::new());
        let shared = Shared { node, program, compiled, cache_key, sockets, logs, running, attended };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Starts `allocation` in the worker of its namespace, and that worker if it is not there.
    pub(crate) fn start(&self, allocation: AssignedAllocation, component: PathBuf, driver: &Driver) {
        let id = allocation.id;
        let namespace = allocation.workload.namespace.clone();
        let mut running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        if !running.contains_key(&namespace) {
            match self.spawn(&namespace, driver) {
                Ok(worker) => {
                    running.insert(namespace.clone(), worker);
                }
                Err(error) => {
                    let reason = format!("could not start a worker process: {error}");
                    driver.tell(Event::NotStarted { allocation: id, reason, refused: false });
                    return;
                }
            }
        }
        let worker = running.get_mut(&namespace).expect("it was just inserted");
        worker.allocations.insert(id);
        let message = ToWorker::Start { allocation: Box::new(allocation), component };
        if worker.messages.try_send(message).is_err() {
            let reason = "its worker process does not take messages".to_owned();
            driver.tell(Event::NotStarted { allocation: id, reason, refused: false });
        }
    }

    /// Stops `allocation`, and its worker if that has nothing else to do.
    pub(crate) fn stop(&self, allocation: AllocationId, namespace: &Name) {
        let mut running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(worker) = running.get_mut(namespace) else { return };
        worker.allocations.remove(&allocation);
        // A worker that takes no messages is about to die, and its guests with it.
        let _dying = worker.messages.try_send(ToWorker::Stop { allocation });
    }

    /// Has `item` run in the worker of `namespace`; false if there is none.
    pub(crate) fn run_item(&self, namespace: &Name, message: ToWorker) -> bool {
        let running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(namespace).is_some_and(|worker| worker.messages.try_send(message).is_ok())
    }

    /// Ends all workers: closes their control sockets, which is their order to exit, and waits until they are gone.
    pub(crate) async fn end(&self, time: Duration) {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.attended.close();
        // Who takes longer is killed with the runtime.
        let _late = tokio::time::timeout(time, self.shared.attended.wait()).await;
    }

    fn spawn(&self, namespace: &Name, driver: &Driver) -> io::Result<Worker> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(&self.shared.program);
        // A clean environment: nothing of the agent's reaches guests, and RUST_BACKTRACE costs requests.
        command.arg("worker").env_clear().kill_on_drop(true);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::inherit());
        if let Ok(filter) = std::env::var("DUNLIN_LOG") {
            command.env("DUNLIN_LOG", filter);
        }
        let child = command.spawn()?;
        let process = child.id().unwrap_or_default();
        let (reader, writer) = UnixStream::from_std(ours)?.into_split();

        let data_socket = self.shared.sockets.path().join(format!("{namespace}.{process}"));
        let cache = self.shared.compiled.join(namespace.as_str());
        let setup = WorkerSetup {
            namespace: namespace.clone(),
            node: self.shared.node.clone(),
            cache,
            cache_key: namespace_key(&self.shared.cache_key, namespace),
            data_socket: data_socket.clone(),
        };
        let (messages, waiting) = mpsc::channel(MAX_WAITING);
        messages.try_send(ToWorker::Setup(setup)).map_err(|_| io::ErrorKind::Other)?;
        tokio::spawn(write(writer, waiting));
        self.shared.attended.spawn(self.clone().attend(namespace.clone(), child, reader, driver.clone()));
        tracing::info!(%namespace, process, "worker started");
        Ok(Worker { process, messages, data_socket, allocations: BTreeSet::new() })
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
            self.take(&namespace, message, &driver);
        }
        // The socket is closed: the process is dead, or must be.
        let _already_dead = child.start_kill();
        let status = child.wait().await;
        let mut running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = match running.get(&namespace) {
            Some(worker) if worker.process == process => {
                let idle = worker.allocations.is_empty();
                let _ = std::fs::remove_file(&worker.data_socket);
                running.remove(&namespace);
                idle
            }
            Some(_) | None => true,
        };
        drop(running);
        match status {
            Ok(status) if expected => tracing::info!(%namespace, process, %status, "worker ended"),
            Ok(status) => tracing::warn!(%namespace, process, %status, "worker died"),
            Err(error) => tracing::warn!(%namespace, process, %error, "worker could not be awaited"),
        }
        driver.tell(Event::WorkerDied { namespace });
    }

    fn take(&self, namespace: &Name, message: FromWorker, driver: &Driver) {
        match message {
            FromWorker::Ready => tracing::debug!(%namespace, "worker ready"),
            FromWorker::Started { allocation } => driver.tell(Event::Started { allocation }),
            FromWorker::NotStarted { allocation, reason, refused } => {
                driver.tell(Event::NotStarted { allocation, reason, refused });
            }
            FromWorker::Stopped { .. } => self.end_if_idle(namespace),
            FromWorker::ItemEnded {
                allocation,
                item,
                outcome,
                fuel,
                memory,
                wall_ms,
                output,
                output_cut,
            } => {
                let wall = dunlin_model::DurationMs(wall_ms);
                driver.tell(Event::ItemEnded {
                    allocation,
                    item,
                    outcome,
                    fuel,
                    memory,
                    wall,
                    output,
                    output_cut,
                });
            }
            FromWorker::Usage { allocation, fuel, memory, instances } => {
                driver.tell(Event::Usage { allocation, fuel, memory, instances });
            }
            FromWorker::Logs { records } => self.shared.logs.keep(records),
        }
    }

    /// Ends the worker of a namespace that has no allocations any more: an idle namespace costs nothing.
    fn end_if_idle(&self, namespace: &Name) {
        let mut running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(namespace).is_some_and(|worker| worker.allocations.is_empty()) {
            // Dropping the sender ends the writer task, which closes the socket.
            if let Some(worker) = running.remove(namespace) {
                let _ = std::fs::remove_file(&worker.data_socket);
            }
        }
    }
}

impl Local for Workers {
    fn connect(&self, namespace: &Name) -> BoxFuture<'_, io::Result<BoxedStream>> {
        let running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = running.get(namespace).map(|worker| worker.data_socket.clone());
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

async fn write(mut writer: tokio::net::unix::OwnedWriteHalf, mut messages: mpsc::Receiver<ToWorker>) {
    while let Some(message) = messages.recv().await {
        let frame = match encode(&message) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "message to a worker is too large");
                continue;
            }
        };
        if writer.write_all(&frame).await.is_err() {
            // The reader sees the same end and tells the supervisor.
            return;
        }
    }
}

/// Returns the next message, or nothing once the worker is gone or talks nonsense.
async fn read(reader: &mut tokio::net::unix::OwnedReadHalf) -> Option<FromWorker> {
    let mut prefix = [0; 4];
    reader.read_exact(&mut prefix).await.ok()?;
    let mut body = vec![0; frame_length(prefix).ok()?];
    reader.read_exact(&mut body).await.ok()?;
    decode(&body)
        .inspect_err(|error| {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "a worker broke the protocol; it is ended"
            );
        })
        .ok()
}
