//! Agents by the hundred, in one process: each has a certificate, an endpoint and a real QUIC connection of its own, says
//! its heartbeats and dials again as an agent does, and runs nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use dunlin_model::{Bytes, FuelRate, Generation, NodeId, NodeInfo, Report, Resources, Term, Timestamp};
use dunlin_protocol::{Hello, StreamRequest, ToAgent, ToCoordinator, Version};
use dunlin_transport::{
    Backoff, CloseCode, Connection, Identity, JoinToken, KeyRequest, NodeEndpoint, WireLimits, join,
};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How many join at a time.
const JOINING: usize = 32;

/// Some simulated agents; they end when this is dropped.
pub struct SimulatedAgents {
    _running: JoinSet<()>,
    heard: Vec<Arc<Heard>>,
}

/// What a coordinator has said to one of them.
#[derive(Default)]
struct Heard {
    /// How often it was welcomed.
    welcomes: AtomicU64,
    /// When it was welcomed last.
    last: Mutex<Option<Instant>>,
}

impl SimulatedAgents {
    /// Lets so many nodes join, `crowd-1` and so on, and keeps them connected.
    pub async fn start(count: u64, coordinator: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let token: JoinToken = token.parse().context("the token is none")?;
        let mut joined = Vec::new();
        let mut joining = JoinSet::new();
        for number in 1..=count {
            if joining.len() >= JOINING {
                joined.push(joining.join_next().await.context("some are joining")???);
            }
            let token = token.clone();
            joining.spawn(async move {
                let node: NodeId = format!("crowd-{number}").parse()?;
                let identity = join(coordinator, &token, &node, KeyRequest::create()?).await?;
                anyhow::Ok((node, identity))
            });
        }
        while let Some(done) = joining.join_next().await {
            joined.push(done??);
        }
        let (mut running, mut heard) = (JoinSet::new(), Vec::new());
        for (node, identity) in joined {
            let mine = Arc::<Heard>::default();
            heard.push(Arc::clone(&mine));
            let agent = Agent::new(node, &identity, coordinator, mine)?;
            running.spawn(agent.run());
        }
        Ok(Self { _running: running, heard })
    }

    /// How many a coordinator has welcomed since then.
    pub fn welcomed_since(&self, since: Instant) -> usize {
        let is_since = |heard: &&Arc<Heard>| {
            heard.last.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|last| last > since)
        };
        self.heard.iter().filter(is_since).count()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.heard.len()
    }
}

struct Agent {
    node: NodeId,
    endpoint: NodeEndpoint,
    coordinator: SocketAddr,
    heard: Arc<Heard>,
    term: Term,
    generation: Generation,
}

impl Agent {
    fn new(
        node: NodeId,
        identity: &Identity,
        coordinator: SocketAddr,
        heard: Arc<Heard>,
    ) -> anyhow::Result<Self> {
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = NodeEndpoint::bind(address, identity, &WireLimits::FLEET, &WireLimits::PEER)?;
        Ok(Self { node, endpoint, coordinator, heard, term: Term(0), generation: Generation(0) })
    }

    async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            if let Ok(connection) = self.endpoint.connect_coordinator(self.coordinator).await {
                if self.serve(&connection).await.is_ok() {
                    backoff = Backoff::new();
                }
                connection.close(CloseCode::DONE, "");
            }
            sleep(backoff.next(random())).await;
        }
    }

    /// Serves a connection until it ends; an error if it was not welcome.
    async fn serve(&mut self, connection: &Connection) -> anyhow::Result<()> {
        let identity = self.endpoint.identity();
        let hello = Hello {
            min_version: Version::MIN,
            max_version: Version::MAX,
            node: self.node.clone(),
            cluster: identity.cluster().clone(),
            term: self.term,
            software: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut control = connection.open(&StreamRequest::Control(hello)).await?;
        let answer = timeout(Duration::from_secs(10), control.receive_message::<ToAgent>()).await??;
        let Some(ToAgent::Welcome { heartbeat_ms, .. }) = answer else { bail!("no welcome: {answer:?}") };
        self.heard.welcomes.fetch_add(1, Ordering::Relaxed);
        *self.heard.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let heartbeat = Duration::from_millis(heartbeat_ms.clamp(50, 60_000));
        let (mut sender, mut receiver) = control.split();
        loop {
            if sender.send_message(&ToCoordinator::Report(self.report(&identity))).await.is_err() {
                return Ok(());
            }
            let until = tokio::time::Instant::now() + heartbeat;
            while let Ok(heard) = tokio::time::timeout_at(until, receiver.receive_message::<ToAgent>()).await
            {
                match heard {
                    Ok(Some(ToAgent::Assign(assignment))) => {
                        (self.term, self.generation) = (assignment.term, assignment.generation);
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Ok(()),
                }
            }
        }
    }

    fn report(&self, identity: &Identity) -> Report {
        let here = self.endpoint.local_address();
        Report {
            cluster: identity.cluster().clone(),
            term: self.term,
            generation: self.generation,
            info: NodeInfo {
                capacity: Resources { memory: Bytes(1 << 30), fuel_rate: FuelRate(1_000_000_000) },
                labels: Default::default(),
                ingress: here,
                peer: here,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                resources: Default::default(),
                batch_overcommit: Default::default(),
                clock_unset: false,
                program: None,
            },
            sent: Timestamp(1),
            allocations: Vec::new(),
            items: Vec::new(),
        }
    }
}

/// A number that is another one each time, so that not all dial at the same moment.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};

    RandomState::new().hash_one(0)
}
