//! The worker processes of this node, one for each namespace.
//!
//! A worker is started when its namespace gets its first allocation and ends when it has none. It inherits one end of
//! a Unix socket as standard input; when either process dies the other sees the end of that socket. As standard
//! output it inherits one end of a channel, over which it is passed all connections that it ever has.
//!
//! A worker runs strangers' code and is not believed: it speaks only about allocations it was told to run.

mod asking;
mod channel;
mod control;
mod spawn;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use dunlin_compiled::CodeKind;
use dunlin_descriptors::Channel;
use dunlin_ingress::{BoxedStream, HandOff, Ingress, Local};
use dunlin_model::{
    AllocationId, AssignedAllocation, Digest, InstanceId, ItemRecord, MAX_ITEM_OUTPUT, Name, NamespaceRoutes,
};
use dunlin_protocol::{FromWorker, PassedToAgent, PassedToWorker, StandardStream, ToWorker};
use dunlin_supervisor::Event;
use futures_util::future::BoxFuture;
use tokio::net::unix::OwnedReadHalf;
use tokio::process::Child;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;

use self::channel::{Held, Passing, Queue};
use self::control::{read, write};
pub(crate) use self::spawn::WorkerConfig;
use self::spawn::{Bounds, Guests, Spawned, not_offered, spawn, switched_off, ungrantable, untrusted};
use crate::compiler::CompileError;
use crate::driver::Driver;
use crate::egress::{Asking, Grant, Wanted};
use crate::homes::Home;
use crate::logs::Logs;
use crate::metrics::{Metrics, Use};
use crate::secrets::Secrets;
use crate::wall::Cgroup;

/// How long a worker that is to end may take to give back its connections.
const LEAVE_TIME: Duration = Duration::from_secs(5);

/// How long an allocation may take to stop that has to at once. Then its worker is killed, in which it is.
const STOP_TIME: Duration = Duration::from_millis(400);

/// How often it is looked whether that has happened, where it is waited for.
const STOP_LOOK: Duration = Duration::from_millis(5);

/// By which grant a worker asks for something outbound, and how much of it.
type Asked = (Arc<Grant>, Arc<Asking>);

/// The workers of this node.
#[derive(Clone)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    config: WorkerConfig,
    logs: Arc<Logs>,
    metrics: Arc<Metrics>,
    running: Mutex<Running>,
    /// One task for each worker process that is not yet gone.
    attended: TaskTracker,
    /// What sends calls of guests on; without it there is no way to services.
    ingress: OnceLock<Ingress>,
    /// One task for each call that is under way.
    calls: TaskTracker,
    /// Whether no further one is sent on, as the agent ends.
    calls_are_over: AtomicBool,
}

#[derive(Default)]
struct Running {
    by_namespace: BTreeMap<Name, Worker>,
    /// By which routes each namespace's worker serves handed connections, and their version.
    routes: BTreeMap<Name, (u64, NamespaceRoutes)>,
    /// Set when the agent ends: then no worker is started any more.
    is_ending: bool,
}

/// What the agent holds of one worker process.
struct Worker {
    process: u32,
    fate: Arc<Fate>,
    // Unbounded on purpose: what goes in follows from the assignment, and a lost `Stop` would leave a guest running.
    messages: mpsc::UnboundedSender<ToWorker>,
    passing: Queue,
    held: Arc<Held>,
    /// Whether it has connections that are not waited for any more.
    outlives: bool,
    /// What it is to run.
    allocations: BTreeSet<AllocationId>,
    /// What it may speak about: also what it was told to stop, until it says that it has.
    known: BTreeSet<AllocationId>,
    /// The same allocations, and what they mean for the process.
    guests: Guests,
    /// Where those of its allocations that are to run may connect to.
    grants: BTreeMap<AllocationId, Arc<Grant>>,
    asking: Arc<Asking>,
    home: Home,
    cgroup: Arc<Cgroup>,
}

