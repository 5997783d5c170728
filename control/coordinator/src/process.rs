//! The life of the process: open what is on disk, take the next term, restore, serve, and end in order.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use dunlin_model::{Bytes, ClusterId, Term, Timestamp};
use dunlin_scheduler::Cluster;
use dunlin_store::{Changes, CommitError, Components, Embedded, Table, Write};
use dunlin_transport::{Authority, Identity, Server, WireLimits};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::backup::{ADMIN_TOKEN, Source};
use crate::clock::BrainClock;
use crate::driver::{Hands, driver};
use crate::fleet::Fleet;
use crate::gate::{Gate, coordinator_identity};
use crate::http::{self, Api};
use crate::inputs::Inputs;
use crate::session::Desk;
use crate::sweeper::Sweeper;
use crate::{Config, records};

/// The most bytes of one component or input.
pub(crate) const MAX_BLOB: Bytes = Bytes(64 << 20);
/// Free space that is left alone (S1).
const RESERVE: Bytes = Bytes(64 << 20);

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
    let disk = Disk::open(&config.state)?;
    let cluster = disk.authority.cluster().clone();
    let patience = config.profile.patience();
    let changes = records::load(&*disk.store).context("could not restore the cluster")?;
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
    let hands = Hands { store, fleet: Arc::clone(&fleet), sweeper, stop: stopping };
    let (driver, driver_loop) = driver(brain, brain_clock, hands);

    let heartbeat = Duration::from(patience.heartbeat);
    let (server, identity) = listen_for_agents(&config, &disk.authority, heartbeat)?;
    let listener = TcpListener::bind(config.api)
        .await
        .with_context(|| format!("could not listen for the API on {} (TCP)", config.api))?;
    let tls = api_tls(&disk.authority, &config)?;
    let ready = Ready { fleet: server.local_address(), api: listener.local_addr()?, cluster: &cluster };

    let desk = Desk {
        cluster: cluster.clone(),
        term: disk.term,
        heartbeat,
        driver,
        fleet,
        store: disk.store,
        components: disk.components,
        inputs: Arc::new(Inputs::new(disk.inputs)),
        authority: Arc::new(disk.authority),
        node_lifetime: config.node_lifetime,
    };
    let backup = Source::of(&desk, config.state.clone());
    let api = Api::new(&desk, backup, clock.clone(), disk.admin_hash, desk.authority.key_hash())
        .within(config.limits);
    let gate = Gate { desk, clock };

    // The brain has a thread of its own: commits wait for the disk.
    let (failed, failure) = oneshot::channel();
    std::thread::Builder::new().name("driver".to_owned()).spawn(move || {
        let _process_is_ending = failed.send(driver_loop.run());
    })?;
    tokio::spawn(gate.admit_all(server, identity));
    let serving =
        tokio::spawn(http::serve(listener, TlsAcceptor::from(tls), http::router(api), stop.clone()));
    tracing::info!(%cluster, term = %disk.term, fleet = %ready.fleet, api = %ready.api, "coordinator ready");
    ready.write(&config.state).context("could not write ready.json")?;

    let how = until_end(&stop, failure).await?;
    stop.cancel();
    serving.await?;
    tracing::info!("coordinator stopped");
    Ok(how)
}

