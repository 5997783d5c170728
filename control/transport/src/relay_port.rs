//! A node's end of the ways that go through a relay: to QUIC it is a UDP socket.
//!
//! Each other node has an address here that nobody else knows. While there is no relay, and where more is sent than
//! it takes, packets are lost, as they may be on the way of any UDP socket.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dunlin_model::NodeId;
use dunlin_protocol::{Relayed, StreamReply, StreamRequest};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use crate::Connection;
use crate::packets::{AlwaysWritable, Arrivals, MAX_ARRIVED, MAX_WAITING};
use crate::relay::{ABSENT, RelayEnded, pump};

/// The most nodes that have an address here, far above what a fleet can have. Packets of others are lost.
const MAX_NODES: usize = 1 << 17;
/// How long whoever relays may be silent and is still believed to be there: it acknowledges what is sent, which is
/// something each second as long as a relayed connection waits for an answer.
const ANSWERS: Duration = Duration::from_millis(1500);
/// The port of all addresses here, which means nothing.
const PORT: u16 = 1;

/// A node's end of the ways through a relay.
#[derive(Debug)]
pub(crate) struct RelayPort {
    addresses: Mutex<Addresses>,
    /// Where packets leave, while there is a relay.
    exit: Mutex<Option<Exit>>,
    alive: Mutex<Alive>,
    arrivals: Arrivals,
    /// Of which nodes the relay says that they are not there.
    absent: broadcast::Sender<NodeId>,
}

/// Where packets leave.
#[derive(Debug)]
struct Exit {
    packets: mpsc::Sender<Vec<u8>>,
    opened: Instant,
    /// The connection to whoever relays.
    connection: Connection,
}

/// When something came from whoever relays last, whatever it was.
#[derive(Debug, Default)]
struct Alive {
    received: u64,
    at: Option<Instant>,
}

/// Which address is which node's. They are given one after the other and never again.
#[derive(Debug, Default)]
struct Addresses {
    by_node: BTreeMap<NodeId, u32>,
    nodes: Vec<NodeId>,
}

impl Addresses {
    fn of(&mut self, node: &NodeId) -> Option<SocketAddr> {
        if let Some(number) = self.by_node.get(node) {
            return Some(address(*number));
        }
        if self.nodes.len() == MAX_NODES {
            return None;
        }
        let number = u32::try_from(self.nodes.len()).ok()?;
        self.by_node.insert(node.clone(), number);
        self.nodes.push(node.clone());
        Some(address(number))
    }

    fn node(&self, address: SocketAddr) -> Option<&NodeId> {
        let SocketAddr::V6(address) = address else { return None };
        let [.., high, low] = address.ip().segments();
        self.nodes.get((usize::from(high) << 16) | usize::from(low))
    }
}

/// Returns an address of the range that is kept for private use, which never leaves this process.
fn address(number: u32) -> SocketAddr {
    let [one, two, three, four] = number.to_be_bytes();
    let halves = [u16::from_be_bytes([one, two]), u16::from_be_bytes([three, four])];
    SocketAddr::new(Ipv6Addr::new(0xfd64, 0x756e, 0x6c69, 0x6e, 0, 0, halves[0], halves[1]).into(), PORT)
}

impl RelayPort {
    pub(crate) fn new() -> Self {
        let (absent, _) = broadcast::channel(MAX_ARRIVED);
        Self {
            addresses: Mutex::default(),
            exit: Mutex::default(),
            alive: Mutex::default(),
            arrivals: Arrivals::new(),
            absent,
        }
    }

