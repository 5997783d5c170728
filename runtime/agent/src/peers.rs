//! The way to other nodes' ingresses: one QUIC connection for each, one stream for each request.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_ingress::{BoxedStream, Ingress, Peers};
use dunlin_model::{Digest, NodeId};
use dunlin_transport::{CloseCode, Connection, NodeEndpoint};
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// The connection to one node and the address it was dialed at. The lock is held while dialing, so that a burst of
/// requests dials once and does not hold up requests to other nodes.
type Slot = Arc<tokio::sync::Mutex<Option<(SocketAddr, Connection)>>>;

/// Connections to other nodes, made when they are needed.
pub(crate) struct PeerConnections {
    endpoint: Arc<NodeEndpoint>,
    connections: Mutex<BTreeMap<NodeId, Slot>>,
}

impl PeerConnections {
    /// Returns no connections yet.
    pub(crate) fn new(endpoint: Arc<NodeEndpoint>) -> Self {
        Self { endpoint, connections: Mutex::default() }
    }

    async fn connection(&self, node: &NodeId, address: SocketAddr) -> io::Result<Connection> {
        let slot = {
            let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(connections.entry(node.clone()).or_default())
        };
        let mut slot = slot.lock().await;
        if let Some((at, connection)) = slot.as_ref()
            && *at == address
            && connection.ended().is_none()
        {
            return Ok(connection.clone());
        }
        *slot = None;
        let connection = self.endpoint.connect_peer(address, node).await.map_err(io::Error::other)?;
        *slot = Some((address, connection.clone()));
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

    /// Takes no more of them, and waits for those under way, though not for long.
    pub(crate) async fn finish(&self) {
        self.ingress.refuse_peers();
        self.requests.close();
        if timeout(self.ingress.config().drain_timeout, self.requests.wait()).await.is_err() {
            tracing::warn!(requests = self.requests.len(), "requests that other nodes sent are cut off");
        }
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
