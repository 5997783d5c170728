//! What is passed between the agent and one worker: connections, and the few words that go with them.
//!
//! All that goes to a worker goes through one queue, so that what was passed before a [`PassedToWorker::Leave`] also
//! arrives before it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_descriptors::{Channel, Message};
use dunlin_ingress::{HandOff, Slot};
use dunlin_model::Name;
use dunlin_protocol::{PassedToAgent, PassedToWorker, decode, encode};
use tokio::net::UnixStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};

/// One message for a worker.
pub(super) struct Passing {
    pub(super) message: PassedToWorker,
    pub(super) descriptor: Option<OwnedFd>,
    /// Told once the message has left; dropped if it never will.
    pub(super) sent: Option<oneshot::Sender<()>>,
    /// What counts as open until the message has left.
    pub(super) _turn: Option<Arc<OwnedSemaphorePermit>>,
}

impl Passing {
    /// Returns a message without a descriptor.
    pub(super) fn bare(message: PassedToWorker) -> Self {
        Self { message, descriptor: None, sent: None, _turn: None }
    }
}

/// The queue of messages for one worker.
// Unbounded on purpose: what waits in it is bounded by the connections that the ingress takes, and by what the worker
// itself has asked for.
pub(super) type Queue = mpsc::UnboundedSender<Passing>;

/// Queues a message; returns what is told when it and all before it have left, if the worker is there.
pub(super) fn last(queue: &Queue, message: PassedToWorker) -> Option<oneshot::Receiver<()>> {
    let (sent, has_left) = oneshot::channel();
    queue.send(Passing { sent: Some(sent), ..Passing::bare(message) }).ok()?;
    Some(has_left)
}

/// What one worker holds of the ingress: the places of the connections that were handed to it.
///
/// Which connection has which place does not matter, only how many there are; so a worker can free its own places and
/// no others, whatever it says.
#[derive(Default)]
pub(super) struct Held {
    slots: Mutex<Vec<Slot>>,
    /// Told when the worker says that it has no connection left.
    pub(super) left: Notify,
}

impl Held {
    fn add(&self, slot: Slot) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }

    fn remove(&self) -> Option<Slot> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Tells whether any connection was handed to the worker and has not come back.
    pub(super) fn is_any(&self) -> bool {
        !self.slots.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Frees the places of so many connections.
    pub(super) fn free(&self, connections: u32) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let left = slots.len().saturating_sub(usize::try_from(connections).unwrap_or(usize::MAX));
        slots.truncate(left);
    }

    /// Queues a connection for the worker; returns it if the worker is gone.
    pub(super) fn hand_off(&self, queue: &Queue, hand_off: HandOff) -> Option<Box<HandOff>> {
        let HandOff { stream, client, namespace, routes, slot } = hand_off;
        // Asked before the connection is taken apart, after which there is no way back.
        if queue.is_closed() {
            return Some(Box::new(HandOff { stream, client, namespace, routes, slot }));
        }
        let Ok(stream) = stream.into_std() else { return None };
        let message = PassedToWorker::Connection { client, namespace, routes };
        self.add(slot);
        let passing = Passing { descriptor: Some(OwnedFd::from(stream)), ..Passing::bare(message) };
        // It may have died right now, as it may at any later moment.
        let _dying = queue.send(passing);
        None
    }

    /// Goes on with a connection that the worker gives back.
    pub(super) fn take_back(&self, namespace: &Name, client: SocketAddr, read: Vec<u8>, stream: OwnedFd) {
        let stream = TcpStream::from(stream);
        // Whoever it was, he can only come back as himself.
        let is_client = stream.peer_addr().is_ok_and(|peer| peer == client);
        let taken = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
        match (is_client, taken, self.remove()) {
            (true, Ok(stream), Some(slot)) => slot.take_back(stream, client, namespace, read),
            _ => tracing::warn!(%namespace, "a worker gave back what is no connection of its own"),
        }
    }
}

/// Goes on here with a connection that could not be passed.
fn undo(passing: Passing, held: &Held) {
    if let (PassedToWorker::Connection { client, namespace, .. }, Some(stream)) =
        (passing.message, passing.descriptor)
    {
        held.take_back(&namespace, client, Vec::new(), stream);
    }
}

/// Sends what is queued until there is nobody left who queues, or the worker is gone.
pub(super) async fn write(
    channel: Arc<Channel>,
    held: Arc<Held>,
    mut waiting: mpsc::UnboundedReceiver<Passing>,
) {
    while let Some(passing) = waiting.recv().await {
        let Some(bytes) = to_bytes(&passing.message) else { continue };
        let descriptor = passing.descriptor.as_ref().map(|descriptor| descriptor.as_fd());
        match channel.send(&bytes, descriptor).await {
            Ok(()) => {
                // Whoever waited for it may have gone.
                let _gone = passing.sent.map(|sent| sent.send(()));
            }
            Err(error) => {
                tracing::debug!(%error, "could not pass anything to a worker");
                waiting.close();
                undo(passing, &held);
                while let Some(passing) = waiting.recv().await {
                    undo(passing, &held);
                }
                return;
            }
        }
    }
}

fn to_bytes(message: &PassedToWorker) -> Option<Vec<u8>> {
    match encode(message) {
        // The kernel keeps these messages apart, so they need no length before them.
        Ok(frame) => Some(frame[4..].to_vec()),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "message to a worker is too large");
            None
        }
    }
}

/// Returns the next message of the worker; nothing once it is gone or talks nonsense.
pub(super) async fn read(channel: &Channel) -> Option<(PassedToAgent, Option<OwnedFd>)> {
    let Message { bytes, descriptor } = channel.receive().await.ok()??;
    match decode(&bytes) {
        Ok(message) => Some((message, descriptor)),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a worker broke the protocol");
            None
        }
    }
}

/// Passes one end of a new pair of sockets to the worker behind `queue` and returns the other end.
pub(super) async fn connect(queue: Queue) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    let descriptor = Some(OwnedFd::from(theirs.into_std()?));
    let (sent, has_left) = oneshot::channel();
    let passing = Passing { descriptor, sent: Some(sent), ..Passing::bare(PassedToWorker::Proxied) };
    queue.send(passing).map_err(|_| io::ErrorKind::NotConnected)?;
    // Nothing of a request may be written before it is known that the worker was there.
    has_left.await.map_err(|_| io::ErrorKind::NotConnected)?;
    Ok(ours)
}
