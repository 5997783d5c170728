//! QUIC over TCP, for networks that let no UDP through: each packet is sent as its length (two bytes, big-endian) and its
//! bytes, in TLS, since some networks let nothing else through either.
//!
//! That TLS proves nothing. The QUIC in it is proven and encrypted from end to end as it is over UDP, so whoever is in the
//! middle can lose its packets, and neither read nor forge them; the dialing side believes any certificate, also that of a
//! firewall that looks into TLS. To QUIC a tunnel is a UDP socket on which the other side has the address of its TCP
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
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use crate::limits::{HANDSHAKE_TIME, MAX_TUNNELS, TUNNEL_SILENCE};
use crate::packets::{AlwaysWritable, Arrivals, Arrive};
use crate::{Backoff, Identity, tls};

/// The most packets that wait to leave by one tunnel.
const MAX_WAITING: usize = 256;
/// The most bytes of packets that are written at once.
const BATCH: usize = 32 << 10;
/// How much is read at once.
const READ_AHEAD: usize = 16 << 10;
/// How long to wait when a connection could not be accepted: most often there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
pub(crate) async fn open(address: SocketAddr) -> io::Result<quinn::Endpoint> {
    let stream = connect(address).await?;
    let port = TunnelPort::new(stream.get_ref().0.local_addr()?);
    let (exit, waiting) = mpsc::channel(MAX_WAITING);
    port.exits.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address, exit);
    let arrive = port.arrivals.arrive().clone();
    let config = quinn::EndpointConfig::default();
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = quinn::Endpoint::new_with_abstract_socket(config, None, Arc::new(port), runtime)?;
    tokio::spawn(keep(stream, address, arrive, waiting));
    Ok(endpoint)
}

async fn connect(address: SocketAddr) -> io::Result<client::TlsStream<TcpStream>> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let config = tls::tunnel_client().map_err(io::Error::other)?;
        TlsConnector::from(config).connect(ServerName::IpAddress(address.ip().into()), stream).await
    };
    timeout(HANDSHAKE_TIME, connecting).await.map_err(|_late| io::ErrorKind::TimedOut)?
}

/// Carries the packets of a dialing side until nobody has any more, over one TCP connection after the other.
async fn keep(
    mut stream: client::TlsStream<TcpStream>,
    address: SocketAddr,
    arrive: Arrive,
    mut waiting: mpsc::Receiver<Vec<u8>>,
) {
    loop {
        let ended = carry(stream, address, &arrive, &mut waiting).await;
        let Err(error) = ended else { return };
        tracing::debug!(%address, %error, "tunnel broke");
        let again = async {
            let mut backoff = Backoff::new();
            loop {
                match connect(address).await {
                    Ok(stream) => return stream,
                    Err(error) => tracing::debug!(%address, %error, "no tunnel"),
                }
                let mut random = [0; 8];
                // Without randomness the waits are only less well spread.
                let _ = getrandom::fill(&mut random);
                sleep(backoff.next(u64::from_le_bytes(random))).await;
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
    while let Some(first) = waiting.recv().await {
        batch.extend(first);
        while batch.len() < BATCH
            && let Ok(next) = waiting.try_recv()
        {
            batch.extend(next);
        }
        writer.write_all(&batch).await?;
        writer.flush().await?;
        batch.clear();
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
            arrive.take(from, packet);
            bytes.advance(2 + length);
        }
    }
}

/// Takes tunnels of whoever dials.
#[derive(Debug)]
pub(crate) struct Tunnels {
    port: Arc<TunnelPort>,
    acceptor: Arc<RwLock<Arc<rustls::ServerConfig>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Tunnels {
    /// Takes tunnels at `address`. Must be called within a tokio runtime.
    pub(crate) fn listen(address: SocketAddr, identity: &Identity) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let config = tls::tunnel_server(identity).map_err(io::Error::other)?;
        let port = Arc::new(TunnelPort::new(listener.local_addr()?));
        let acceptor = Arc::new(RwLock::new(config));
        let task = tokio::spawn(take(listener, Arc::clone(&port), Arc::clone(&acceptor)));
        Ok(Self { port, acceptor, task })
    }

    /// Returns what is a UDP socket to QUIC.
    pub(crate) fn port(&self) -> Arc<TunnelPort> {
        Arc::clone(&self.port)
    }

    /// Shows another identity from now on.
    pub(crate) fn replace_identity(&self, identity: &Identity) -> Result<(), rustls::Error> {
        let config = tls::tunnel_server(identity)?;
        *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(
    listener: TcpListener,
    port: Arc<TunnelPort>,
    acceptor: Arc<RwLock<Arc<rustls::ServerConfig>>>,
) {
    let places = Arc::new(Semaphore::new(MAX_TUNNELS));
    // They end with this.
    let mut tunnels = JoinSet::new();
    // Nobody closes the semaphore.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while tunnels.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept a tunnel");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let config = Arc::clone(&acceptor.read().unwrap_or_else(PoisonError::into_inner));
        let port = Arc::clone(&port);
        tunnels.spawn(async move {
            if let Err(error) = serve(stream, from, &port, config).await {
                tracing::debug!(%from, %error, "tunnel ended");
            }
            drop(place);
        });
    }
}

async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    port: &TunnelPort,
    config: Arc<rustls::ServerConfig>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let opening = TlsAcceptor::from(config).accept(stream);
    let stream = timeout(HANDSHAKE_TIME, opening).await.map_err(|_late| io::ErrorKind::TimedOut)??;
    let (exit, mut waiting) = mpsc::channel(MAX_WAITING);
    let _open = Open::new(&port.exits, from, exit);
    carry(stream, from, port.arrivals.arrive(), &mut waiting).await
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
