//! The way to other nodes' ingresses: one QUIC connection for each, one stream for each request.

mod dial;
#[cfg(test)]
mod tests;
mod way;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dunlin_ingress::{BoxedStream, Ingress, Peers};
use dunlin_model::{Digest, NodeId};
use dunlin_protocol::StreamRequest;
use dunlin_transport::{CloseCode, ConnectError, Connection, FromPeer, NodeEndpoint, Stream};
use futures_util::future::{BoxFuture, Either, FutureExt as _, Shared};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use dial::{Attempt, NotReached, Reached, directly};
use way::{DirectWay, Plan, Way};

use crate::components::Components;

/// For so long a node that said so counts as one that will be back in a moment.
const BACK_TIME: Duration = Duration::from_secs(20);
/// How long a relayed connection is kept on which no request is under way: it costs the coordinator, and links that are paid
/// for by the byte, a packet each second.
const UNUSED_TIME: Duration = Duration::from_secs(60);

/// What those who wait for the same dialing get.
type Dialed = Result<Connection, Arc<NotReached>>;

/// Another node, as far as this one has to do with it.
struct Peer {
    node: NodeId,
    state: Mutex<State>,
    dialing_directly: tokio::sync::Mutex<()>,
    /// A clone of it is held by each request that is under way to the node.
    under_way: Arc<()>,
}

#[derive(Default)]
struct State {
    /// Where it was dialed last.
    address: Option<SocketAddr>,
    /// The last connection, which may have ended.
    last: Option<Last>,
    direct: DirectWay,
    /// Shared by all who wait, so that a burst of requests dials once.
    dialing: Option<Shared<BoxFuture<'static, Dialed>>>,
    /// What tries the direct way while the relayed one is used.
    probing: Option<AbortOnDropHandle<()>>,
    /// When it was last asked for.
    asked: Option<Instant>,
    /// Since when the node is known to start again.
    away_since: Option<Instant>,
}

/// A connection to a node.
struct Last {
    way: Way,
    connection: Connection,
    /// What watches it, if it is a relayed one. It ends with this, so that it does not keep the connection.
    _watch: Option<AbortOnDropHandle<()>>,
}

impl State {
    /// Returns the connection, if it goes on.
    fn current(&self) -> Option<&Last> {
        self.last.as_ref().filter(|last| last.connection.ended().is_none())
    }

    /// Forgets what was known of the way to another address.
    fn turn_to(&mut self, address: SocketAddr, now: Instant) {
        if self.address.replace(address) != Some(address) {
            self.direct.changed(now);
            self.last.take_if(|last| last.way == Way::Direct);
            (self.dialing, self.probing) = (None, None);
        }
    }

    fn is_starting_again(&mut self) -> bool {
        let ended = self.last.as_ref().and_then(|last| last.connection.ended());
        if !ended.is_some_and(|ended| ended.is_closed_with(CloseCode::STARTING_AGAIN)) {
            return false;
        }
        self.away_since.get_or_insert_with(Instant::now).elapsed() < BACK_TIME
    }
}

impl Peer {
    fn new(node: NodeId) -> Arc<Self> {
        Arc::new(Self {
            node,
            state: Mutex::default(),
            dialing_directly: tokio::sync::Mutex::default(),
            under_way: Arc::default(),
        })
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
        let (mut state, now) = (self.state(), Instant::now());
        state.turn_to(address, now);
        state.asked = Some(now);
        if let Some(Last { way, connection, .. }) = state.current() {
            let (way, connection) = (*way, connection.clone());
            if way == Way::Relayed && state.direct.is_due(now) && state.probing.is_none() {
                self.probe(&mut state, address, directly(endpoint, &self.node, address));
            }
            return Either::Left(connection);
        }
        let plan = state.direct.plan(endpoint.has_relay(), now);
        let dialing = state.dialing.get_or_insert_with(|| {
            // It goes on when nobody waits any more: who asks next finds what it has led to.
            let dialing = tokio::spawn(Arc::clone(self).dial(Arc::clone(endpoint), plan, address));
            let broken_off = |_| Err(Arc::new(NotReached::BrokenOff));
            dialing.map(move |dialed| dialed.unwrap_or_else(broken_off)).boxed().shared()
        });
        Either::Right(dialing.clone())
    }

