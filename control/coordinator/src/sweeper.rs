//! Deletes the records of items whose run is gone, beside the driver: a run has up to a million of them, and nobody
//! waits for this.
//!
//! A run is deleted before its items, so a process that ends in between leaves records which nothing points at. They
//! are found at the next start.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use dunlin_model::RunId;
use dunlin_store::{Changes, Table};

use crate::records::{self, RestoreError};

/// A handle for who has runs whose items are to go.
pub(crate) struct Sweeper {
    runs: Sender<Vec<u8>>,
}

impl Sweeper {
    /// Starts the one thread. It ends when the handle is gone and all is done.
    pub(crate) fn start(store: Arc<dyn Changes>) -> std::io::Result<Self> {
        let (runs, todo) = channel::<Vec<u8>>();
        std::thread::Builder::new().name("sweeper".to_owned()).spawn(move || {
            for items in todo {
                match store.delete_prefix(Table::Items, &items) {
                    Ok(deleted) => tracing::debug!(deleted, "records of a deleted run are gone"),
                    Err(error) => {
                        // If the disk has failed, the driver's next commit says so and ends the process.
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, "records of a deleted run could not be deleted");
                    }
                }
            }
        })?;
        Ok(Self { runs })
    }

    /// Deletes the records of a run's items, some time. The run itself must be gone durably.
    pub(crate) fn sweep(&self, run: RunId) {
        self.sweep_items(records::items_of(run));
    }

    /// Deletes what earlier processes left: call it before there can be a run that is not among `known`.
    pub(crate) fn sweep_leftovers(
        &self,
        store: &dyn Changes,
        known: &BTreeSet<RunId>,
    ) -> Result<(), RestoreError> {
        let known: BTreeSet<Vec<u8>> = known.iter().map(|run| records::items_of(*run)).collect();
        for items in records::runs_with_items(store)? {
            if !known.contains(&items) {
                tracing::info!("records of a deleted run were left; deleting them");
                self.sweep_items(items);
            }
        }
        Ok(())
    }

    fn sweep_items(&self, items: Vec<u8>) {
        // The thread ends only by a panic; then the records stay until the next start.
        let _kept = self.runs.send(items);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use dunlin_model::{Bytes, DurationMs, Fuel, ItemRecord, Outcome};
    use dunlin_scheduler::Change;
    use dunlin_store::Embedded;

    use super::*;
    use crate::kept::Specs;

    fn run(number: u64) -> RunId {
        RunId::new(number)
    }

    #[test]
    fn only_items_of_unknown_runs_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Changes> = Arc::new(Embedded::open(folder.path()).unwrap());
        let mut writes = Vec::new();
        for number in 1..=4 {
            for item in [0, 1, u32::MAX] {
                let change = Change::Item { run: run(number), item, record: record() };
                writes.extend(records::writes(&[change], &mut Specs::default()));
            }
        }
        store.commit(&writes).unwrap();

        let sweeper = Sweeper::start(Arc::clone(&store)).unwrap();
        sweeper.sweep_leftovers(&*store, &[run(1), run(3)].into()).unwrap();
        let left = || records::runs_with_items(&*store).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while left().len() > 2 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(left(), [records::items_of(run(1)), records::items_of(run(3))]);
        assert_eq!(store.load(Table::Items).unwrap().len(), 6);
    }

    fn record() -> ItemRecord {
        ItemRecord {
            outcome: Outcome::Completed,
            node: "node-1".parse().unwrap(),
            attempt: 1,
            fuel: Fuel::default(),
            memory: Bytes(0),
            wall: DurationMs(0),
            host: Default::default(),
            output: String::new(),
            output_cut: false,
        }
    }
}
