//! One guest on this machine, without a fleet: the workers, the wall, the compiler, the egress and the front door of an
//! agent, driven directly.
//!
//! There is no link, no supervisor and no state but compiled code, which is kept in a cache with a key of its own. Of
//! those who use the cache at the same time each has a slot, so that nobody touches the files of another's worker.
//!
//! Not here: what is asked for and how it is told (`control/cli`).

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dunlin_ingress::{BoxedStream, Doors, Ingress, IngressConfig, Peers};
use dunlin_model::{
    AllocationId, AssignedAllocation, Bytes, CoreDump, DurationMs, Endpoint, Fuel, HostCalls, InstanceId,
    ItemRange, Limits, LogRecord, Name, NodeId, Outcome, Resources, Revision, Route, RouteSpec, RouteTable,
    RunId, Work, WorkloadKind, WorkloadName, WorkloadSpec,
};
use dunlin_protocol::{StandardStream, ToWorker};
use dunlin_supervisor::Event;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::driver::{Driver, Told};
use crate::folders::Folders;
use crate::logs::Logs;
use crate::process::{Basis, node_key, workers_of};
use crate::workers::Workers;
use crate::{Settings, WorkerUids};

/// Who runs a guest alone has no node and no namespace; these stand for them.
const NODE: &str = "local";
const NAMESPACE: &str = "local";
const APP: &str = "run";
const ALLOCATION: AllocationId = AllocationId::new(1);

/// How many may use one cache at the same time.
const MAX_SLOTS: u32 = 1024;
/// The first of the users which workers become where they can: beyond those of an agent on the same machine.
const FIRST_USER: u32 = 0x7001_0000;
/// Limits bind one guest as well as its node does, so there is no other bound on its memory.
const CAPACITY: Resources = Resources { memory: Bytes(u64::MAX), fuel_rate: Limits::MAXIMUM.fuel_rate };
/// How long after its worker died a service is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// How long a guest that is stopped may go on: a little more than workers themselves allow.
const STOP_TIME: Duration = Duration::from_secs(6);
/// How long a core dump may take on its way from the worker.
const DUMP_TIME: Duration = Duration::from_secs(10);
/// How long workers may take to notice that they are to end.
const WORKER_TIME: Duration = Duration::from_secs(2);

/// Where and how one guest is run.
#[derive(Clone, Debug)]
pub struct SoloConfig {
    /// The folder where compiled code is kept.
    pub cache: PathBuf,
    /// The `dunlin` program, for the worker process and the compiler.
    pub program: PathBuf,
    /// What a node's config file says.
    pub settings: Settings,
    /// How much the worker logs.
    pub log: String,
}

/// What is run.
#[derive(Clone, Debug)]
pub struct SoloGuest {
    /// Its name: its first argument, and what it is called in its environment.
    pub name: Name,
    /// The file with the component that `spec` names.
    pub component: PathBuf,
    /// The component itself, where it is not what the file holds.
    pub bytes: Option<bytes::Bytes>,
    /// How it is run.
    pub spec: WorkloadSpec,
}

/// The standard streams of a guest.
#[derive(Debug)]
pub struct SoloStreams {
    /// What it reads: anything that can be read. A worker gets it as it is.
    pub stdin: OwnedFd,
    /// Where its standard output goes: the writing end of a pipe.
    pub stdout: OwnedFd,
    /// Where its standard error goes: the writing end of a pipe.
    pub stderr: OwnedFd,
}

/// How a guest ended, and what it used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoloEnd {
    /// How it ended.
    pub outcome: Outcome,
    /// What it burned.
    pub fuel: Fuel,
    /// The most memory it held.
    pub memory: Bytes,
    /// How long it took.
    pub wall: DurationMs,
    /// What it asked of the host.
    pub host: HostCalls,
    /// Where its core dump is, or why there is none, if one was wanted of how it ended.
    pub coredump: Option<Result<PathBuf, String>>,
}

/// What all instances of a guest have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoloUse {
    /// How many there were.
    pub instances: u64,
    /// What they burned.
    pub fuel: Fuel,
    /// The most memory one of them held.
    pub memory: Bytes,
}

