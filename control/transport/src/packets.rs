//! What two kinds of ways have in common that are a UDP socket to QUIC and none to the system: packets that have come and
//! wait, and room for those that leave.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use quinn::UdpPoller;
use quinn::udp::RecvMeta;
use tokio::sync::mpsc;

/// The most packets that have come and that nobody has taken.
pub(crate) const MAX_ARRIVED: usize = 1024;

/// The most packets that wait to leave by one way; with what is told of each they take 400 KiB.
pub(crate) const MAX_WAITING: usize = 256;
/// The most bytes of packets that are written at once, but for the last of them.
pub(crate) const BATCH: usize = 32 << 10;

/// Packets that have come.
#[derive(Debug)]
pub(crate) struct Arrivals {
    arrived: Mutex<mpsc::Receiver<Arrived>>,
    arrive: Arrive,
}

/// Where packets come in.
#[derive(Clone, Debug)]
pub(crate) struct Arrive(mpsc::Sender<Arrived>);

#[derive(Debug)]
struct Arrived {
    from: SocketAddr,
    packet: Vec<u8>,
}

impl Arrivals {
    pub(crate) fn new() -> Self {
        let (arrive, arrived) = mpsc::channel(MAX_ARRIVED);
        Self { arrived: Mutex::new(arrived), arrive: Arrive(arrive) }
    }

    pub(crate) fn arrive(&self) -> &Arrive {
        &self.arrive
    }

    /// As [`quinn::AsyncUdpSocket::poll_recv`].
    pub(crate) fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let next = match arrived.poll_recv(context) {
                Poll::Ready(Some(next)) => next,
                // A sender is kept here, so it never ends.
                Poll::Ready(None) | Poll::Pending => break,
            };
            let length = next.packet.len().min(buffer.len());
            buffer[..length].copy_from_slice(&next.packet[..length]);
            *meta = RecvMeta { addr: next.from, len: length, stride: length, ..RecvMeta::default() };
            taken += 1;
        }
        if taken == 0 { Poll::Pending } else { Poll::Ready(Ok(taken)) }
    }
}

impl Arrive {
    /// Takes a packet in as soon as there is room.
    pub(crate) async fn bring(&self, from: SocketAddr, packet: &[u8]) {
        // The end of the port is noticed by who sends to it.
        let _closed = self.0.send(Arrived { from, packet: packet.to_vec() }).await;
    }

    /// Takes a packet in; it is lost if too many wait.
    pub(crate) fn take(&self, from: SocketAddr, packet: &[u8]) {
        let _lost_if_full = self.0.try_send(Arrived { from, packet: packet.to_vec() });
    }
}

/// Waits for packets that are to leave, and puts those that wait into `batch`, in place of what was there; nothing more
/// will come if it says no.
pub(crate) async fn next_batch(waiting: &mut mpsc::Receiver<Vec<u8>>, batch: &mut Vec<u8>) -> bool {
    batch.clear();
    let Some(first) = waiting.recv().await else { return false };
    batch.extend(first);
    while batch.len() < BATCH
        && let Ok(next) = waiting.try_recv()
    {
        batch.extend(next);
    }
    true
}

/// What does not fit is lost, so there is never anything to wait for.
#[derive(Debug)]
pub(crate) struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
