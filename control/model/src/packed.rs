//! The records of many items in few bytes: how they travel and how they are kept.
//!
//! A run has up to a million items, most of which end alike, so names of fields would be most of what is written. A
//! block is a version and then, for each record, its length and its fields: numbers take as many bytes as they need,
//! and what is as in the record before, or has its usual value, is left out. Bytes at the end of a record that this
//! version does not know are skipped, so that a later one may add fields.
//!
//! Not here: which records share a block. Whoever keeps or sends them decides that.

use crate::{Bytes, DurationMs, Fuel, HostCalls, ItemRecord, NodeId, Outcome};

/// The version of this layout: the first byte of each block.
const VERSION: u8 = 1;
/// The most records of one block. More are refused, since a block from outside could be small and yet hold very many.
const MAX_RECORDS: usize = 1 << 16;

/// The outcome is `Completed`; otherwise it follows.
const COMPLETED: u8 = 1;
/// Node and attempt are those of the record before; otherwise they follow.
const SAME_TRY: u8 = 1 << 1;
/// There is output.
const OUTPUT: u8 = 1 << 2;
/// There was more output than was kept.
const OUTPUT_CUT: u8 = 1 << 3;
/// It asked something of the host.
const HOST: u8 = 1 << 4;

/// Why bytes are no block of records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackedError {
    /// It is laid out in a way that this program does not know.
    #[error("a block of item records has version {found}, this program knows {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// It ends too early, or a field makes no sense.
    #[error("a block of item records is malformed at record {record}")]
    Malformed {
        /// Which, counted from 0.
        record: usize,
    },
    /// It has too many records.
    #[error("a block may have {MAX_RECORDS} item records, this one has more")]
    TooMany,
}

/// Returns the block of these records, each with the number of its item; cheapest if they are in order of number.
pub fn pack_items<'a>(records: impl IntoIterator<Item = (u32, &'a ItemRecord)>) -> Vec<u8> {
    let mut block = vec![VERSION];
    let mut body = Vec::new();
    let mut before: Option<(u32, &ItemRecord)> = None;
    for (item, record) in records {
        body.clear();
        pack_one(&mut body, before, item, record);
        put_number(&mut block, body.len() as u64);
        block.extend_from_slice(&body);
        before = Some((item, record));
    }
    block
}

/// Returns the records of a block.
pub fn unpack_items(block: &[u8]) -> Result<Vec<(u32, ItemRecord)>, PackedError> {
    let (version, mut rest) = block.split_first().ok_or(PackedError::Malformed { record: 0 })?;
    if *version != VERSION {
        return Err(PackedError::Version { found: *version });
    }
    let mut records: Vec<(u32, ItemRecord)> = Vec::new();
    while !rest.is_empty() {
        if records.len() == MAX_RECORDS {
            return Err(PackedError::TooMany);
        }
        let malformed = PackedError::Malformed { record: records.len() };
        let mut body = take_bytes(&mut rest).ok_or_else(|| malformed.clone())?;
        let record = unpack_one(&mut body, records.last()).ok_or(malformed)?;
        records.push(record);
    }
    Ok(records)
}

fn pack_one(body: &mut Vec<u8>, before: Option<(u32, &ItemRecord)>, item: u32, record: &ItemRecord) {
    let ItemRecord { outcome, node, attempt, fuel, memory, wall, host, output, output_cut } = record;
    let same_try = before.is_some_and(|(_, before)| before.node == *node && before.attempt == *attempt);
    let has_host = *host != HostCalls::default();
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    body.push(
        flag(outcome.is_completed(), COMPLETED)
            | flag(same_try, SAME_TRY)
            | flag(!output.is_empty(), OUTPUT)
            | flag(*output_cut, OUTPUT_CUT)
            | flag(has_host, HOST),
    );
    // How far from where it is expected; a step back becomes an odd number.
    let expected = before.map_or(0, |(item, _)| i64::from(item) + 1);
    let distance = i64::from(item) - expected;
    put_number(body, (distance.unsigned_abs() << 1) | u64::from(distance < 0));
    if !same_try {
        put_bytes(body, node.0.as_str().as_bytes());
        put_number(body, u64::from(*attempt));
    }
    put_number(body, fuel.0);
    put_number(body, memory.0);
    put_number(body, wall.0);
    if has_host {
        put_number(body, host.calls);
        put_number(body, host.bytes.0);
    }
    if !outcome.is_completed() {
        // Few of many, so that names in it cost little, and it may get new kinds.
        put_bytes(
            body,
            &serde_json::to_vec(outcome).expect("an outcome has only string keys and whole numbers"),
        );
    }
    if !output.is_empty() {
        put_bytes(body, output.as_bytes());
    }
}