/// Why a guest is not run.
#[derive(Debug, thiserror::Error)]
pub enum SoloError {
    /// Its component is at fault.
    #[error("{0}")]
    Refused(String),
    /// It could not be started.
    #[error("{0}")]
    NotStarted(String),
    /// The process in which it ran is gone.
    #[error("its worker process died")]
    WorkerDied,
    /// This machine does not give what it takes.
    #[error("the sandbox could not be set up")]
    Machine(#[source] anyhow::Error),
}

/// Returns the namespace to which folders must be offered to be granted here.
pub fn solo_namespace() -> Name {
    NAMESPACE.parse().expect("it follows the rules of names")
}

/// One guest, loaded in a worker of its own.
pub struct Solo {
    allocation: AssignedAllocation,
    component: PathBuf,
    front_door: IngressConfig,
    workers: Workers,
    logs: Arc<Logs>,
    driver: Driver,
    events: mpsc::UnboundedReceiver<Event>,
    /// What it had used when its worker died.
    before: SoloUse,
    used: SoloUse,
    /// Held as long as the slot is in use.
    _slot: File,
}

impl Solo {
    /// Starts a worker, compiles the component unless that was done before, and loads it.
    pub async fn start(config: SoloConfig, guest: SoloGuest) -> Result<Self, SoloError> {
        let SoloConfig { cache, program, mut settings, log } = config;
        let node: NodeId = NODE.parse().expect("it follows the rules of names");
        let (folder, slot, number) = claim(&cache)
            .with_context(|| format!("could not use the cache {}", cache.display()))
            .map_err(SoloError::Machine)?;
        settings.worker_uids = WorkerUids { start: FIRST_USER + number, count: 1 };
        // A user of its own could not touch what belongs to whoever grants a folder.
        let own_users = settings.folders.is_empty();
        let component = match &guest.bytes {
            None => guest.component,
            Some(bytes) => kept(&folder, bytes).map_err(SoloError::Machine)?,
        };
        let basis = Basis {
            node,
            program,
            capacity: CAPACITY,
            log: Some(log),
            own_users,
            nursery: None,
            has_former: false,
        };
        let workers = workers(basis, &settings, folder).await.map_err(SoloError::Machine)?;
        let (workers, logs) = workers;
        let (driver, told) = Driver::without_loop();
        let mut solo = Self {
            allocation: allocation(guest.name, guest.spec),
            component,
            front_door: settings.ingress.config().map_err(SoloError::Machine)?,
            workers,
            logs,
            driver,
            events: pumped(told).map_err(|error| SoloError::Machine(error.into()))?,
            before: SoloUse::default(),
            used: SoloUse::default(),
            _slot: slot,
        };
        solo.load();
        match solo.until_loaded().await {
            Ok(()) => Ok(solo),
            Err(error) => {
                solo.end_now().await;
                Err(error)
            }
        }
    }

    /// Returns the feed of what the guest logs, and of what the host says of it, from now on.
    pub fn logs(&self) -> broadcast::Receiver<LogRecord> {
        self.logs.follow()
    }

    /// Runs the guest to its end, as a program.
    pub async fn run(&mut self, arguments: Vec<String>, streams: SoloStreams) -> Result<SoloEnd, SoloError> {
        let SoloStreams { stdin, stdout, stderr } = streams;
        let namespace = solo_namespace();
        let streams = [
            (StandardStream::Input, stdin),
            (StandardStream::Output, stdout),
            (StandardStream::Error, stderr),
        ];
        for (stream, descriptor) in streams {
            if !self.workers.pass_stream(&namespace, ALLOCATION, stream, descriptor) {
                return Err(SoloError::WorkerDied);
            }
        }
        let message = ToWorker::RunAttached { allocation: ALLOCATION, arguments };
        if !self.workers.run_items(&namespace, message) {
            return Err(SoloError::WorkerDied);
        }
        loop {
            match self.event().await? {
                Event::ItemEnded { outcome, fuel, memory, wall, host, .. } => {
                    let coredump = self.core_dump().await;
                    return Ok(SoloEnd { outcome, fuel, memory, wall, host, coredump });
                }
                Event::WorkerDied { .. } => return Err(SoloError::WorkerDied),
                _ => {}
            }
        }
    }

