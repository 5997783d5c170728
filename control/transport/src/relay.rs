//! The middle of a way on which two nodes reach each other that cannot do so directly: it passes packets on.
//!
//! Both nodes keep a stream to it open, see [`StreamRequest::Relay`](dunlin_protocol::StreamRequest::Relay). It takes
//! who has sent a packet from the connection on which it came, and nothing from what is in it: the nodes have a
//! connection of their own through it, which is proven and encrypted from end to end. What cannot be passed on at once
//! is lost, as on any way of packets, and those who sent it notice and slow down.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dunlin_model::NodeId;
use dunlin_protocol::{Relayed, StreamReply};
use tokio::sync::mpsc;

use crate::packets::{BATCH, MAX_WAITING, next_batch};
use crate::{ReceiveError, ReceiveHalf, SendError, SendHalf, Stream};

/// What comes from a relay in the name of a node that has no stream to it: no node sends a packet of nothing.
pub(crate) const ABSENT: &[u8] = &[];
/// For how long a packet counts as one that was passed on a moment ago. Nodes that use a way send more often.
const HEARD: Duration = Duration::from_secs(10);

/// Why packets are not carried any more.
#[derive(Debug, thiserror::Error)]
pub enum RelayEnded {
    /// Nothing more comes.
    #[error("the other side does not relay any more")]
    Receive(#[from] ReceiveError),
    /// Nothing more can be sent.
    #[error("the other side takes no more packets")]
    Send(#[from] SendError),
    /// The other side has ended it.
    #[error("the other side has ended the relay")]
    Finished,
    /// The other side does not relay.
    #[error("the other side does not relay: {message}")]
    Refused {
        /// Why.
        message: String,
    },
    /// The node has opened another stream for its packets.
    #[error("the node has its packets relayed on another stream")]
    Replaced,
}

/// Passes packets on between the nodes that are connected.
#[derive(Debug, Default)]
pub struct Relay {
    exits: Mutex<Exits>,
}

#[derive(Debug, Default)]
struct Exits {
    by_node: BTreeMap<NodeId, Exit>,
    counted: u64,
}

/// Where packets for one node go.
#[derive(Debug)]
struct Exit {
    /// Tells streams of the same node apart.
    number: u64,
    packets: mpsc::Sender<Vec<u8>>,
    /// From whom packets came for it, and when the last one did.
    heard: BTreeMap<NodeId, Instant>,
}

impl Relay {
    /// Answers the stream of `node`, and carries its packets and those for it until the stream ends or the node opens
    /// another one.
    pub async fn carry(&self, node: &NodeId, mut stream: Stream) -> RelayEnded {
        let answer = StreamReply::Ok { length: None, name: None };
        if let Err(error) = stream.send_message(&answer).await {
            return error.into();
        }
        let (packets, mut waiting) = mpsc::channel(MAX_WAITING);
        let _entered = self.enter(node, packets);
        pump(stream, &mut waiting, |to, packet| self.pass_on(node, to, packet)).await
    }

    fn pass_on(&self, from: &NodeId, to: &NodeId, packet: &[u8]) {
        let mut exits = self.exits.lock().unwrap_or_else(PoisonError::into_inner);
        let (exit, bytes) = match exits.by_node.get_mut(to) {
            Some(exit) => {
                exit.hear(from, Instant::now());
                (Some(&*exit), Relayed::encode(from, packet))
            }
            None => (exits.by_node.get(from), Relayed::encode(to, ABSENT)),
        };
        // It was decoded a moment ago, so it fits.
        if let (Some(exit), Ok(bytes)) = (exit, bytes) {
            let _lost_if_full = exit.packets.try_send(bytes);
        }
    }

    /// Returns the nodes from which `node` has got packets within the last seconds.
    pub fn heard_by(&self, node: &NodeId) -> Vec<NodeId> {
        let exits = self.exits.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = exits.by_node.get(node).map(|exit| &exit.heard).into_iter().flatten();
        heard.filter(|(_, last)| last.elapsed() < HEARD).map(|(from, _)| from.clone()).collect()
    }

    fn enter(&self, node: &NodeId, packets: mpsc::Sender<Vec<u8>>) -> Entered<'_> {
        let mut exits = self.exits.lock().unwrap_or_else(PoisonError::into_inner);
        exits.counted += 1;
        let number = exits.counted;
        exits.by_node.insert(node.clone(), Exit { number, packets, heard: BTreeMap::new() });
        Entered { relay: self, node: node.clone(), number }
    }
}

impl Exit {
    fn hear(&mut self, from: &NodeId, now: Instant) {
        match self.heard.get_mut(from) {
            Some(last) => *last = now,
            None => {
                // Here and not elsewhere, so that those who are gone are forgotten.
                self.heard.retain(|_, last| now.saturating_duration_since(*last) < HEARD);
                self.heard.insert(from.clone(), now);
            }
        }
    }
}

/// Takes the exit of a node away when its stream ends, unless a later one has taken its place.
struct Entered<'a> {
    relay: &'a Relay,
    node: NodeId,
    number: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut exits = self.relay.exits.lock().unwrap_or_else(PoisonError::into_inner);
        if exits.by_node.get(&self.node).is_some_and(|exit| exit.number == self.number) {
            exits.by_node.remove(&self.node);
        }
    }
}

/// Sends the packets that `waiting` gives, and gives those that come to `take`, until one of both is over.
pub(crate) async fn pump(
    stream: Stream,
    waiting: &mut mpsc::Receiver<Vec<u8>>,
    take: impl FnMut(&NodeId, &[u8]),
) -> RelayEnded {
    let (sender, receiver) = stream.split();
    tokio::select! {
        ended = send(sender, waiting) => ended,
        ended = receive(receiver, take) => ended,
    }
}

async fn send(mut sender: SendHalf, waiting: &mut mpsc::Receiver<Vec<u8>>) -> RelayEnded {
    let mut batch = Vec::with_capacity(BATCH);
    while next_batch(waiting, &mut batch).await {
        if let Err(error) = sender.send_bytes(&batch).await {
            return error.into();
        }
    }
    RelayEnded::Replaced
}

async fn receive(mut receiver: ReceiveHalf, mut take: impl FnMut(&NodeId, &[u8])) -> RelayEnded {
    let mut bytes = Vec::new();
    loop {
        match receiver.receive_bytes(&mut bytes).await {
            Ok(true) => {}
            Ok(false) => return RelayEnded::Finished,
            Err(error) => return error.into(),
        }
        let mut done = 0;
        loop {
            match Relayed::decode(&bytes[done..]) {
                Ok(Some((relayed, taken))) => {
                    take(&relayed.node, relayed.packet);
                    done += taken;
                }
                Ok(None) => break,
                Err(error) => return receiver.refuse(error).into(),
            }
        }
        bytes.drain(..done);
    }
}
