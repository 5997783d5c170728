//! The messages between agent and coordinator, and between agent and worker: bytes in, values out.
//!
//! There is no I/O here: a shell reads and writes frames, this crate says what is in them.
//! Messages are CBOR maps with named fields, so that a field which an older side does not know is skipped,
//! and a field which a newer side leaves out takes its default.

mod fleet;
mod frame;
mod join;
mod version;
mod worker;

pub use fleet::{Hello, LogQuery, RefusalCode, StreamReply, StreamRequest, ToAgent, ToCoordinator};
pub use frame::{FrameError, MAX_DEPTH, MAX_FRAME, decode, encode, frame_length};
pub use join::{JoinReply, JoinRequest};
pub use version::{ALPN_FLEET, ALPN_JOIN, ALPN_PEER, Version, agree};
pub use worker::{FromWorker, ToWorker, WorkerSetup};
