//! The messages between agent and coordinator, and between agent and worker: bytes in, values out.
//!
//! There is no I/O here: a shell reads and writes frames, this crate says what is in them.
//! Messages are CBOR maps with named fields, so that a field which an older side does not know is skipped,
//! and a field which a newer side leaves out takes its default. The kind of a message is the only key of an outer
//! map (or a text alone, if it has no fields); [`decode_known`] tells an unknown kind from nonsense.

mod chunks;
mod fleet;
mod frame;
mod join;
mod kind;
mod packed;
mod relayed;
mod version;
mod wall;
mod worker;

pub use chunks::{ChunkList, ChunkPlace, Neighbour, PackedChunk};
pub use fleet::{
    Hello, LogQuery, RefusalCode, StreamReply, StreamRequest, ToAgent, ToCoordinator, TrapQuery,
};
pub use frame::{FrameError, MAX_DEPTH, MAX_FRAME, decode, encode, frame_length};
pub use join::{APPROVAL_PENDING, JoinReply, JoinRequest};
pub use kind::decode_known;
pub use relayed::{MAX_PACKET, Relayed};
pub use version::{ALPN_FLEET, ALPN_JOIN, ALPN_PEER, Version, agree};
pub use wall::{WallFinding, WallPart, WallSetup, WallState};
pub use worker::{
    Account, ConnectError, FromWorker, OfferedFolder, Outbound, PassedToAgent, PassedToWorker,
    StandardStream, ToWorker, WorkerSetup,
};
