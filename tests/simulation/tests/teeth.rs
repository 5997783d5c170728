//! Does the simulation find anything? Mistakes are planted in the scheduler, one after the other, and each must be
//! found within the seeds that every test run goes through.
//!
//! `cargo test --release -p dunlin-simulation --features planted-bugs --test teeth -- --nocapture` prints the table.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dunlin_scheduler::{Bug, plant};
use dunlin_simulation::{Failure, Options, simulate};

/// As many as a test run of the simulation goes through.
const SEEDS: u64 = 2_000;

#[test]
fn each_planted_bug_is_found() {
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(Bug, Option<Failure>)>> = Mutex::new(Vec::new());
    let work = || {
        while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            plant(Some(*bug));
            let first = (0..SEEDS).find_map(|seed| simulate(seed, &Options::default()).err());
            plant(None);
            found.lock().unwrap().push((*bug, first.map(|failure| *failure)));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |it| it.get()) {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort_by_key(|(bug, _)| *bug);
    println!("| planted bug | found by seed | as |\n| --- | --- | --- |");
    for (bug, failure) in &found {
        match failure {
            Some(Failure { seed, reason, .. }) => println!("| {bug:?} | {seed} | {reason} |"),
            None => println!("| {bug:?} | - | not within {SEEDS} seeds |"),
        }
    }
    let missed: Vec<&Bug> = found.iter().filter(|(_, it)| it.is_none()).map(|(bug, _)| bug).collect();
    println!("{} of {} are found", found.len() - missed.len(), found.len());
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}

#[test]
fn without_a_planted_bug_nothing_is_found() {
    for seed in 0..20 {
        simulate(seed, &Options::default()).unwrap_or_else(|failure| panic!("{failure}"));
    }
}
