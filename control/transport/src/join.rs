//! How a machine becomes a node: both halves of one exchange.
//!
//! The machine dials, and believes only a coordinator whose authority is the one that its token names. Only then does
//! it send the token's secret and a request for a certificate of its key. Whether it may join is for the coordinator
//! to say, through `decide`. An answer may be lost, so the key is the caller's: with the same one it can ask again.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use dunlin_model::NodeId;
use dunlin_protocol::{ALPN_JOIN, FrameError, JoinReply, JoinRequest, decode};
use rustls_pki_types::CertificateDer;

use crate::authority::key_hash;
use crate::dial::{LastWay, dial_coordinator};
use crate::tls::{self, Wanted};
use crate::{
    CloseCode, ConnectError, Connection, ConnectionEnded, Identity, JoinToken, KeyRequest, PeerRefusal,
    ReceiveError, Role, SendError, WireLimits, WrongIdentity,
};

/// How long the exchange may take after the connection stands.
const EXCHANGE_TIME: Duration = Duration::from_secs(20);
/// The most bytes of a request; it comes from someone who has proven nothing yet.
const MAX_REQUEST: usize = 32 << 10;

/// Why this machine did not become a node.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nothing answers.
    #[error(
        "the coordinator at {address} did not answer within 10s; check the address, that it runs, and that UDP or TCP reaches it"
    )]
    Unreachable {
        /// Where.
        address: SocketAddr,
    },
    /// Another fleet's coordinator answers, or someone who only says so. The secret was not sent.
    #[error("the coordinator at {address} is not the one this token is for; the token's secret was not sent")]
    WrongAuthority {
        /// Where.
        address: SocketAddr,
    },
    /// The connection failed in another way. The secret was not sent.
    #[error("could not connect to the coordinator")]
    Connect(#[source] ConnectError),
    /// The coordinator said no.
    #[error("the coordinator refused ({code}): {message}")]
    Refused {
        /// Why, for programs.
        code: String,
        /// Why, for people.
        message: String,
    },
    /// The request could not be sent.
    #[error("could not send the request to join")]
    Send(#[from] SendError),
    /// No answer came. Whether the token is used up is not known, but for the same key it is good.
    #[error(
        "the coordinator did not answer the request to join; try again with the same token and state folder"
    )]
    Receive(#[from] ReceiveError),
    /// The coordinator took too long. Whether the token is used up is not known, but for the same key it is good.
    #[error(
        "the coordinator did not answer the request to join within 20s; \
         try again with the same token and state folder"
    )]
    TimedOut,
    /// The certificate is not the one that was asked for.
    #[error("the coordinator gave a certificate that does not fit")]
    Certificate(#[from] WrongIdentity),
    /// The certificate names someone else.
    #[error("the coordinator gave a certificate for {found}")]
    OtherMember {
        /// Whom.
        found: String,
    },
    /// No socket could be opened.
    #[error("could not open a UDP socket")]
    Socket(#[source] std::io::Error),
}

/// Makes this machine the node `node` of the coordinator's fleet, with the key of `request`.
pub async fn join(
    coordinator: SocketAddr,
    token: &JoinToken,
    node: &NodeId,
    request: KeyRequest,
) -> Result<Identity, JoinError> {
    let any: IpAddr = match coordinator {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let endpoint = quinn::Endpoint::client(SocketAddr::new(any, 0)).map_err(JoinError::Socket)?;
    let tls = || tls::client(Wanted::CoordinatorOf { key_hash: *token.authority() }, None, ALPN_JOIN);
    let connection = dial_coordinator(&endpoint, coordinator, tls, &WireLimits::FLEET, (None, LastWay::Udp))
        .await
        .map_err(|error| match error {
            ConnectError::Unreachable { address } => JoinError::Unreachable { address },
            ConnectError::WrongPeer { address, source: PeerRefusal::OtherAuthority } => {
                JoinError::WrongAuthority { address }
            }
            error => JoinError::Connect(error),
        })?;
    let result = tokio::time::timeout(EXCHANGE_TIME, exchange(&connection, token, node, request)).await;
    connection.close(CloseCode::DONE, "");
    // Lets the coordinator hear of the end; it matters little if it does not.
    let _ = tokio::time::timeout(Duration::from_millis(200), endpoint.wait_idle()).await;
    result.map_err(|_| JoinError::TimedOut)?
}

async fn exchange(
    connection: &Connection,
    token: &JoinToken,
    node: &NodeId,
    request: KeyRequest,
) -> Result<Identity, JoinError> {
    let mut stream = connection.open_raw().await.map_err(SendError::from)?;
    stream
        .send_message(&JoinRequest {
            token_id: token.id().to_owned(),
            secret: token.secret().to_vec(),
            node: node.clone(),
            signing_request: request.signing_request().to_vec(),
        })
        .await?;
    stream.finish();
    let (certificate, authority) = match stream.receive_message().await?.ok_or(ReceiveError::Truncated)? {
        JoinReply::Joined { certificate, authority, .. } => {
            (CertificateDer::from(certificate), CertificateDer::from(authority))
        }
        JoinReply::Refused { code, message } => return Err(JoinError::Refused { code, message }),
    };
    if key_hash(&authority).as_ref() != Some(token.authority()) {
        return Err(JoinError::Certificate(WrongIdentity::Untrusted(PeerRefusal::OtherAuthority)));
    }
    let identity = request.into_identity(certificate, authority)?;
    let is_ours = connection.peer().is_some_and(|peer| peer.cluster == *identity.cluster());
    if is_ours && *identity.role() == Role::Node(node.clone()) {
        Ok(identity)
    } else {
        Err(JoinError::OtherMember { found: identity.member().to_string() })
    }
}

/// Why a request to join got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ServeJoinError {
    /// None came.
    #[error("no request to join came")]
    Receive(#[from] ReceiveError),
    /// The answer could not be sent.
    #[error("could not send the answer to a request to join")]
    Send(#[from] SendError),
    /// It took too long.
    #[error("a request to join was not done within 20s")]
    TimedOut,
}

impl From<ConnectionEnded> for ServeJoinError {
    fn from(ended: ConnectionEnded) -> Self {
        Self::Receive(ended.into())
    }
}

impl From<FrameError> for ServeJoinError {
    fn from(error: FrameError) -> Self {
        Self::Receive(error.into())
    }
}

/// Answers the one request of a connection from [`Incoming::Join`](crate::Incoming::Join) with what `decide` says,
/// and closes it.
///
/// `decide` is called at most once, and what it began goes on to its end even if the other side goes away, unless it
/// takes more than twenty seconds.
pub async fn serve_join<Decide, Reply>(connection: &Connection, decide: Decide) -> Result<(), ServeJoinError>
where
    Decide: FnOnce(JoinRequest) -> Reply,
    Reply: Future<Output = JoinReply>,
{
    let answer = async {
        let mut stream = connection.accept().await?;
        let body = stream.receive.receive_frame(MAX_REQUEST).await?.ok_or(ReceiveError::Truncated)?;
        let reply = decide(decode(&body)?).await;
        stream.send_message(&reply).await?;
        stream.finish();
        stream.send.delivered().await?;
        Ok(())
    };
    let result = tokio::time::timeout(EXCHANGE_TIME, answer).await.unwrap_or(Err(ServeJoinError::TimedOut));
    let code = if result.is_ok() { CloseCode::DONE } else { CloseCode::PROTOCOL };
    connection.close(code, "");
    result
}
