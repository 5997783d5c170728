//! A connection whose two ends have proven who they are.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use dunlin_protocol::StreamRequest;
use quinn::VarInt;
use rustls_pki_types::CertificateDer;

use crate::authority::key_hash;
use crate::identity::validity;
use crate::stream::priority;
use crate::{Member, SendError, Stream};

/// Why a connection was closed, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(pub u32);

impl CloseCode {
    /// Nothing is left to do.
    pub const DONE: Self = Self(0);
    /// The protocol needs a certificate and none was shown.
    pub const CERTIFICATE_REQUIRED: Self = Self(1);
    /// The same member has a newer connection.
    pub const REPLACED: Self = Self(2);
    /// The process is ending.
    pub const SHUTTING_DOWN: Self = Self(3);
    /// The other side did not keep to the protocol.
    pub const PROTOCOL: Self = Self(4);
    /// The other side may not be here, or no longer.
    pub const FORBIDDEN: Self = Self(5);
    /// Too many ask at once; come back later.
    pub const BUSY: Self = Self(6);
    /// The other side is no member of the fleet any more.
    pub const NOT_A_MEMBER: Self = Self(7);
    /// The process is started again and will be back in a moment. What was asked of it and has no answer, it has not begun.
    pub const STARTING_AGAIN: Self = Self(8);
}

impl ConnectionEnded {
    /// Tells whether the other side closed the connection with this code.
    pub fn is_closed_with(&self, wanted: CloseCode) -> bool {
        matches!(self, Self::Closed { code, .. } if *code == u64::from(wanted.0))
    }
}

/// Why a connection is at its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionEnded {
    /// The other side closed it.
    #[error("the other side closed the connection with code {code}: {reason}")]
    Closed {
        /// Why, for programs: a [`CloseCode`].
        code: u64,
        /// Why, for people.
        reason: String,
    },
    /// This side closed it.
    #[error("the connection was closed here")]
    ClosedHere,
    /// Nothing came for too long, or the other side has forgotten the connection.
    #[error("the connection was lost: the other side does not answer")]
    Lost,
    /// The other side does not accept this one's certificate or protocol.
    #[error("the other side refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// One side broke the rules of QUIC, or speaks another version of it.
    #[error("the connection broke: {reason}")]
    Broken {
        /// How.
        reason: String,
    },
}

impl From<quinn::ConnectionError> for ConnectionEnded {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as Error;
        match error {
            Error::ApplicationClosed(close) => Self::Closed {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).chars().take(200).collect(),
            },
            Error::ConnectionClosed(close) => match refusal_of_alert(u64::from(close.error_code)) {
                Some(reason) => Self::Refused { reason: reason.to_owned() },
                None => Self::Broken { reason: close.to_string() },
            },
            Error::LocallyClosed => Self::ClosedHere,
            Error::TimedOut | Error::Reset => Self::Lost,
            Error::TransportError(_) | Error::VersionMismatch | Error::CidsExhausted => {
                Self::Broken { reason: error.to_string() }
            }
        }
    }
}

/// Says what a TLS alert means, as QUIC carries it (RFC 9001, 4.8).
fn refusal_of_alert(code: u64) -> Option<&'static str> {
    Some(match code.checked_sub(0x100)? {
        40 => "the handshake failed",
        42 => "this side's certificate cannot be read",
        43..=44 | 46 | 49 => "this side's certificate is not of a member it wants",
        45 => "this side's certificate has expired or is not valid yet",
        48 => "this side's certificate is of another authority",
        116 => "this side showed no certificate",
        120 => "it does not speak this protocol",
        0..=255 => "TLS failed",
        _ => return None,
    })
}

/// A connection. Clones are the same connection; it is closed when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    inner: quinn::Connection,
    peer: Option<Member>,
    is_over_tcp: bool,
}

impl Connection {
    pub(crate) fn new(inner: quinn::Connection, peer: Option<Member>) -> Self {
        Self { inner, peer, is_over_tcp: false }
    }

    /// Returns the same, as one that goes through a tunnel.
    pub(crate) fn over_tcp(self) -> Self {
        Self { is_over_tcp: true, ..self }
    }

