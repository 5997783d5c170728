//! How a batch of writes is laid out in etcd: as pieces, each small enough for one value.
//!
//! A batch is compressed and cut; its pieces are consecutive entries of the log. Each says who wrote it, whether it is
//! the first of its batch and whether it is the last: a batch counts when its last piece is there. One that was left
//! incomplete is followed by the first piece of another batch, and counts for nothing.

use prost::Message;

use super::client::EtcdError;
use crate::changes::{Table, Write};

/// The most bytes of one piece: a third of what etcd takes in one request.
pub(super) const PIECE: usize = 512 << 10;
/// The most bytes of a batch when it is unpacked.
const MAX_BATCH: usize = 1 << 30;

#[derive(Clone, PartialEq, Message)]
struct PackedWrite {
    #[prost(string, tag = "1")]
    table: String,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "3")]
    value: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct PackedBatch {
    #[prost(message, repeated, tag = "1")]
    writes: Vec<PackedWrite>,
}

/// One entry of the log.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Piece {
    /// Who wrote it: see [`Reign`](super::Reign).
    #[prost(fixed64, tag = "1")]
    pub(super) reign: u64,
    #[prost(bool, tag = "2")]
    pub(super) is_first: bool,
    #[prost(bool, tag = "3")]
    pub(super) is_last: bool,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) bytes: Vec<u8>,
}

/// Returns the writes as bytes.
pub(super) fn pack<'a>(writes: impl IntoIterator<Item = &'a Write>) -> Vec<u8> {
    let packed = |write: &Write| PackedWrite {
        table: write.table.name().to_owned(),
        key: write.key.clone(),
        value: write.value.clone(),
    };
    let batch = PackedBatch { writes: writes.into_iter().map(packed).collect() };
    compress(&batch.encode_to_vec())
}

/// Returns the writes of which [`pack`] made these bytes.
pub(super) fn unpack(bytes: &[u8]) -> Result<Vec<Write>, EtcdError> {
    let senseless = |what: &dyn std::fmt::Display| EtcdError::Senseless(format!("a batch of writes: {what}"));
    let batch = decompress(bytes).map_err(|error| senseless(&error))?;
    let batch = PackedBatch::decode(&*batch).map_err(|error| senseless(&error))?;
    let unpacked = |write: PackedWrite| {
        let table = Table::ALL.into_iter().find(|table| table.name() == write.table);
        let table = table.ok_or_else(|| senseless(&format!("there is no table `{}`", write.table)))?;
        Ok(Write { table, key: write.key, value: write.value })
    };
    batch.writes.into_iter().map(unpacked).collect()
}

/// Cuts a packed batch into the pieces that `reign` writes.
pub(super) fn cut(packed: &[u8], reign: u64) -> Vec<Piece> {
    let count = packed.len().div_ceil(PIECE).max(1);
    let piece = |(number, bytes): (usize, &[u8])| Piece {
        reign,
        is_first: number == 0,
        is_last: number + 1 == count,
        bytes: bytes.to_vec(),
    };
    packed.chunks(PIECE).enumerate().map(piece).collect()
}

/// Puts pieces together, in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    begun: Option<Piece>,
}

impl Assembly {
    /// Takes the next piece; returns a packed batch if it is whole now.
    pub(super) fn take(&mut self, piece: Piece) -> Option<Vec<u8>> {
        if piece.is_first {
            self.begun = Some(piece);
        } else {
            // A piece of somebody else, or without a beginning, belongs to nothing.
            let begun = self.begun.as_mut().filter(|begun| begun.reign == piece.reign)?;
            begun.bytes.extend_from_slice(&piece.bytes);
            begun.is_last = piece.is_last;
        }
        self.begun.take_if(|begun| begun.is_last).map(|whole| whole.bytes)
    }
}

pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    lz4_flex::compress_prepend_size(bytes)
}

pub(super) fn decompress(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let (size, packed) = lz4_flex::block::uncompressed_size(bytes).map_err(|error| error.to_string())?;
    if size > MAX_BATCH {
        return Err(format!("it would have {size} bytes, and {MAX_BATCH} are the most"));
    }
    lz4_flex::decompress(packed, size).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(size: usize) -> Vec<Write> {
        // Not to be compressed: each byte follows from a counter that is stirred.
        let mut state = 7_u64;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let value: Vec<u8> = std::iter::repeat_with(&mut byte).take(size).collect();
        vec![
            Write { table: Table::Apps, key: b"a".to_vec(), value: Some(value) },
            Write { table: Table::Items, key: Vec::new(), value: Some(Vec::new()) },
            Write { table: Table::Apps, key: b"b".to_vec(), value: None },
        ]
    }

    #[test]
    fn a_batch_comes_back_from_its_pieces() {
        for size in [0, 1, PIECE * 3 + 17] {
            let packed = pack(&writes(size));
            let pieces = cut(&packed, 5);
            assert_eq!(pieces.len(), packed.len().div_ceil(PIECE));
            let mut assembly = Assembly::default();
            let mut whole: Vec<_> = pieces.into_iter().filter_map(|piece| assembly.take(piece)).collect();
            let whole = whole.pop().expect("the last piece makes it whole");
            assert_eq!(unpack(&whole).unwrap(), writes(size));
        }
    }

    #[test]
    fn a_batch_that_was_left_incomplete_counts_for_nothing() {
        let (old, new) = (cut(&pack(&writes(PIECE * 2)), 1), cut(&pack(&writes(PIECE)), 2));
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(old[1].clone()), None);
        assert_eq!(assembly.take(old[0].clone()), None);
        // What the former one might still have had in flight is refused by etcd; were it there, it would not count.
        assert_eq!(assembly.take(new[0].clone()), None);
        assert_eq!(assembly.take(old[1].clone()), None);
        let whole = assembly.take(new[1].clone()).or_else(|| assembly.take(new[2].clone()));
        assert_eq!(unpack(&whole.unwrap()).unwrap(), writes(PIECE));
    }

    #[test]
    fn senseless_bytes_are_an_error() {
        for bytes in [&b""[..], b"x", &compress(b"\xff\xff"), &pack(&[])[..3]] {
            assert!(unpack(bytes).is_err() || bytes.is_empty(), "{bytes:?}");
        }
        let unknown = PackedBatch {
            writes: vec![PackedWrite { table: "other".to_owned(), key: Vec::new(), value: None }],
        };
        assert!(unpack(&compress(&unknown.encode_to_vec())).is_err());
    }
}
