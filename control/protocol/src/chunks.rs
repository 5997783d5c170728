//! How components travel: in chunks, each by itself compressed and checked.
//!
//! Where a chunk ends is decided by what is in it, so that two revisions of a component have most of their chunks in
//! common. Who has the list of them takes each from wherever it is.

use std::io::Read as _;
use std::net::SocketAddr;

use dunlin_model::{Chunk, Digest, MAX_CHUNK, NodeId};
use ruzstd::decoding::StreamingDecoder;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::FrameError;

/// How many bytes one chunk takes in a list: its digest and its length.
const LISTED: usize = 32 + 4;
/// As much as is worth it on a machine that does other work: more makes components smaller by a few in a hundred.
const COMPRESSION_LEVEL: i32 = 3;

/// Of what a component consists, and who else may have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkList {
    /// Its chunks, in their order.
    #[serde(serialize_with = "pack_list", deserialize_with = "unpack_list")]
    pub chunks: Vec<Chunk>,
    /// The nodes at the same site that have it, or are told to have it too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<Neighbour>,
}

/// A node at the same site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its name.
    pub node: NodeId,
    /// Where other nodes reach it.
    pub address: SocketAddr,
    /// Whether it has all of the component; if not, it is told to fetch it, like who asks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_all: bool,
}

/// Where a chunk is in its component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkPlace {
    /// How many bytes are before it.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u32,
}

/// A chunk as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackedChunk {
    /// As it is.
    Plain(#[serde(with = "serde_bytes")] Vec<u8>),
    /// As one frame of Zstandard (RFC 8878).
    Zstd(#[serde(with = "serde_bytes")] Vec<u8>),
}

impl PackedChunk {
    /// Returns a chunk as it travels: compressed, if that makes it smaller.
    pub fn of(chunk: &[u8]) -> Self {
        match zstd::bulk::compress(chunk, COMPRESSION_LEVEL) {
            Ok(bytes) if bytes.len() < chunk.len() => Self::Zstd(bytes),
            _ => Self::Plain(chunk.to_vec()),
        }
    }

    /// Returns how many bytes travel.
    pub fn size(&self) -> usize {
        let (Self::Plain(bytes) | Self::Zstd(bytes)) = self;
        bytes.len()
    }

    /// Returns the chunk.
    ///
    /// # Errors
    ///
    /// It is damaged, or longer than [`MAX_CHUNK`].
    pub fn unpack(self) -> Result<Vec<u8>, FrameError> {
        match self {
            Self::Plain(bytes) => Ok(bytes),
            Self::Zstd(bytes) => decompress(&bytes),
        }
    }
}

/// The bytes come from another node and are not checked yet, so they are read by a decoder without unsafe code, which gets no
/// more memory than a chunk may need.
fn decompress(bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
    let malformed = |reason: String| FrameError::Malformed { reason };
    let mut chunk = Vec::new();
    StreamingDecoder::new_with_max_window_size(bytes, MAX_CHUNK as u64)
        .map_err(|error| malformed(format!("a chunk cannot be decompressed: {error}")))?
        .take(MAX_CHUNK as u64 + 1)
        .read_to_end(&mut chunk)
        .map_err(|error| malformed(format!("a chunk cannot be decompressed: {error}")))?;
    if chunk.len() > MAX_CHUNK {
        return Err(malformed(format!("a chunk may have {MAX_CHUNK} bytes, this one has more")));
    }
    Ok(chunk)
}

fn pack_list<S: Serializer>(chunks: &[Chunk], serializer: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::with_capacity(chunks.len() * LISTED);
    for chunk in chunks {
        bytes.extend(chunk.digest.bytes());
        bytes.extend(chunk.length.to_be_bytes());
    }
    serializer.serialize_bytes(&bytes)
}

fn unpack_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Chunk>, D::Error> {
    let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
    let (listed, rest) = bytes.as_chunks::<LISTED>();
    if !rest.is_empty() {
        return Err(de::Error::custom("the list of chunks is cut off"));
    }
    let chunk = |listed: &[u8; LISTED]| {
        let (digest, length) = listed.split_at(32);
        let digest = <[u8; 32]>::try_from(digest).map(Digest::from_sha256).ok()?;
        let length = <[u8; 4]>::try_from(length).map(u32::from_be_bytes).ok()?;
        let is_allowed = (1..=MAX_CHUNK).contains(&usize::try_from(length).ok()?);
        is_allowed.then_some(Chunk { digest, length })
    };
    let wrong = || de::Error::custom(format_args!("a chunk has 1 to {MAX_CHUNK} bytes"));
    listed.iter().map(|listed| chunk(listed).ok_or_else(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_can_be_made_smaller_is_and_the_rest_goes_as_it_is() {
        let even = vec![7; MAX_CHUNK];
        let small = PackedChunk::of(&even);
        assert!(matches!(&small, PackedChunk::Zstd(_)) && small.size() < 100, "{small:?}");
        assert_eq!(small.unpack().unwrap(), even);
        assert_eq!(PackedChunk::of(b"abc"), PackedChunk::Plain(b"abc".to_vec()));
    }

    #[test]
    fn a_small_frame_does_not_become_a_large_chunk() {
        let refused = |length: usize| {
            let bomb = zstd::bulk::compress(&vec![0; length], 19).unwrap();
            PackedChunk::Zstd(bomb).unpack().unwrap_err().to_string()
        };
        // Its window alone would be as large.
        let error = refused(64 << 20);
        assert!(error.contains("window"), "{error}");
        let error = refused(MAX_CHUNK + 1);
        assert!(error.contains("window") || error.contains("may have 262144 bytes"), "{error}");
        // Blocks of one byte that stands for many, after a small window.
        let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x40];
        for _ in 0..1000 {
            bomb.extend([0x02, 0x00, 0x10, 0x07]);
        }
        let error = PackedChunk::Zstd(bomb).unpack().unwrap_err().to_string();
        assert!(
            error.contains("may have 262144 bytes") || error.contains("cannot be decompressed"),
            "{error}"
        );
    }

    #[test]
    fn a_list_of_chunks_without_bytes_or_with_too_many_is_refused() {
        for length in [0, u32::try_from(MAX_CHUNK).unwrap() + 1] {
            let chunks = vec![Chunk { digest: Digest::of(b"x"), length }];
            let frame = crate::encode(&ChunkList { chunks, neighbours: Vec::new() }).unwrap();
            assert!(crate::decode::<ChunkList>(&frame[4..]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_chunk_comes_out_as_it_went_in(bytes: Vec<u8>) {
            prop_assert_eq!(PackedChunk::of(&bytes).unpack().unwrap(), bytes);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = PackedChunk::Zstd(bytes).unpack();
        }
    }
}