    /// Tells whether it goes over TCP, since UDP did not come through when it was made.
    pub fn is_over_tcp(&self) -> bool {
        self.is_over_tcp
    }

    /// Returns who the other side has proven to be; nobody if it is about to join.
    pub fn peer(&self) -> Option<&Member> {
        self.peer.as_ref()
    }

    /// Returns the SHA-256 of the public key with which the other side has proven itself; nothing if it is about to
    /// join.
    pub fn peer_key_hash(&self) -> Option<[u8; 32]> {
        let certificates = self.inner.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        key_hash(certificates.first()?)
    }

    /// Tells whether the certificate of the other side has ended by now.
    pub fn peer_is_late(&self) -> bool {
        let certificates =
            self.inner.peer_identity().and_then(|it| it.downcast::<Vec<CertificateDer<'static>>>().ok());
        let validity = certificates.and_then(|certificates| validity(certificates.first()?));
        validity.is_some_and(|(_, end)| end < SystemTime::now())
    }

    /// Opens a stream that begins with `request`. Waits while the other side grants no more streams.
    pub async fn open(&self, request: &StreamRequest) -> Result<Stream, SendError> {
        let mut stream = self.open_raw().await?;
        stream.send.set_priority(priority(request));
        stream.send_message(request).await?;
        Ok(stream)
    }

    /// Opens a stream. The other side hears of it when something is sent. Waits while it grants no more streams.
    pub async fn open_raw(&self) -> Result<Stream, ConnectionEnded> {
        let (send, receive) = self.inner.open_bi().await?;
        Ok(Stream::new(send, receive))
    }

    /// Returns the next stream that the other side opens. May be dropped while it waits, without loss.
    ///
    /// Read the stream's first message elsewhere, with [`Stream::receive_request`]: one that never sends it must not
    /// hold up the others.
    pub async fn accept(&self) -> Result<Stream, ConnectionEnded> {
        let (send, receive) = self.inner.accept_bi().await?;
        Ok(Stream::new(send, receive))
    }

    /// Closes the connection and all its streams now; what was sent and not yet received is lost.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.inner.close(VarInt::from_u32(code.0), reason.as_bytes());
    }

    /// Waits for the end of the connection and returns its cause.
    pub async fn closed(&self) -> ConnectionEnded {
        self.inner.closed().await.into()
    }

    /// Returns why the connection is at its end, if it is.
    pub fn ended(&self) -> Option<ConnectionEnded> {
        self.inner.close_reason().map(ConnectionEnded::from)
    }

    /// Returns where the other side is now. It may move.
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.inner.remote_address())
    }

    /// Returns the present estimate of the time to the other side and back.
    pub fn round_trip(&self) -> Duration {
        self.inner.rtt()
    }

    /// Returns how many packets have come on it: while that grows, the other side is there.
    pub(crate) fn datagrams_received(&self) -> u64 {
        self.inner.stats().udp_rx.datagrams
    }

    /// Returns a number that no other living connection of this process has.
    pub fn id(&self) -> usize {
        self.inner.stable_id()
    }

    /// Tells the dialing side that it is accepted: an empty stream in one direction.
    ///
    /// In TLS 1.3 a client is done before the server has looked at its certificate; without this word a dialing
    /// side would believe for a while in a connection that is refused.
    pub(crate) async fn greet(&self) -> Result<(), ConnectionEnded> {
        let mut stream = self.inner.open_uni().await?;
        // The stream was just opened, so finishing it can only fail because the connection did.
        stream.finish().map_err(|_| ConnectionEnded::Lost)
    }

    /// Waits for what [`Connection::greet`] sends.
    pub(crate) async fn greeted(&self) -> Result<(), ConnectionEnded> {
        let mut stream = self.inner.accept_uni().await?;
        match stream.read_to_end(0).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.ended().unwrap_or_else(|| ConnectionEnded::Broken {
                reason: "its first word is unknown".to_owned(),
            })),
        }
    }
}

/// Writes an IPv4 address as one, also where a socket for both gives it as IPv6.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
