//! Where clients come in: in the clear, and over TLS.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use crate::Certificates;

/// How long to wait when a connection could not be accepted. Most often there are too many open files, which only time
/// can help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The listeners of an ingress.
#[derive(Debug)]
pub struct Doors {
    /// For clients that speak in the clear.
    pub plain: TcpListener,
    /// For clients that speak TLS.
    pub tls: Option<TlsDoor>,
}

/// A listener for clients that speak TLS 1.3 or 1.2, and in it HTTP/2 or HTTP/1.1.
pub struct TlsDoor {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl fmt::Debug for TlsDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsDoor").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl TlsDoor {
    /// The protocol that a client chooses which speaks HTTP/2.
    pub(crate) const HTTP2: &[u8] = b"h2";

    /// Returns a door behind which services are known by `certificates`.
    ///
    /// # Panics
    ///
    /// Never: the cryptography that is built in has all that TLS needs.
    pub fn new(listener: TcpListener, certificates: Arc<Certificates>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has ciphers for both versions")
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = vec![Self::HTTP2.to_vec(), b"http/1.1".to_vec()];
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

/// A client that has come in.
pub(crate) struct Arrival {
    pub(crate) stream: TcpStream,
    pub(crate) client: SocketAddr,
    /// What opens its TLS, if it came in by that door.
    pub(crate) tls: Option<TlsAcceptor>,
}

impl Doors {
    /// Returns doors of which only that for clients in the clear is there.
    pub fn plain(listener: TcpListener) -> Self {
        Self { plain: listener, tls: None }
    }

    /// Accepts one connection, however long it takes.
    pub(crate) async fn accept(&self) -> Arrival {
        loop {
            let accepted = match &self.tls {
                None => self.plain.accept().await.map(|accepted| (accepted, None)),
                Some(TlsDoor { listener, acceptor }) => tokio::select! {
                    accepted = self.plain.accept() => accepted.map(|accepted| (accepted, None)),
                    accepted = listener.accept() => {
                        accepted.map(|accepted| (accepted, Some(acceptor.clone())))
                    }
                },
            };
            match accepted {
                Ok(((stream, client), tls)) => return Arrival { stream, client, tls },
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}
