//! One simulation: a time of faults, then a time of calm in which everything must come right, then nothing is left.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dunlin_model::DurationMs;

use crate::faults::Counts;
use crate::options::Options;
use crate::world::World;

/// How long everything may take to come right from the last item that was recorded, as some fleets have work for hours:
/// the longest back-off is five minutes and may begin late, and who was lost again and again is set aside for ten.
const PATIENCE: DurationMs = DurationMs(2_400_000);
/// How often it is looked whether everything is right.
const LOOK: DurationMs = DurationMs(10_000);
/// How long everything must stay right.
const STEADY: DurationMs = DurationMs(30_000);
/// How long it may take until nothing is left of what users have deleted.
const LEAVING: DurationMs = DurationMs(30_000);

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
    /// With which options.
    pub options: Options,
    /// Which thing happened last.
    pub step: u64,
    /// What is wrong.
    pub reason: String,
    /// The last things that happened.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, options, step, reason, trace } = self;
        for line in trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {seed}, step {step}: {reason}")?;
        write!(f, "to see it again: cargo x simulate --from {seed} --seeds 1{options}")
    }
}

/// Runs the simulation of a seed.
pub fn simulate(seed: u64, options: &Options) -> Result<Summary, Box<Failure>> {
    let mut world = World::new(seed, options);
    // A brain that panics is a finding like any other.
    let ended = catch_unwind(AssertUnwindSafe(|| run(&mut world)));
    let ended = ended.unwrap_or_else(|panic| Err(format!("a brain panics: {}", said(&*panic))));
    match ended {
        Ok((recovery, items)) => Ok(Summary {
            hash: world.trace.hash(),
            happened: world.trace.steps(),
            recovery,
            items,
            counts: world.counts,
        }),
        Err(reason) => {
            let (step, trace) = (world.trace.steps(), world.trace.recent());
            Err(Box::new(Failure { seed, options: options.clone(), step, reason, trace }))
        }
    }
}

/// Returns the message of a panic.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().cloned();
    owned.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn run(world: &mut World) -> Result<(DurationMs, usize), String> {
    let faulty = world.draw(60_000, 240_000);
    world.run_until(world.now.plus(faulty))?;
    world.heal();
    let recovery = recover(world)?;
    let items = world.coordinator.store.items.len();
    world.users_leave()?;
    world.run_until(world.now.plus(LEAVING))?;
    world.check_nothing_is_left()?;
    Ok((recovery, items))
}

/// Lets time pass until everything is right, and stays so; returns how long that took.
fn recover(world: &mut World) -> Result<DurationMs, String> {
    let healed = world.now;
    loop {
        world.run_until(world.now.plus(LOOK))?;
        let since = world.now.since(healed);
        let idle = world.now.since(healed.max(world.coordinator.last_record));
        match world.check_all_is_right() {
            Ok(()) => {
                let right = world.now;
                world.run_until(right.plus(STEADY))?;
                match world.check_all_is_right() {
                    Ok(()) => return Ok(since),
                    // Something goes to a better node; that comes to an end, too.
                    Err(_) if idle <= PATIENCE && world.coordinator.has_moved_since(right) => {}
                    Err(reason) => return Err(format!("all was right, and then was not: {reason}")),
                }
            }
            Err(reason) if idle > PATIENCE => {
                return Err(format!("{since} after the faults ended: {reason}"));
            }
            Err(_) => {}
        }
    }
}
