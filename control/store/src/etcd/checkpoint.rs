//! All records of one moment in etcd, so that the log before them can go.
//!
//! They are cut into segments, named for their contents: one that has not changed since the last checkpoint is not
//! written again. Where to cut is decided by the keys alone, so that a new record moves no other's boundary. A list of
//! the segments makes the checkpoint; it replaces the former list in one step, and only then the rest is tidied away.
//!
//! A request whose answer did not come may still be carried out much later, by a member that was paused. So each is on
//! the condition that the list is still the one which it was made for, and a segment that is written again has another
//! name than before: nothing that comes late can take away, or bring back, what matters.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use sha2::{Digest as _, Sha256};

use super::client::EtcdError;
use super::entry::{PIECE, compress, decompress, pack, unpack};
use super::message::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, Request, RequestOp};
use super::{Keys, Shared};
use crate::changes::{Snapshot, SnapshotError, Table, Write};
use crate::embedded::Position;

/// A segment ends behind a key whose hash divides by this: after about so many records.
const RECORDS: u32 = 2_048;
/// Or when it has so many bytes.
const BYTES: usize = 4 << 20;
/// So many requests make one transaction; etcd takes 128.
const REQUESTS: usize = 100;

/// The list that makes a checkpoint.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Manifest {
    /// All up to this entry of the log is in it.
    #[prost(uint64, tag = "1")]
    pub(super) index: u64,
    /// Who wrote that entry.
    #[prost(fixed64, tag = "2")]
    pub(super) reign: u64,
    /// The names of the segments: the SHA-256 of what each holds, and the entry of the log for whose checkpoint it was
    /// written, in eight bytes.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub(super) segments: Vec<Vec<u8>>,
}

/// How many bytes of a name are the hash.
const HASH: usize = 32;

/// The list that is there, and when it was put there.
#[derive(Clone, Debug, Default)]
pub(super) struct Current {
    pub(super) manifest: Manifest,
    /// The revision; 0 if there is none yet.
    pub(super) revision: i64,
}

impl Current {
    pub(super) fn read(shared: &Shared) -> Result<Self, EtcdError> {
        let key = shared.keys.checkpoint();
        let found = shared.read(RangeRequest { key, ..RangeRequest::default() })?;
        let Some(found) = found.first() else { return Ok(Self::default()) };
        Ok(Self { manifest: decode(&found.value)?, revision: found.mod_revision })
    }

    /// The conditions that `leader` is in charge and this is still the list.
    fn conditions(&self, shared: &Shared, leader: &Compare) -> Vec<Compare> {
        vec![leader.clone(), Compare::changed_at(shared.keys.checkpoint(), self.revision)]
    }
}

impl Manifest {
    pub(super) fn position(&self) -> Position {
        Position { index: self.index, reign: self.reign }
    }
}

/// Writes all records of a snapshot and replaces the list; returns the new one.
pub(super) fn write(
    shared: &Shared,
    leader: &Compare,
    former: &Current,
    position: Position,
    snapshot: &dyn Snapshot,
) -> Result<Current, SnapshotError> {
    let failed = |error: EtcdError| SnapshotError::Write(std::io::Error::other(error));
    let conditions = former.conditions(shared, leader);
    let there: BTreeMap<&[u8], &Vec<u8>> =
        former.manifest.segments.iter().map(|name| (&name[..HASH.min(name.len())], name)).collect();
    let mut segments = Vec::new();
    let mut cutter = Cutter::default();
    let mut finish = |writes: Vec<Write>| -> Result<(), EtcdError> {
        let packed = pack(&writes);
        let hash = Sha256::digest(&packed);
        if let Some(name) = there.get(hash.as_slice()) {
            segments.push((*name).clone());
            return Ok(());
        }
        let name = [hash.as_slice(), &position.index.to_be_bytes()].concat();
        put(shared, &conditions, &name, &packed)?;
        segments.push(name);
        Ok(())
    };
    for table in Table::ALL {
        snapshot.each(table, &mut |key, value| match cutter.take(table, key, value) {
            Some(segment) => finish(segment).map_err(std::io::Error::other),
            None => Ok(()),
        })?;
    }
    let rest = std::mem::take(&mut cutter.writes);
    if !rest.is_empty() {
        finish(rest).map_err(failed)?;
    }
    let manifest = Manifest { index: position.index, reign: position.reign, segments };
    let put =
        PutRequest { key: shared.keys.checkpoint(), value: compress(&manifest.encode_to_vec()), lease: 0 };
    let replaced = shared.change(&conditions, vec![Request::Put(put).into()]);
    let revision = match replaced {
        Ok(revision) => revision,
        // A first attempt whose answer was lost makes the second one fail.
        Err(EtcdError::Deposed) => {
            let current = Current::read(shared).map_err(failed)?;
            if current.manifest != manifest {
                return Err(failed(EtcdError::Deposed));
            }
            current.revision
        }
        Err(error) => return Err(failed(error)),
    };
    Ok(Current { manifest, revision })
}

