//! The life of the process: join or come back, carry on with the last assignment, keep the link, end in order.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dunlin_ingress::{Closing, Doors, Ingress, TlsDoor};
use dunlin_model::{ClusterId, Feature, NodeId, NodeInfo, Resources};
use dunlin_protocol::APPROVAL_PENDING;
use dunlin_supervisor::{Config as Patience, Kept, Supervisor};
use dunlin_transport::{CloseCode, Identity, JoinError, JoinToken, NodeEndpoint, Role, WireLimits, join};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::begun_items::BegunItems;
use crate::capacity::{capacity, processor_rate};
use crate::certificate::Certificate;
use crate::compiler::{Compiler, platform_of};
use crate::components::Components;
use crate::driver::{Driver, DriverLoop, Hands, driver};
use crate::egress::Egress;
use crate::folders::{self, Folders};
use crate::homes::Homes;
use crate::inputs::Inputs;
use crate::kept_items::KeptItems;
use crate::last_assignment::LastAssignment;
use crate::link::{LinkKeeper, link, resolve};
use crate::logs::Logs;
use crate::metrics;
use crate::nursery::{Nursery, nursery, wait_for};
use crate::peers::{self, PeerConnections};
use crate::programs::ProgramHand;
use crate::secrets::Secrets;
use crate::sockets::{Inherited, Sockets};
use crate::wall::{Users, Wall};
use crate::workers::{WorkerConfig, Workers};
use crate::{Config, Settings};

/// So long after the start nothing of what was needed for it is needed any more.
const STARTED: Duration = Duration::from_secs(2);
/// How long a machine that joins waits for one of several coordinators to be in charge,
const CHARGE_TIME: Duration = Duration::from_secs(20);
/// and how long from one attempt to the next.
const JOIN_PAUSE: Duration = Duration::from_millis(500);
/// How long a machine that waits for an operator's approval waits until it asks again.
const APPROVAL_PAUSE: Duration = Duration::from_secs(2);
/// How long workers may take to notice that they are to end.
const WORKER_TIME: Duration = Duration::from_secs(2);

/// The file in the folder `identity` which a node has once it has joined.
pub const IDENTITY_FILE: &str = Identity::FILE;

/// How the life of an agent ended.
#[derive(Debug)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// It was told to start again, and this process must become that at once: who asks meanwhile waits at these sockets.
    ToStartAgain {
        /// Where they wait.
        sockets: Sockets,
        /// The processes of workers that go on by themselves.
        workers: Vec<u32>,
    },
}

/// What an agent is told.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    /// Stop.
    pub stop: CancellationToken,
    /// Make room for another program in the same process, and fail no request over it.
    pub start_again: CancellationToken,
}

/// Runs an agent until it is told to end, or an assignment could not be made durable. Must be called on the first thread
/// of the process: workers that are to outlive this program must be its children.
pub async fn run(config: Config, inherited: Inherited, orders: Orders) -> anyhow::Result<Ended> {
    let (nursery, births) = nursery();
    let life = tokio::spawn(live(config, inherited, orders, nursery));
    births.attend(life).await?
}