/// What else may end the attendance of a worker.
#[derive(Default)]
struct Fate {
    /// It is to be killed.
    kill: Notify,
    /// It goes on by itself, and outlives this program.
    release: Notify,
}

impl Running {
    /// Tells the worker of `namespace`, which goes under the name `owner`, its routes.
    fn tell_routes(&self, owner: &Name, namespace: &Name) {
        if let (Some(worker), Some((version, routes))) =
            (self.by_namespace.get(owner), self.routes.get(namespace))
        {
            let (namespace, version, routes) = (namespace.clone(), *version, routes.clone());
            let _dying = worker.messages.send(ToWorker::Routes { namespace, version, routes });
        }
    }
}

impl Worker {
    /// Tells whether it is at something that it was told to stop.
    fn is_stopping(&self) -> bool {
        self.known.iter().any(|allocation| !self.allocations.contains(allocation))
    }

    /// Forgets an allocation that it does not run any more.
    fn forget(&mut self, allocation: AllocationId) {
        self.allocations.remove(&allocation);
        self.known.remove(&allocation);
        self.grants.remove(&allocation);
        self.guests.remove(allocation);
    }

    /// Allows the process what its guests may have.
    fn limit_memory(&self, config: &WorkerConfig) {
        let memory = self.guests.process_memory(Bounds {
            guests: config.memory,
            reserve: config.worker_reserve,
            dump: config.coredump_size,
        });
        if let Err(error) = self.cgroup.limit_memory(memory) {
            // It may hold more at this moment than it will be allowed: then the limit comes with the next change.
            tracing::debug!(process = self.process, %memory, %error, "memory limit of a worker not set");
        }
    }
}

impl Workers {
    /// Returns the workers of a node, none of them running yet.
    pub(crate) fn new(config: WorkerConfig, logs: Arc<Logs>) -> Self {
        let (running, attended) = (Mutex::default(), TaskTracker::new());
        let metrics = Arc::default();
        let (ingress, calls, calls_are_over) = (OnceLock::new(), TaskTracker::new(), AtomicBool::new(false));
        let shared = Shared { config, logs, metrics, running, attended, ingress, calls, calls_are_over };
        Self { shared: Arc::new(shared) }
    }

    /// Returns what workloads use here.
    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Starts `allocation`: its worker, if that is not there, and once the component is compiled, the allocation in
    /// it.
    pub(crate) fn start(&self, allocation: AssignedAllocation, component: PathBuf, driver: &Driver) {
        let id = allocation.id;
        let not_started = |reason| driver.tell(Event::NotStarted { allocation: id, reason, refused: false });
        if let Some(reason) = self.shared.config.wall.refusal() {
            tracing::error!(allocation = %id, reason, "allocation not started");
            return not_started(reason);
        }
        let namespace = &allocation.workload.namespace;
        if let Some(folder) = not_offered(&self.shared.config, &allocation) {
            return not_started(format!("this node does not offer the folder `{folder}` to `{namespace}`"));
        }
        if let Some(reason) = switched_off(&self.shared.config, &allocation) {
            return not_started(reason);
        }
        // Another node may run it, and so may this one once it is signed, which makes no other allocation of it.
        if let Some(reason) = untrusted(&self.shared.config, &allocation) {
            return not_started(reason);
        }
        if let Some(reason) = ungrantable(&allocation) {
            return driver.tell(Event::NotStarted { allocation: id, reason, refused: true });
        }
        let owner = self.owner(namespace);
        let mut running = self.running();
        if running.is_ending {
            return;
        }
        if !running.by_namespace.contains_key(&owner) {
            match self.spawn(&owner, driver) {
                Ok(worker) => {
                    running.by_namespace.insert(owner.clone(), worker);
                }
                Err(error) => return not_started(format!("could not start a worker process: {error}")),
            }
        }
        if !running.by_namespace.get(&owner).is_some_and(|worker| worker.guests.are_of(namespace)) {
            running.tell_routes(&owner, namespace);
        }
        let worker = running.by_namespace.get_mut(&owner).expect("it was just inserted");
        worker.allocations.insert(id);
        worker.known.insert(id);
        self.shared.metrics.started(id, &allocation.workload);
        self.shared.logs.bound(id, allocation.spec.limits.log_kept);
        self.shared.logs.traps().started(id, &allocation.workload, allocation.revision);
        worker.guests.insert(&allocation);
        worker.grants.insert(id, Arc::new(Grant::of(&allocation)));
        worker.limit_memory(&self.shared.config);
        let code = (allocation.spec.component, CodeKind::of(&allocation.spec));
        let compiled = self.shared.config.compiler.compiled(&worker.home, id, component, code);
        let (this, driver) = (self.clone(), driver.clone());
        tokio::spawn(async move { this.compiled(&owner, allocation, compiled.await, &driver) });
    }

