//! The way to other nodes' ingresses: one QUIC connection for each, one stream for each request.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dunlin_ingress::{BoxedStream, Ingress, Peers};
use dunlin_model::{Digest, NodeId};
use dunlin_transport::{CloseCode, Connection, NodeEndpoint};
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// For so long a node that said so counts as one that will be back in a moment.
const BACK_TIME: Duration = Duration::from_secs(20);

/// The way to one node.
#[derive(Default)]
struct Way {
    /// Held while dialing, so that a burst of requests dials once and does not hold up requests to other nodes.
    dialing: tokio::sync::Mutex<()>,
    last: Mutex<Last>,
}

/// The last connection to a node.
#[derive(Default)]
struct Last {
    /// At which address it was dialed, and the connection, which may have ended.
    connection: Option<(SocketAddr, Connection)>,
    /// Since when the node is known to start again.
    away_since: Option<Instant>,
}

impl Last {
    fn current(&self, address: SocketAddr) -> Option<Connection> {
        let (at, connection) = self.connection.as_ref()?;
        (*at == address && connection.ended().is_none()).then(|| connection.clone())
    }

    fn is_starting_again(&mut self) -> bool {
        let ended = self.connection.as_ref().and_then(|(_, connection)| connection.ended());
        if !ended.is_some_and(|ended| ended.is_closed_with(CloseCode::STARTING_AGAIN)) {
            return false;
        }
        self.away_since.get_or_insert_with(Instant::now).elapsed() < BACK_TIME
    }
}

/// Connections to other nodes, made when they are needed.
pub(crate) struct PeerConnections {
    endpoint: Arc<NodeEndpoint>,
    ways: Mutex<BTreeMap<NodeId, Arc<Way>>>,
}

impl PeerConnections {
    /// Returns no connections yet.
    pub(crate) fn new(endpoint: Arc<NodeEndpoint>) -> Self {
        Self { endpoint, ways: Mutex::default() }
    }

    fn way(&self, node: &NodeId) -> Arc<Way> {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(ways.entry(node.clone()).or_default())
    }

    async fn connection(&self, node: &NodeId, address: SocketAddr) -> io::Result<Connection> {
        let way = self.way(node);
        let last = || way.last.lock().unwrap_or_else(PoisonError::into_inner);
        let _dialing = way.dialing.lock().await;
        if let Some(connection) = last().current(address) {
            return Ok(connection);
        }
        let connection = self.endpoint.connect_peer(address, node).await.map_err(io::Error::other)?;
        *last() = Last { connection: Some((address, connection.clone())), away_since: None };
        Ok(connection)
    }
}

impl Peers for PeerConnections {
    fn open(&self, node: &NodeId, address: SocketAddr) -> BoxFuture<'_, io::Result<BoxedStream>> {
        let node = node.clone();
        Box::pin(async move {
            let connection = self.connection(&node, address).await?;
            let stream = connection.open_raw().await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }

    fn is_starting_again(&self, node: &NodeId) -> bool {
        self.way(node).last.lock().unwrap_or_else(PoisonError::into_inner).is_starting_again()
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
