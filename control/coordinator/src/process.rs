//! The life of the process: open what is on disk, take the next term, restore, serve, and end in order. Where there are
//! several coordinators it waits first until it is in charge (`standby`).

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use dunlin_model::{Bytes, ClusterId, MAX_PROGRAM, Term, Timestamp};
use dunlin_planted::{Bug, Point, fails, planted, reached};
use dunlin_scheduler::{Cluster, View};
use dunlin_sealed::SealingKey;
use dunlin_store::{
    Changes, CommitError, Components, ComponentsError, Embedded, FollowError, Objects, Table, Write,
};
use dunlin_transport::{Authority, Server, WireLimits};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::api_tls::ApiTls;
use crate::backup::{ADMIN_TOKEN, Source};
use crate::clock::BrainClock;
use crate::driver::{Hands, driver};
use crate::fleet::Fleet;
use crate::gate::{Gate, coordinator_identity, keep_certificates};
use crate::http::{self, Api};
use crate::inputs::Inputs;
use crate::migrate::MOVED;
use crate::records::Loaded;
use crate::session::{Desk, sealed_for};
use crate::standby::{self, Turn};
use crate::sweeper::Sweeper;
use crate::{Config, records};

/// The most bytes of one component or input.
pub(crate) const MAX_BLOB: Bytes = Bytes(64 << 20);
/// How long who could not go on in charge waits before it starts again.
const AGAIN_PAUSE: Duration = Duration::from_secs(1);
/// How long who steps down takes to tell the others.
const RESIGN_TIME: Duration = Duration::from_secs(3);
/// For what the key is derived that seals secrets.
const SECRETS: &str = "dunlin 2026-11-29 secrets";
/// Free space that is left alone (S1).
pub(crate) const RESERVE: Bytes = Bytes(64 << 20);

/// How a coordinator ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// It is to be started again at once, as a whole process: a recovery is over.
    ToStartAgain,
}

/// Runs a coordinator until `stop` is cancelled, it is to be started again, or a change could not be made durable.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<Ended> {
    let Some(location) = config.etcd.clone() else {
        let disk = Disk::open(&config)?;
        let heartbeat = Duration::from(config.profile.patience().heartbeat);
        let doors = Doors::open(&config, &disk.authority, heartbeat).await?;
        return serve(config, disk, doors, std::future::pending(), stop).await;
    };
    let Some(turn) = standby::wait(&config, location, &stop).await? else { return Ok(Ended::Stopped) };
    let Turn { etcd, reign, doors, authority } = turn;
    let (leading, led) = (Arc::clone(&etcd), Arc::clone(&reign));
    let settings = config.clone();
    let disk = blocking(move || {
        let store = Arc::new(leading.lead(led).context("could not take over the store in etcd")?);
        Disk::with(store, authority, &settings)
    });
    let over = {
        let reign = Arc::clone(&reign);
        async move { reign.over().await }
    };
    let ended = match disk.await? {
        Ok(disk) => serve(config, disk, doors, over, stop).await,
        Err(error) => Err(error),
    };
    let resigning = tokio::task::spawn_blocking(move || reign.resign(&etcd));
    // If etcd cannot be had now, others wait for the end of the lease.
    let _late = tokio::time::timeout(RESIGN_TIME, resigning).await;
    match ended {
        // Whoever is in charge now does not need this process to end in disorder.
        Err(error) if is_deposed(&error) => {
            tracing::warn!(
                error = &*error as &dyn std::error::Error,
                "this coordinator is not in charge any more"
            );
            // Should it be the same again, it must not keep others from their turn, and the machine busy.
            tokio::time::sleep(AGAIN_PAUSE).await;
            Ok(Ended::ToStartAgain)
        }
        ended => ended,
    }
}

/// Tells whether an error says that another coordinator is in charge, or may be since etcd does not answer.
fn is_deposed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(CommitError::Deposed(_)))
            || matches!(cause.downcast_ref(), Some(FollowError::Etcd(_)))
    })
}

