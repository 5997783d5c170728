//! Endpoints: the coordinator's, which is dialed, and the node's, which dials and is dialed.
//!
//! Both have one UDP socket. The identity can be replaced while connections go on; new ones show the new one.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dunlin_model::NodeId;
use dunlin_protocol::{ALPN_FLEET, ALPN_JOIN, ALPN_PEER};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{AsyncUdpSocket, VarInt};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use crate::dial::{DialTls, LastWay, dial, dial_coordinator};
use crate::limits::{CONNECT_TIME, MAX_HALF_OPEN, MAX_WAITING, RETURN_TIME, SILENCE};
use crate::member::COORDINATOR_DNS_NAME;
use crate::relay_port::RelayPort;
use crate::tls::{self, Anonymous, Late, Wanted};
use crate::tunnel::Tunnels;
use crate::{
    CloseCode, Connection, ConnectionEnded, Identity, Member, PeerRefusal, RelayEnded, Role, WireLimits,
    accept,
};

/// Why an endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be had.
    #[error("could not listen on UDP {address}")]
    Address {
        /// Which.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The address cannot be had for TCP.
    #[error("could not listen on TCP {address}")]
    AddressOfTcp {
        /// Which.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The socket that is to be used is none.
    #[error("could not use the given UDP socket")]
    Socket(#[source] std::io::Error),
    /// The identity cannot be used for TLS.
    #[error("could not use the identity for TLS")]
    Tls(#[from] rustls::Error),
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing answers.
    #[error("{address} did not answer within {}s; nobody listens there, or a firewall is in the way", CONNECT_TIME.as_secs())]
    Unreachable {
        /// Where.
        address: SocketAddr,
    },
    /// What answers is not believed.
    #[error("{address} is not whom it should be")]
    WrongPeer {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: PeerRefusal,
    },
    /// What answers does not want this side, or broke off.
    #[error("{address} did not accept the connection")]
    NotAccepted {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: ConnectionEnded,
    },
    /// Nothing answers through the relay.
    #[error("node {node} did not answer through the coordinator within {}s", CONNECT_TIME.as_secs())]
    NotRelayed {
        /// Which node.
        node: NodeId,
    },
    /// The node is not connected to the coordinator either.
    #[error("node {node} is not connected to the coordinator through which it could be reached")]
    Absent {
        /// Which node.
        node: NodeId,
    },
    /// There is nobody who relays.
    #[error("there is no coordinator through which node {node} could be reached")]
    NoRelay {
        /// Which node.
        node: NodeId,
    },
    /// The attempt could not even begin.
    #[error("could not dial {address}: {reason}")]
    Dial {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
}

/// One who dialed the coordinator.
#[derive(Debug)]
pub enum Incoming {
    /// A node of the fleet.
    Fleet(NodeId, Connection),
    /// A node of the fleet whose certificate has ended: it may ask for a new one, and do nothing else.
    Late(NodeId, Connection),
    /// Someone without a name who wants to join.
    Join(Connection),
}

/// The coordinator's endpoint. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    /// The same for nodes that come by TCP.
    tunneled: Option<(Tunnels, Listener)>,
    limits: WireLimits,
}

impl Server {
    /// Listens on `address`, where port 0 takes any that is free. Must be called within a tokio runtime.
    pub fn bind(address: SocketAddr, identity: &Identity, limits: &WireLimits) -> Result<Self, BindError> {
        let config = Self::config(identity, limits)?;
        let listener = Listener::on(bound(address)?, config)?;
        Ok(Self { listener, tunneled: None, limits: limits.clone() })
    }

    /// Takes also those that come by TCP, at the address where it listens, since no UDP comes through.
    ///
    /// # Errors
    ///
    /// The address cannot be had: somebody else listens there.
    pub fn listen_on_tcp(&mut self, identity: &Identity) -> Result<(), BindError> {
        let address = self.local_address();
        let tunnels = Tunnels::listen(address, identity)
            .map_err(|source| BindError::AddressOfTcp { address, source })?;
        let listener = Listener::through(tunnels.port(), Self::config(identity, &self.limits)?)?;
        self.tunneled = Some((tunnels, listener));
        Ok(())
    }

    fn config(identity: &Identity, limits: &WireLimits) -> Result<quinn::ServerConfig, rustls::Error> {
        // One TLS configuration serves both protocols; that a fleet's connection has a certificate is checked
        // before anyone gets to see it.
        Ok(server_config(
            tls::server(identity, &[ALPN_FLEET, ALPN_JOIN], Anonymous::Accepted, Late::Accepted)?,
            limits,
        ))
    }

    /// Returns the next connection, or nothing after [`Server::close`]. May be dropped while it waits.
    pub async fn accept(&self) -> Option<Incoming> {
        let connection = match &self.tunneled {
            None => self.listener.accept().await?,
            Some((_, tunneled)) => tokio::select! {
                connection = self.listener.accept() => connection?,
                connection = tunneled.accept() => connection?.over_tcp(),
            },
        };
        Some(match connection.peer().map(|peer| &peer.role) {
            Some(Role::Node(node)) if connection.peer_is_late() => Incoming::Late(node.clone(), connection),
            Some(Role::Node(node)) => Incoming::Fleet(node.clone(), connection),
            // The TLS of this endpoint knows no other role; who has none came to join.
            Some(Role::Coordinator(_)) | None => Incoming::Join(connection),
        })
    }

    /// Shows another identity from now on.
    pub fn replace_identity(&self, identity: &Identity) -> Result<(), BindError> {
        self.listener.endpoint.set_server_config(Some(Self::config(identity, &self.limits)?));
        if let Some((tunnels, tunneled)) = &self.tunneled {
            tunneled.endpoint.set_server_config(Some(Self::config(identity, &self.limits)?));
            tunnels.replace_identity(identity)?;
        }
        Ok(())
    }

    /// Returns where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.listener.address
    }

    /// Closes all connections and waits a short while until the other sides know.
    pub async fn close(&self, reason: &str) {
        if let Some((_, tunneled)) = &self.tunneled {
            tunneled.close(CloseCode::SHUTTING_DOWN, reason).await;
        }
        self.listener.close(CloseCode::SHUTTING_DOWN, reason).await;
    }
}

/// A node's endpoint: it dials the coordinator and other nodes, and other nodes dial it. Dropping it closes all its
/// connections.
#[derive(Debug)]
pub struct NodeEndpoint {
    listener: Listener,
    /// The same for nodes that are reached through a relay.
    relayed: Listener,
    port: Arc<RelayPort>,
    identity: RwLock<Identity>,
    last_way: std::sync::Mutex<LastWay>,
    fleet: WireLimits,
    peers: WireLimits,
}

impl NodeEndpoint {
    /// Listens on `address`, where port 0 takes any that is free. Must be called within a tokio runtime.
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        fleet: &WireLimits,
        peers: &WireLimits,
    ) -> Result<Self, BindError> {
        Self::on(bound(address)?, identity, fleet, peers)
    }

    /// The same, on a socket that is there already.
    pub fn on(
        socket: UdpSocket,
        identity: &Identity,
        fleet: &WireLimits,
        peers: &WireLimits,
    ) -> Result<Self, BindError> {
        let port = Arc::new(RelayPort::new());
        Ok(Self {
            listener: Listener::on(socket, Self::config(identity, peers)?)?,
            relayed: Listener::through(
                Arc::<RelayPort>::clone(&port),
                Self::config(identity, &WireLimits::RELAYED)?,
            )?,
            port,
            identity: RwLock::new(identity.clone()),
            last_way: Default::default(),
            fleet: fleet.clone(),
            peers: peers.clone(),
        })
    }

    fn config(identity: &Identity, peers: &WireLimits) -> Result<quinn::ServerConfig, rustls::Error> {
        Ok(server_config(tls::server(identity, &[ALPN_PEER], Anonymous::Refused, Late::Refused)?, peers))
    }

    /// Connects to a coordinator of the own fleet, by TCP where UDP does not come through; within ten seconds, or twenty if TCP
    /// is answered. It has accepted this node when this returns.
    pub async fn connect_coordinator(&self, address: SocketAddr) -> Result<Connection, ConnectError> {
        let (endpoint, identity) = (&self.listener.endpoint, self.identity());
        let tls = || Self::tls_to_coordinator(&identity);
        let last = *self.last_way.lock().unwrap_or_else(PoisonError::into_inner);
        let known = (Some(&identity), last);
        let connection = dial_coordinator(endpoint, address, tls, &self.fleet, known).await?;
        let way = if connection.is_over_tcp() { LastWay::Tcp } else { LastWay::Udp };
        *self.last_way.lock().unwrap_or_else(PoisonError::into_inner) = way;
        Ok(connection)
    }

    /// Connects to a coordinator by UDP alone, within ten seconds.
    pub async fn connect_coordinator_by_udp(&self, address: SocketAddr) -> Result<Connection, ConnectError> {
        let tls = Self::tls_to_coordinator(&self.identity());
        let dialing = dial(&self.listener.endpoint, address, COORDINATOR_DNS_NAME, tls, &self.fleet);
        let connection = dialing.await?;
        *self.last_way.lock().unwrap_or_else(PoisonError::into_inner) = LastWay::Udp;
        Ok(connection)
    }

    fn tls_to_coordinator(identity: &Identity) -> DialTls {
        let wanted = Wanted::Coordinator {
            authority: identity.authority().clone(),
            cluster: identity.cluster().clone(),
        };
        tls::client(wanted, Some(identity), ALPN_FLEET)
    }

    /// Connects to exactly this node of the own fleet, within ten seconds. It has accepted this one when this returns.
    pub async fn connect_peer(&self, address: SocketAddr, node: &NodeId) -> Result<Connection, ConnectError> {
        self.connect_by(&self.listener, address, node, &self.peers).await
    }

    /// Tells whether there is somebody through whom other nodes can be reached.
    pub fn has_relay(&self) -> bool {
        self.port.is_open()
    }

    /// Tells whether there is none, or one to which other nodes may still have to connect.
    pub fn has_new_relay(&self) -> bool {
        !self.port.has_relayed_for(RETURN_TIME, Instant::now())
    }

    /// Has the coordinator at the other side of `connection` relay for this node, until one of them ends it.
    pub async fn relay_through(&self, connection: &Connection) -> RelayEnded {
        let begun = || {
            // Those who wait for an answer ask again now, and not when they next would.
            if let Err(error) = self.relayed.endpoint.rebind_abstract(Arc::<RelayPort>::clone(&self.port)) {
                tracing::debug!(%error, "relayed connections are not told of the new way");
            }
        };
        self.port.carry(connection, begun).await
    }

    /// Is over when nothing has come on `connection`, which is a relayed one, for some seconds though there was a relay all
    /// the time. The connection itself waits longer, since a relay is away for a while when a coordinator is; and when it
    /// is back, so is the node, perhaps some seconds later.
    pub async fn is_silent(&self, connection: &Connection) {
        let mut received = connection.datagrams_received();
        let mut silent_since = None;
        loop {
            tokio::time::sleep(SILENCE / 12).await;
            let (now, by_now) = (Instant::now(), connection.datagrams_received());
            if by_now != received || !self.port.has_relayed_for(RETURN_TIME, now) {
                received = by_now;
                silent_since = None;
                continue;
            }
            if now.saturating_duration_since(*silent_since.get_or_insert(now)) >= SILENCE {
                return;
            }
        }
    }

    /// Connects to this node as [`NodeEndpoint::connect_peer`] does, through whoever relays.
    pub async fn connect_relayed(&self, node: &NodeId) -> Result<Connection, ConnectError> {
        let no_relay = || ConnectError::NoRelay { node: node.clone() };
        let address = self.port.address_of(node).filter(|_| self.has_relay()).ok_or_else(no_relay)?;
        let absent = self.port.absence(node);
        tokio::select! {
            connected = self.connect_by(&self.relayed, address, node, &WireLimits::RELAYED) => {
                connected.map_err(|error| match error {
                    ConnectError::Unreachable { .. } => ConnectError::NotRelayed { node: node.clone() },
                    error => error,
                })
            }
            () = absent => Err(ConnectError::Absent { node: node.clone() }),
        }
    }

    async fn connect_by(
        &self,
        listener: &Listener,
        address: SocketAddr,
        node: &NodeId,
        limits: &WireLimits,
    ) -> Result<Connection, ConnectError> {
        let identity = self.identity();
        let member = Member { cluster: identity.cluster().clone(), role: Role::Node(node.clone()) };
        let name = member.dns_name();
        let wanted = Wanted::Member { authority: identity.authority().clone(), member };
        let tls = tls::client(wanted, Some(&identity), ALPN_PEER);
        dial(&listener.endpoint, address, &name, tls, limits).await
    }

    /// Returns the next connection from another node, or nothing after [`NodeEndpoint::close`]. May be dropped while
    /// it waits.
    pub async fn accept_peer(&self) -> Option<(NodeId, Connection)> {
        loop {
            let connection = tokio::select! {
                connection = self.listener.accept() => connection,
                connection = self.relayed.accept() => connection,
            }?;
            if let Some(Role::Node(node)) = connection.peer().map(|peer| &peer.role) {
                return Some((node.clone(), connection));
            }
        }
    }

    /// Shows another identity from now on.
    pub fn replace_identity(&self, identity: &Identity) -> Result<(), BindError> {
        self.listener.endpoint.set_server_config(Some(Self::config(identity, &self.peers)?));
        self.relayed.endpoint.set_server_config(Some(Self::config(identity, &WireLimits::RELAYED)?));
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity.clone();
        Ok(())
    }

    /// Returns where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.listener.address
    }

    /// Closes all connections and waits a short while until the other sides know.
    pub async fn close(&self, code: CloseCode, reason: &str) {
        // First those who hear of it by a connection of the others.
        self.relayed.close(code, reason).await;
        self.listener.close(code, reason).await;
    }

    /// Returns the identity that it shows.
    pub fn identity(&self) -> Identity {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn server_config(tls: QuicServerConfig, limits: &WireLimits) -> quinn::ServerConfig {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(limits.transport())
        .max_incoming(MAX_HALF_OPEN)
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(8 << 20);
    config
}

fn bound(address: SocketAddr) -> Result<UdpSocket, BindError> {
    UdpSocket::bind(address).map_err(|source| BindError::Address { address, source })
}

/// A socket, and the task that takes connections from it.
#[derive(Debug)]
struct Listener {
    endpoint: quinn::Endpoint,
    address: SocketAddr,
    accepted: Mutex<mpsc::Receiver<Connection>>,
    task: JoinHandle<()>,
}

impl Listener {
    fn on(socket: UdpSocket, config: quinn::ServerConfig) -> Result<Self, BindError> {
        let address = socket.local_addr().map_err(BindError::Socket)?;
        let failed = |source| BindError::Address { address, source };
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(config), socket, runtime)
            .map_err(failed)?;
        Ok(Self::of(endpoint, address))
    }

    /// Takes connections that come by what is a socket to QUIC alone.
    fn through(socket: Arc<impl AsyncUdpSocket>, config: quinn::ServerConfig) -> Result<Self, BindError> {
        let address = socket.local_addr().map_err(BindError::Socket)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint_config = quinn::EndpointConfig::default();
        let endpoint =
            quinn::Endpoint::new_with_abstract_socket(endpoint_config, Some(config), socket, runtime)
                .map_err(BindError::Socket)?;
        Ok(Self::of(endpoint, address))
    }

    fn of(endpoint: quinn::Endpoint, address: SocketAddr) -> Self {
        let (deliver, accepted) = mpsc::channel(MAX_WAITING);
        let task = tokio::spawn(accept::accept(endpoint.clone(), deliver));
        Self { endpoint, address, accepted: Mutex::new(accepted), task }
    }

    async fn accept(&self) -> Option<Connection> {
        self.accepted.lock().await.recv().await
    }

    async fn close(&self, code: CloseCode, reason: &str) {
        self.endpoint.close(VarInt::from_u32(code.0), reason.as_bytes());
        // A side that is gone would be waited for until its time is up; nobody needs that.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
        self.endpoint.close(VarInt::from_u32(CloseCode::SHUTTING_DOWN.0), b"");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::SystemTime;

    use super::*;
    use crate::Authority;

    #[tokio::test]
    async fn a_fleet_connection_without_a_certificate_is_refused() {
        let authority = Authority::create(&"c4".parse().unwrap(), SystemTime::now()).unwrap();
        let role = Role::Coordinator("main".parse().unwrap());
        let lifetime = Authority::COORDINATOR_LIFETIME;
        let identity = Identity::issue(&authority, &role, SystemTime::now(), lifetime).unwrap();
        let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let server = Server::bind(loopback, &identity, &WireLimits::FLEET).unwrap();
        let client = quinn::Endpoint::client(loopback).unwrap();
        let cluster = authority.cluster().clone();
        let wanted = Wanted::Coordinator { authority: authority.certificate().clone(), cluster };
        let tls = tls::client(wanted, None, ALPN_FLEET);
        let dialing = dial(&client, server.local_address(), COORDINATOR_DNS_NAME, tls, &WireLimits::FLEET);
        let error = tokio::time::timeout(Duration::from_secs(20), dialing).await.unwrap().unwrap_err();
        let ConnectError::NotAccepted { source, .. } = error else { panic!("{error:?}") };
        let reason = "a certificate is required".to_owned();
        assert_eq!(
            source,
            ConnectionEnded::Closed { code: CloseCode::CERTIFICATE_REQUIRED.0.into(), reason }
        );
    }
}