async fn live(
    config: Config,
    inherited: Inherited,
    orders: Orders,
    nursery: Nursery,
) -> anyhow::Result<Ended> {
    let folders = Folders::create(config.state.clone())
        .with_context(|| format!("could not make the state folder {}", config.state.display()))?;
    let _lock = lock(&folders.file("lock"))?;
    let identity = identity(&config, &folders).await?;
    warn_of_clock(&identity);
    let (cluster, node) = (identity.cluster().clone(), config.node.clone());
    let node_key = node_key(&folders.file("node.key"))?;
    let disk = Disk::of(&folders, &node_key);
    let programs = ProgramHand::of(&config, &orders);
    let kept = Kept { program: programs.kept(), ..disk.kept() };
    let capacity = capacity(&config, &folders).await?;
    let (is_awaited, has_former) = (inherited.has_clients(), wait_for(inherited.former_workers()));
    let sockets = Sockets::open(inherited, &config)?;
    let Listening { endpoint, doors, addresses } = listen(sockets.again()?, &identity, &config.settings)?;
    let info = node_info(&config, capacity, &addresses);

    let logs = Arc::new(Logs::open(folders.logs()));
    let limits = &config.settings.limits;
    logs.dumps().bind(limits);
    let basis = Basis { has_former, ..Basis::of(&config, capacity, nursery) };
    let (worker_config, homes) = workers_of(basis, &config.settings, &folders, node_key).await?;
    let workers = Workers::new(worker_config, Arc::clone(&logs));
    let peers = Arc::new(PeerConnections::new(Arc::clone(&endpoint)));
    let ingress = ingress_of(&config, &workers, Arc::clone(&peers))?;
    let (link, slot) = link();
    let components = Components::new(folders.components(), &node, &link, peers, limits.component_size);
    let hands = Hands {
        last_assignment: disk.last_assignment,
        kept_items: disk.kept_items.start()?,
        begun_items: disk.begun_items,
        ingress: ingress.clone(),
        components: Arc::clone(&components),
        inputs: Arc::new(Inputs::new(homes, link.clone())),
        secrets: workers.secrets(),
        programs: Arc::clone(&programs),
        link,
        workers: workers.clone(),
        runtime: tokio::runtime::Handle::current(),
        tidy: config.tidy,
    };
    let (driver, driver_loop) = driver(supervisor(&config, &cluster));
    let keeper = LinkKeeper {
        endpoint: Arc::clone(&endpoint),
        certificate: Certificate::new(Arc::clone(&endpoint), folders.identity()),
        coordinators: config.coordinators.clone(),
        cluster,
        node: node.clone(),
        info: info.clone(),
        advertise: config.advertise,
        last_way_out: Mutex::default(),
        driver: driver.clone(),
        logs,
        slot,
    };

    let failure = drive(driver_loop, kept, hands)?;
    serve_metrics(&config, &workers, capacity, &orders.stop).await?;
    if is_awaited {
        // Before the coordinator hears of this node again: it would take away the routes to what is not yet there.
        driver.has_begun().await;
    }
    tokio::spawn(keeper.run());
    let from_peers = peers::Serving::start(Arc::clone(&endpoint), ingress.clone(), components);
    let closing = CancellationToken::new();
    let serving = serving(ingress, doors, closing.clone());
    let running = Running { driver, workers, endpoint, from_peers, closing, serving };
    tracing::info!(%node, ingress = %info.ingress, peer = %info.peer, "agent ready");
    write_ready(&folders, &addresses).context("could not write ready.json")?;
    programs.is_ready();
    tokio::spawn(let_go_of_code(config.let_go_of_code));
    running.until_end(&orders, failure, sockets).await
}

/// Returns the front door, which is also how guests call services.
fn ingress_of(config: &Config, workers: &Workers, peers: Arc<PeerConnections>) -> anyhow::Result<Ingress> {
    let settings = config.settings.ingress.config()?;
    let ingress = Ingress::with_config(config.node.clone(), Arc::new(workers.clone()), peers, settings);
    workers.call_by(ingress.clone());
    Ok(ingress)
}

/// Returns the brain of an agent.
fn supervisor(config: &Config, cluster: &ClusterId) -> Supervisor {
    let patience = Patience { trial: config.settings.upgrade.trial, ..Patience::default() };
    Supervisor::new(cluster.clone(), config.node.clone(), patience)
}

/// What is to be ended, in which order.
struct Running {
    driver: Driver,
    workers: Workers,
    endpoint: Arc<NodeEndpoint>,
    from_peers: peers::Serving,
    /// Has the ingress accept no further clients.
    closing: CancellationToken,
    serving: JoinHandle<Closing>,
}

