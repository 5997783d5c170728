//! How the brain's changes are kept in the store: which table, which key, which bytes.
//!
//! Values are JSON with named fields, so that a person can read a store and a later version can add fields.
//! Keys sort as people count: numbers are big-endian.

use dunlin_model::{ItemRecord, RunId, Timestamp};
use dunlin_scheduler::Change;
use dunlin_store::{Changes, LoadError, Table, Write};
use serde::de::DeserializeOwned;

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
}

/// Returns what must be written so that `change` is durable.
pub(crate) fn writes(change: &Change) -> Write {
    let json =
        |value: &Change| serde_json::to_vec(value).expect("a change has only string keys and finite numbers");
    let put = |table, key: Vec<u8>| Write { table, key, value: Some(json(change)) };
    let delete = |table, key: Vec<u8>| Write { table, key, value: None };
    match change {
        Change::App(record) => put(Table::Apps, record.name.to_string().into_bytes()),
        Change::AppDeleted(name) => delete(Table::Apps, name.to_string().into_bytes()),
        Change::Node(record) => put(Table::Nodes, record.id.to_string().into_bytes()),
        Change::Allocation(record) => put(Table::Allocations, record.id.number().to_be_bytes().to_vec()),
        Change::AllocationDeleted(id) => delete(Table::Allocations, id.number().to_be_bytes().to_vec()),
        Change::Run(record) => put(Table::Runs, record.id.number().to_be_bytes().to_vec()),
        Change::RunDeleted(id) => delete(Table::Runs, id.number().to_be_bytes().to_vec()),
        Change::Item { run, item, record } => {
            let value = serde_json::to_vec(record).expect("a record has only string keys and finite numbers");
            Write { table: Table::Items, key: item_key(*run, *item), value: Some(value) }
        }
        Change::Token(record) => put(Table::Tokens, record.id.clone().into_bytes()),
        Change::TokenDeleted(id) => delete(Table::Tokens, id.clone().into_bytes()),
        Change::Counters(_) => put(Table::Meta, b"counters".to_vec()),
    }
}

/// Returns all committed changes, to restore the cluster from. Item records stay in the store.
pub(crate) fn load(store: &dyn Changes) -> Result<Vec<Change>, RestoreError> {
    let mut changes = Vec::new();
    if let Some(value) = store.get(Table::Meta, b"counters")? {
        changes.push(decode(Table::Meta, &value)?);
    }
    for table in [Table::Tokens, Table::Nodes, Table::Apps, Table::Runs, Table::Allocations] {
        for (_, value) in store.load(table)? {
            changes.push(decode(table, &value)?);
        }
    }
    Ok(changes)
}

/// Returns the records of at most `limit` items of `run`, from item `from` on, in order.
pub(crate) fn items(
    store: &dyn Changes,
    run: RunId,
    from: u32,
    limit: usize,
) -> Result<Vec<(u32, ItemRecord)>, RestoreError> {
    let after = from.checked_sub(1).map(|before| item_key(run, before));
    let found = store.range(Table::Items, &items_of(run), after.as_deref(), limit)?;
    found
        .into_iter()
        .map(|(key, value)| {
            let item = key.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
            Ok((item, decode(Table::Items, &value)?))
        })
        .collect()
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

fn decode<T: DeserializeOwned>(table: Table, value: &[u8]) -> Result<T, RestoreError> {
    serde_json::from_slice(value).map_err(|source| RestoreError::Record { table, source })
}
