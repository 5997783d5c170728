//! Shares: namespaces that always want more have in the long run what their weights say.

use std::collections::BTreeMap;

use crate::random::Dice;
use crate::world::World;

/// How far a share may be from what its weight says.
const BOUND: f64 = 0.05;

/// Lets namespaces with these weights and these needs (memory in MiB) compete; returns the share that each had of what
/// all of them had, by the resource of which it had most.
fn shares(competitors: &[(&str, u32, u64)], seed: u64) -> BTreeMap<String, f64> {
    let mut world = World::new();
    world.is_quiet = true;
    for (name, weight, memory) in competitors {
        let manifest = format!(
            "[app]\nname = \"batch\"\nnamespace = \"{name}\"\n[job.sum]\ncomponent = \"sum.wasm\"\nparallelism = 500\n\
             [job.sum.limits]\nmemory = \"{memory}MiB\"\nfuel_rate = \"1M/s\"\n"
        );
        world.manifests.insert((*name).to_owned(), manifest);
        world.play(&format!("namespace {name} weight={weight}"));
        world.play(&format!("apply {name}"));
    }
    for node in ["a", "b", "c"] {
        world.play(&format!("node {node} 2GiB"));
    }
    for (name, ..) in competitors {
        // Whoever comes first takes the whole fleet; the others have what it gives back.
        world.play(&format!("start {name}/batch/sum 1000000"));
        world.play("wait 2");
    }
    let mut dice = Dice(seed);
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for round in 0..120 {
        // A few allocations of anybody are done; who gets their room is the question.
        let leased = world.leased();
        for _ in 0..4 {
            let (allocation, range) = leased[dice.below(leased.len())];
            world.play(&format!("done {allocation} {range}"));
        }
        world.play("wait 1");
        if round >= 40 {
            for (name, namespace) in world.view().namespaces {
                *sums.entry(name.to_string()).or_default() += namespace.usage.reserved.memory.0 as f64;
            }
        }
    }
    let all: f64 = sums.values().sum();
    sums.into_iter().map(|(name, sum)| (name, sum / all)).collect()
}

fn assert_shares(competitors: &[(&str, u32, u64)]) {
    let weights: u32 = competitors.iter().map(|(_, weight, _)| weight).sum();
    for seed in [0x9e37_79b9_7f4a_7c15, 0x1234_5678_9abc_def1] {
        let shares = shares(competitors, seed);
        for (name, weight, _) in competitors {
            let due = f64::from(*weight) / f64::from(weights);
            let has = shares[*name];
            assert!((has - due).abs() <= BOUND, "{name} should have {due:.3} and has {has:.3}: {shares:?}");
        }
    }
}

#[test]
fn equal_weights_give_equal_shares_though_one_came_first() {
    assert_shares(&[("first", 1, 64), ("second", 1, 64)]);
}

#[test]
fn shares_are_as_weights() {
    assert_shares(&[("one", 1, 64), ("two", 2, 64), ("five", 5, 64)]);
}

#[test]
fn who_needs_more_for_each_allocation_has_fewer_and_not_a_larger_share() {
    assert_shares(&[("small", 1, 64), ("large", 1, 192)]);
}