    /// Returns where the core dump of the latest instance is that trapped, as soon as it is there.
    async fn core_dump(&self) -> Option<Result<PathBuf, String>> {
        // Its trap was told before its end.
        let (instance, dump) = self.logs.traps().last_dump()?;
        if let CoreDump::NotMade { reason } = dump {
            return Some(Err(reason));
        }
        let mut latest = self.logs.dumps().latest();
        let kept = tokio::time::timeout(DUMP_TIME, latest.wait_for(|latest| *latest == Some(instance))).await;
        Some(match kept {
            Ok(Ok(_)) => Ok(self.logs.dumps().path(instance)),
            _ => Err("it could not be kept".to_owned()),
        })
    }

    /// Returns which core dump was kept last, as it changes.
    pub fn core_dumps(&self) -> watch::Receiver<Option<InstanceId>> {
        self.logs.dumps().latest()
    }

    /// Returns what tells where the core dump of an instance is, until later ones need its place.
    pub fn core_dump_paths(&self) -> impl Fn(InstanceId) -> PathBuf + Send + use<> {
        let logs = Arc::clone(&self.logs);
        move |instance| logs.dumps().path(instance)
    }

    /// Has the guest answer all requests that come to `listener`, until `stop`; then those under way may end.
    pub async fn serve(&mut self, listener: TcpListener, stop: CancellationToken) {
        let node: NodeId = NODE.parse().expect("it follows the rules of names");
        let ingress = Ingress::with_config(
            node.clone(),
            Arc::new(self.workers.clone()),
            Arc::new(NoPeers),
            self.front_door.clone(),
        );
        ingress.set_routes(&self.routes(node));
        let mut serving = pin!(async {
            ingress.serve(Doors::plain(listener), stop.cancelled_owned()).await.finish().await
        });
        loop {
            let event = tokio::select! {
                () = &mut serving => return,
                event = self.event() => event,
            };
            let why = match event {
                Ok(Event::WorkerDied { .. }) => "its worker process died".to_owned(),
                Ok(Event::NotStarted { reason, .. }) => reason,
                Ok(_) => continue,
                Err(_) => return serving.await,
            };
            tracing::error!(why, "the service is started again");
            tokio::select! {
                () = &mut serving => return,
                () = tokio::time::sleep(RESTART_PAUSE) => self.load(),
            }
        }
    }

    /// Ends the worker, whatever runs in it, and returns what is known of what was used.
    pub async fn end_now(self) -> SoloUse {
        self.workers.end(WORKER_TIME).await;
        self.total()
    }

    /// Stops the guest, ends its worker, and returns what all instances have used.
    pub async fn end(mut self) -> SoloUse {
        self.workers.stop(ALLOCATION, &self.allocation.workload.namespace, false, &self.driver);
        self.workers.ended(STOP_TIME).await;
        self.workers.end(WORKER_TIME).await;
        // The thread which passes events on may be a step behind.
        let behind = async { while self.event().await.is_ok() {} };
        let _all_heard = tokio::time::timeout(Duration::from_millis(20), behind).await;
        self.total()
    }

    fn total(&self) -> SoloUse {
        SoloUse {
            instances: self.before.instances + self.used.instances,
            fuel: self.before.fuel.plus(self.used.fuel),
            memory: self.before.memory.max(self.used.memory),
        }
    }

    fn load(&self) {
        self.workers.start(self.allocation.clone(), self.component.clone(), &self.driver);
    }

    async fn until_loaded(&mut self) -> Result<(), SoloError> {
        loop {
            match self.event().await? {
                Event::Started { .. } => return Ok(()),
                Event::NotStarted { reason, refused: true, .. } => return Err(SoloError::Refused(reason)),
                Event::NotStarted { reason, refused: false, .. } => {
                    return Err(SoloError::NotStarted(reason));
                }
                Event::WorkerDied { .. } => return Err(SoloError::WorkerDied),
                _ => {}
            }
        }
    }

