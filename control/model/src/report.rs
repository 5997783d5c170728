//! What an agent says of its node, at every heartbeat: all of it, not what changed.

use serde::{Deserialize, Serialize};

use crate::{AllocationReport, ClusterId, Generation, ItemReport, NodeInfo, Term};

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
    /// All allocations it knows.
    pub allocations: Vec<AllocationReport>,
    /// Items it has run and that were not yet said to be recorded, oldest first, a bounded number.
    pub items: Vec<ItemReport>,
}
