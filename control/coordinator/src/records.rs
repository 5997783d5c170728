//! How the brain's changes are kept in the store: which table, which key, which bytes.
//!
//! Values are JSON with named fields, so that a person can read a store and a later version can add fields. An allocation
//! names its spec, which is kept once for all that have it (`kept`). Only the records of items, of which there may be a million, are packed: those of neighbours which are committed together
//! share one value, a part. Parts are never read or changed by later commits, and never reach over the end of a chunk
//! of [`CHUNK`] items, so that the records of some items are found by looking at the parts of their chunks only.
//! Keys sort as people count: numbers are big-endian. The key of a part is the number of its first item, which no
//! other part can have, since an item is recorded once.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{
    AppName, Digest, ItemRecord, NodeId, PackedError, Revision, RunId, SecretId, Timestamp, WorkloadName,
    pack_items, unpack_items,
};
use dunlin_planted::{Bug, planted};
use dunlin_scheduler::{Change, RecoveryRecord};
use dunlin_store::{Changes, LoadError, Table, Write};
use serde::de::DeserializeOwned;

use crate::kept::{Allocations, Specs};

/// Items whose numbers differ only within this may share a part.
const CHUNK: u32 = 1024;
/// How many bytes of output and the like one part holds, unless a single record has more.
const PART_BYTES: usize = 1 << 20;
/// What the keys of schedules begin with.
const SCHEDULES: &[u8] = b"schedule/";
/// What the keys of machines begin with that wait to become nodes.
const PENDING: &[u8] = b"pending/";
/// What the keys of secrets begin with.
const SECRETS: &[u8] = b"secret/";
/// The key of why nothing is decided.
const RECOVERY: &[u8] = b"recovery";
/// The key of the last upgrade.
const UPGRADE: &[u8] = b"upgrade";
/// How many parts are read at once.
const PARTS: usize = 16;