impl Running {
    /// Waits until the agent is told to end, and ends it.
    async fn until_end(
        self,
        orders: &Orders,
        driver: oneshot::Receiver<io::Result<()>>,
        sockets: Sockets,
    ) -> anyhow::Result<Ended> {
        let begins_again = async {
            orders.start_again.cancelled().await;
            tracing::info!("the agent is to start again; items that run are waited for");
            if !self.driver.leave().await {
                // Why is told elsewhere, and that is what is to be done about it.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = orders.stop.cancelled() => {
                // Or clients would go on to wait here.
                drop(sockets);
                self.stop().await?;
                Ok(Ended::Stopped)
            }
            () = begins_again => {
                let workers = self.hand_over().await?;
                // It may have been told to stop meanwhile, and the next program would not know.
                if orders.stop.is_cancelled() {
                    return Ok(Ended::Stopped);
                }
                Ok(Ended::ToStartAgain { sockets, workers })
            }
            failed = driver => Err(why_failed(failed)),
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.closing.cancel();
        self.serving.await?.finish().await;
        self.workers.until_called().await;
        self.endpoint.close(CloseCode::SHUTTING_DOWN, "the agent stops").await;
        self.workers.end(WORKER_TIME).await;
        tracing::info!("agent stopped");
        Ok(())
    }

    /// Ends what this program does, while workers go on with the connections that were handed to them.
    /// Returns their processes.
    async fn hand_over(self) -> anyhow::Result<Vec<u32>> {
        self.closing.cancel();
        let closing = self.serving.await?;
        // From here on clients and other nodes wait: for what is served here, and then until it is served again.
        anyhow::ensure!(
            self.driver.end().await,
            "the brain has failed, which is our fault; start again to recover"
        );
        self.workers.until_stopped().await;
        self.workers.let_go_of_connections();
        let (is_done, (), ()) =
            tokio::join!(self.from_peers.finish(), closing.finish(), self.workers.until_called());
        let code = if is_done { CloseCode::STARTING_AGAIN } else { CloseCode::SHUTTING_DOWN };
        self.endpoint.close(code, "the agent is started again").await;
        self.workers.until_passed().await;
        let outliving = self.workers.release_busy();
        self.workers.end(WORKER_TIME).await;
        tracing::info!("agent starts again");
        Ok(outliving)
    }
}

fn warn_of_clock(identity: &Identity) {
    if identity.has_no_clock() {
        tracing::warn!(
            "this machine's clock is not set: it shows a time before its certificate was made; certificates are \
             judged by what is known, and logs show wrong times until the clock is set"
        );
    }
}

/// What the agent goes on from, and what it keeps for that.
struct Disk {
    last_assignment: LastAssignment,
    kept_items: KeptItems,
    begun_items: BegunItems,
}

impl Disk {
    fn of(folders: &Folders, node_key: &[u8; 32]) -> Self {
        Self {
            last_assignment: LastAssignment::at(folders.file("assignment"), node_key),
            kept_items: KeptItems::at(folders.file("items"), node_key),
            begun_items: BegunItems::at(folders.file("begun"), node_key),
        }
    }

    /// Returns what is there when the agent starts.
    fn kept(&self) -> Kept {
        let (assignment, is_unsure) = self.last_assignment.load();
        Kept {
            assignment,
            items: self.kept_items.load(),
            begun: self.begun_items.take(),
            is_unsure,
            program: None,
        }
    }
}

/// Starts the thread of the brain; returns what hears of its end.
fn drive(driver: DriverLoop, kept: Kept, hands: Hands) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    let (failed, failure) = oneshot::channel();
    std::thread::Builder::new().name("driver".to_owned()).spawn(move || {
        let _process_is_ending = failed.send(driver.run(kept, &hands));
    })?;
    Ok(failure)
}

async fn let_go_of_code(let_go: fn()) {
    tokio::time::sleep(STARTED).await;
    let_go();
}

/// Returns what the node tells of itself: what was measured, what its operator says, and where it is reached.
fn node_info(config: &Config, capacity: Resources, addresses: &Addresses) -> NodeInfo {
    let mut labels = config.labels.clone();
    Feature::set_labels(&mut labels, config.settings.features.iter().copied());
    NodeInfo {
        capacity,
        labels,
        ingress: addresses.ingress,
        peer: addresses.endpoint,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        resources: config.settings.resources.clone(),
        batch_overcommit: config.settings.batch_overcommit,
        clock_unset: false,
        program: None,
    }
}