    /// Starts an allocation in its worker, now that its code is there, or tells that there is none.
    fn compiled(
        &self,
        owner: &Name,
        allocation: AssignedAllocation,
        compiled: Result<PathBuf, CompileError>,
        driver: &Driver,
    ) {
        let id = allocation.id;
        let mut running = self.running();
        let worker = running.by_namespace.get_mut(owner);
        // It may have been stopped meanwhile, or its worker may have died, and then it is started again.
        let Some(worker) = worker.filter(|worker| worker.allocations.contains(&id)) else { return };
        match compiled {
            Ok(path) => {
                let compiled = worker.home.seen_within(&path);
                // A worker that takes no messages has died, which is told to the driver by who attends it.
                // As they are now: who has another value since then is told of that after this.
                let secrets = self.shared.config.secrets.of(&allocation);
                if secrets.len() < allocation.spec.capabilities.secrets.len() {
                    worker.forget(id);
                    self.shared.config.compiler.forget(id);
                    let reason = "not all of its secrets are here".to_owned();
                    driver.tell(Event::NotStarted { allocation: id, reason, refused: false });
                    return self.end_if_idle(&mut running, owner);
                }
                let allocation = Box::new(allocation);
                let _dying = worker.messages.send(ToWorker::Start { allocation, compiled, secrets });
            }
            Err(error) => {
                worker.forget(id);
                self.shared.config.compiler.forget(id);
                let refused = matches!(error, CompileError::Refused(_));
                driver.tell(Event::NotStarted { allocation: id, reason: error.to_string(), refused });
                self.end_if_idle(&mut running, owner);
            }
        }
    }

    /// Returns under whose name the worker of `namespace` goes.
    fn owner(&self, namespace: &Name) -> Name {
        self.shared.config.homes.owner(namespace)
    }

    /// Returns the secrets of this node.
    pub(crate) fn secrets(&self) -> Arc<Secrets> {
        Arc::clone(&self.shared.config.secrets)
    }

    /// Gives an allocation its secrets as they are now; one that is still to be started gets them with that.
    pub(crate) fn give_secrets(&self, allocation: &AssignedAllocation) {
        let running = self.running();
        if let Some(worker) = running.by_namespace.get(&self.owner(&allocation.workload.namespace)) {
            let secrets = self.shared.config.secrets.of(allocation);
            let _dying = worker.messages.send(ToWorker::Secrets { allocation: allocation.id, secrets });
        }
    }

    /// Keeps the compiled code of these components, and of no others that nothing runs.
    pub(crate) fn keep_code(&self, components: &BTreeSet<Digest>) {
        self.shared.config.compiler.pin(components);
    }

    /// Stops `allocation`. With `at_once` it has ended in a moment, if need be with its worker.
    pub(crate) fn stop(&self, allocation: AllocationId, namespace: &Name, at_once: bool, driver: &Driver) {
        self.shared.config.compiler.forget(allocation);
        let owner = self.owner(namespace);
        let mut running = self.running();
        let Some(worker) = running.by_namespace.get_mut(&owner) else {
            return driver.tell(Event::Stopped { allocation });
        };
        worker.allocations.remove(&allocation);
        let _dying = worker.messages.send(ToWorker::Stop { allocation, at_once });
        if at_once {
            tokio::spawn(self.clone().insist(owner, worker.process, allocation));
        }
    }

