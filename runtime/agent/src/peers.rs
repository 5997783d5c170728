//! The way to other nodes' ingresses: one QUIC connection for each, one stream for each request.

mod dial;
mod way;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dunlin_ingress::{BoxedStream, Ingress, Peers};
use dunlin_model::{Digest, NodeId};
use dunlin_transport::{CloseCode, ConnectError, Connection, NodeEndpoint};
use futures_util::future::{BoxFuture, Either, FutureExt as _, Shared};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use dial::{Attempt, Reached, attempt};
use way::{DirectWay, Plan, Way};

/// For so long a node that said so counts as one that will be back in a moment.
const BACK_TIME: Duration = Duration::from_secs(20);

/// What those who wait for the same dialing get.
type Dialed = Result<Connection, Arc<ConnectError>>;

/// Another node, as far as this one has to do with it.
struct Peer {
    node: NodeId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where it was dialed last.
    address: Option<SocketAddr>,
    /// The last connection, which may have ended, and by which way.
    last: Option<(Way, Connection)>,
    direct: DirectWay,
    /// Shared by all who wait, so that a burst of requests dials once.
    dialing: Option<Shared<BoxFuture<'static, Dialed>>>,
    /// Whether the direct way is tried while the relayed one is used.
    is_probing: bool,
    /// Since when the node is known to start again.
    away_since: Option<Instant>,
}

impl State {
    /// Returns the connection, if it goes on.
    fn current(&self) -> Option<&(Way, Connection)> {
        self.last.as_ref().filter(|(_, connection)| connection.ended().is_none())
    }

    /// Forgets what was known of the way to another address.
    fn turn_to(&mut self, address: SocketAddr) {
        if self.address.replace(address) != Some(address) {
            self.direct = DirectWay::default();
            self.last.take_if(|(way, _)| *way == Way::Direct);
            self.dialing = None;
        }
    }

    fn is_starting_again(&mut self) -> bool {
        let ended = self.last.as_ref().and_then(|(_, connection)| connection.ended());
        if !ended.is_some_and(|ended| ended.is_closed_with(CloseCode::STARTING_AGAIN)) {
            return false;
        }
        self.away_since.get_or_insert_with(Instant::now).elapsed() < BACK_TIME
    }
}

