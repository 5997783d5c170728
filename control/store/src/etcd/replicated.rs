//! The store of the one in charge: what it commits is in etcd first, and then in its copy.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use prost::Message as _;

use super::checkpoint::{self, Current};
use super::client::EtcdError;
use super::entry::{Piece, cut, pack};
use super::message::{Compare, PutRequest, RangeRequest, Request, TxnRequest};
use super::room::Attempts;
use super::{Etcd, FollowError, Keys, Reign};
use crate::changes::{Changes, CommitError, LoadError, Record, Snapshot, SnapshotError, Table, Write};
use crate::embedded::Position;
use crate::space::NoSpace;

/// A checkpoint is written after so many entries of the log,
const ENTRIES: u64 = 4_096;
/// or so many bytes of them.
const BYTES: u64 = 8 << 20;
/// How often it looks whether there is room if nothing is written, and makes some if there is none.
const LOOK: Duration = Duration::from_secs(10);
/// How long from one attempt to the next while etcd does not answer.
const PAUSE: Duration = Duration::from_millis(100);
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
        // Nobody else adds to the log from now on. That etcd does not answer just now is likely: this one takes over
        // since something has failed.
        loop {
            match etcd.follow() {
                Ok(_) => break,
                Err(FollowError::Etcd(_)) if !reign.is_over() => std::thread::sleep(PAUSE),
                Err(error) => return Err(error),
            }
        }
        let (written, sizes) = channel();
        let writer = Checkpointer { etcd: Arc::clone(&etcd), reign: Arc::clone(&reign) };
        std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || writer.run(&sizes))
            .map_err(started)?;
        Ok(Self { etcd, reign, written })
    }

    /// Adds an entry to the log, behind the one before it.
    fn append(&self, index: u64, piece: &Piece, is_first: bool) -> Result<(), CommitError> {
        let keys = &self.etcd.shared.keys;
        let (key, value) = (keys.log(index), piece.encode_to_vec());
        let mut compare = vec![self.reign.condition(keys), Compare::absent(key.clone())];
        if index > 1 {
            // A request that is carried out late, when the log there has gone into a checkpoint, must not bring it back.
            compare.push(Compare::present(keys.log(index - 1)));
        }
        let request = TxnRequest {
            compare,
            success: vec![
                Request::Put(PutRequest { key: key.clone(), value: value.clone(), lease: 0 }).into(),
            ],
            failure: vec![
                Request::Range(RangeRequest { key: key.clone(), ..RangeRequest::default() }).into(),
            ],
        };
        let mut has_waited = false;
        loop {
            match self.etcd.shared.client.transact(&request) {
                Ok(answer) if answer.succeeded => return Ok(()),
                // An earlier attempt whose answer was lost is there already.
                Ok(answer) => {
                    let is_there = answer.ranges().flatten().any(|found| found.value == value);
                    return if is_there { Ok(()) } else { Err(self.deposed(EtcdError::Deposed)) };
                }
                // If nothing of the batch is there it may be tried again later, or given up.
                Err(EtcdError::NoSpace { message }) if is_first => return self.full(key, &value, message),
                Err(error @ EtcdError::Unreachable { .. }) if !self.reign.is_over() => {
                    if !std::mem::replace(&mut has_waited, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "a change waits for etcd");
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(self.deposed(error)),
            }
        }
    }

    /// Tells that etcd is full, unless an earlier attempt has found room.
    fn full(&self, key: Vec<u8>, value: &[u8], message: String) -> Result<(), CommitError> {
        let found = self.etcd.shared.read(RangeRequest { key, ..RangeRequest::default() });
        let found = found.map_err(|error| self.deposed(error))?;
        if found.iter().any(|found| found.value == value) {
            return Ok(());
        }
        let full = std::io::Error::new(std::io::ErrorKind::StorageFull, message);
        Err(CommitError::StorageFull(NoSpace::Refused(full)))
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
            let index = way.head.index + 1;
            self.append(index, &piece, piece.is_first)?;
            way.head = Position { index, reign: self.reign.id };
            // The thread ends by a panic only; then the log grows until somebody else is in charge.
            let _written = self.written.send(piece.bytes.len() as u64);
        }
        let position = way.head;
        self.etcd.advance(&mut way, writes, position)
    }

    fn is_in_charge(&self) -> bool {
        !self.reign.is_over()
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
        let mut tidied = Instant::now();
        let (mut attempts, mut owed) = (Attempts::default(), true);
        loop {
            match sizes.recv_timeout(LOOK) {
                Ok(size) => {
                    entries += 1;
                    bytes += size;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // What is written now is of all that was told so far.
            for size in sizes.try_iter() {
                entries += 1;
                bytes += size;
            }
            // When etcd is nearly full, wishes are refused, and only this can make room.
            // A second time lets also that go which the first one had to leave to those who lag behind.
            let is_full = !self.reign.has_room() && tidied.elapsed() >= LOOK;
            if entries < ENTRIES && bytes < BYTES && !is_full {
                continue;
            }
            tidied = Instant::now();
            match self.write(&mut owed) {
                Ok(()) => {
                    (entries, bytes) = (0, 0);
                    let Keys { location } = &self.etcd.shared.keys;
                    self.etcd
                        .shared
                        .client
                        .defragment_where_sparse(location.quota, &mut attempts, || !self.reign.is_over());
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

    /// Sets `owed` as long as something may be deleted that is not compacted.
    fn write(&self, owed: &mut bool) -> Result<(), SnapshotError> {
        let failed = |error: EtcdError| SnapshotError::Write(std::io::Error::other(error));
        let shared = &self.etcd.shared;
        let leader = self.reign.condition(&shared.keys);
        // Read, and not remembered: of a list that is there all segments are.
        let former = Current::read(shared).map_err(failed)?;
        let mut written = None;
        self.etcd.copy.snapshot_at(&mut |snapshot, position| {
            // Nothing has come since: it would be the same.
            if position != former.manifest.position() {
                written = Some(checkpoint::write(shared, &leader, &former, position, snapshot)?);
            }
            Ok(())
        })?;
        let is_new = written.is_some();
        let current = written.unwrap_or_else(|| former.clone());
        *owed |= is_new;
        let tidied = checkpoint::tidy(shared, &leader, &current, &former.manifest).map_err(failed)?;
        // Nobody reads what was; but others may have in the same etcd what they still want to read, so it is done only
        // where there may be something.
        if *owed {
            shared.client.compact(tidied).map_err(failed)?;
            // What the former list needed goes the next time.
            *owed = is_new;
        }
        tracing::info!(
            entry = current.manifest.index,
            segments = current.manifest.segments.len(),
            revision = current.revision,
            "a checkpoint of the store was written"
        );
        Ok(())
    }
}