    /// Kills a worker that does not say soon that an allocation has stopped: a guest may not let it.
    async fn insist(self, owner: Name, process: u32, allocation: AllocationId) {
        tokio::time::sleep(STOP_TIME).await;
        let running = self.running();
        let worker = running.by_namespace.get(&owner).filter(|worker| worker.process == process);
        if let Some(worker) = worker.filter(|worker| worker.known.contains(&allocation)) {
            tracing::warn!(%owner, process, %allocation, "worker killed: an allocation did not stop in time");
            worker.fate.kill.notify_one();
        }
    }

    /// Has items run in the worker of `namespace`; false if there is none.
    pub(crate) fn run_items(&self, namespace: &Name, message: ToWorker) -> bool {
        let running = self.running();
        let worker = running.by_namespace.get(&self.owner(namespace));
        worker.is_some_and(|worker| worker.messages.send(message).is_ok())
    }

    /// Passes one of the standard streams of an item to the worker of `namespace`; false if there is none.
    pub(crate) fn pass_stream(
        &self,
        namespace: &Name,
        allocation: AllocationId,
        stream: StandardStream,
        descriptor: OwnedFd,
    ) -> bool {
        let message = PassedToWorker::Stream { allocation, stream };
        let passing = Passing { descriptor: Some(descriptor), ..Passing::bare(message) };
        let running = self.running();
        let worker = running.by_namespace.get(&self.owner(namespace));
        worker.is_some_and(|worker| worker.passing.send(passing).is_ok())
    }

    /// Waits until no worker is at anything that it was told to stop. Who does not stop in time is killed meanwhile.
    pub(crate) async fn until_stopped(&self) {
        let is_stopping = |worker: &Worker| worker.is_stopping();
        let stopped = async {
            while self.running().by_namespace.values().any(is_stopping) {
                tokio::time::sleep(STOP_LOOK).await;
            }
        };
        let _late = tokio::time::timeout(2 * STOP_TIME, stopped).await;
    }

    /// Waits no more for the connections that workers have: those outlive this program with them.
    pub(crate) fn let_go_of_connections(&self) {
        for worker in self.running().by_namespace.values_mut().filter(|worker| worker.held.is_any()) {
            worker.outlives = true;
            worker.held.free(u32::MAX);
        }
    }

    /// Waits until all connections have gone to their workers that were handed off.
    pub(crate) async fn until_passed(&self) {
        let passed: Vec<_> = {
            let running = self.running();
            let queues = running.by_namespace.values().map(|worker| &worker.passing);
            queues.filter_map(|queue| channel::last(queue, PassedToWorker::Drain)).collect()
        };
        for passed in passed {
            // An error means that the worker has died.
            let _late = tokio::time::timeout(STOP_TIME, passed).await;
        }
    }

    /// Lets go of the workers that have connections of clients: they end by themselves with the last of those, and nothing
    /// is heard of them any more. Returns their processes. One that has not stopped what it was to stop ends with the rest.
    pub(crate) fn release_busy(&self) -> Vec<u32> {
        let mut running = self.running();
        running.is_ending = true;
        let is_busy = |worker: &mut Worker| worker.outlives || worker.held.is_any();
        let mut released = Vec::new();
        for (_, worker) in
            running.by_namespace.extract_if(.., |_, worker| is_busy(worker) && !worker.is_stopping())
        {
            let _dying = worker.messages.send(ToWorker::Outlive);
            worker.fate.release.notify_one();
            released.push(worker.process);
        }
        released
    }