/// Serves requests until `closing` is cancelled.
fn serving(ingress: Ingress, doors: Doors, closing: CancellationToken) -> JoinHandle<Closing> {
    tokio::spawn(async move { ingress.serve(doors, closing.cancelled_owned()).await })
}

/// Answers who asks for figures, if the node's config says where.
async fn serve_metrics(
    config: &Config,
    workers: &Workers,
    capacity: Resources,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(address) = config.settings.metrics else { return Ok(()) };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("could not listen for who asks for metrics on {address} (TCP)"))?;
    tracing::info!(address = %listener.local_addr()?, "metrics are served");
    tokio::spawn(metrics::serve(listener, workers.metrics(), capacity, stop.clone()));
    Ok(())
}

/// Returns why an agent must end whose driver has ended by itself.
fn why_failed(driver: Result<io::Result<()>, oneshot::error::RecvError>) -> anyhow::Error {
    match driver {
        Ok(Err(error)) => anyhow::Error::new(error).context("an assignment could not be saved; start again"),
        Ok(Ok(())) | Err(_) => {
            anyhow::anyhow!("the brain has failed, which is our fault; start again to recover")
        }
    }
}

/// What serves the sockets of a node, and where they are.
struct Listening {
    endpoint: Arc<NodeEndpoint>,
    doors: Doors,
    addresses: Addresses,
}

/// Where a node is reached.
struct Addresses {
    ingress: SocketAddr,
    ingress_tls: Option<SocketAddr>,
    endpoint: SocketAddr,
}

/// Has the sockets served: for the coordinator and other nodes, and for requests.
fn listen(sockets: Sockets, identity: &Identity, settings: &Settings) -> anyhow::Result<Listening> {
    let endpoint = NodeEndpoint::on(sockets.endpoint, identity, &WireLimits::FLEET, &WireLimits::PEER)
        .context("could not listen for other nodes")?;
    let mut addresses = Addresses {
        ingress: sockets.ingress.local_addr()?,
        ingress_tls: None,
        endpoint: endpoint.local_address(),
    };
    let plain = TcpListener::from_std(sockets.ingress).context("could not listen for requests")?;
    let tls = match (sockets.ingress_tls, &settings.ingress.tls) {
        (Some(listener), Some(tls)) => {
            addresses.ingress_tls = Some(listener.local_addr()?);
            let listener = TcpListener::from_std(listener).context("could not listen for requests")?;
            let certificates = Arc::new(tls.read()?);
            tokio::spawn(Arc::clone(&certificates).keep_current());
            Some(TlsDoor::new(listener, certificates))
        }
        _ => None,
    };
    Ok(Listening { endpoint: Arc::new(endpoint), doors: Doors { plain, tls }, addresses })
}

/// What workers are made of, beside what the node's config file says.
pub(crate) struct Basis {
    pub(crate) node: NodeId,
    pub(crate) program: PathBuf,
    /// What all guests of this node may have together.
    pub(crate) capacity: Resources,
    /// How much workers log; as they would by themselves if absent.
    pub(crate) log: Option<String>,
    /// Whether they become users of their own where that can be had.
    pub(crate) own_users: bool,
    /// Where they are born, if they may outlive this program.
    pub(crate) nursery: Option<Nursery>,
    /// Whether there are some that have outlived the one before.
    pub(crate) has_former: bool,
}

impl Basis {
    /// Returns what those of an agent are made of.
    fn of(config: &Config, capacity: Resources, nursery: Nursery) -> Self {
        let (node, program) = (config.node.clone(), config.program.clone());
        let log = std::env::var("DUNLIN_LOG").ok();
        Self { node, program, capacity, log, own_users: true, nursery: Some(nursery), has_former: false }
    }
}

