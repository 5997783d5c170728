//! The copy brought up to date: from the log, or from a checkpoint where the log does not reach back far enough.

use std::sync::PoisonError;
use std::time::Duration;

use prost::Message as _;

use super::Etcd;
use super::checkpoint::{self, Manifest};
use super::client::EtcdError;
use super::entry::{Assembly, Piece, unpack};
use super::message::{KeyValue, RangeRequest, Request, SortOrder, TxnRequest};
use super::reign::said;
use crate::changes::{CommitError, LoadError, Write};
use crate::embedded::Position;

/// How many entries of the log are asked for at once.
const ENTRIES: i64 = 64;
/// So many records of a checkpoint are put into the copy together.
const RECORDS: usize = 20_000;
/// How often segments of a checkpoint may be missing before it counts as damaged,
const MAX_IN_VAIN: u32 = 10;
/// and how long from one attempt to the next.
const PAUSE: Duration = Duration::from_millis(300);
/// So many entries may be forgotten with the process: they are read again then.
const UNSYNCED: u64 = 256;

/// How far the log was read.
#[derive(Default)]
pub(super) struct Way {
    /// The last entry that was read; at the beginning as far as the copy has come.
    pub(super) head: Position,
    /// Whether it is known how far the copy has come.
    is_begun: bool,
    assembly: Assembly,
    unsynced: u64,
}

/// What was seen of etcd when the copy was up to date.
#[derive(Debug)]
pub struct Seen {
    /// What the one in charge says of itself, if one is.
    pub leader: Option<Vec<u8>>,
    /// The last entry of the log.
    pub head: u64,
    /// The last entry that the checkpoint holds; 0 if there is none yet.
    pub checkpoint: u64,
}

/// Why the copy could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// etcd cannot be had.
    #[error("could not read the store in etcd")]
    Etcd(#[from] EtcdError),
    /// The copy cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The copy cannot be written.
    #[error("could not write the copy of the store")]
    Copy(#[from] CommitError),
    /// A part of the log is in no checkpoint.
    #[error(
        "etcd's log has no entries from {from} to {to}, and no checkpoint holds them; make the fleet anew from a backup"
    )]
    Gap {
        /// The first that is missing.
        from: u64,
        /// The next that is there.
        to: u64,
    },
    /// A checkpoint is not whole, and there is no later one.
    #[error("the checkpoint of entry {index} in etcd is damaged; make the fleet anew from a backup")]
    Damaged {
        /// The last entry that it should hold.
        index: u64,
    },
    /// There is nothing where there was something.
    #[error(
        "etcd holds nothing under this prefix, and the copy here has come as far as entry {index}; if etcd was emptied, \
         make it anew from a backup, or move the folder `copy` away to begin a new fleet"
    )]
    Gone {
        /// How far the copy has come.
        index: u64,
    },
}

impl Etcd {
    /// Brings the copy up to date, and tells who is in charge.
    pub fn follow(&self) -> Result<Seen, FollowError> {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        let mut in_vain = 0;
        loop {
            if !way.is_begun {
                let position = self.copy.position()?;
                *way = Way { head: position, is_begun: true, ..Way::default() };
            }
            let Look { leader, manifest, entries } = self.look(way.head.index)?;
            // Looked at each time: an etcd that was restored under its coordinators has another log.
            match judge(way.head, manifest.as_ref(), &entries) {
                Start::Here => {}
                Start::Gone => return Err(FollowError::Gone { index: way.head.index }),
                Start::Checkpoint => {
                    let manifest = manifest.unwrap_or_default();
                    tracing::info!(entry = manifest.index, "the copy of the store is made from a checkpoint");
                    way.is_begun = false;
                    if !self.load(&manifest)? {
                        // There is a later one by now, unless it is damaged.
                        in_vain += 1;
                        if in_vain >= MAX_IN_VAIN {
                            return Err(FollowError::Damaged { index: manifest.index });
                        }
                        std::thread::sleep(PAUSE);
                    }
                    continue;
                }
            }
            let is_last = entries.len() < usize::try_from(ENTRIES).unwrap_or(usize::MAX);
            let checkpoint = manifest.as_ref().map_or(0, |manifest| manifest.index);
            for (index, piece) in entries {
                if index <= way.head.index {
                    continue;
                }
                if index != way.head.index + 1 {
                    return Err(FollowError::Gap { from: way.head.index + 1, to: index });
                }
                self.take(&mut way, index, piece)?;
            }
            if is_last {
                return Ok(Seen { leader, head: way.head.index, checkpoint });
            }
        }
    }

    fn take(&self, way: &mut Way, index: u64, piece: Piece) -> Result<(), FollowError> {
        let position = Position { index, reign: piece.reign };
        if let Some(batch) = way.assembly.take(piece) {
            self.advance(way, &unpack(&batch)?, position)?;
        }
        way.head = position;
        Ok(())
    }

    /// Puts a batch into the copy.
    pub(super) fn advance(
        &self,
        way: &mut Way,
        writes: &[Write],
        position: Position,
    ) -> Result<(), CommitError> {
        way.unsynced += 1;
        let is_durable = way.unsynced >= UNSYNCED;
        self.copy.commit_at(writes, position, is_durable)?;
        if is_durable {
            way.unsynced = 0;
        }
        Ok(())
    }