/// Serves as the coordinator in charge until it is `over`.
async fn serve(
    config: Config,
    disk: Disk,
    doors: Doors,
    over: impl Future<Output = ()>,
    stop: CancellationToken,
) -> anyhow::Result<Ended> {
    let cluster = disk.authority.cluster().clone();
    let patience = config.profile.patience();
    let store = Arc::clone(&disk.store);
    let Loaded { changes, specs } = blocking(move || restored(&*store)).await??;
    let mut brain_clock = disk.clock;
    let clock = brain_clock.shown();
    let brain = Cluster::restore(cluster.clone(), disk.term, patience, changes, brain_clock.read());
    say_if_recovering(&brain);
    let sweeper = Sweeper::start(Arc::clone(&disk.store)).context("could not start a thread")?;
    sweeper
        .sweep_leftovers(&*disk.store, &brain.view().runs.into_keys().collect())
        .context("could not look for what deleted runs left")?;
    let fleet = Arc::new(Fleet::default());
    let (store, stopping) = (Arc::clone(&disk.store), stop.clone());
    let hands = Hands { store, fleet: Arc::clone(&fleet), sweeper, specs, stop: stopping };
    let (driver, driver_loop) = driver(brain, brain_clock, hands);
    let ready = doors.ready(&cluster)?;

    let sealing = SealingKey::derived(SECRETS, disk.authority.private_key());
    check_secrets(&driver.view(), &sealing)?;
    let desk = Desk {
        cluster: cluster.clone(),
        term: disk.term,
        heartbeat: Duration::from(patience.heartbeat),
        driver,
        fleet,
        store: disk.store,
        components: disk.components,
        inputs: Arc::new(Inputs::new(disk.inputs)),
        programs: disk.programs,
        chunk_lists: Arc::default(),
        site_turns: Arc::default(),
        relay: Arc::default(),
        authority: disk.authority,
        sealing,
        node_lifetime: config.node_lifetime,
    };
    let backup = Source::of(&desk, config.state.clone());
    let api = Api::new(&desk, backup, clock.clone(), disk.admin_hash, desk.authority.key_hash())
        .within(config.limits)
        .in_charge(config.etcd.as_ref().map(|_| ready.advertised(&config)));
    let gate = Gate { desk, clock };

    // The brain has a thread of its own: commits wait for the disk.
    let (failed, failure) = oneshot::channel();
    std::thread::Builder::new().name("driver".to_owned()).spawn(move || {
        let _process_is_ending = failed.send(driver_loop.run());
    })?;
    let Doors { server, listener, tls } = doors;
    tracing::info!(
        %cluster, term = %disk.term, fleet = %server.local_address(), api = %listener.local_addr()?, "coordinator ready"
    );
    tokio::spawn(gate.admit_all(Arc::clone(&server)));
    let serving = tokio::spawn(http::serve(listener, tls, http::router(api), stop.clone()));
    ready.write(&config.state)?;

    let how = until_end(&stop, failure, over).await;
    stop.cancel();
    // First of all: agents must not go on with what they hear here if somebody else is in charge.
    server.close("the coordinator stops").await;
    serving.await?;
    tracing::info!("coordinator stopped");
    how
}

/// Refuses to work with secrets that are sealed with the key of another fleet, or damaged: nodes would wait for them.
fn check_secrets(view: &View, sealing: &SealingKey) -> anyhow::Result<()> {
    for (id, secret) in &view.secrets {
        sealing.unseal(&sealed_for(id, secret.version), &secret.sealed).with_context(|| {
            format!(
                "the store's secret {id} cannot be unsealed with the key of {}; restore the state folder and the store \
                 from the same backup: `dunlin restore`",
                Authority::FILE
            )
        })?;
    }
    Ok(())
}

/// Returns what a store holds, less of what nothing speaks any more.
fn restored(store: &dyn Changes) -> anyhow::Result<Loaded> {
    let (loaded, unneeded) = records::load(store).context("could not restore the cluster")?;
    store.commit(&unneeded).context("could not tidy the store")?;
    Ok(loaded)
}

/// Does what waits for a disk or a peer, beside the tasks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("our fault: work beside the tasks has failed")
}

/// Waits until the process is told to stop, its driver has ended, or another coordinator may be in charge.
async fn until_end(
    stop: &CancellationToken,
    driver: oneshot::Receiver<Result<Ended, CommitError>>,
    over: impl Future<Output = ()>,
) -> anyhow::Result<Ended> {
    tokio::select! {
        () = stop.cancelled() => Ok(Ended::Stopped),
        () = over => {
            tracing::warn!("another coordinator may be in charge; this one starts again, and follows");
            Ok(Ended::ToStartAgain)
        }
        // What the brain has decided and the disk has not taken must reach nobody: the process ends here, and the
        // next one restores what was acknowledged.
        ended = driver => match ended {
            Ok(ended) => ended.context("a change could not be made durable; start again to recover"),
            Err(_panicked) => anyhow::bail!("the brain has failed, which is our fault; start again to recover"),
        },
    }
}