    /// Returns the address that `node` has here; none if there are too many.
    pub(crate) fn address_of(&self, node: &NodeId) -> Option<SocketAddr> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).of(node)
    }

    /// Tells whether there is a relay at the moment.
    pub(crate) fn is_open(&self) -> bool {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Is over when the relay says, after this was called, that `node` is not there.
    pub(crate) fn absence(&self, node: &NodeId) -> impl Future<Output = ()> + use<> {
        let (mut absent, node) = (self.absent.subscribe(), node.clone());
        async move {
            loop {
                match absent.recv().await {
                    Ok(other) if other == node => return,
                    // It says so again at the next packet, so one that was missed does no harm.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    // Without the port there are no connections.
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }

    /// Tells whether packets have been relayed for this time, and whoever relays has answered a moment ago.
    pub(crate) fn has_relayed_for(&self, time: Duration, now: Instant) -> bool {
        let exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Exit { opened, connection, .. }) = &*exit else { return false };
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        let received = connection.datagrams_received();
        if alive.received != received {
            *alive = Alive { received, at: Some(now) };
        }
        let is_alive = alive.at.is_some_and(|at| now.saturating_duration_since(at) < ANSWERS);
        is_alive && now.saturating_duration_since(*opened) >= time
    }

    /// Has the other side of `connection` relay until one of them ends it; calls `begun` when it does.
    pub(crate) async fn carry(&self, connection: &Connection, begun: impl FnOnce()) -> RelayEnded {
        let mut stream = match connection.open(&StreamRequest::Relay).await {
            Ok(stream) => stream,
            Err(error) => return error.into(),
        };
        match stream.receive_message::<StreamReply>().await {
            Ok(Some(StreamReply::Ok { .. })) => {}
            Ok(Some(StreamReply::Error { message })) => return RelayEnded::Refused { message },
            Ok(None) => return RelayEnded::Finished,
            Err(error) => return error.into(),
        }
        let (exit, mut waiting) = mpsc::channel(MAX_WAITING);
        let _open = self.open(exit, connection);
        begun();
        pump(stream, &mut waiting, |from, packet| self.take(from, packet)).await
    }

    fn open(&self, packets: mpsc::Sender<Vec<u8>>, connection: &Connection) -> Open<'_> {
        let sender = packets.clone();
        let exit = Exit { packets, opened: Instant::now(), connection: connection.clone() };
        *self.exit.lock().unwrap_or_else(PoisonError::into_inner) = Some(exit);
        Open { port: self, sender }
    }

    fn take(&self, from: &NodeId, packet: &[u8]) {
        if packet == ABSENT {
            let _nobody_dials_it = self.absent.send(from.clone());
        } else if let Some(from) = self.address_of(from) {
            self.arrivals.arrive().take(from, packet);
        }
    }
}

/// Closes the port when the stream to the relay ends, unless a later one has taken its place.
struct Open<'a> {
    port: &'a RelayPort,
    sender: mpsc::Sender<Vec<u8>>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut exit = self.port.exit.lock().unwrap_or_else(PoisonError::into_inner);
        if exit.as_ref().is_some_and(|exit| exit.packets.same_channel(&self.sender)) {
            *exit = None;
        }
    }
}

impl AsyncUdpSocket for RelayPort {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(node) = addresses.node(transmit.destination) else { return Ok(()) };
        let exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        // Packets are as long as this port lets them be, so each fits.
        if let (Some(exit), Ok(bytes)) = (&*exit, Relayed::encode(node, transmit.contents)) {
            let _lost_if_full = exit.packets.try_send(bytes);
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
        Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), PORT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_nodes_and_stays_so() {
        let port = RelayPort::new();
        let (attic, cellar): (NodeId, NodeId) = ("attic".parse().unwrap(), "cellar".parse().unwrap());
        let first = port.address_of(&attic).unwrap();
        let second = port.address_of(&cellar).unwrap();
        assert_ne!(first, second);
        assert_eq!(port.address_of(&attic), Some(first));
        let addresses = port.addresses.lock().unwrap();
        assert_eq!(addresses.node(second), Some(&cellar));
        assert_eq!(addresses.node(address(2)), None);
        assert_eq!(addresses.node("127.0.0.1:1".parse().unwrap()), None);
        assert_eq!(addresses.node(address(u32::MAX)), None);
    }
}
