//! How much one step may do: a mass of work is done in several, so that whoever waits is answered in between.

use std::collections::BTreeSet;

use dunlin_model::{RunId, WorkloadName};

use crate::turns::Claim;

/// Placements of one step at most; each costs about ten microseconds.
const MAX_COST: u32 = 2_000;

/// What one step may still do, and what it leaves to the next.
#[derive(Debug)]
pub(crate) struct Effort {
    left: u32,
    /// Services that the next step has to look at.
    pub(crate) left_services: BTreeSet<WorkloadName>,
    /// Runs that the next step has to look at.
    pub(crate) left_runs: BTreeSet<RunId>,
}

impl Effort {
    /// Returns all that one step may do.
    pub(crate) const fn of_one_step() -> Self {
        Self { left: MAX_COST, left_services: BTreeSet::new(), left_runs: BTreeSet::new() }
    }

    /// Tells whether nothing more may be done.
    pub(crate) const fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Leaves somebody to the next step.
    pub(crate) fn leave(&mut self, claim: Claim) {
        match claim {
            Claim::Service(workload) => drop(self.left_services.insert(workload)),
            Claim::Run(run) => drop(self.left_runs.insert(run)),
        }
    }

    /// Takes note of work that was done, in placements.
    pub(crate) const fn spend(&mut self, cost: u32) {
        self.left = self.left.saturating_sub(cost);
    }
}