    /// Returns a connection that leads there directly, and dials if there is none.
    async fn direct(
        &self,
        endpoint: &Arc<NodeEndpoint>,
        address: SocketAddr,
    ) -> Result<Connection, ConnectError> {
        // Many ask at once; the first one dials.
        let _turn = self.dialing_directly.lock().await;
        {
            let mut state = self.state();
            state.turn_to(address, Instant::now());
            if let Some(last) = state.current().filter(|last| last.way == Way::Direct) {
                return Ok(last.connection.clone());
            }
        }
        let connection = directly(endpoint, &self.node, address).await?;
        let mut state = self.state();
        if state.address == Some(address) {
            state.direct.worked();
            state.last = Some(Last { way: Way::Direct, connection: connection.clone(), _watch: None });
            state.away_since = None;
        }
        Ok(connection)
    }

    async fn dial(self: Arc<Self>, endpoint: Arc<NodeEndpoint>, plan: Plan, address: SocketAddr) -> Dialed {
        let reached = dial::dial(&endpoint, plan, &self.node, address).await;
        let (mut state, now) = (self.state(), Instant::now());
        let is_meant = state.address == Some(address);
        if is_meant {
            state.dialing = None;
        }
        let Reached { way, connection, slower } = match reached {
            Ok(reached) => reached,
            Err(error) => {
                tracing::debug!(node = %self.node, %error, "peer not reached");
                if is_meant && matches!(error, NotReached::Nowhere { .. }) {
                    state.direct.failed(now);
                }
                return Err(Arc::new(error));
            }
        };
        let has_direct = state.current().is_some_and(|last| last.way == Way::Direct);
        // What was begun before may have led to a better one meanwhile.
        if !is_meant || (has_direct && way == Way::Relayed) {
            return Ok(connection);
        }
        match (way, slower) {
            (Way::Direct, _) => state.direct.worked(),
            (Way::Relayed, Some(direct)) => self.probe(&mut state, address, direct),
            // It has failed, or was not tried since it did.
            (Way::Relayed, None) if plan.first == Way::Direct => state.direct.failed(now),
            (Way::Relayed, None) => {}
        }
        tracing::debug!(node = %self.node, ?way, %address, "peer reached");
        let watching = (way == Way::Relayed).then(|| Arc::clone(&self).watch(endpoint, connection.clone()));
        let watch = watching.map(|watching| AbortOnDropHandle::new(tokio::spawn(watching)));
        state.last = Some(Last { way, connection: connection.clone(), _watch: watch });
        state.away_since = None;
        Ok(connection)
    }

    /// Tries the direct way, and goes over to it if it works by now. Requests under way go on as they are.
    fn probe(self: &Arc<Self>, state: &mut State, address: SocketAddr, direct: Attempt) {
        let peer = Arc::clone(self);
        let probing = async move {
            let reached = direct.await;
            let mut state = peer.state();
            if state.address != Some(address) {
                return;
            }
            state.probing = None;
            match reached {
                Ok(connection) => {
                    tracing::info!(node = %peer.node, %address, "peer is reached directly from now on");
                    state.direct.worked();
                    state.last = Some(Last { way: Way::Direct, connection, _watch: None });
                    state.away_since = None;
                }
                Err(error) => {
                    tracing::debug!(node = %peer.node, %error, "peer is still not reached directly");
                    state.direct.failed(Instant::now());
                }
            }
        };
        state.probing = Some(AbortOnDropHandle::new(tokio::spawn(probing)));
    }

