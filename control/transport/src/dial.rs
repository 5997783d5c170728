//! Dialing: by UDP, and to a coordinator by TCP where UDP does not come through.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::{sleep, timeout};

use crate::limits::{CONNECT_TIME, FRESH_TIME, HEAD_START};
use crate::refusal::Finding;
use crate::{ConnectError, Connection, ConnectionEnded, WireLimits, accept, tunnel};

/// What TLS needs to dial somebody, made anew for each attempt.
pub(crate) type DialTls = Result<(QuicClientConfig, Finding), rustls::Error>;

/// Connects and waits to be accepted.
pub(crate) async fn dial(
    endpoint: &quinn::Endpoint,
    address: SocketAddr,
    name: &str,
    tls: DialTls,
    limits: &WireLimits,
) -> Result<Connection, ConnectError> {
    let (tls, finding) = tls.map_err(|error| ConnectError::Dial { address, reason: error.to_string() })?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(limits.transport());
    let connecting = endpoint
        .connect_with(config, address, name)
        .map_err(|error| ConnectError::Dial { address, reason: error.to_string() })?;
    let connect = async {
        let inner = connecting.await?;
        let peer = accept::peer(&inner);
        let connection = Connection::new(inner, peer);
        connection.greeted().await?;
        Ok::<_, ConnectionEnded>(connection)
    };
    match timeout(CONNECT_TIME, connect).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(source)) => Err(match finding.take() {
            Some(refusal) => ConnectError::WrongPeer { address, source: refusal },
            None if source == ConnectionEnded::Lost => ConnectError::Unreachable { address },
            None => ConnectError::NotAccepted { address, source },
        }),
        Err(_) => Err(ConnectError::Unreachable { address }),
    }
}

/// Connects to a coordinator: by UDP, which has a head start, or by TCP at the same address.
///
/// That nothing comes back by UDP may be because nobody is there yet. So where TCP is answered UDP is tried once more.
pub(crate) async fn dial_coordinator(
    endpoint: &quinn::Endpoint,
    address: SocketAddr,
    name: &str,
    tls: impl Fn() -> DialTls,
    limits: &WireLimits,
) -> Result<Connection, ConnectError> {
    let by_tcp = async {
        sleep(HEAD_START).await;
        let tunnel = tunnel::open(address).await.map_err(|error| {
            tracing::debug!(%address, %error, "no tunnel");
            ConnectError::Unreachable { address }
        })?;
        if let Ok(Ok(fresh)) = timeout(FRESH_TIME, dial(endpoint, address, name, tls(), limits)).await {
            return Ok(fresh);
        }
        dial(&tunnel, address, name, tls(), limits).await.map(Connection::over_tcp)
    };
    let by_udp = dial(endpoint, address, name, tls(), limits);
    tokio::pin!(by_tcp, by_udp);
    tokio::select! {
        connected = &mut by_udp => match connected {
            Err(ConnectError::Unreachable { .. }) => by_tcp.await,
            connected => connected,
        },
        connected = &mut by_tcp => match connected {
            Err(ConnectError::Unreachable { .. }) => by_udp.await,
            connected => connected,
        },
    }
}
