//! Every seed of every target, and what a few changes make of each.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::panic::catch_unwind;

use dunlin_fuzz::{Mutator, Target, corpus, target};

/// Mutations of one target, shared out among its seeds.
const MUTATIONS: usize = 500;

fn run(name: &str) {
    let target: &Target = target(name).unwrap();
    let entries = std::fs::read_dir(corpus(target)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no seeds for {name}");
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    for (path, seed) in paths.iter().zip(&seeds) {
        tried(target, seed, &path.display().to_string());
    }
    let mut mutator = Mutator::new(1);
    for round in 0..MUTATIONS {
        let other = mutator.below(seeds.len());
        let bytes = mutator.mutate(&seeds[round % seeds.len()], &seeds[other]);
        tried(target, &bytes, "a mutation");
    }
}

/// Tries `bytes`. If that fails, it tells them, so that they can become a seed.
fn tried(target: &Target, bytes: &[u8], what: &str) {
    let tried = catch_unwind(|| (target.run)(bytes));
    assert!(tried.is_ok(), "{what} fails: {}", bytes.escape_ascii());
}

#[test]
fn any_bytes_are_admitted_or_refused() {
    run("admission-bytes");
}

#[test]
fn generated_modules_are_judged_rightly() {
    run("admission-modules");
}

#[test]
fn generated_components_are_admitted_or_refused() {
    run("admission-components");
}

#[test]
fn what_passes_the_ingress_means_one_thing() {
    run("ingress");
}

#[test]
fn no_sequence_of_host_calls_gets_beyond_the_limits() {
    run("host-calls");
}

#[test]
fn only_sealed_code_is_read() {
    run("cache");
}