fn unpack_one(body: &mut &[u8], before: Option<&(u32, ItemRecord)>) -> Option<(u32, ItemRecord)> {
    let flags = take(body, 1)?[0];
    let is_set = |flag: u8| flags & flag != 0;
    let distance = take_number(body)?;
    let expected = before.map_or(0, |(item, _)| u64::from(*item) + 1);
    let item = match distance & 1 {
        0 => expected.checked_add(distance >> 1)?,
        _ => expected.checked_sub(distance >> 1)?,
    };
    let item = u32::try_from(item).ok()?;
    let (node, attempt) = if is_set(SAME_TRY) {
        let (_, before) = before?;
        (before.node.clone(), before.attempt)
    } else {
        let name = str::from_utf8(take_bytes(body)?).ok()?.parse().ok()?;
        (NodeId(name), u32::try_from(take_number(body)?).ok()?)
    };
    let fuel = Fuel(take_number(body)?);
    let memory = Bytes(take_number(body)?);
    let wall = DurationMs(take_number(body)?);
    let host = if is_set(HOST) {
        HostCalls { calls: take_number(body)?, bytes: Bytes(take_number(body)?) }
    } else {
        HostCalls::default()
    };
    let outcome = if is_set(COMPLETED) {
        Outcome::Completed
    } else {
        serde_json::from_slice(take_bytes(body)?).ok()?
    };
    let output =
        if is_set(OUTPUT) { str::from_utf8(take_bytes(body)?).ok()?.to_owned() } else { String::new() };
    let output_cut = is_set(OUTPUT_CUT);
    Some((item, ItemRecord { outcome, node, attempt, fuel, memory, wall, host, output, output_cut }))
}

/// Writes seven bits in each byte, the lowest first; the eighth says that more follow.
fn put_number(to: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = (number & 0x7f).to_le_bytes()[0];
        number >>= 7;
        if number == 0 {
            return to.push(low);
        }
        to.push(low | 0x80);
    }
}

fn take_number(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(from, 1)?[0];
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put_number(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_number(from)?).ok()?;
    take(from, length)
}

fn take<'a>(from: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> ItemRecord {
        ItemRecord {
            outcome: Outcome::Completed,
            node: "node-1".parse().unwrap(),
            attempt: 1,
            fuel: Fuel(2_000),
            memory: Bytes(65_536),
            wall: DurationMs(0),
            host: HostCalls::default(),
            output: String::new(),
            output_cut: false,
        }
    }

    fn any_record() -> impl Strategy<Value = ItemRecord> {
        let outcome = prop_oneof![
            Just(Outcome::Completed),
            Just(Outcome::Cancelled),
            any::<u8>().prop_map(|code| Outcome::Exited { code }),
            ".*".prop_map(|reason| Outcome::Trapped { reason }),
            (any::<u64>(), any::<u64>()).prop_map(|(limit, observed)| Outcome::OutOfMemory {
                limit: Bytes(limit),
                observed: Bytes(observed)
            }),
        ];
        let numbers = any::<(u32, u64, u64, u64, u64, u64)>();
        (outcome, "[a-z][a-z0-9]{0,20}", numbers, ".{0,40}", any::<bool>()).prop_map(
            |(outcome, node, (attempt, fuel, memory, wall, calls, bytes), output, output_cut)| ItemRecord {
                outcome,
                node: node.parse().unwrap(),
                attempt,
                fuel: Fuel(fuel),
                memory: Bytes(memory),
                wall: DurationMs(wall),
                host: HostCalls { calls, bytes: Bytes(bytes) },
                output,
                output_cut,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(records in prop::collection::vec((any::<u32>(), any_record()), 0..20)) {
            let block = pack_items(records.iter().map(|(item, record)| (*item, record)));
            prop_assert_eq!(unpack_items(&block).unwrap(), records);
        }

        #[test]
        fn no_bytes_make_it_panic(mut block in prop::collection::vec(any::<u8>(), 0..200)) {
            let _any = unpack_items(&block);
            if let Some(version) = block.first_mut() {
                *version = VERSION;
            }
            let _any = unpack_items(&block);
        }

        #[test]
        fn a_block_that_ends_early_is_refused_or_shorter(cut in 0_usize..100) {
            let record = record();
            let block = pack_items((0..10).map(|item| (item, &record)));
            let cut = cut.min(block.len() - 1);
            if let Ok(records) = unpack_items(&block[..cut]) {
                prop_assert!(records.len() < 10);
            }
        }
    }

    #[test]
    fn items_that_end_alike_take_few_bytes() {
        let record = record();
        let block = pack_items((0..1_000).map(|item| (item, &record)));
        assert!(block.len() < 10 * 1_000, "{}", block.len());
    }

    #[test]
    fn what_a_later_version_adds_to_a_record_is_skipped() {
        let record = record();
        let mut body = Vec::new();
        pack_one(&mut body, None, 7, &record);
        body.extend_from_slice(b"more");
        let mut block = vec![VERSION];
        put_bytes(&mut block, &body);
        assert_eq!(unpack_items(&block).unwrap(), [(7, record)]);
    }

    #[test]
    fn another_layout_and_too_many_records_are_refused() {
        assert_eq!(unpack_items(&[9]), Err(PackedError::Version { found: 9 }));
        assert_eq!(unpack_items(&[]), Err(PackedError::Malformed { record: 0 }));
        let record = record();
        let block = pack_items((0..).take(MAX_RECORDS + 1).map(|item| (item, &record)));
        assert_eq!(unpack_items(&block), Err(PackedError::TooMany));
    }
}
