//! What the ingress asks of the agent: connections to workers and to other nodes.

use std::io;
use std::net::SocketAddr;

use dunlin_model::{Name, NamespaceRoutes, NodeId};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::slot::Slot;

/// Bytes both ways, in order.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Any [`Stream`].
pub type BoxedStream = Box<dyn Stream>;

/// A client's connection to be given to the worker of a namespace.
#[derive(Debug)]
pub struct HandOff {
    /// The connection, from which nothing was read.
    pub stream: TcpStream,
    /// Who the client is.
    pub client: SocketAddr,
    /// For which namespace its first request is.
    pub namespace: Name,
    /// The version of the namespace's routes by which that was decided.
    pub routes: u64,
    /// Its place among the connections of the ingress, which is free again once this is dropped.
    pub slot: Slot,
}

/// The workers of this node.
pub trait Local: Send + Sync {
    /// Opens a connection to the worker of `namespace`, which speaks HTTP/1.1 on it and keeps it alive.
    fn connect(&self, namespace: &Name) -> BoxFuture<'_, io::Result<BoxedStream>>;

    /// Tells the worker of `namespace` the routes by which it serves connections that are handed to it, and calls.
    fn set_routes(&self, _namespace: &Name, _version: u64, _routes: &NamespaceRoutes) {}

    /// Gives a connection to the worker of its namespace.
    ///
    /// # Errors
    ///
    /// There is none; the connection comes back as it was.
    fn hand_off(&self, hand_off: HandOff) -> Result<(), Box<HandOff>> {
        Err(Box::new(hand_off))
    }

    /// Has the workers end the connections that were handed to them, after what is under way.
    fn drain(&self) {}
}

/// The other nodes of the fleet.
pub trait Peers: Send + Sync {
    /// Opens one stream to the ingress of `node`, for one request in HTTP/1.1.
    fn open(&self, node: &NodeId, address: SocketAddr) -> BoxFuture<'_, io::Result<BoxedStream>>;

    /// Tells whether `node` is away for a moment and has begun nothing of what it has not answered.
    fn is_starting_again(&self, _node: &NodeId) -> bool {
        false
    }
}