/// Finds out what this machine gives to keep workers apart, and returns what they all have in common.
pub(crate) async fn workers_of(
    basis: Basis,
    settings: &Settings,
    folders: &Folders,
    node_key: [u8; 32],
) -> anyhow::Result<(WorkerConfig, Arc<Homes>)> {
    let Basis { node, program, capacity, log, own_users, nursery, has_former } = basis;
    let (wall, platform) =
        tokio::join!(Wall::examine(&program, folders.root(), settings), platform_of(&program));
    let wall = wall.context("could not find out what the kernel gives to confine guests")?;
    wall.log();
    let users = if own_users && wall.gives_users() {
        Some(users(folders, settings).context("could not open the table of workers' users")?)
    } else {
        None
    };
    let processor_rate = processor_rate(folders, &capacity);
    let homes = Homes::open(&folders.workers(), node_key, settings.isolation, users, has_former);
    let homes = Arc::new(homes.context("could not open the folders of workers")?);
    let platform = platform?;
    let compiler = Compiler::new(program.clone(), Arc::clone(&homes), wall.is_required(), platform)
        .within(&settings.limits);
    let (compiler, wall) = (Arc::new(compiler), Arc::new(wall));
    let secrets = Arc::new(Secrets::new(folders.secrets(), &node_key));
    let (folders, authorities) = (settings.folders.clone(), authorities(settings)?);
    let egress = Arc::new(Egress::new(&settings.egress)?);
    let worker_config = WorkerConfig {
        node,
        program,
        homes: Arc::clone(&homes),
        compiler,
        platform,
        wall,
        memory: capacity.memory,
        processor_rate,
        folders,
        authorities,
        secrets,
        egress,
        features: settings.features.clone(),
        signers: settings.signers.clone(),
        namespace_concurrency: settings.limits.namespace_concurrency,
        coredump_size: settings.limits.coredump_size,
        worker_reserve: settings.limits.worker_reserve,
        log,
        nursery,
    };
    Ok((worker_config, homes))
}

/// Returns the users of workers. If the table of them is damaged a new one begins, without anything that was theirs:
/// whatever is left there may be read by who gets their number next.
fn users(folders: &Folders, settings: &Settings) -> std::io::Result<Users> {
    let path = folders.file("users.json");
    match Users::open(path.clone(), settings.worker_uids) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            tracing::error!(
                file = %path.display(), %error,
                "the table of workers' users is damaged; a new one begins, and components are compiled again"
            );
            match std::fs::remove_dir_all(folders.workers()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            std::fs::DirBuilder::new().mode(0o700).create(folders.workers())?;
            std::fs::remove_file(&path)?;
            Users::open(path, settings.worker_uids)
        }
        other => other,
    }
}

fn authorities(settings: &Settings) -> anyhow::Result<Vec<u8>> {
    let Some(path) = &settings.egress.ca_file else { return Ok(Vec::new()) };
    std::fs::read(path).with_context(|| format!("could not read the certificates in {}", path.display()))
}

/// Returns who this node is; at the first start it joins its fleet.
async fn identity(config: &Config, folders: &Folders) -> anyhow::Result<Identity> {
    let folder = folders.identity();
    if Identity::is_in(&folder) {
        let identity = Identity::load(&folder).context("could not open this node's identity")?;
        anyhow::ensure!(
            *identity.role() == Role::Node(config.node.clone()),
            "the identity in {} is for {}, not for node {}; give --node as before, or another --state",
            folder.display(),
            identity.member(),
            config.node
        );
        return Ok(identity);
    }
    let given = config.join_token.as_ref().context(
        "this node has not joined a fleet yet and has no join token; \
         make one with `dunlin token create` and give it in DUNLIN_JOIN_TOKEN",
    )?;
    let token: JoinToken = given.0.parse().context(CannotJoin)?;
    let identity = join_any(config, &token, &folder).await?;
    identity.save(&folder).context("could not save this node's identity")?;
    tracing::info!(cluster = %identity.cluster(), node = %config.node, "joined");
    Ok(identity)
}

