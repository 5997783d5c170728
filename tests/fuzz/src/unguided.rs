//! Fuzzing without knowledge of what was reached: mutations of the seeds, many of them.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dunlin_fuzz::{Mutator, TARGETS, Target, corpus, target};

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (name, minutes, seed) = match *words.as_slice() {
        [name, "--minutes", minutes] => (name, minutes, None),
        [name, "--minutes", minutes, "--seed", seed] => (name, minutes, Some(seed)),
        _ => return usage(),
    };
    let seed = seed.map_or_else(|| Ok(seed_of_now()), str::parse);
    let (Some(target), Ok(minutes), Ok(seed)) = (target(name), minutes.parse::<u64>(), seed) else {
        return usage();
    };
    fuzz(target, Duration::from_secs(minutes * 60), seed)
}

fn seed_of_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs())
}

fn usage() -> ExitCode {
    say("usage: dunlin-fuzz TARGET --minutes N [--seed S]");
    for target in TARGETS {
        say(&format!("  {}: {}", target.name, target.about));
    }
    ExitCode::from(2)
}

fn say(line: &str) {
    // Nobody may be reading; the exit code says the same.
    let _closed = writeln!(std::io::stderr(), "{line}");
}

fn fuzz(target: &Target, duration: Duration, seed: u64) -> ExitCode {
    let seeds = read(&corpus(target));
    let mut mutator = Mutator::new(seed);
    say(&format!("{}: {} seeds, random seed {seed}", target.name, seeds.len()));
    let (started, mut last, mut runs) = (Instant::now(), Instant::now(), 0_u64);
    while started.elapsed() < duration {
        let noise = mutator.noise(256);
        let one = seeds.get(mutator.below(seeds.len())).unwrap_or(&noise);
        let other = seeds.get(mutator.below(seeds.len())).unwrap_or(&noise);
        let bytes = if mutator.below(16) == 0 { noise.clone() } else { mutator.mutate(one, other) };
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))).is_err() {
            let path = format!("found-{}-{seed}-{runs}", target.name);
            let kept = std::fs::write(&path, &bytes);
            say(&format!("{}: found after {runs} runs; the bytes are in {path} ({kept:?})", target.name));
            return ExitCode::FAILURE;
        }
        runs += 1;
        if last.elapsed() > Duration::from_secs(60) {
            last = Instant::now();
            say(&format!("{}: {runs} runs in {} s", target.name, started.elapsed().as_secs()));
        }
    }
    say(&format!("{}: done, {runs} runs, nothing found", target.name));
    ExitCode::SUCCESS
}

fn read(folder: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}
