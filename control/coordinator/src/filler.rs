//! A store filled without a coordinator, as one would fill it: for measuring.

use dunlin_scheduler::Change;
use dunlin_store::{Changes, CommitError};

use crate::kept::Specs;
use crate::records;

/// Fills a store.
#[derive(Debug, Default)]
pub struct Filler {
    specs: Specs,
}

impl Filler {
    /// Makes these changes durable, as one.
    pub fn commit(&mut self, store: &dyn Changes, changes: &[Change]) -> Result<(), CommitError> {
        store.commit(&records::writes(changes, &mut self.specs))
    }
}