    /// Ends a relayed connection when its other side is gone, since who waits there for an answer would do so for as long as
    /// a relay may be away, and when nobody needs it.
    async fn watch(self: Arc<Self>, endpoint: Arc<NodeEndpoint>, connection: Connection) {
        tokio::select! {
            _ended = connection.closed() => {}
            () = endpoint.is_silent(&connection) => {
                tracing::debug!(node = %self.node, "peer is silent, its relayed connection is ended");
                connection.close(CloseCode::DONE, "the node is silent");
            }
            () = self.is_unused() => connection.close(CloseCode::DONE, "there is nothing to be sent"),
        }
    }

    /// Is over when no request was under way to the node for a while, and none will get the connection that there is.
    async fn is_unused(&self) {
        loop {
            tokio::time::sleep(UNUSED_TIME / 4).await;
            let mut state = self.state();
            let is_asked = state.asked.is_some_and(|asked| asked.elapsed() < UNUSED_TIME);
            if !is_asked && Arc::strong_count(&self.under_way) == 1 {
                // Whoever watches ends with it, and does so at its next rest.
                state.last = None;
                return;
            }
        }
    }
}

/// A request that is under way to another node.
struct UnderWay {
    stream: Stream,
    _counted: Arc<()>,
}

impl AsyncRead for UnderWay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for UnderWay {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
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

    /// Opens a stream to ask a node for something, though not through the coordinator: who is asked in place of it must not be
    /// a burden to it.
    pub(crate) async fn ask(
        &self,
        node: &NodeId,
        address: SocketAddr,
        request: &StreamRequest,
    ) -> anyhow::Result<Stream> {
        let connection = self.peer(node).direct(&self.endpoint, address).await?;
        Ok(connection.open(request).await?)
    }

    fn peer(&self, node: &NodeId) -> Arc<Peer> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(peers.entry(node.clone()).or_insert_with(|| Peer::new(node.clone())))
    }
}

impl Peers for PeerConnections {
    fn open(&self, node: &NodeId, address: SocketAddr) -> BoxFuture<'_, io::Result<BoxedStream>> {
        let peer = self.peer(node);
        let (counted, asked) = (Arc::clone(&peer.under_way), peer.ask(&self.endpoint, address));
        Box::pin(async move {
            let connection = match asked {
                Either::Left(connection) => connection,
                Either::Right(dialing) => dialing.await.map_err(io::Error::other)?,
            };
            let stream = connection.open_raw().await.map_err(io::Error::other)?;
            Ok(Box::new(UnderWay { stream, _counted: counted }) as BoxedStream)
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
    pub(crate) fn start(endpoint: Arc<NodeEndpoint>, ingress: Ingress, components: Arc<Components>) -> Self {
        let requests = TaskTracker::new();
        let desk = Desk { ingress: ingress.clone(), requests: requests.clone(), components };
        tokio::spawn(async move {
            while let Some((node, connection)) = endpoint.accept_peer().await {
                tokio::spawn(serve(node, connection, desk.clone()));
            }
        });
        Self { ingress, requests }
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

/// Those who answer what other nodes ask.
#[derive(Clone)]
struct Desk {
    ingress: Ingress,
    requests: TaskTracker,
    components: Arc<Components>,
}

async fn serve(node: NodeId, connection: Connection, desk: Desk) {
    let key = connection.peer_key_hash().map(Digest::from_sha256);
    tracing::debug!(%node, "peer connected");
    while let Ok(stream) = connection.accept().await {
        if !key.is_some_and(|key| desk.ingress.takes_requests_of(&key)) {
            tracing::warn!(%node, "a node that was revoked wants to send requests");
            connection.close(CloseCode::NOT_A_MEMBER, "this node was revoked");
            break;
        }
        let Desk { ingress, requests, components } = desk.clone();
        requests.spawn(async move {
            match stream.receive_from_peer().await {
                Ok(FromPeer::Http(stream)) => ingress.serve_peer(Box::new(stream)).await,
                // Not one of the requests that are waited for at the end.
                Ok(FromPeer::Request(request, stream)) => {
                    drop(tokio::spawn(async move { components.answer(request, stream).await }));
                }
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "a peer's stream is not understood"
                    );
                }
            }
        });
    }
    tracing::debug!(%node, "peer disconnected");
}
