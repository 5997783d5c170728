//! QUIC over TCP, for networks that let no UDP through: each packet is sent as its length (two bytes, big-endian) and its
//! bytes, in TLS, since some networks let nothing else through either.
//!
//! The QUIC in it is proven and encrypted from end to end as it is over UDP, so whoever is in the middle can lose its
//! packets, and neither read nor forge them; the dialing side believes any certificate, also that of a firewall that looks
//! into TLS. It shows its own, by which it gets a tunnel that lasts: those of strangers are few and short.
//!
//! To QUIC a tunnel is a UDP socket on which the other side has the address of its TCP
//! connection. When the TCP connection breaks the dialing side makes another one, which to QUIC is a side that has moved.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use dunlin_protocol::MAX_PACKET;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use crate::limits::{HANDSHAKE_TIME, MAX_HALF_OPEN, TUNNEL_SILENCE};
use crate::packets::{AlwaysWritable, Arrivals, Arrive, BATCH, MAX_WAITING, next_batch};
use crate::{Backoff, Identity, Member, tls};

/// How much is read at once.
const READ_AHEAD: usize = 16 << 10;
/// How long to wait when a connection could not be accepted: most often there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// A tunnel that has lasted for so long was a good one.
const STABLE: Duration = Duration::from_secs(5);
/// The most tunnels of those who show no certificate of a node: who joins, and nodes behind who looks into TLS,
const MAX_STRANGERS: usize = 64;
/// and for how long each of them may have one.
const STRANGERS_TIME: Duration = Duration::from_secs(60);
/// The most tunnels of one node.
const MAX_OF_NODE: u32 = 8;

/// An end of tunnels.
#[derive(Debug)]
pub(crate) struct TunnelPort {
    local: SocketAddr,
    exits: Exits,
    arrivals: Arrivals,
}

/// Where packets leave, by the address of the other side.
#[derive(Debug, Default)]
struct Exits(Mutex<BTreeMap<SocketAddr, mpsc::Sender<Vec<u8>>>>);

impl TunnelPort {
    fn new(local: SocketAddr) -> Self {
        Self { local, exits: Exits::default(), arrivals: Arrivals::new() }
    }
}

impl AsyncUdpSocket for TunnelPort {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let exits = self.exits.0.lock().unwrap_or_else(PoisonError::into_inner);
        let length = u16::try_from(transmit.contents.len()).ok();
        if let (Some(exit), Some(length)) = (exits.get(&transmit.destination), length) {
            let mut bytes = Vec::with_capacity(2 + transmit.contents.len());
            bytes.extend(length.to_be_bytes());
            bytes.extend(transmit.contents);
            let _lost_if_full = exit.try_send(bytes);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.arrivals.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        // TCP cuts its bytes where it likes and nobody notices, so packets may be as long as they like up to their limit.
        false
    }
}

/// Opens a tunnel to whoever listens for tunnels at `address`, and returns an endpoint that dials through it. The tunnel
/// lasts as long as the endpoint or one of its connections does.
pub(crate) async fn open(address: SocketAddr, identity: Option<Identity>) -> io::Result<quinn::Endpoint> {
    let stream = connect(address, identity.as_ref()).await?;
    let port = TunnelPort::new(stream.get_ref().0.local_addr()?);
    let (exit, waiting) = mpsc::channel(MAX_WAITING);
    port.exits.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address, exit);
    let arrive = port.arrivals.arrive().clone();
    let config = quinn::EndpointConfig::default();
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = quinn::Endpoint::new_with_abstract_socket(config, None, Arc::new(port), runtime)?;
    tokio::spawn(keep(stream, (address, identity), arrive, waiting));
    Ok(endpoint)
}

async fn connect(
    address: SocketAddr,
    identity: Option<&Identity>,
) -> io::Result<client::TlsStream<TcpStream>> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let config = tls::tunnel_client(identity).map_err(io::Error::other)?;
        TlsConnector::from(config).connect(ServerName::IpAddress(address.ip().into()), stream).await
    };
    timeout(HANDSHAKE_TIME, connecting).await.map_err(|_late| io::ErrorKind::TimedOut)?
}