/// Why what the store holds cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// It could not be read.
    #[error("could not read the store")]
    Load(#[from] LoadError),
    /// A record is not what this version writes.
    #[error("the store's table {table:?} holds a record that this version cannot read")]
    Record {
        /// Where.
        table: Table,
        /// What the decoder says.
        source: serde_json::Error,
    },
    /// A spec is not there.
    #[error("the store holds an allocation and not its spec {digest}")]
    Spec {
        /// Which.
        digest: Digest,
    },
    /// Records of items are not what this version writes.
    #[error("the store holds records of items that this version cannot read")]
    Items(#[from] PackedError),
}

/// Returns what must be written so that all `changes` are durable, if they are committed together. Of several changes
/// of one record only the last is written.
///
/// `specs` are those that the store holds, and with these writes will.
pub(crate) fn writes(changes: &[Change], specs: &mut Specs) -> Vec<Write> {
    let mut seen = BTreeSet::new();
    let mut writes = Vec::new();
    let mut items: BTreeMap<(RunId, u32), BTreeMap<u32, &ItemRecord>> = BTreeMap::new();
    for change in changes.iter().rev() {
        let (table, key) = match change {
            Change::Item { run, item, record } => {
                items.entry((*run, item / CHUNK)).or_default().insert(*item, record);
                continue;
            }
            change => key(change),
        };
        if seen.insert((table, key.clone())) {
            let value = match change {
                Change::Allocation(record) => Some(specs.value(record, &mut writes)),
                change if is_deletion(change) => None,
                change => Some(
                    serde_json::to_vec(change).expect("a change has only string keys and finite numbers"),
                ),
            };
            writes.push(Write { table, key, value });
        }
    }
    writes.reverse();
    for ((run, _), records) in items {
        add_parts(&mut writes, run, records);
    }
    writes
}

/// Adds the parts of one chunk.
fn add_parts(writes: &mut Vec<Write>, run: RunId, records: BTreeMap<u32, &ItemRecord>) {
    let mut part: Vec<(u32, &ItemRecord)> = Vec::new();
    let mut bytes = 0;
    let mut put = |part: &mut Vec<(u32, &ItemRecord)>| {
        let Some((first, _)) = part.first() else { return };
        let key = item_key(run, *first);
        writes.push(Write { table: Table::Items, key, value: Some(pack_items(part.drain(..))) });
    };
    for (item, record) in records {
        if bytes + record.output.len() > PART_BYTES {
            put(&mut part);
            bytes = 0;
        }
        bytes += record.output.len();
        part.push((item, record));
    }
    put(&mut part);
}

/// Returns where a change other than of an item is kept.
fn key(change: &Change) -> (Table, Vec<u8>) {
    let number = |number: u64| number.to_be_bytes().to_vec();
    match change {
        Change::App(record) => (Table::Apps, record.name.to_string().into_bytes()),
        Change::AppDeleted(name) => (Table::Apps, name.to_string().into_bytes()),
        Change::Revision(record) => (Table::Revisions, revision_key(&record.app, record.revision)),
        Change::RevisionDeleted(app, revision) => (Table::Revisions, revision_key(app, *revision)),
        Change::Node(record) => (Table::Nodes, record.id.to_string().into_bytes()),
        Change::Namespace(record) => (Table::Namespaces, record.name.to_string().into_bytes()),
        Change::Allocation(record) => (Table::Allocations, number(record.id.number())),
        Change::AllocationDeleted(id) => (Table::Allocations, number(id.number())),
        Change::Run(record) => (Table::Runs, number(record.id.number())),
        Change::RunDeleted(id) => (Table::Runs, number(id.number())),
        Change::Item { run, item, .. } => (Table::Items, item_key(*run, *item)),
        Change::Schedule(record) => (Table::Meta, schedule_key(&record.job)),
        Change::ScheduleDeleted(job) => (Table::Meta, schedule_key(job)),
        Change::Token(record) => (Table::Tokens, record.id.clone().into_bytes()),
        Change::TokenDeleted(id) => (Table::Tokens, id.clone().into_bytes()),
        Change::Pending(record) => (Table::Meta, pending_key(&record.node)),
        Change::PendingDeleted(node) => (Table::Meta, pending_key(node)),
        Change::Secret(record) => (Table::Meta, secret_key(&record.id)),
        Change::SecretDeleted(id) => (Table::Meta, secret_key(id)),
        Change::Upgrade(_) => (Table::Meta, UPGRADE.to_vec()),
        Change::Counters(_) => (Table::Meta, b"counters".to_vec()),
        Change::Recovery(_) => (Table::Meta, RECOVERY.to_vec()),
    }
}

/// Returns the key of an earlier revision: a name has no zero byte.
fn revision_key(app: &AppName, revision: Revision) -> Vec<u8> {
    [app.to_string().as_bytes(), &[0], &revision.0.to_be_bytes()].concat()
}

fn is_deletion(change: &Change) -> bool {
    match change {
        Change::AppDeleted(_)
        | Change::RevisionDeleted(..)
        | Change::AllocationDeleted(_)
        | Change::RunDeleted(_)
        | Change::ScheduleDeleted(_)
        | Change::TokenDeleted(_)
        | Change::PendingDeleted(_)
        | Change::SecretDeleted(_) => true,
        Change::App(_)
        | Change::Revision(_)
        | Change::Node(_)
        | Change::Namespace(_)
        | Change::Allocation(_)
        | Change::Run(_)
        | Change::Item { .. }
        | Change::Schedule(_)
        | Change::Token(_)
        | Change::Pending(_)
        | Change::Secret(_)
        | Change::Upgrade(_)
        | Change::Counters(_)
        | Change::Recovery(_) => false,
    }
}

/// What a store holds.
pub(crate) struct Loaded {
    /// All committed changes, to restore the cluster from. Item records stay in the store.
    pub(crate) changes: Vec<Change>,
    /// The specs that it holds.
    pub(crate) specs: Specs,
}

/// Returns all that is needed to go on from what a store holds, and what deletes that of which nothing speaks any more.
pub(crate) fn load(store: &dyn Changes) -> Result<(Loaded, Vec<Write>), RestoreError> {
    let mut changes = Vec::new();
    if let Some(value) = store.get(Table::Meta, b"counters")? {
        changes.push(decode(Table::Meta, &value)?);
    }
    if let Some(value) = store.get(Table::Meta, UPGRADE)? {
        changes.push(decode(Table::Meta, &value)?);
    }
    changes.extend(recovery(store)?.map(Change::Recovery));
    let tables = [Table::Tokens, Table::Nodes, Table::Namespaces, Table::Apps, Table::Revisions, Table::Runs];
    for table in tables {
        let is_forgotten = (planted(Bug::ForgetRuns) && table == Table::Runs)
            || (planted(Bug::ForgetNamespaces) && table == Table::Namespaces);
        if is_forgotten {
            continue;
        }
        for (_, value) in store.load(table)? {
            changes.push(decode(table, &value)?);
        }
    }
    let Allocations { records, specs, unneeded } = Allocations::load(store)?;
    changes.extend(records.into_iter().map(Change::Allocation));
    for prefix in [SCHEDULES, PENDING, SECRETS] {
        load_single(store, prefix, &mut changes)?;
    }
    Ok((Loaded { changes, specs }, unneeded))
}

/// Returns why a coordinator decides nothing, if that is so.
pub(crate) fn recovery(store: &dyn Changes) -> Result<Option<RecoveryRecord>, RestoreError> {
    let Some(value) = store.get(Table::Meta, RECOVERY)? else { return Ok(None) };
    match decode(Table::Meta, &value)? {
        Change::Recovery(record) => Ok(Some(record)),
        _ => Ok(None),
    }
}

/// Returns what must be written so that it goes on.
pub(crate) fn recovery_over() -> Write {
    Write { table: Table::Meta, key: RECOVERY.to_vec(), value: None }
}

/// Adds how far the schedules of jobs were followed, who waits to become a node, or the secrets. They stand among the
/// single values: there are few of them.
fn load_single(store: &dyn Changes, prefix: &[u8], changes: &mut Vec<Change>) -> Result<(), RestoreError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let found = store.range(Table::Meta, prefix, after.as_deref(), PARTS)?;
        let is_last = found.len() < PARTS;
        for (key, value) in found {
            changes.push(decode(Table::Meta, &value)?);
            after = Some(key);
        }
        if is_last {
            return Ok(());
        }
    }
}