/// Tells whoever reads the log that nothing is decided, if that is so.
fn say_if_recovering(brain: &Cluster) {
    if let Some(recovery) = brain.recovery() {
        let reason = &recovery.reason;
        tracing::warn!(%reason, "this is a recovery: nothing is decided until `dunlin recover --confirm`");
    }
}

/// What a coordinator finds on its disk, or makes there at its first start.
struct Disk {
    store: Arc<dyn Changes>,
    authority: Arc<Authority>,
    /// Taken durably: no other start of a coordinator has it.
    term: Term,
    clock: BrainClock,
    admin_hash: [u8; 32],
    components: Arc<Components>,
    inputs: Arc<Components>,
    programs: Arc<Components>,
}

impl Disk {
    fn open(config: &Config) -> anyhow::Result<Self> {
        let state = &config.state;
        private_folder(state)
            .with_context(|| format!("could not make the state folder {}", state.display()))?;
        anyhow::ensure!(
            state.join("store").exists() || !state.join(MOVED).exists(),
            "the store of {} was moved into etcd; start with the same `--store` and `--components` as there, or move it \
             back with `dunlin migrate-store --back`",
            state.display()
        );
        // First of all, since it keeps a second coordinator off this folder.
        let store = Embedded::open(&state.join("store")).context("could not open the coordinator's store")?;
        let authority = Arc::new(open_authority(state)?);
        Self::with(Arc::new(store), authority, config)
    }

    /// The same with a store that is elsewhere.
    fn with(store: Arc<dyn Changes>, authority: Arc<Authority>, config: &Config) -> anyhow::Result<Self> {
        let state = &config.state;
        write_private(&state.join("ca.pem"), authority.certificate_pem().as_bytes())
            .context("could not write the authority's certificate")?;
        let admin_hash = open_admin_token(&state.join(ADMIN_TOKEN))?;
        let objects = config.objects.as_deref().map(Objects::open).transpose();
        let objects = objects.context("could not open what coordinators share")?.map(Arc::new);
        let open = |name: &'static str, most: Bytes| {
            let folder = Components::open_folder(&state.join(name), most, RESERVE)?;
            Ok::<_, ComponentsError>(Arc::new(match &objects {
                Some(objects) => folder.shared(Arc::clone(objects), name),
                None => folder,
            }))
        };
        let components = open("components", MAX_BLOB).context("could not open the folder of components")?;
        let inputs = open("inputs", MAX_BLOB).context("could not open the folder of inputs")?;
        let programs = open("programs", MAX_PROGRAM).context("could not open the folder of programs")?;
        let seen = records::last_time_seen(&*store).context("could not read the time that was last seen")?;
        let mut clock = BrainClock::start(seen);
        let term = next_term(&*store, clock.read())?;
        Ok(Self { store, authority, term, clock, admin_hash, components, inputs, programs })
    }
}

/// Where agents and clients come in.
pub(crate) struct Doors {
    pub(crate) server: Arc<Server>,
    pub(crate) listener: Arc<TcpListener>,
    pub(crate) tls: ApiTls,
}

impl Doors {
    pub(crate) async fn open(
        config: &Config,
        authority: &Arc<Authority>,
        heartbeat: Duration,
    ) -> anyhow::Result<Self> {
        let identity = coordinator_identity(authority)?;
        // An agent must notice that its coordinator is gone, and be back, well before its lease is over.
        let wire = WireLimits { idle: heartbeat * 3, keep_alive: heartbeat, ..WireLimits::FLEET };
        let mut server = Server::bind(config.fleet, &identity, &wire)
            .with_context(|| format!("could not listen for agents on {} (UDP)", config.fleet))?;
        let listener = TcpListener::bind(config.api)
            .await
            .with_context(|| format!("could not listen for the API on {} (TCP)", config.api))?;
        // After the API, which may have the same port: it is worth more.
        if let Err(error) = server.listen_on_tcp(&identity) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "nodes in networks that let no UDP through cannot reach this coordinator; end what has that port, or \
                 choose another one by --fleet"
            );
        }
        let tls = ApiTls::new(authority, config)?;
        let server = Arc::new(server);
        // In a task of its own: whoever dials without end must not keep it from that.
        let own = (Arc::clone(authority), tls.clone());
        tokio::spawn(keep_certificates(own, Arc::downgrade(&server), identity));
        Ok(Self { server, listener: Arc::new(listener), tls })
    }

    pub(crate) fn ready(&self, cluster: &ClusterId) -> anyhow::Result<Ready> {
        let (fleet, api) = (self.server.local_address(), self.listener.local_addr()?);
        Ok(Ready { process: std::process::id(), fleet, api, cluster: cluster.clone() })
    }
}

