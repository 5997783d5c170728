//! The pieces in which components travel.

use crate::Digest;

/// The most bytes of a chunk.
pub const MAX_CHUNK: usize = 256 << 10;

/// Some bytes of a component, which follow those of the chunk before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// What they are.
    pub digest: Digest,
    /// How many, at least one and at most [`MAX_CHUNK`].
    pub length: u32,
}
