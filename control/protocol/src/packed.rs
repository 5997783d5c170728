//! How large numbers of items travel: records as one block, numbers as ranges.

use dunlin_model::{ItemRecord, pack_items, unpack_items};
use serde::{Deserialize, Deserializer, Serializer, de};

/// Writes records, each with the number of its item, as one block of bytes.
pub(crate) fn serialize<S: Serializer>(
    items: &[(u32, ItemRecord)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(&pack_items(items.iter().map(|(item, record)| (*item, record))))
}

/// Reads what [`serialize`] wrote.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(u32, ItemRecord)>, D::Error> {
    let block = serde_bytes::ByteBuf::deserialize(deserializer)?;
    unpack_items(&block).map_err(de::Error::custom)
}

/// Items by their numbers.
pub(crate) mod ranges {
    use dunlin_model::{AllocationId, ItemRange, MAX_ITEMS};
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes items that follow one another as one range.
    pub(crate) fn serialize<S: Serializer>(
        items: &[(AllocationId, u32)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let follows = |one: &(AllocationId, u32), next: &(AllocationId, u32)| {
            one.0 == next.0 && one.1.checked_add(1) == Some(next.1)
        };
        serializer.collect_seq(items.chunk_by(follows).map(|items| {
            let (allocation, start) = items[0];
            let end = items[items.len() - 1].1.saturating_add(1);
            (allocation, ItemRange { start, end })
        }))
    }

    /// Reads what [`serialize`] wrote.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(AllocationId, u32)>, D::Error> {
        let ranges = Vec::<(AllocationId, ItemRange)>::deserialize(deserializer)?;
        let count: u64 = ranges.iter().map(|(_, range)| u64::from(range.len())).sum();
        if count > u64::from(MAX_ITEMS) {
            return Err(de::Error::custom(format_args!("{count} items are more than a run may have")));
        }
        let each =
            ranges.into_iter().flat_map(|(id, range)| (range.start..range.end).map(move |item| (id, item)));
        Ok(each.collect())
    }
}