    /// Waits until all workers have ended by themselves, since all their allocations were stopped.
    pub(crate) async fn ended(&self, time: Duration) {
        self.shared.attended.close();
        // Who takes longer is ended by `end`.
        let _late = tokio::time::timeout(time, self.shared.attended.wait()).await;
        self.shared.config.wall.close();
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
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, namespace: &Name, driver: &Driver) -> io::Result<Worker> {
        let home = self.shared.config.homes.home(namespace)?;
        let Spawned { child, process, control, channel, setup, cgroup } =
            spawn(&self.shared.config, namespace, &home)?;
        let (reader, writer) = control.into_split();
        let (messages, waiting) = mpsc::unbounded_channel();
        messages.send(ToWorker::Setup(Box::new(setup))).map_err(|_| io::ErrorKind::BrokenPipe)?;
        tokio::spawn(write(writer, waiting));
        let (passing, to_pass) = mpsc::unbounded_channel();
        let channel = Arc::new(channel);
        let held = Arc::new(Held::default());
        tokio::spawn(channel::write(Arc::clone(&channel), Arc::clone(&held), to_pass));
        tokio::spawn(self.clone().attend_channel(namespace.clone(), process, channel, Arc::clone(&held)));
        let child = (child, Arc::clone(&cgroup));
        let fate = Arc::new(Fate::default());
        let attending =
            self.clone().attend(namespace.clone(), child, (reader, Arc::clone(&fate)), driver.clone());
        self.shared.attended.spawn(attending);
        tracing::info!(%namespace, process, "worker started");
        let (allocations, known, guests) = (BTreeSet::new(), BTreeSet::new(), Guests::default());
        let (grants, asking) = (BTreeMap::new(), Arc::default());
        Ok(Worker {
            process,
            fate,
            messages,
            passing,
            held,
            outlives: false,
            allocations,
            known,
            guests,
            grants,
            asking,
            home,
            cgroup,
        })
    }

    /// Listens to one worker until it is gone, then says so.
    async fn attend(
        self,
        namespace: Name,
        (mut child, cgroup): (Child, Arc<Cgroup>),
        (mut reader, fate): (OwnedReadHalf, Arc<Fate>),
        driver: Driver,
    ) {
        let process = child.id().unwrap_or_default();
        let listen = async {
            while let Some(message) = read(&mut reader).await {
                self.take(&namespace, process, message, &driver);
            }
        };
        tokio::select! {
            () = listen => {}
            () = fate.kill.notified() => {}
            () = fate.release.notified() => {
                tracing::info!(%namespace, process, "worker goes on until its last connection ends");
                // Dropped, it would be killed.
                return std::mem::forget(child);
            }
        }
        // The socket is closed, or somebody says so: the process is dead, or must be.
        let _already_dead = child.start_kill();
        let status = child.wait().await;
        if cgroup.memory_kills() > 0 {
            let help = "its guests hold more than their limits allow, or the node has given them too little";
            tracing::warn!(%namespace, process, help, "worker killed: the memory limit of its process was hit");
        }
        let mut running = self.running();
        let current = running.by_namespace.get(&namespace).filter(|worker| worker.process == process);
        let namespaces = current.map(|worker| worker.guests.namespaces());
        let is_current = namespaces.is_some();
        for namespace in namespaces.into_iter().flatten() {
            // Told under the lock: a worker that is started after this cannot be meant.
            driver.tell(Event::WorkerDied { namespace });
        }
        if is_current {
            running.by_namespace.remove(&namespace);
        }
        drop(running);
        match status {
            Ok(status) if is_current => tracing::warn!(%namespace, process, %status, "worker died"),
            Ok(status) => tracing::info!(%namespace, process, %status, "worker ended"),
            Err(error) => tracing::warn!(%namespace, process, %error, "worker could not be awaited"),
        }
    }

