//! A campaign: many seeds on several threads, with what they came to.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dunlin_model::DurationMs;

use crate::faults::Counts;
use crate::options::Options;
use crate::simulation::{Failure, simulate};

/// Which seeds to run, and how.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// On how many threads.
    pub threads: usize,
    /// How the simulations differ from what their seeds say.
    pub options: Options,
}

/// What a campaign has found so far.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// How many seeds were run.
    pub seeds: u64,
    /// How many things happened.
    pub happened: u64,
    /// How many items were recorded.
    pub items: usize,
    /// How long each fleet took until everything was right after the faults had ended, shortest first when all is over.
    pub recoveries: Vec<DurationMs>,
    /// How often what happened.
    pub counts: Counts,
    /// What went wrong, the lowest seed first when all is over.
    pub failures: Vec<Failure>,
}

impl Found {
    /// Returns how long a fleet took so long or less than which this share of all took, in thousandths.
    pub fn recovery(&self, per_mille: usize) -> DurationMs {
        let last = self.recoveries.len().saturating_sub(1);
        self.recoveries.get(last * per_mille / 1_000).copied().unwrap_or_default()
    }
}

/// Runs a campaign to its end. `tell` hears after each seed what was found until then.
pub fn run(campaign: &Campaign, tell: impl Fn(&Found) + Sync) -> Found {
    let next = AtomicU64::new(0);
    let found = Mutex::new(Found::default());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= campaign.seeds {
                return;
            }
            let ended = simulate(campaign.from + number, &campaign.options);
            let mut found = found.lock().expect("who tells does not panic");
            found.seeds += 1;
            match ended {
                Ok(summary) => {
                    found.happened += summary.happened;
                    found.items += summary.items;
                    found.recoveries.push(summary.recovery);
                    found.counts = found.counts.plus(summary.counts);
                }
                Err(failure) => found.failures.push(*failure),
            }
            tell(&found);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..campaign.threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().expect("who tells does not panic");
    found.recoveries.sort_unstable();
    found.failures.sort_by_key(|failure| failure.seed);
    found
}
