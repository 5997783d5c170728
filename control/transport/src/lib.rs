//! The wire: QUIC endpoints, identities and the way a node joins.
//!
//! A fleet has one [`Authority`]. It gives each coordinator and each node an [`Identity`]: a key that never leaves its
//! machine and a certificate whose only URI name says who it is, a [`Member`]. The role is read from there and nowhere
//! else. A coordinator opens a [`Server`], a node a [`NodeEndpoint`]; both give [`Connection`]s that are proven on both
//! sides before anyone above this crate sees them, and connections give [`Stream`]s of messages or of bytes.
//! Nodes that do not reach each other directly do so through a [`Relay`], which sees nothing of what they say; those in
//! networks that let no UDP through reach their coordinator over TCP, which above this crate makes no difference.
//! A machine without identity calls [`join`] with a [`JoinToken`] and gets one.
//!
//! Only TLS 1.3, no session resumption, no early data, no datagrams. What is said on streams is in `dunlin-protocol`,
//! who may do what is for the coordinator and the agent to say.

mod accept;
mod authority;
mod backoff;
mod chunks;
mod connection;
mod dial;
mod endpoint;
mod file;
mod identity;
mod join;
mod limits;
mod member;
mod packets;
mod refusal;
mod relay;
mod relay_port;
mod renewal;
mod stream;
mod tls;
mod token;
mod tunnel;
mod wall_clock;

pub use authority::{ApiCertificate, Authority, IssueError, OpenAuthorityError, key_hash};
pub use backoff::Backoff;
pub use chunks::ChunkError;
pub use connection::{CloseCode, Connection, ConnectionEnded};
pub use endpoint::{BindError, ConnectError, Incoming, NodeEndpoint, Server};
pub use file::FileError;
pub use identity::{Identity, KeyRequest, OpenIdentityError, OpenKeyError, WrongIdentity};
pub use join::{JoinError, ServeJoinError, join, serve_join};
pub use limits::WireLimits;
pub use member::{Member, NotAMember, Role};
pub use refusal::PeerRefusal;
pub use relay::{Relay, RelayEnded};
pub use renewal::Renewal;
pub use stream::{FromPeer, ReceiveError, ReceiveHalf, SendError, SendHalf, Stream};
pub use token::{JoinToken, JoinTokenError, hash_secret, is_secret};
pub use wall_clock::WallClock;
