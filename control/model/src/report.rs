//! What an agent says of its node, at every heartbeat: all of it, not what changed.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    AllocationId, AllocationReport, ClusterId, Generation, ItemReport, NodeInfo, RunId, Term, Timestamp,
    pack_items, unpack_items,
};

/// What an agent says of its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The fleet it belongs to.
    pub cluster: ClusterId,
    /// The highest (term, generation) it has stored and acts on.
    pub term: Term,
    /// See `term`.
    pub generation: Generation,
    /// What the node is and has.
    pub info: NodeInfo,
    /// When it was sent, by the agent's own clock: a coordinator that answers says it back, and the agent knows since when
    /// it was not heard. Zero if nobody asks.
    #[serde(default, skip_serializing_if = "is_unsaid")]
    pub sent: Timestamp,
    /// All allocations it knows.
    pub allocations: Vec<AllocationReport>,
    /// Items it has run and that were not yet said to be recorded, oldest first, a bounded number. They travel packed,
    /// since there may be thousands.
    #[serde(serialize_with = "pack", deserialize_with = "unpack")]
    pub items: Vec<ItemReport>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_unsaid(moment: &Timestamp) -> bool {
    moment.0 == 0
}

/// Items of one allocation which follow one another in a report.
#[derive(Serialize, Deserialize)]
struct Packed {
    allocation: AllocationId,
    run: RunId,
    #[serde(with = "serde_bytes")]
    records: Vec<u8>,
}

fn pack<S: Serializer>(items: &[ItemReport], serializer: S) -> Result<S::Ok, S::Error> {
    let same = |one: &ItemReport, next: &ItemReport| (one.allocation, one.run) == (next.allocation, next.run);
    serializer.collect_seq(items.chunk_by(same).map(|items| Packed {
        allocation: items[0].allocation,
        run: items[0].run,
        records: pack_items(items.iter().map(|it| (it.item, &it.record))),
    }))
}

fn unpack<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ItemReport>, D::Error> {
    let mut items = Vec::new();
    for Packed { allocation, run, records } in Vec::<Packed>::deserialize(deserializer)? {
        let records = unpack_items(&records).map_err(de::Error::custom)?;
        items.extend(records.into_iter().map(|(item, record)| ItemReport { allocation, run, item, record }));
    }
    Ok(items)
}
