//! Dialing: by UDP, and to a coordinator by TCP where UDP does not come through.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::{sleep, timeout};

use crate::limits::{CONNECT_TIME, FRESH_TIME, HEAD_START};
use crate::member::COORDINATOR_DNS_NAME;
use crate::refusal::Finding;
use crate::{ConnectError, Connection, ConnectionEnded, Identity, WireLimits, accept, tunnel};

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

/// By which way a coordinator was reached last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LastWay {
    /// By none, or by UDP.
    #[default]
    Udp,
    /// By TCP, where UDP had not come through.
    Tcp,
}

/// Connects to a coordinator: by UDP, which has a head start unless it did not come through the last time, or by TCP at the
/// same address. `identity` is shown to whoever carries TCP.
///
/// That nothing comes back by UDP may be because nobody is there yet. So where TCP is answered UDP is tried once more.
pub(crate) async fn dial_coordinator(
    endpoint: &quinn::Endpoint,
    address: SocketAddr,
    tls: impl Fn() -> DialTls,
    limits: &WireLimits,
    (identity, last): (Option<&Identity>, LastWay),
) -> Result<Connection, ConnectError> {
    let by_tcp = async {
        if last == LastWay::Udp {
            sleep(HEAD_START).await;
        }
        let tunnel = tunnel::open(address, identity.cloned()).await.map_err(|error| {
            tracing::debug!(%address, %error, "no tunnel");
            ConnectError::Unreachable { address }
        })?;
        if last == LastWay::Udp {
            let again = dial(endpoint, address, COORDINATOR_DNS_NAME, tls(), limits);
            if let Ok(Ok(connection)) = timeout(FRESH_TIME, again).await {
                return Ok(connection);
            }
        }
        dial(&tunnel, address, COORDINATOR_DNS_NAME, tls(), limits).await.map(Connection::over_tcp)
    };
    let by_udp = dial(endpoint, address, COORDINATOR_DNS_NAME, tls(), limits);
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
