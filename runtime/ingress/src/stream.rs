//! What the ingress asks of the agent: connections to workers and to other nodes.

use std::io;
use std::net::SocketAddr;

use dunlin_model::{Name, NodeId};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes both ways, in order.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Any [`Stream`].
pub type BoxedStream = Box<dyn Stream>;

/// The workers of this node.
pub trait Local: Send + Sync {
    /// Opens a connection to the worker of `namespace`, which speaks HTTP/1.1 on it and keeps it alive.
    fn connect(&self, namespace: &Name) -> BoxFuture<'_, io::Result<BoxedStream>>;
}

/// The other nodes of the fleet.
pub trait Peers: Send + Sync {
    /// Opens one stream to the ingress of `node`, for one request in HTTP/1.1.
    fn open(&self, node: &NodeId, address: SocketAddr) -> BoxFuture<'_, io::Result<BoxedStream>>;
}