/// Gathers records into segments.
#[derive(Default)]
struct Cutter {
    writes: Vec<Write>,
    bytes: usize,
}

impl Cutter {
    /// Takes a record; returns a segment if this was its last.
    fn take(&mut self, table: Table, key: &[u8], value: &[u8]) -> Option<Vec<Write>> {
        self.bytes += key.len() + value.len();
        self.writes.push(Write { table, key: key.to_vec(), value: Some(value.to_vec()) });
        let hash = Sha256::digest(key);
        let is_end = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]).is_multiple_of(RECORDS);
        (is_end || self.bytes >= BYTES).then(|| {
            self.bytes = 0;
            std::mem::take(&mut self.writes)
        })
    }
}

/// Puts one segment, in pieces.
fn put(shared: &Shared, conditions: &[Compare], name: &[u8], packed: &[u8]) -> Result<(), EtcdError> {
    for (number, piece) in packed.chunks(PIECE).enumerate() {
        let put =
            PutRequest { key: shared.keys.segment_piece(name, number), value: piece.to_vec(), lease: 0 };
        shared.change(conditions, vec![Request::Put(put).into()])?;
    }
    Ok(())
}

/// Deletes what neither the list nor the `former` one needs: the log before the entry of that one, and all other
/// segments. Who reads the former list just now can so do that to its end, and go on by the log. The last entry of the
/// log is always there, since the next one is appended behind it. Returns a revision at which all of it is gone.
pub(super) fn tidy(
    shared: &Shared,
    leader: &Compare,
    current: &Current,
    former: &Manifest,
) -> Result<i64, EtcdError> {
    let conditions = current.conditions(shared, leader);
    let index = former.index;
    let log = DeleteRangeRequest { key: shared.keys.log(0), range_end: shared.keys.log(index) };
    let mut revision = shared.change(&conditions, vec![Request::DeleteRange(log).into()])?;
    let known = current.manifest.segments.iter().chain(&former.segments);
    let known: BTreeSet<Vec<u8>> = known.map(|name| shared.keys.segment(name)).collect();
    let mut gone: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut after = shared.keys.segments();
    loop {
        let range = RangeRequest {
            key: after.clone(),
            range_end: Keys::end_of(shared.keys.segments()),
            limit: 1_000,
            keys_only: true,
            ..RangeRequest::default()
        };
        let found = shared.read(range)?;
        let Some(last) = found.last() else { break };
        after = [last.key.as_slice(), &[0]].concat();
        // The number of the piece comes behind the last slash.
        let segment = |key: &[u8]| {
            let end = key.iter().rposition(|byte| *byte == b'/').map_or(key.len(), |slash| slash + 1);
            key[..end].to_vec()
        };
        gone.extend(found.iter().map(|found| segment(&found.key)).filter(|key| !known.contains(key)));
    }
    let deletions = gone.into_iter().map(|key| {
        let range_end = Keys::end_of(key.clone());
        RequestOp::from(Request::DeleteRange(DeleteRangeRequest { key, range_end }))
    });
    let deletions: Vec<RequestOp> = deletions.collect();
    for some in deletions.chunks(REQUESTS) {
        revision = shared.change(&conditions, some.to_vec())?;
    }
    Ok(revision)
}

/// Returns the list that a value holds.
pub(super) fn decode(value: &[u8]) -> Result<Manifest, EtcdError> {
    let senseless = |what: &dyn std::fmt::Display| EtcdError::Senseless(format!("the checkpoint: {what}"));
    let bytes = decompress(value).map_err(|error| senseless(&error))?;
    Manifest::decode(&*bytes).map_err(|error| senseless(&error))
}

/// Returns the records of one segment; nothing if it is there no more, since there is a later checkpoint.
pub(super) fn segment(shared: &Shared, name: &[u8]) -> Result<Option<Vec<Write>>, EtcdError> {
    let key = shared.keys.segment(name);
    let range_end = Keys::end_of(key.clone());
    let pieces = shared.read(RangeRequest { key, range_end, ..RangeRequest::default() })?;
    let packed: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.value).collect();
    if !name.starts_with(&Sha256::digest(&packed)) {
        return Ok(None);
    }
    unpack(&packed).map(Some)
}
