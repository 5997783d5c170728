//! Frames: a length and a CBOR value.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::relayed::MAX_PACKET;

/// The most bytes of one frame's body.
pub const MAX_FRAME: usize = 4 << 20;
/// How deep values may nest.
pub const MAX_DEPTH: usize = 32;

/// Why bytes are not a frame, or a value cannot become one.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than allowed.
    #[error("a frame may have {MAX_FRAME} bytes, this one has {observed}")]
    TooLong {
        /// Its length.
        observed: u64,
    },
    /// The packet is longer than allowed.
    #[error("a packet may have {MAX_PACKET} bytes, this one has {observed}")]
    PacketTooLong {
        /// Its length.
        observed: u64,
    },
    /// The bytes are not the CBOR of the wanted message.
    #[error("the frame is not a message: {reason}")]
    Malformed {
        /// What the decoder says.
        reason: String,
    },
}

/// Returns the frame of `message`: its length as four bytes, big-endian, and its CBOR.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    ciborium::into_writer(message, &mut frame)
        .map_err(|error| FrameError::Malformed { reason: error.to_string() })?;
    let length = frame.len() - 4;
    match u32::try_from(length) {
        Ok(prefix) if length <= MAX_FRAME => frame[..4].copy_from_slice(&prefix.to_be_bytes()),
        _ => return Err(FrameError::TooLong { observed: length as u64 }),
    }
    Ok(frame)
}

/// Returns how many bytes follow the four of a frame's length.
pub fn frame_length(prefix: [u8; 4]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(prefix) as usize;
    if length > MAX_FRAME { Err(FrameError::TooLong { observed: length as u64 }) } else { Ok(length) }
}

/// Returns the message in a frame's body, which must hold nothing else.
pub fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    let mut rest = body;
    let message = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|error| FrameError::Malformed { reason: error.to_string() })?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(FrameError::Malformed { reason: format!("{} bytes follow the message", rest.len()) })
    }
}
