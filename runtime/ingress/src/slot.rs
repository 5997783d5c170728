//! The place of one connection among those that an ingress takes at the same time.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use dunlin_model::Name;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::hand_off;
use crate::head::authority;
use crate::ingress::Ingress;
use crate::load::UnderWay;
use crate::rewind::Rewind;
use crate::server::{Shutdown, serve_returned};

/// The place of one connection, kept for as long as the connection is open, whoever serves it.
pub struct Slot {
    pub(crate) permit: OwnedSemaphorePermit,
    pub(crate) ingress: Ingress,
    pub(crate) watch: Shutdown,
    /// That the connection is handed to the worker of a service, as long as it is.
    pub(crate) handed: Option<UnderWay>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

impl Slot {
    /// Goes on with a connection that the worker of `namespace` has given back: `read` was read from it there. Must
    /// be called within a tokio runtime.
    pub fn take_back(self, stream: TcpStream, client: SocketAddr, namespace: &Name, read: Vec<u8>) {
        let Self { permit, ingress, watch, handed } = self;
        drop(handed);
        if is_for_another(&ingress, namespace, &read) {
            tracing::debug!(%client, %namespace, "a client sends requests for several namespaces on one connection");
            ingress.shared_clients().remember(client.ip());
        }
        tokio::spawn(async move {
            let rewind = Rewind { read: Bytes::from(read), stream };
            let origin = ingress.origin(client, false);
            tokio::select! {
                () = watch.cut.cancelled() => {}
                () = serve_returned(&ingress, rewind, &origin, &watch) => {}
            }
            drop(permit);
        });
    }
}

/// Tells whether the request with which `read` begins goes to another namespace.
fn is_for_another(ingress: &Ingress, namespace: &Name, read: &[u8]) -> bool {
    let Some(request) = hand_off::head(read) else { return false };
    let Ok(host) = authority(&request) else { return false };
    let table = ingress.table();
    let target = table.router.find(host, request.uri().path(), request.headers());
    target.is_some_and(|target| target.service.workload.namespace != *namespace)
}
