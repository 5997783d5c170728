//! One simulation: a time of faults, then a time of calm in which everything must come right.

use std::fmt;

use dunlin_model::DurationMs;

use crate::faults::{Counts, Sabotage};
use crate::world::World;

/// How long everything may take to come right: the longest back-off is five minutes, and may begin late.
const PATIENCE: DurationMs = DurationMs(2_400_000);
/// How often it is looked whether everything is right.
const LOOK: DurationMs = DurationMs(10_000);
/// How long everything must stay right.
const STEADY: DurationMs = DurationMs(30_000);

/// What a simulation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Over everything that happened: the same seed gives the same.
    pub hash: u64,
    /// How many things happened.
    pub happened: u64,
    /// How long it took until everything was right after the faults had ended.
    pub recovery: DurationMs,
    /// How many items are recorded in the end; those of deleted apps are gone.
    pub items: usize,
    /// How often what happened.
    pub counts: Counts,
}

/// What a simulation has found to be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Which thing happened last.
    pub step: u64,
    /// What is wrong.
    pub reason: String,
    /// The last things that happened.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}, step {}: {}", self.seed, self.step, self.reason)?;
        write!(f, "to see it again: DUNLIN_SEED={} cargo test --release -p dunlin-simulation", self.seed)
    }
}

/// Runs the simulation of a seed, with the world's shells broken in one way or in none.
pub fn simulate(seed: u64, sabotage: Sabotage) -> Result<Summary, Box<Failure>> {
    let mut world = World::new(seed, sabotage);
    match run(&mut world) {
        Ok(recovery) => Ok(Summary {
            hash: world.trace.hash(),
            happened: world.trace.steps(),
            recovery,
            items: world.coordinator.store.items.len(),
            counts: world.counts,
        }),
        Err(reason) => {
            let (step, trace) = (world.trace.steps(), world.trace.recent());
            Err(Box::new(Failure { seed, step, reason, trace }))
        }
    }
}

fn run(world: &mut World) -> Result<DurationMs, String> {
    let faulty = world.draw(60_000, 240_000);
    world.run_until(world.now.plus(faulty))?;
    world.heal();
    let healed = world.now;
    loop {
        world.run_until(world.now.plus(LOOK))?;
        let since = world.now.since(healed);
        match world.check_all_is_right() {
            Ok(()) => {
                world.run_until(world.now.plus(STEADY))?;
                return match world.check_all_is_right() {
                    Ok(()) => Ok(since),
                    Err(reason) => Err(format!("all was right, and then was not: {reason}")),
                };
            }
            Err(reason) if since > PATIENCE => {
                return Err(format!("{since} after the faults ended: {reason}"));
            }
            Err(_) => {}
        }
    }
}