/// What is written into `ready.json` once the coordinator can be used.
#[derive(Serialize)]
pub(crate) struct Ready {
    process: u32,
    pub(crate) fleet: SocketAddr,
    pub(crate) api: SocketAddr,
    cluster: ClusterId,
}

impl Ready {
    /// Where other coordinators reach the API.
    pub(crate) fn advertised(&self, config: &Config) -> String {
        config.advertise_api.clone().unwrap_or_else(|| self.api.to_string())
    }

    pub(crate) fn write(&self, state: &Path) -> anyhow::Result<()> {
        write_private(&state.join("ready.json"), &serde_json::to_vec(self)?)
            .context("could not write ready.json")
    }
}

/// Opens the fleet's authority; at the first start makes it, and with it the fleet's name.
fn open_authority(state: &Path) -> anyhow::Result<Authority> {
    if state.join(Authority::FILE).exists() {
        return Authority::load(state).with_context(|| {
            format!("could not open the fleet's authority in {}", state.join(Authority::FILE).display())
        });
    }
    let authority = new_authority(SystemTime::now())?;
    authority.save(state).context("could not save the fleet's authority")?;
    tracing::info!(cluster = %authority.cluster(), "a new fleet begins");
    Ok(authority)
}

/// Returns the authority of a new fleet, which has a name that no other has.
pub(crate) fn new_authority(now: SystemTime) -> anyhow::Result<Authority> {
    let cluster: ClusterId = format!("fleet-{}", hex::encode(random::<5>()?)).parse()?;
    Authority::create(&cluster, now).context("could not make the fleet's authority")
}

/// Returns a new token for the administrator.
pub(crate) fn new_token() -> anyhow::Result<String> {
    Ok(format!("rlu1_{}\n", hex::encode(random::<32>()?)))
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut random = [0; N];
    getrandom::fill(&mut random)
        .map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    Ok(random)
}

/// Takes the term after the last one, durably and with the time, before anything is decided under it.
fn next_term(store: &dyn Changes, now: Timestamp) -> anyhow::Result<Term> {
    let mut last = match store.get(Table::Meta, b"term").context("could not read the last term")? {
        Some(value) => serde_json::from_slice(&value).context("the store's term is damaged")?,
        None => Term(0),
    };
    let mut writes = vec![records::time_seen(now)];
    let recovery = records::recovery(store).context("could not read whether this is a recovery")?;
    if let Some(recovery) = recovery.filter(|recovery| recovery.confirmed) {
        last = last.max(recovery.highest_term);
        writes.push(records::recovery_over());
        tracing::info!(after = %last, "the recovery is over; what this store holds is to be from now on");
    }
    let term = if planted(Bug::KeepTerm) && last > Term(0) { last } else { last.next() };
    writes.push(Write { table: Table::Meta, key: b"term".to_vec(), value: Some(serde_json::to_vec(&term)?) });
    reached(Point::TermBeforePersist);
    store.commit(&writes).context("could not save the new term")?;
    Ok(term)
}

/// Returns the hash of the administrator's token; at the first start makes the token.
fn open_admin_token(path: &Path) -> anyhow::Result<[u8; 32]> {
    let shown = path.display();
    if !path.exists() {
        write_private(path, new_token()?.as_bytes()).with_context(|| format!("could not write {shown}"))?;
    }
    let token = fs::read_to_string(path).with_context(|| format!("could not read {shown}"))?;
    let token = token.trim();
    // An empty token would let everybody in.
    anyhow::ensure!(token.len() >= 32, "{shown} holds no token; remove it and start again to get a new one");
    Ok(Sha256::digest(token).into())
}

/// Makes a folder into which only its owner can look, also if it is there and others could.
pub(crate) fn private_folder(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // Asked first: a folder of somebody else that is private already needs no change, and would not allow one.
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Replaces a file as a whole, durably, readable by its owner alone.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    // Only what is short: the moments in which such a file is half there must not be hidden among those of a long one.
    if planted(Bug::WriteInPlace) && bytes.len() < 100 {
        let mut file = fs::File::create(path)?;
        return Ok(bytes.iter().try_for_each(|byte| file.write_all(&[*byte]))?);
    }
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fails(Point::StateRename)?;
    fs::rename(&temporary, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}