    /// Takes what one worker passes until it is gone.
    async fn attend_channel(self, namespace: Name, process: u32, channel: Arc<Channel>, held: Arc<Held>) {
        while let Some((message, descriptor)) = channel::read(&channel).await {
            match message {
                PassedToAgent::Connect { request, allocation, using, host, port, address } => {
                    let asked = self.asked(&namespace, process, allocation);
                    let (this, namespace) = (self.clone(), namespace.clone());
                    tokio::spawn(async move {
                        let wanted = Wanted { using, host: &host, port, address };
                        let passing = this.connected(asked, request, wanted).await;
                        this.pass(&namespace, process, passing);
                    });
                }
                PassedToAgent::Resolve { request, allocation, name } => {
                    let asked = self.asked(&namespace, process, allocation);
                    let (this, namespace) = (self.clone(), namespace.clone());
                    tokio::spawn(async move {
                        let passing = this.resolved(asked, request, &name).await;
                        this.pass(&namespace, process, passing);
                    });
                }
                PassedToAgent::Call { request, allocation, service } => {
                    let asked = self.asked(&namespace, process, allocation);
                    let passing = self.called(asked, request, service);
                    self.pass(&namespace, process, passing);
                }
                PassedToAgent::GiveBack { client, read } => match descriptor {
                    Some(stream) => held.take_back(&namespace, client, read, stream),
                    None => held.free(1),
                },
                PassedToAgent::Left => held.left.notify_one(),
                PassedToAgent::CoreDump { instance } => {
                    // One after the other: a worker that passes many waits, and nobody else does.
                    self.keep_dump(&namespace, process, instance, descriptor).await;
                }
            }
        }
    }

    /// Keeps the core dump of an instance of a worker, if such are wanted.
    async fn keep_dump(
        &self,
        namespace: &Name,
        process: u32,
        instance: InstanceId,
        descriptor: Option<OwnedFd>,
    ) {
        let is_wanted = {
            let running = self.running();
            let worker = running.by_namespace.get(namespace).filter(|worker| worker.process == process);
            worker.is_some_and(|worker| worker.guests.has_dumps(instance.allocation))
        };
        let Some(descriptor) = descriptor.filter(|_| is_wanted) else {
            tracing::warn!(%namespace, process, %instance, "a worker passed a core dump that is not wanted");
            return;
        };
        let logs = Arc::clone(&self.shared.logs);
        let keeping = tokio::task::spawn_blocking(move || logs.dumps().keep(instance, descriptor));
        if let Err(error) = keeping.await.map_err(io::Error::other).flatten() {
            tracing::warn!(%instance, %error, "core dump could not be kept");
        }
    }