/// Carries the packets of a dialing side until nobody has any more, over one TCP connection after the other.
async fn keep(
    mut stream: client::TlsStream<TcpStream>,
    (address, identity): (SocketAddr, Option<Identity>),
    arrive: Arrive,
    mut waiting: mpsc::Receiver<Vec<u8>>,
) {
    let mut backoff = Backoff::new();
    loop {
        let opened = Instant::now();
        let Err(error) = carry(stream, address, &arrive, &mut waiting).await else { return };
        tracing::debug!(%address, %error, "tunnel broke");
        if opened.elapsed() > STABLE {
            backoff = Backoff::new();
        }
        let again = async {
            loop {
                let mut random = [0; 8];
                // Without randomness the waits are only less well spread.
                let _ = getrandom::fill(&mut random);
                sleep(backoff.next(u64::from_le_bytes(random))).await;
                match connect(address, identity.as_ref()).await {
                    Ok(stream) => return stream,
                    Err(error) => tracing::debug!(%address, %error, "no tunnel"),
                }
            }
        };
        // What leaves meanwhile is lost, as on any way that is cut.
        let lose = async { while waiting.recv().await.is_some() {} };
        stream = tokio::select! {
            stream = again => stream,
            () = lose => return,
        };
    }
}

/// Carries packets over one connection until it ends, or until there is nobody who sends any.
async fn carry(
    stream: impl AsyncRead + AsyncWrite,
    other: SocketAddr,
    arrive: &Arrive,
    waiting: &mut mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let (reader, writer) = tokio::io::split(stream);
    tokio::select! {
        sent = send(writer, waiting) => sent,
        received = receive(reader, other, arrive) => received.and(Err(io::ErrorKind::UnexpectedEof.into())),
    }
}

async fn send(mut writer: impl AsyncWrite + Unpin, waiting: &mut mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    while next_batch(waiting, &mut batch).await {
        writer.write_all(&batch).await?;
        writer.flush().await?;
    }
    Ok(())
}

/// Takes packets until the other side has no more, or breaks the rules.
async fn receive(mut reader: impl AsyncRead + Unpin, from: SocketAddr, arrive: &Arrive) -> io::Result<()> {
    let mut bytes = BytesMut::with_capacity(READ_AHEAD);
    loop {
        bytes.reserve(READ_AHEAD);
        // QUIC says something every few seconds.
        let read = timeout(TUNNEL_SILENCE, reader.read_buf(&mut bytes));
        if read.await.map_err(|_late| io::ErrorKind::TimedOut)?? == 0 {
            return Ok(());
        }
        while let Some(length) = bytes.first_chunk().map(|head| usize::from(u16::from_be_bytes(*head))) {
            if length > MAX_PACKET {
                let reason = format!("a packet may have {MAX_PACKET} bytes, and one has {length}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            let Some(packet) = bytes.get(2..2 + length) else { break };
            // Whoever sends waits, as TCP has it; what others send comes in between.
            arrive.bring(from, packet).await;
            bytes.advance(2 + length);
        }
    }
}

/// What is shown to those who dial, and by whom it is known who they are.
#[derive(Clone, Debug)]
struct Shown {
    config: Arc<rustls::ServerConfig>,
    identity: Identity,
}

impl Shown {
    fn new(identity: &Identity) -> Result<Self, rustls::Error> {
        Ok(Self { config: tls::tunnel_server(identity)?, identity: identity.clone() })
    }

    /// Returns who has shown this certificate, whose key he has; nobody if it is not one of this fleet.
    fn member(&self, certificate: &CertificateDer<'_>) -> Option<Member> {
        let member = tls::verify_leaf(certificate, self.identity.authority(), UnixTime::now()).ok()?;
        (member.cluster == *self.identity.cluster()).then_some(member)
    }
}

/// Takes tunnels of whoever dials.
#[derive(Debug)]
pub(crate) struct Tunnels {
    port: Arc<TunnelPort>,
    acceptor: Arc<RwLock<Shown>>,
    task: tokio::task::JoinHandle<()>,
}

impl Tunnels {
    /// Takes tunnels at `address`. Must be called within a tokio runtime.
    pub(crate) fn listen(address: SocketAddr, identity: &Identity) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let shown = Shown::new(identity).map_err(io::Error::other)?;
        let port = Arc::new(TunnelPort::new(listener.local_addr()?));
        let acceptor = Arc::new(RwLock::new(shown));
        let task = tokio::spawn(take(listener, Arc::clone(&port), Arc::clone(&acceptor)));
        Ok(Self { port, acceptor, task })
    }

    /// Returns what is a UDP socket to QUIC.
    pub(crate) fn port(&self) -> Arc<TunnelPort> {
        Arc::clone(&self.port)
    }

    /// Shows another identity from now on.
    pub(crate) fn replace_identity(&self, identity: &Identity) -> Result<(), rustls::Error> {
        let shown = Shown::new(identity)?;
        *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(())
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(listener: TcpListener, port: Arc<TunnelPort>, acceptor: Arc<RwLock<Shown>>) {
    let places = Arc::new(Places::new());
    // They end with this.
    let mut tunnels = JoinSet::new();
    loop {
        while tunnels.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept a tunnel");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Who is too much is not kept waiting.
        let Ok(place) = Arc::clone(&places.half_open).try_acquire_owned() else { continue };
        let shown = acceptor.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (port, places) = (Arc::clone(&port), Arc::clone(&places));
        tunnels.spawn(async move {
            if let Err(error) = serve((stream, from), &port, (&places, place), shown).await {
                tracing::debug!(%from, %error, "tunnel ended");
            }
        });
    }
}

/// How many tunnels there may be at the same time.
struct Places {
    half_open: Arc<Semaphore>,
    strangers: Semaphore,
    of_nodes: Mutex<BTreeMap<String, u32>>,
}

impl Places {
    fn new() -> Self {
        Self {
            half_open: Arc::new(Semaphore::new(MAX_HALF_OPEN)),
            strangers: Semaphore::new(MAX_STRANGERS),
            of_nodes: Mutex::default(),
        }
    }

    fn of_node(&self, node: &Member) -> io::Result<PlaceOfNode<'_>> {
        let node = node.to_string();
        let mut of_nodes = self.of_nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of_nodes.entry(node.clone()).or_default();
        if *count >= MAX_OF_NODE {
            return Err(io::Error::other(format!("{node} has {count} tunnels")));
        }
        *count += 1;
        Ok(PlaceOfNode { places: self, node })
    }
}

/// One of the tunnels of a node, for as long as it exists.
struct PlaceOfNode<'a> {
    places: &'a Places,
    node: String,
}

impl Drop for PlaceOfNode<'_> {
    fn drop(&mut self) {
        let mut of_nodes = self.places.of_nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_nodes.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                of_nodes.remove(&self.node);
            }
        }
    }
}

