//! The store of the one in charge: what it commits is in etcd first, and then in its copy.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError};

use prost::Message as _;

use super::checkpoint::{self, Manifest};
use super::client::EtcdError;
use super::entry::{Piece, cut, pack};
use super::message::{Compare, PutRequest, RangeRequest, Request, TxnRequest};
use super::{Etcd, FollowError, Reign};
use crate::changes::{Changes, CommitError, LoadError, Record, Snapshot, SnapshotError, Table, Write};
use crate::embedded::Position;
use crate::space::NoSpace;

/// A checkpoint is written after so many entries of the log,
const ENTRIES: u64 = 4_096;
/// or so many bytes of them.
const BYTES: u64 = 8 << 20;
/// How many records one commit of `delete_prefix` deletes.
const DELETE_BATCH: usize = 1_000;

/// The store of the coordinator in charge.
pub struct Replicated {
    etcd: Arc<Etcd>,
    reign: Arc<Reign>,
    /// Told of each entry's size. The thread ends when this is gone.
    written: Sender<u64>,
}

impl Replicated {
    pub(super) fn begin(etcd: Arc<Etcd>, reign: Arc<Reign>) -> Result<Self, FollowError> {
        let started =
            |error: std::io::Error| EtcdError::Senseless(format!("could not start a thread: {error}"));
        Reign::keep(&reign, &etcd).map_err(started)?;
        // Nobody else adds to the log from now on.
        etcd.follow()?;
        let (written, sizes) = channel();
        let writer = Checkpointer { etcd: Arc::clone(&etcd), reign: Arc::clone(&reign) };
        std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || writer.run(&sizes))
            .map_err(started)?;
        Ok(Self { etcd, reign, written })
    }

    /// Adds an entry to the log.
    fn append(&self, index: u64, piece: &Piece, is_first: bool) -> Result<(), CommitError> {
        let keys = &self.etcd.shared.keys;
        let (key, value) = (keys.log(index), piece.encode_to_vec());
        let request = TxnRequest {
            compare: vec![self.reign.condition(keys), Compare::absent(key.clone())],
            success: vec![
                Request::Put(PutRequest { key: key.clone(), value: value.clone(), lease: 0 }).into(),
            ],
            failure: vec![Request::Range(RangeRequest { key, ..RangeRequest::default() }).into()],
        };
        loop {
            match self.etcd.shared.client.transact(&request) {
                Ok(answer) if answer.succeeded => return Ok(()),
                // An earlier attempt whose answer was lost is there already.
                Ok(answer) => {
                    let is_there = answer.ranges().flatten().any(|found| found.value == value);
                    return if is_there { Ok(()) } else { Err(self.deposed(EtcdError::Deposed)) };
                }
                // Nothing of the batch is there, so it may be tried again later, or given up.
                Err(EtcdError::NoSpace { message }) if is_first => {
                    let full = std::io::Error::new(std::io::ErrorKind::StorageFull, message);
                    return Err(CommitError::StorageFull(NoSpace::Refused(full)));
                }
                Err(error @ EtcdError::Unreachable { .. }) if !self.reign.is_over() => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a change waits for etcd");
                }
                Err(error) => return Err(self.deposed(error)),
            }
        }
    }

    fn deposed(&self, error: EtcdError) -> CommitError {
        self.reign.end();
        CommitError::Deposed(error.into())
    }
}

impl Changes for Replicated {
    fn commit(&self, writes: &[Write]) -> Result<(), CommitError> {
        if writes.is_empty() {
            return Ok(());
        }
        let mut way = self.etcd.way.lock().unwrap_or_else(PoisonError::into_inner);
        let pieces = cut(&pack(writes), self.reign.id);
        for piece in pieces {
            let index = way.head + 1;
            self.append(index, &piece, piece.is_first)?;
            way.head = index;
            // The thread ends by a panic only; then the log grows until somebody else is in charge.
            let _written = self.written.send(piece.bytes.len() as u64);
        }
        let position = Position { index: way.head, reign: self.reign.id };
        self.etcd.advance(&mut way, writes, position)
    }

    fn has_room(&self) -> bool {
        self.reign.has_room()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LoadError> {
        self.etcd.copy.get(table, key)
    }

    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, LoadError> {
        self.etcd.copy.range(table, prefix, after, limit)
    }

    fn snapshot(
        &self,
        reading: &mut dyn FnMut(&dyn Snapshot) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        self.etcd.copy.snapshot(reading)
    }

    fn delete_prefix(&self, table: Table, prefix: &[u8]) -> Result<u64, CommitError> {
        let mut deleted = 0;
        loop {
            let found = self.etcd.copy.range(table, prefix, None, DELETE_BATCH);
            let found = found.map_err(|error| CommitError::Io(error.into()))?;
            let count = found.len();
            let writes: Vec<Write> =
                found.into_iter().map(|(key, _)| Write { table, key, value: None }).collect();
            self.commit(&writes)?;
            deleted += count as u64;
            if count < DELETE_BATCH {
                return Ok(deleted);
            }
        }
    }
}

/// Writes a checkpoint whenever the log has become long.
struct Checkpointer {
    etcd: Arc<Etcd>,
    reign: Arc<Reign>,
}

impl Checkpointer {
    fn run(&self, sizes: &Receiver<u64>) {
        // What those before have left is not known.
        let (mut entries, mut bytes) = (ENTRIES, 0);
        let mut former: Option<(Manifest, i64)> = None;
        while let Ok(size) = sizes.recv() {
            entries += 1;
            bytes += size;
            if entries < ENTRIES && bytes < BYTES {
                continue;
            }
            match self.write(former.as_ref()) {
                Ok(done) => {
                    former = Some(done);
                    (entries, bytes) = (0, 0);
                }
                Err(_) if self.reign.is_over() => return,
                Err(error) => {
                    // The log only becomes longer; it is tried again after a while.
                    tracing::warn!(error = &error as &dyn std::error::Error, "no checkpoint was written");
                    (entries, bytes) = (ENTRIES / 2, 0);
                }
            }
        }
    }

    fn write(&self, former: Option<&(Manifest, i64)>) -> Result<(Manifest, i64), SnapshotError> {
        let failed = |error: EtcdError| SnapshotError::Write(std::io::Error::other(error));
        let shared = &self.etcd.shared;
        let leader = self.reign.condition(&shared.keys);
        let last = match former {
            Some((manifest, _)) => manifest.clone(),
            None => {
                let key = shared.keys.checkpoint();
                let found = shared.read(RangeRequest { key, ..RangeRequest::default() }).map_err(failed)?;
                let found = found.first().map(|found| checkpoint::decode(&found.value)).transpose();
                found.map_err(failed)?.unwrap_or_default()
            }
        };
        let mut written = None;
        self.etcd.copy.snapshot_at(&mut |snapshot, position| {
            written = Some(checkpoint::write(shared, &leader, &last, position, snapshot)?);
            Ok(())
        })?;
        let (manifest, revision) = written.unwrap_or_default();
        // What came before the last checkpoint is kept no longer, what came after it is: for those who lag behind.
        checkpoint::tidy(shared, &leader, &manifest, last.index).map_err(failed)?;
        if let Some((_, revision)) = former {
            shared.client.compact(*revision).map_err(failed)?;
        }
        tracing::info!(
            entry = manifest.index,
            segments = manifest.segments.len(),
            revision,
            "a checkpoint of the store was written"
        );
        Ok((manifest, revision))
    }
}
