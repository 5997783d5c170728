//! How many runs of a job are kept after their end, and how many records of items: the oldest are forgotten first.
//!
//! A run that another one reads from, or waits for, stays as long as that goes on.

use dunlin_model::{Timestamp, WorkloadName};

use crate::{Change, Cluster, Step};

/// So many ended runs of one job are kept.
pub(crate) const RUNS_KEPT: usize = 100;
/// So many records of items are kept of all ended runs of one job; those of the latest are, however many it has.
pub(crate) const RECORDS_KEPT: u64 = 10_000_000;

impl Cluster {
    /// Forgets the oldest ended runs of a job that are more than are kept.
    pub(crate) fn forget_old_runs(&mut self, step: &mut Step, job: &WorkloadName, now: Timestamp) {
        let index = self.durable.run_index();
        let (mut runs, mut records) = (0, 0_u64);
        let mut surplus = Vec::new();
        for (run, count) in index.ended(job).rev() {
            runs += 1;
            records += u64::from(count);
            let is_kept = runs <= RUNS_KEPT && (records <= RECORDS_KEPT || runs == 1);
            if !is_kept && index.followers(run).next().is_none() {
                surplus.push(run);
            }
        }
        for run in surplus {
            self.change(step, Change::RunDeleted(run), now);
        }
    }
}