impl Peer {
    fn new(node: NodeId) -> Arc<Self> {
        Arc::new(Self { node, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the connection, or what will give one.
    fn ask(
        self: &Arc<Self>,
        endpoint: &Arc<NodeEndpoint>,
        address: SocketAddr,
    ) -> Either<Connection, Shared<BoxFuture<'static, Dialed>>> {
        let mut state = self.state();
        state.turn_to(address);
        let now = Instant::now();
        if let Some((way, connection)) = state.current() {
            let (way, connection) = (*way, connection.clone());
            if way == Way::Relayed && state.direct.is_due(now) && !state.is_probing {
                state.is_probing = true;
                let attempt = attempt(endpoint, Way::Direct, &self.node, address);
                tokio::spawn(Arc::clone(self).probe(address, attempt));
            }
            return Either::Left(connection);
        }
        let plan = state.direct.plan(endpoint.has_relay(), now);
        let dialing = state.dialing.get_or_insert_with(|| {
            // It goes on when nobody waits any more: who asks next finds what it has led to.
            let dialing = tokio::spawn(Arc::clone(self).dial(Arc::clone(endpoint), plan, address));
            let no_answer = move |_| Err(Arc::new(ConnectError::Unreachable { address }));
            dialing.map(move |dialed| dialed.unwrap_or_else(no_answer)).boxed().shared()
        });
        Either::Right(dialing.clone())
    }

    async fn dial(self: Arc<Self>, endpoint: Arc<NodeEndpoint>, plan: Plan, address: SocketAddr) -> Dialed {
        let reached = dial::dial(&endpoint, plan, &self.node, address).await;
        let mut state = self.state();
        if state.address == Some(address) {
            state.dialing = None;
        }
        let Reached { way, connection, slower } = reached.map_err(Arc::new)?;
        if state.address != Some(address) {
            return Ok(connection);
        }
        match (way, slower) {
            (Way::Direct, _) => state.direct.worked(),
            (Way::Relayed, Some(slower)) => {
                state.is_probing = true;
                tokio::spawn(Arc::clone(&self).probe(address, slower));
            }
            // It has failed, or was not tried since it did.
            (Way::Relayed, None) if plan.first == Way::Direct => state.direct.failed(Instant::now()),
            (Way::Relayed, None) => {}
        }
        if way == Way::Relayed {
            tokio::spawn(end_when_silent(endpoint, self.node.clone(), connection.clone()));
        }
        tracing::debug!(node = %self.node, ?way, %address, "peer reached");
        state.last = Some((way, connection.clone()));
        state.away_since = None;
        Ok(connection)
    }

    /// Goes over to the direct way if that works by now. Requests under way go on as they are.
    async fn probe(self: Arc<Self>, address: SocketAddr, direct: Attempt) {
        let reached = direct.await;
        let mut state = self.state();
        state.is_probing = false;
        if state.address != Some(address) {
            return;
        }
        match reached {
            Ok(connection) => {
                tracing::info!(node = %self.node, %address, "peer is reached directly from now on");
                state.direct.worked();
                state.last = Some((Way::Direct, connection));
            }
            Err(error) => {
                tracing::debug!(node = %self.node, %error, "peer is still not reached directly");
                state.direct.failed(Instant::now());
            }
        }
    }
}

/// Ends a relayed connection when the node is gone: who waits there for an answer would do so for as long as a relay
/// may be away.
async fn end_when_silent(endpoint: Arc<NodeEndpoint>, node: NodeId, connection: Connection) {
    tokio::select! {
        _ended = connection.closed() => {}
        () = endpoint.is_silent(&node) => {
            tracing::debug!(%node, "peer is not heard any more through the coordinator");
            connection.close(CloseCode::DONE, "the node is silent");
        }
    }
}

/// Connections to other nodes, made when they are needed.
pub(crate) struct PeerConnections {
    endpoint: Arc<NodeEndpoint>,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
}

impl PeerConnections {
    /// Returns no connections yet.
    pub(crate) fn new(endpoint: Arc<NodeEndpoint>) -> Self {
        Self { endpoint, peers: Mutex::default() }
    }

    fn peer(&self, node: &NodeId) -> Arc<Peer> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(peers.entry(node.clone()).or_insert_with(|| Peer::new(node.clone())))
    }
}

impl Peers for PeerConnections {
    fn open(&self, node: &NodeId, address: SocketAddr) -> BoxFuture<'_, io::Result<BoxedStream>> {
        let asked = self.peer(node).ask(&self.endpoint, address);
        Box::pin(async move {
            let connection = match asked {
                Either::Left(connection) => connection,
                Either::Right(dialing) => dialing.await.map_err(io::Error::other)?,
            };
            let stream = connection.open_raw().await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }

    fn is_starting_again(&self, node: &NodeId) -> bool {
        self.peer(node).state().is_starting_again()
    }
}

/// The serving of requests that other nodes send here.
pub(crate) struct Serving {
    ingress: Ingress,
    requests: TaskTracker,
}

impl Serving {
    /// Serves them from now on.
    pub(crate) fn start(endpoint: Arc<NodeEndpoint>, ingress: Ingress) -> Self {
        let serving = Self { ingress, requests: TaskTracker::new() };
        let (ingress, requests) = (serving.ingress.clone(), serving.requests.clone());
        tokio::spawn(async move {
            while let Some((node, connection)) = endpoint.accept_peer().await {
                tokio::spawn(serve(node, connection, ingress.clone(), requests.clone()));
            }
        });
        serving
    }

    /// Takes no more of them, and waits for those under way, though not for long; tells whether none is left.
    pub(crate) async fn finish(&self) -> bool {
        self.ingress.refuse_peers();
        self.requests.close();
        let is_done = timeout(self.ingress.config().drain_timeout, self.requests.wait()).await.is_ok();
        if !is_done {
            tracing::warn!(requests = self.requests.len(), "requests that other nodes sent are cut off");
        }
        is_done
    }
}

async fn serve(node: NodeId, connection: Connection, ingress: Ingress, requests: TaskTracker) {
    let key = connection.peer_key_hash().map(Digest::from_sha256);
    tracing::debug!(%node, "peer connected");
    while let Ok(stream) = connection.accept().await {
        if !key.is_some_and(|key| ingress.takes_requests_of(&key)) {
            tracing::warn!(%node, "a node that was revoked wants to send requests");
            connection.close(CloseCode::NOT_A_MEMBER, "this node was revoked");
            break;
        }
        let ingress = ingress.clone();
        requests.spawn(async move { ingress.serve_peer(Box::new(stream)).await });
    }
    tracing::debug!(%node, "peer disconnected");
}