    /// Looks at the leader, the checkpoint and the entries from `from` on, all at one moment.
    fn look(&self, from: u64) -> Result<Look, EtcdError> {
        let keys = &self.shared.keys;
        let one = |key| Request::Range(RangeRequest { key, ..RangeRequest::default() }).into();
        let entries = Request::Range(RangeRequest {
            key: keys.log(from),
            range_end: keys.log_end(),
            limit: ENTRIES,
            sort_order: SortOrder::Ascend.into(),
            ..RangeRequest::default()
        });
        let success = vec![one(keys.leader()), one(keys.checkpoint()), entries.into()];
        let answer = self.shared.client.transact(&TxnRequest { success, ..TxnRequest::default() })?;
        let mut ranges = answer.ranges();
        let mut next = || ranges.next().unwrap_or_default();
        let (leader, manifest, entries) = (next(), next(), next());
        Ok(Look {
            leader: leader.into_iter().next().map(|found| said(&found.value).to_vec()),
            manifest: manifest.first().map(|found| checkpoint::decode(&found.value)).transpose()?,
            entries: entries.into_iter().map(entry).collect::<Result<_, _>>()?,
        })
    }

    /// Fills the copy with the records of a checkpoint; says no, and leaves the copy empty, if not all are there.
    fn load(&self, manifest: &Manifest) -> Result<bool, FollowError> {
        self.copy.clear()?;
        let mut records = Vec::new();
        for name in &manifest.segments {
            let Some(segment) = checkpoint::segment(&self.shared, name)? else {
                self.copy.clear()?;
                return Ok(false);
            };
            records.extend(segment);
            if records.len() >= RECORDS {
                self.copy.commit_at(&std::mem::take(&mut records), Position::default(), false)?;
            }
        }
        self.copy.commit_at(&records, manifest.position(), true)?;
        Ok(true)
    }
}

/// What was found at one moment.
struct Look {
    leader: Option<Vec<u8>>,
    manifest: Option<Manifest>,
    entries: Vec<(u64, Piece)>,
}

fn entry(found: KeyValue) -> Result<(u64, Piece), EtcdError> {
    let senseless = |what: &str| EtcdError::Senseless(format!("an entry of the log: {what}"));
    let name = found.key.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let index = str::from_utf8(name).ok().and_then(|name| name.parse().ok());
    let piece = Piece::decode(&*found.value).map_err(|error| senseless(&error.to_string()))?;
    Ok((index.ok_or_else(|| senseless("its key has no number"))?, piece))
}

/// From where a copy goes on.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// From where it is.
    Here,
    /// From the checkpoint.
    Checkpoint,
    /// There is nothing to go on from.
    Gone,
}

/// Tells whether a copy that has come as far as `position` can go on by the log, whose `entries` from there on are
/// known.
fn judge(position: Position, manifest: Option<&Manifest>, entries: &[(u64, Piece)]) -> Start {
    let is_here = entries
        .first()
        .is_some_and(|(index, piece)| *index == position.index && piece.reign == position.reign);
    let is_at_checkpoint = manifest.is_some_and(|manifest| manifest.position() == position);
    match manifest {
        _ if is_here || is_at_checkpoint => Start::Here,
        Some(_) => Start::Checkpoint,
        // The whole log is there.
        None if position.index == 0 => Start::Here,
        None if entries.is_empty() => Start::Gone,
        // A log of another fleet, or one that was begun anew: of which it is shows the first entry, which is wanted.
        None => Start::Checkpoint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(range: std::ops::RangeInclusive<u64>, reign: u64) -> Vec<(u64, Piece)> {
        range.map(|index| (index, Piece { reign, ..Piece::default() })).collect()
    }

    #[test]
    fn a_copy_goes_on_where_it_is_only_if_it_is_of_this_log() {
        let manifest = |index| Manifest { index, reign: 1, segments: Vec::new() };
        let at = |index| Position { index, reign: 1 };
        let cases = [
            (at(5), None, entries(5..=9, 1), Start::Here),
            (at(5), None, entries(5..=5, 1), Start::Here),
            (at(5), None, entries(5..=9, 2), Start::Checkpoint),
            (at(5), None, entries(6..=9, 1), Start::Checkpoint),
            (at(5), None, Vec::new(), Start::Gone),
            (at(5), Some(manifest(5)), Vec::new(), Start::Here),
            (at(5), Some(manifest(5)), entries(6..=9, 1), Start::Here),
            (at(5), Some(manifest(7)), entries(8..=9, 1), Start::Checkpoint),
            (at(5), Some(manifest(3)), Vec::new(), Start::Checkpoint),
            (Position::default(), None, Vec::new(), Start::Here),
            (Position::default(), None, entries(1..=2, 1), Start::Here),
            (Position::default(), Some(manifest(7)), entries(8..=9, 1), Start::Checkpoint),
        ];
        for (position, manifest, entries, expected) in cases {
            assert_eq!(judge(position, manifest.as_ref(), &entries), expected, "{position:?} {manifest:?}");
        }
    }

    #[test]
    fn what_is_no_entry_is_an_error() {
        let found =
            |key: &str, value: &[u8]| KeyValue { key: key.into(), value: value.into(), ..Default::default() };
        assert!(entry(found("/dunlin/log/x", b"")).is_err());
        assert!(entry(found("/dunlin/log/1", b"\xff")).is_err());
        assert_eq!(entry(found("/dunlin/log/0012", b"")).unwrap().0, 12);
    }
}