/// Waits until the process is told to stop, or its driver has ended.
async fn until_end(
    stop: &CancellationToken,
    driver: oneshot::Receiver<Result<Ended, CommitError>>,
) -> anyhow::Result<Ended> {
    tokio::select! {
        () = stop.cancelled() => Ok(Ended::Stopped),
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
    authority: Authority,
    /// Taken durably: no other start of a coordinator has it.
    term: Term,
    clock: BrainClock,
    admin_hash: [u8; 32],
    components: Arc<Components>,
    inputs: Arc<Components>,
}

impl Disk {
    fn open(state: &Path) -> anyhow::Result<Self> {
        private_folder(state)
            .with_context(|| format!("could not make the state folder {}", state.display()))?;
        // First of all, since it keeps a second coordinator off this folder.
        let store = Embedded::open(&state.join("store")).context("could not open the coordinator's store")?;
        let authority = open_authority(state)?;
        write_private(&state.join("ca.pem"), authority.certificate_pem().as_bytes())
            .context("could not write the authority's certificate")?;
        let admin_hash = open_admin_token(&state.join(ADMIN_TOKEN))?;
        let open = |name: &str| Components::open_folder(&state.join(name), MAX_BLOB, RESERVE).map(Arc::new);
        let components = open("components").context("could not open the folder of components")?;
        let inputs = open("inputs").context("could not open the folder of inputs")?;
        let seen = records::last_time_seen(&store).context("could not read the time that was last seen")?;
        let mut clock = BrainClock::start(seen);
        let term = next_term(&store, clock.read())?;
        Ok(Self { store: Arc::new(store), authority, term, clock, admin_hash, components, inputs })
    }
}

fn listen_for_agents(
    config: &Config,
    authority: &Authority,
    heartbeat: Duration,
) -> anyhow::Result<(Server, Identity)> {
    let identity = coordinator_identity(authority)?;
    // An agent must notice that its coordinator is gone, and be back, well before its lease is over.
    let wire = WireLimits { idle: heartbeat * 3, keep_alive: heartbeat, ..WireLimits::FLEET };
    let server = Server::bind(config.fleet, &identity, &wire)
        .with_context(|| format!("could not listen for agents on {} (UDP)", config.fleet))?;
    Ok((server, identity))
}

/// What is written into `ready.json` once the coordinator can be used.
struct Ready<'a> {
    fleet: std::net::SocketAddr,
    api: std::net::SocketAddr,
    cluster: &'a ClusterId,
}

impl Ready<'_> {
    fn write(&self, state: &Path) -> anyhow::Result<()> {
        let text = serde_json::json!({
            "process": std::process::id(), "fleet": self.fleet, "api": self.api, "cluster": self.cluster,
        });
        write_private(&state.join("ready.json"), text.to_string().as_bytes())
    }
}

/// Opens the fleet's authority; at the first start makes it, and with it the fleet's name.
fn open_authority(state: &Path) -> anyhow::Result<Authority> {
    if state.join(Authority::FILE).exists() {
        return Authority::load(state).context("could not open the fleet's authority");
    }
    let mut random = [0; 5];
    getrandom::fill(&mut random)
        .map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    let cluster: ClusterId = format!("fleet-{}", hex::encode(random)).parse()?;
    let authority =
        Authority::create(&cluster, SystemTime::now()).context("could not make the fleet's authority")?;
    authority.save(state).context("could not save the fleet's authority")?;
    tracing::info!(%cluster, "a new fleet begins");
    Ok(authority)
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
    let term = last.next();
    writes.push(Write { table: Table::Meta, key: b"term".to_vec(), value: Some(serde_json::to_vec(&term)?) });
    store.commit(&writes).context("could not save the new term")?;
    Ok(term)
}

/// Returns the hash of the administrator's token; at the first start makes the token.
fn open_admin_token(path: &Path) -> anyhow::Result<[u8; 32]> {
    let shown = path.display();
    if !path.exists() {
        let mut random = [0; 32];
        getrandom::fill(&mut random)
            .map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
        write_private(path, format!("rlu1_{}\n", hex::encode(random)).as_bytes())
            .with_context(|| format!("could not write {shown}"))?;
    }
    let token = fs::read_to_string(path).with_context(|| format!("could not read {shown}"))?;
    let token = token.trim();
    // An empty token would let everybody in.
    anyhow::ensure!(token.len() >= 32, "{shown} holds no token; remove it and start again to get a new one");
    Ok(Sha256::digest(token).into())
}

fn api_tls(authority: &Authority, config: &Config) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let mut names = vec!["127.0.0.1".to_owned(), "::1".to_owned(), "localhost".to_owned()];
    if !config.api.ip().is_unspecified() && !config.api.ip().is_loopback() {
        names.push(config.api.ip().to_string());
    }
    names.extend(config.api_names.iter().cloned());
    let certificate =
        authority.issue_api(&names, SystemTime::now()).context("could not make the API's certificate")?;
    certificate.server_config().context("could not set up TLS for the API")
}

/// Makes a folder into which only its owner can look, also if it is there and others could.
fn private_folder(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // Asked first: a folder of somebody else that is private already needs no change, and would not allow one.
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Replaces a file as a whole, durably, readable by its owner alone.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}
