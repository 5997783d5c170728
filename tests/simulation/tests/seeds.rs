//! Histories from seeds: nothing goes wrong for good, whatever goes wrong for a while.
//!
//! Many more of them, or one alone: `cargo x simulate`.

use std::collections::BTreeSet;
use std::time::Instant;

use dunlin_simulation::{Campaign, Options, Sabotage, run, shrink, simulate};

/// How many histories are lived through in each test run.
const SEEDS: u64 = 2_000;
/// In how many histories at most a sabotage is looked for: some show only where several delays meet.
const SEARCHED: u64 = 10_000;
/// So many of them at a time, on all processors.
const TOGETHER: usize = 40;

#[test]
fn whatever_goes_wrong_everything_comes_right_again() {
    let campaign = Campaign { from: 0, seeds: SEEDS, threads: threads(), options: Options::default() };
    let started = Instant::now();
    let found = run(&campaign, |_| {});
    println!(
        "{SEEDS} histories in {:.1} s: {} things happened, {} items were recorded; recovery took {} (half), {} \
         (99 of 100), {} (all)",
        started.elapsed().as_secs_f64(),
        found.happened,
        found.items,
        found.recovery(500),
        found.recovery(990),
        found.recovery(1_000),
    );
    println!("{:?}", found.counts);
    for failure in &found.failures {
        println!("seed {}: {}", failure.seed, failure.reason);
    }
    let count = found.failures.len();
    if let Some(first) = found.failures.into_iter().next() {
        let short = shrink(first.clone());
        panic!("{count} of {SEEDS} histories went wrong; the first:\n{first}\n\nand shrunk:\n{short}");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let hash = |seed| simulate(seed, &Options::default()).map(|summary| summary.hash);
    let first: Vec<_> = (0..40).map(hash).collect();
    let second: Vec<_> = (0..40).map(hash).collect();
    assert_eq!(first, second);
    let distinct: BTreeSet<u64> = first.into_iter().flatten().collect();
    assert_eq!(distinct.len(), 40, "different seeds should give different histories");
}

#[test]
fn each_sabotage_is_found() {
    for sabotage in Sabotage::ALL {
        let found = (0..SEARCHED).step_by(TOGETHER).find_map(|from| {
            let options = Options::from(*sabotage);
            let campaign = Campaign { from, seeds: TOGETHER as u64, threads: threads(), options };
            run(&campaign, |_| {}).failures.into_iter().next()
        });
        let found = found.unwrap_or_else(|| panic!("{SEARCHED} histories did not show {sabotage:?}"));
        println!("{sabotage:?} is found by seed {}: {}", found.seed, found.reason);
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |it| it.get())
}
