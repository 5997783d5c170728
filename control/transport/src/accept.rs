//! Taking connections from anyone who can send a datagram here.
//!
//! The loop ends only with its endpoint. A handshake runs in a task of its own, under a time limit; their number is
//! bounded, and when there are many, a dialing side must first show that it receives what is sent to its address.

use std::sync::Arc;

use dunlin_protocol::ALPN_JOIN;
use quinn::crypto::rustls::HandshakeData;
use rustls_pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::connection::canonical;
use crate::limits::{HANDSHAKE_TIME, MAX_HALF_OPEN, RETRY_ABOVE};
use crate::{CloseCode, Connection, Member};

/// Takes connections until the endpoint is closed. Those that are proven go to `deliver`.
pub(crate) async fn accept(endpoint: quinn::Endpoint, deliver: mpsc::Sender<Connection>) {
    let half_open = Arc::new(Semaphore::new(MAX_HALF_OPEN));
    let mut handshakes = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        // Finished tasks are taken out here, so that the set does not grow.
        while handshakes.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&half_open).try_acquire_owned() else {
            incoming.ignore();
            continue;
        };
        let running = MAX_HALF_OPEN - half_open.available_permits();
        if running > RETRY_ABOVE && !incoming.remote_address_validated() && incoming.may_retry() {
            // It fails only if it may not be retried.
            let _ = incoming.retry();
            continue;
        }
        handshakes.spawn(one(incoming, permit, deliver.clone()));
    }
}

async fn one(incoming: quinn::Incoming, permit: OwnedSemaphorePermit, deliver: mpsc::Sender<Connection>) {
    let remote = canonical(incoming.remote_address());
    match tokio::time::timeout(HANDSHAKE_TIME, handshake(incoming)).await {
        // Whoever takes the connections may be slow; until then this handshake counts.
        Ok(Ok(connection)) => {
            if deliver.send(connection).await.is_err() {
                tracing::debug!(%remote, "connection dropped; nobody takes it");
            }
        }
        Ok(Err(error)) => tracing::debug!(%remote, error, "handshake failed"),
        Err(_) => tracing::debug!(%remote, "handshake took too long"),
    }
    drop(permit);
}

async fn handshake(incoming: quinn::Incoming) -> Result<Connection, String> {
    let inner = incoming.accept().map_err(|error| error.to_string())?;
    let inner = inner.await.map_err(|error| error.to_string())?;
    if alpn(&inner).as_deref() == Some(ALPN_JOIN) {
        let connection = Connection::new(inner, None);
        connection.greet().await.map_err(|error| error.to_string())?;
        return Ok(connection);
    }
    let Some(peer) = peer(&inner) else {
        Connection::new(inner, None).close(CloseCode::CERTIFICATE_REQUIRED, "a certificate is required");
        return Err("no certificate was shown".to_owned());
    };
    let connection = Connection::new(inner, Some(peer));
    connection.greet().await.map_err(|error| error.to_string())?;
    Ok(connection)
}

fn alpn(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// Returns whom the other side's certificate names. TLS has checked it.
pub(crate) fn peer(connection: &quinn::Connection) -> Option<Member> {
    let certificates = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Member::of_certificate(certificates.first()?).ok()
}