fn pending_key(node: &NodeId) -> Vec<u8> {
    [PENDING, node.to_string().as_bytes()].concat()
}

fn secret_key(id: &SecretId) -> Vec<u8> {
    [SECRETS, id.to_string().as_bytes()].concat()
}

fn schedule_key(job: &WorkloadName) -> Vec<u8> {
    [SCHEDULES, job.to_string().as_bytes()].concat()
}

/// Returns the records of at most `limit` items of `run`, from item `from` on, in order.
pub(crate) fn items(
    store: &dyn Changes,
    run: RunId,
    from: u32,
    limit: usize,
) -> Result<Vec<(u32, ItemRecord)>, RestoreError> {
    let mut found = Vec::new();
    // The parts of a chunk may interleave, so its records are in order only when all of them are here.
    let mut chunk: BTreeMap<u32, ItemRecord> = BTreeMap::new();
    let mut after = (from - from % CHUNK).checked_sub(1).map(|before| item_key(run, before));
    loop {
        let parts = store.range(Table::Items, &items_of(run), after.as_deref(), PARTS)?;
        let is_last = parts.len() < PARTS;
        for (key, value) in parts {
            let part = unpack_items(&value)?;
            let ended = match (chunk.first_key_value(), part.first()) {
                (Some((known, _)), Some((next, _))) => known / CHUNK != next / CHUNK,
                _ => false,
            };
            if ended {
                found.extend(std::mem::take(&mut chunk));
                if found.len() >= limit {
                    found.truncate(limit);
                    return Ok(found);
                }
            }
            chunk.extend(part.into_iter().filter(|(item, _)| *item >= from));
            after = Some(key);
        }
        if is_last {
            found.extend(chunk);
            found.truncate(limit);
            return Ok(found);
        }
    }
}

/// Returns what the keys of the items begin with, for each run that has some. It costs one look for each.
pub(crate) fn runs_with_items(store: &dyn Changes) -> Result<Vec<Vec<u8>>, LoadError> {
    let mut runs: Vec<Vec<u8>> = Vec::new();
    loop {
        // After all items of the last run, whose numbers have four bytes.
        let after = runs.last().map(|run| [run.as_slice(), &[0xff; 5]].concat());
        let first = store.range(Table::Items, &[], after.as_deref(), 1)?;
        let Some((mut key, _)) = first.into_iter().next() else { return Ok(runs) };
        key.truncate(8);
        runs.push(key);
    }
}

/// Returns what must be written so that the next start does not begin before `now`.
pub(crate) fn time_seen(now: Timestamp) -> Write {
    let value = serde_json::to_vec(&now).expect("a moment is a number");
    Write { table: Table::Meta, key: b"clock".to_vec(), value: Some(value) }
}