    /// Believes a worker what it says of its own allocations, and nothing else.
    fn take(&self, namespace: &Name, process: u32, message: FromWorker, driver: &Driver) {
        let mut running = self.running();
        let worker = running.by_namespace.get_mut(namespace).filter(|worker| worker.process == process);
        let Some(worker) = worker else { return };
        match message {
            FromWorker::Ready => tracing::debug!(%namespace, "worker ready"),
            FromWorker::ConnectionsEnded { connections } => worker.held.free(connections),
            FromWorker::Stopped { allocation } => {
                // It may have been started again meanwhile, and then is still spoken about.
                if !worker.allocations.contains(&allocation) {
                    worker.forget(allocation);
                    worker.limit_memory(&self.shared.config);
                    self.shared.metrics.stopped(allocation);
                    self.shared.logs.traps().stopped(allocation);
                }
                driver.tell(Event::Stopped { allocation });
                self.end_if_idle(&mut running, namespace);
            }
            FromWorker::NotStarted { allocation, reason, refused } if worker.known.contains(&allocation) => {
                worker.forget(allocation);
                driver.tell(Event::NotStarted { allocation, reason, refused });
                self.end_if_idle(&mut running, namespace);
            }
            FromWorker::ItemsEnded { allocation, items } if worker.known.contains(&allocation) => {
                driver.tell_all(
                    items.into_iter().map(|(item, record)| ended(allocation, item, record)).collect(),
                );
            }
            FromWorker::Logs { mut records } => {
                records.retain(|record| worker.known.contains(&record.instance.allocation));
                drop(running);
                self.shared.logs.keep(records);
            }
            FromWorker::Trap(trap) if worker.known.contains(&trap.instance.allocation) => {
                drop(running);
                self.shared.logs.traps().keep(*trap);
            }
            message => {
                if let FromWorker::Usage { allocation, fuel, memory, account, .. } = &message {
                    if !worker.known.contains(allocation) {
                        // It was counted before it was stopped, and was sent after.
                        return;
                    }
                    let used = Use { fuel: *fuel, memory: *memory, account: account.clone() };
                    self.shared.metrics.used(*allocation, used);
                }
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
            let worker = running.by_namespace.remove(namespace);
            if let Some(worker) = worker.filter(|worker| worker.held.is_any()) {
                tokio::spawn(leave(worker));
            }
        }
    }
}

/// Has a worker that is to end give back the connections which it still has.
async fn leave(worker: Worker) {
    if worker.passing.send(Passing::bare(PassedToWorker::Leave)).is_ok() {
        // Who takes longer has clients that do not read their responses.
        let _late = tokio::time::timeout(LEAVE_TIME, worker.held.left.notified()).await;
    }
}

/// Returns that an item has ended. Where that was, and which attempt, the supervisor knows by itself.
fn ended(allocation: AllocationId, item: u32, record: ItemRecord) -> Event {
    let ItemRecord { outcome, node: _, attempt: _, fuel, memory, wall, host, mut output, output_cut } =
        record;
    let is_long = output.len() > MAX_ITEM_OUTPUT;
    if is_long {
        output.truncate(output.floor_char_boundary(MAX_ITEM_OUTPUT));
    }
    let output_cut = output_cut || is_long;
    Event::ItemEnded { allocation, item, outcome, fuel, memory, wall, host, output, output_cut }
}

/// Returns what a message of a worker means to the supervisor, if it is about one of its `own` allocations.
fn event(message: FromWorker, own: &BTreeSet<AllocationId>) -> Option<Event> {
    let (allocation, event) = match message {
        FromWorker::Started { allocation } => (allocation, Event::Started { allocation }),
        FromWorker::Usage { allocation, fuel, memory, instances, account } => {
            (allocation, Event::Usage { allocation, fuel, memory, instances, failed: account.failed })
        }
        FromWorker::Checked { allocation, problem } => (allocation, Event::Checked { allocation, problem }),
        FromWorker::NotStarted { .. }
        | FromWorker::ItemsEnded { .. }
        | FromWorker::Ready
        | FromWorker::Stopped { .. }
        | FromWorker::ConnectionsEnded { .. }
        | FromWorker::Logs { .. }
        | FromWorker::Trap(_) => return None,
    };
    own.contains(&allocation).then_some(event)
}

impl Local for Workers {
    fn connect(&self, namespace: &Name) -> BoxFuture<'_, io::Result<BoxedStream>> {
        let owner = self.owner(namespace);
        let queue = self.running().by_namespace.get(&owner).map(|worker| worker.passing.clone());
        Box::pin(async move {
            let queue = queue.ok_or(io::ErrorKind::NotConnected)?;
            Ok(Box::new(channel::connect(queue).await?) as BoxedStream)
        })
    }

    fn set_routes(&self, namespace: &Name, version: u64, routes: &NamespaceRoutes) {
        let mut running = self.running();
        running.routes.insert(namespace.clone(), (version, routes.clone()));
        running.tell_routes(&self.owner(namespace), namespace);
    }

    fn hand_off(&self, hand_off: HandOff) -> Result<(), Box<HandOff>> {
        // Queued under the lock, so that nothing comes after a worker was told to leave.
        let running = self.running();
        let Some(worker) = running.by_namespace.get(&self.owner(&hand_off.namespace)) else {
            return Err(Box::new(hand_off));
        };
        let refused = worker.held.hand_off(&worker.passing, hand_off);
        drop(running);
        refused.map_or(Ok(()), Err)
    }

    fn drain(&self) {
        for worker in self.running().by_namespace.values() {
            let _dying = worker.passing.send(Passing::bare(PassedToWorker::Drain));
        }
    }
}
