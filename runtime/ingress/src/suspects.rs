//! Endpoints that failed a moment ago.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use dunlin_model::{AllocationId, NodeId};

use crate::config::SUSPECT_FOR;
use crate::table::Place;

/// What failed: everything on a node, or one allocation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Suspect {
    Node(NodeId),
    Allocation(AllocationId),
}

/// What failed within the last [`SUSPECT_FOR`].
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    /// Whether `since` may have anything, so that the usual request takes no lock.
    is_any: AtomicBool,
    since: Mutex<BTreeMap<Suspect, Instant>>,
}

impl Suspects {
    pub(crate) fn mark(&self, suspect: Suspect) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|_, marked| marked.elapsed() < SUSPECT_FOR);
        since.insert(suspect, Instant::now());
        self.is_any.store(true, Ordering::Release);
    }

    /// Tells whether the place or its node failed.
    pub(crate) fn contain(&self, place: &Place) -> bool {
        if !self.is_any.load(Ordering::Acquire) {
            return false;
        }
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|_, marked| marked.elapsed() < SUSPECT_FOR);
        if since.is_empty() {
            self.is_any.store(false, Ordering::Release);
            return false;
        }
        since.contains_key(&Suspect::Allocation(place.allocation))
            || since.contains_key(&Suspect::Node(place.node.clone()))
    }
}