/// Returns the latest time that was seen, or the beginning of all time.
pub(crate) fn last_time_seen(store: &dyn Changes) -> Result<Timestamp, RestoreError> {
    match store.get(Table::Meta, b"clock")? {
        Some(value) => decode(Table::Meta, &value),
        None => Ok(Timestamp(0)),
    }
}

/// Returns what the keys of all items of `run` begin with.
pub(crate) fn items_of(run: RunId) -> Vec<u8> {
    run.number().to_be_bytes().to_vec()
}

fn item_key(run: RunId, item: u32) -> Vec<u8> {
    let mut key = items_of(run);
    key.extend_from_slice(&item.to_be_bytes());
    key
}

pub(crate) fn decode<T: DeserializeOwned>(table: Table, value: &[u8]) -> Result<T, RestoreError> {
    serde_json::from_slice(value).map_err(|source| RestoreError::Record { table, source })
}

#[cfg(test)]
mod tests {
    use dunlin_model::{Bytes, DurationMs, Fuel, Outcome};
    use dunlin_store::Embedded;

    use super::*;

    fn record(output: usize) -> ItemRecord {
        ItemRecord {
            outcome: Outcome::Completed,
            node: "node-1".parse().unwrap(),
            attempt: 1,
            fuel: Fuel(7),
            memory: Bytes(65_536),
            wall: DurationMs(0),
            host: Default::default(),
            output: "x".repeat(output),
            output_cut: false,
        }
    }

    fn items_recorded(run: u64, items: impl IntoIterator<Item = u32>, output: usize) -> Vec<Change> {
        let run = RunId::new(run);
        items.into_iter().map(|item| Change::Item { run, item, record: record(output) }).collect()
    }

    fn numbers(store: &dyn Changes, run: u64, from: u32, limit: usize) -> Vec<u32> {
        let found = items(store, RunId::new(run), from, limit).unwrap();
        found.into_iter().map(|(item, _)| item).collect()
    }

    #[test]
    fn items_are_read_in_order_whatever_the_order_and_the_batches_they_were_recorded_in() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        let all: Vec<u32> = (0..5_000).filter(|item| item % 7 != 3).collect();
        let mut order = all.clone();
        // Swapped far and near, and cut into batches of odd sizes.
        order.sort_by_key(|item| (item * 7_919) % 1_301);
        for (index, batch) in order.chunks(97).enumerate() {
            let mut changes = items_recorded(2, batch.iter().copied(), index % 3);
            changes.extend(items_recorded(1, [u32::try_from(index).unwrap()], 0));
            store.commit(&writes(&changes, &mut Specs::default())).unwrap();
        }
        for (from, limit) in [(0, 10_000), (0, 1), (1, 3), (1_023, 2), (1_024, 1_000), (4_999, 5), (5_000, 9)]
        {
            let expected: Vec<u32> = all.iter().copied().filter(|item| *item >= from).take(limit).collect();
            assert_eq!(numbers(&store, 2, from, limit), expected, "from {from}, {limit} at most");
        }
        assert_eq!(numbers(&store, 3, 0, 10), Vec::<u32>::new());
    }

    #[test]
    fn items_that_are_recorded_together_share_a_part_as_long_as_it_is_not_large() {
        let small = writes(&items_recorded(1, 0..2_048, 0), &mut Specs::default());
        assert_eq!(small.len(), 2);
        assert!(small.iter().all(|write| write.value.as_ref().unwrap().len() < 12 * 1_024));
        let large = writes(&items_recorded(1, 0..64, 64 << 10), &mut Specs::default());
        assert_eq!(large.len(), 4);
    }

    #[test]
    fn only_the_last_of_several_changes_of_one_record_is_written() {
        let counters = |run| Change::Counters(dunlin_scheduler::Counters { allocation: 0, run });
        let changes = [counters(1), Change::RunDeleted(RunId::new(1)), counters(2)];
        let written = writes(&changes, &mut Specs::default());
        assert_eq!(written.len(), 2);
        assert_eq!(written[0].value, None);
        let value = written[1].value.as_ref().unwrap();
        assert_eq!(serde_json::from_slice::<Change>(value).unwrap(), counters(2));
    }
}
