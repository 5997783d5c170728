//! Histories from seeds: nothing goes wrong for good, whatever goes wrong for a while.
//!
//! One history: `DUNLIN_SEED=123 cargo test --release -p dunlin-simulation`. More of them: `DUNLIN_SEEDS=100000`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dunlin_simulation::{Counts, Failure, Sabotage, Summary, simulate};

/// How many histories are lived through in each test run.
const SEEDS: u64 = 1_000;

#[test]
fn whatever_goes_wrong_everything_comes_right_again() {
    if let Ok(seed) = std::env::var("DUNLIN_SEED") {
        let summary = simulate(seed.parse().expect("DUNLIN_SEED is a number"), Sabotage::None);
        println!("{:?}", summary.unwrap_or_else(|failure| panic!("{failure}")));
        return;
    }
    let count =
        std::env::var("DUNLIN_SEEDS").map_or(SEEDS, |it| it.parse().expect("DUNLIN_SEEDS is a number"));
    let started = Instant::now();
    let results = in_parallel(count, |seed| simulate(seed, Sabotage::None));
    let failures: Vec<&Failure> = results.iter().filter_map(|it| it.as_ref().err()).map(|it| &**it).collect();
    let good: Vec<&Summary> = results.iter().filter_map(|it| it.as_ref().ok()).collect();
    println!(
        "{count} histories in {:.1} s: {} things happened, {} items were recorded, the slowest recovery took {}",
        started.elapsed().as_secs_f64(),
        good.iter().map(|it| it.happened).sum::<u64>(),
        good.iter().map(|it| it.items).sum::<usize>(),
        good.iter().map(|it| it.recovery).max().unwrap_or_default(),
    );
    println!("{:?}", good.iter().fold(Counts::default(), |sum, it| sum.plus(it.counts)));
    for failure in &failures {
        println!("seed {}: {}", failure.seed, failure.reason);
    }
    if let Some(first) = failures.first() {
        panic!("{} of {count} histories went wrong; the first:\n{first}", failures.len());
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let hash = |seed| simulate(seed, Sabotage::None).map(|summary| summary.hash);
    let first: Vec<_> = (0..20).map(hash).collect();
    let second: Vec<_> = (0..20).map(hash).collect();
    assert_eq!(first, second);
    let distinct: std::collections::BTreeSet<u64> = first.into_iter().flatten().collect();
    assert_eq!(distinct.len(), 20, "different seeds should give different histories");
}

#[test]
fn each_sabotage_is_found() {
    let all = [
        Sabotage::SkipTermCheck,
        Sabotage::ForgetSavedAssignment,
        Sabotage::RecordTooEarly,
        Sabotage::DropCommits,
        Sabotage::ReuseTerm,
        Sabotage::IgnoreStops,
    ];
    for sabotage in all {
        let found = (0..200).find_map(|seed| simulate(seed, sabotage).err());
        let found = found.unwrap_or_else(|| panic!("200 histories did not show {sabotage:?}"));
        println!("{sabotage:?} is found by seed {}: {}", found.seed, found.reason);
    }
}

/// Runs the seeds `0..count` on all processors, and returns what each came to.
fn in_parallel<T: Send>(count: u64, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(1, |it| it.get());
    let mut results: Vec<(u64, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= count {
                            return mine;
                        }
                        mine.push((seed, run(seed)));
                    }
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a simulation does not panic")).collect()
    });
    results.sort_by_key(|(seed, _)| *seed);
    results.into_iter().map(|(_, result)| result).collect()
}