    /// Waits for what happens next, and takes note of what is used.
    async fn event(&mut self) -> Result<Event, SoloError> {
        let event = self.events.recv().await.ok_or(SoloError::WorkerDied)?;
        match &event {
            Event::Usage { fuel, memory, instances, .. } => {
                self.used = SoloUse { instances: *instances, fuel: *fuel, memory: *memory };
            }
            Event::WorkerDied { .. } => {
                self.before = self.total();
                self.used = SoloUse::default();
            }
            _ => {}
        }
        Ok(event)
    }

    fn routes(&self, node: NodeId) -> RouteTable {
        let workload = self.allocation.workload.clone();
        let spec = RouteSpec::new(None, "/");
        RouteTable {
            routes: vec![Route { spec, workload: workload.clone() }],
            endpoints: [(workload, vec![Endpoint::new(ALLOCATION, node)])].into(),
            ..RouteTable::default()
        }
    }
}

/// Takes the first free slot of a cache: its folder, what keeps others off it, and its number.
fn claim(cache: &Path) -> io::Result<(PathBuf, File, u32)> {
    for number in 0..MAX_SLOTS {
        let folder = cache.join(format!("slot-{number}"));
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => return Ok((folder, lock, number)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("all {MAX_SLOTS} slots are in use")))
}

/// Writes a component to where the compiler reads it.
fn kept(slot: &Path, component: &[u8]) -> anyhow::Result<PathBuf> {
    let path = slot.join("component.wasm");
    std::fs::write(&path, component).with_context(|| format!("could not write {}", path.display()))?;
    Ok(path)
}

async fn workers(basis: Basis, settings: &Settings, slot: PathBuf) -> anyhow::Result<(Workers, Arc<Logs>)> {
    let folders = Folders::bare(slot).context("could not make the folder for compiled code")?;
    let key = node_key(&folders.file("node.key"))?;
    let (config, _homes) = workers_of(basis, settings, &folders, key).await?;
    // What is logged goes to who follows and into no file; of traps the latest are kept there.
    let logs = Arc::new(Logs::open(folders.logs()));
    logs.dumps().bind(&settings.limits);
    logs.dumps().clear().context("could not remove the core dumps of who was here before")?;
    Ok((Workers::new(config, Arc::clone(&logs)), logs))
}

fn allocation(name: Name, mut spec: WorkloadSpec) -> AssignedAllocation {
    spec.limits.log_kept = Bytes(0);
    let work = match spec.kind {
        WorkloadKind::Service(_) => Work::Serve,
        WorkloadKind::Job(_) => Work::Items {
            run: RunId::new(1),
            range: ItemRange { start: 0, end: 1 },
            attempt: 1,
            combine: false,
            inputs: false,
        },
    };
    let app = APP.parse().expect("it follows the rules of names");
    let workload = WorkloadName { namespace: solo_namespace(), app, workload: name };
    AssignedAllocation { id: ALLOCATION, workload, revision: Revision(1), spec: spec.into(), work }
}

/// Brings what a driver is told to where it can be awaited.
fn pumped(told: Told) -> io::Result<mpsc::UnboundedReceiver<Event>> {
    let (sender, events) = mpsc::unbounded_channel();
    std::thread::Builder::new().name("events".to_owned()).spawn(move || {
        while let Some(told) = told.next() {
            if told.into_iter().any(|event| sender.send(event).is_err()) {
                return;
            }
        }
    })?;
    Ok(events)
}

/// There is no other node.
struct NoPeers;

impl Peers for NoPeers {
    fn open(&self, _node: &NodeId, _address: SocketAddr) -> BoxFuture<'_, io::Result<BoxedStream>> {
        Box::pin(async { Err(io::ErrorKind::HostUnreachable.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_later_gets_a_slot_of_its_own() {
        let cache = tempfile::tempdir().unwrap();
        let (first, lock, _) = claim(cache.path()).unwrap();
        let (second, _held, number) = claim(cache.path()).unwrap();
        assert_eq!(number, 1);
        assert_ne!(first, second);
        drop(lock);
        assert_eq!(claim(cache.path()).unwrap().0, first);
    }
}