/// Joins by the coordinator that is in charge; where an operator must approve this machine, as soon as one has.
async fn join_any(config: &Config, token: &JoinToken, folder: &Path) -> anyhow::Result<Identity> {
    let started = Instant::now();
    let mut is_awaited = false;
    loop {
        let error = match join_once(config, token, folder).await {
            Ok(identity) => return Ok(identity),
            Err(error) => error,
        };
        let pause = match answer(&error) {
            Told::Pending(message) => {
                if !is_awaited {
                    tracing::warn!(node = %config.node, "this machine is no node yet: {message}");
                }
                is_awaited = true;
                APPROVAL_PAUSE
            }
            // It was heard before, so it is out of reach for a while, or busy.
            Told::Later | Told::Nothing if is_awaited => APPROVAL_PAUSE,
            Told::NotInCharge if is_awaited || started.elapsed() <= CHARGE_TIME => JOIN_PAUSE,
            Told::Nothing | Told::Later | Told::NotInCharge | Told::Refused => return Err(error),
        };
        tokio::time::sleep(pause).await;
    }
}

/// What coordinators have said to a machine that wants to join, what says least first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Told<'a> {
    /// None of them was reached.
    Nothing,
    /// Another one is in charge, or will be soon.
    NotInCharge,
    /// It cannot do so now.
    Later,
    /// No.
    Refused,
    /// An operator must approve it.
    Pending(&'a str),
}

fn answer(error: &anyhow::Error) -> Told<'_> {
    let refusal = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(JoinError::Refused { code, message }) => Some((code.as_str(), message.as_str())),
        _ => None,
    });
    match refusal {
        None => Told::Nothing,
        Some((APPROVAL_PENDING, message)) => Told::Pending(message),
        Some(("not_in_charge", _)) => Told::NotInCharge,
        Some(("unavailable" | "busy" | "storage_full" | "recovering", _)) => Told::Later,
        Some(_) => Told::Refused,
    }
}

/// Asks each coordinator once, and returns what says most. Each may be asked: the token is good again for the same key.
async fn join_once(config: &Config, token: &JoinToken, folder: &Path) -> anyhow::Result<Identity> {
    let mut most: Option<anyhow::Error> = None;
    for coordinator in &config.coordinators {
        let error = match join_at(coordinator, config, token, folder).await {
            Ok(identity) => return Ok(identity),
            Err(error) => error,
        };
        if most.as_ref().is_none_or(|most| answer(most) < answer(&error)) {
            most = Some(error);
        }
    }
    Err(most.unwrap_or_else(|| anyhow::anyhow!("no coordinator is known")))
}

async fn join_at(
    coordinator: &str,
    config: &Config,
    token: &JoinToken,
    folder: &Path,
) -> anyhow::Result<Identity> {
    let key = dunlin_transport::KeyRequest::load_or_create(folder).context(CannotJoin)?;
    let address = resolve(coordinator, config.endpoint.ip()).await?;
    join(address, token, &config.node, key).await.context(CannotJoin)
}

/// What stands in the chain of an error when a machine did not become a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not join the fleet")]
pub struct CannotJoin;

/// Keeps a second agent off the same folder.
fn lock(path: &Path) -> anyhow::Result<std::fs::File> {
    let shown = path.display();
    let file = std::fs::File::create(path).with_context(|| format!("could not open {shown}"))?;
    file.try_lock().with_context(|| format!("another agent uses this state folder ({shown} is locked)"))?;
    Ok(file)
}

/// Returns the key from which those are derived that authenticate what the node keeps; at the first start makes it.
pub(crate) fn node_key(path: &Path) -> anyhow::Result<[u8; 32]> {
    if let Ok(bytes) = std::fs::read(path)
        && let Ok(key) = bytes.try_into()
    {
        return Ok(key);
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    // With a new key all compiled code is compiled again, and the last assignment is not believed.
    folders::replace(path, &key).context("could not save the node's key")?;
    Ok(key)
}

fn write_ready(folders: &Folders, addresses: &Addresses) -> std::io::Result<()> {
    let mut text = serde_json::json!({
        "process": std::process::id(), "ingress": addresses.ingress, "endpoint": addresses.endpoint,
    });
    if let Some(address) = addresses.ingress_tls {
        text["ingress_tls"] = serde_json::json!(address);
    }
    folders::replace(&folders.file("ready.json"), text.to_string().as_bytes())
}
