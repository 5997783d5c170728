//! What one step decided.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{AllocationId, DurationMs, NodeId, Timestamp};

use crate::Change;

/// What one step decided. Commit `changes` first; only then carry out `actions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Step {
    /// What must be durable before anybody hears of it. Each key appears once.
    pub changes: Vec<Change>,
    /// What to do then. An action that is lost is decided again when the node reports.
    pub actions: Vec<Action>,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell a node everything it must run: its [`Cluster::assignment`](crate::Cluster::assignment).
    Assign {
        /// Whom to tell.
        node: NodeId,
    },
    /// Tell all [`Cluster::listeners`](crate::Cluster::listeners) everything they must run: something has changed which
    /// concerns them all.
    AssignAll,
    /// Tell a node that it may forget these items.
    Recorded {
        /// Whom to tell.
        node: NodeId,
        /// The allocation and the item.
        items: Vec<(AllocationId, u32)>,
    },
    /// Close the connection to a node that is no member any more.
    Expel {
        /// Which.
        node: NodeId,
    },
    /// Start again from the store.
    StartAgain,
    /// Tell a node that its report was heard.
    Heard {
        /// Whom to tell.
        node: NodeId,
        /// When the report was sent, as it says.
        sent: Timestamp,
        /// Which of its singletons may run, and for how long from then on.
        leases: BTreeMap<AllocationId, DurationMs>,
    },
}

impl Step {
    /// Keeps only the last change to each key, in the place of that last change.
    pub(crate) fn compact(&mut self) {
        let mut seen = BTreeSet::new();
        let mut kept: Vec<Change> = Vec::with_capacity(self.changes.len());
        while let Some(change) = self.changes.pop() {
            // The record of an item is written once, and there may be thousands.
            if matches!(change, Change::Item { .. }) || seen.insert(change.key()) {
                kept.push(change);
            }
        }
        kept.reverse();
        self.changes = kept;
    }
}
