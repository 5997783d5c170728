//! The runs of a job: their items, and the record of each.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{AllocationId, Bytes, Digest, DurationMs, Fuel, NodeId, Outcome, RunId};

/// The most items one run may have.
pub const MAX_ITEMS: u32 = 1_000_000;

/// The most bytes of an item's output that are kept; what exceeds it is cut and the record says so.
pub const MAX_ITEM_OUTPUT: usize = 64 << 10;

/// The input of one item: what its instance reads from standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ItemInput {
    /// What the guest gets as its first argument, for instance the file's name.
    pub name: String,
    /// The bytes, uploaded beforehand.
    pub digest: Digest,
}

/// What instances asked of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostCalls {
    /// How often they called it.
    pub calls: u64,
    /// Bytes of bodies, input, output and log that went to and from them.
    pub bytes: Bytes,
}

/// What became of one item. Written exactly once, though a guest may run twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ItemRecord {
    /// How its instance ended.
    pub outcome: Outcome,
    /// Where.
    pub node: NodeId,
    /// Which try this was, from 1.
    pub attempt: u32,
    /// What it burned.
    pub fuel: Fuel,
    /// The most memory it held.
    pub memory: Bytes,
    /// How long it took.
    pub wall: DurationMs,
    /// How often it called the host, and how much went through these calls.
    #[serde(default)]
    pub host: HostCalls,
    /// What it wrote to standard output, at most [`MAX_ITEM_OUTPUT`] bytes; not UTF-8 is replaced.
    pub output: String,
    /// Whether it wrote more than was kept.
    pub output_cut: bool,
}

/// How far an allocation had come with its items when its agent was started again on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The allocation which runs them.
    pub allocation: AllocationId,
    /// The run they belong to.
    pub run: RunId,
    /// The first that was not begun, but for those of `done`.
    pub next: u32,
    /// Those from `next` on that have ended.
    pub done: BTreeSet<u32>,
    /// Those before `next` of which nobody knows whether they have ended.
    pub running: BTreeSet<u32>,
    /// Those before `next` that are to be tried again.
    pub again: BTreeSet<u32>,
}

/// An agent's word that an item was run. It is repeated until the coordinator says that it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemReport {
    /// The allocation which ran it.
    pub allocation: AllocationId,
    /// The run it belongs to.
    pub run: RunId,
    /// Its number within the run; the number of items for the combining instance.
    pub item: u32,
    /// What became of it.
    pub record: ItemRecord,
}