async fn serve(
    (stream, from): (TcpStream, SocketAddr),
    port: &TunnelPort,
    (places, half_open): (&Places, OwnedSemaphorePermit),
    shown: Shown,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let opening = TlsAcceptor::from(Arc::clone(&shown.config)).accept(stream);
    let stream = timeout(HANDSHAKE_TIME, opening).await.map_err(|_late| io::ErrorKind::TimedOut)??;
    drop(half_open);
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let node = certificate.and_then(|certificate| shown.member(certificate));
    let (exit, mut waiting) = mpsc::channel(MAX_WAITING);
    let carrying = async {
        let _open = Open::new(&port.exits, from, exit);
        carry(stream, from, port.arrivals.arrive(), &mut waiting).await
    };
    if let Some(node) = node {
        let _place = places.of_node(&node)?;
        return carrying.await;
    }
    let _place = places.strangers.try_acquire().map_err(|_| io::Error::other("too many strangers"))?;
    timeout(STRANGERS_TIME, carrying).await.map_err(|_late| io::ErrorKind::TimedOut)?
}

/// Takes an exit away when its tunnel ends, unless a later one has taken its place.
struct Open<'a> {
    exits: &'a Exits,
    address: SocketAddr,
    exit: mpsc::WeakSender<Vec<u8>>,
}

impl<'a> Open<'a> {
    fn new(exits: &'a Exits, address: SocketAddr, exit: mpsc::Sender<Vec<u8>>) -> Self {
        let weak = exit.downgrade();
        exits.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address, exit);
        Self { exits, address, exit: weak }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut exits = self.exits.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_own =
            |known: &mpsc::Sender<Vec<u8>>| self.exit.upgrade().is_some_and(|own| own.same_channel(known));
        if exits.get(&self.address).is_some_and(is_own) {
            exits.remove(&self.address);
        }
    }
}
