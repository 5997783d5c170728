//! What the brain does, as text: a script of what happens in, what was decided out.
//!
//! `world` reads the scripts and plays obedient agents; after every step the invariants are checked and a brain
//! restored from what was committed must hold them too.

#![expect(clippy::unwrap_used, reason = "a script with a mistake is a failed test")]

mod chains;
mod everywhere;
mod explain;
mod fairness;
mod fleet;
mod foresee;
mod jobs;
mod members;
mod operators;
mod partitions;
mod placement;
mod preemption;
mod properties;
mod random;
mod rebalance;
mod recovery;
mod revisions;
mod rollouts;
mod secrets;
mod services;
mod shares;
mod signed;
mod told;
mod upgrades;
mod wants;
mod world;

use expect_test::Expect;

/// Plays `script`, in which `apply NAME` deploys one of `manifests`, and compares where everything is.
#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value, and so scenarios stay short")]
fn placed(manifests: &[(&str, &str)], script: &str, expected: Expect) {
    let mut world = world::World::new();
    world.is_quiet = true;
    for (name, text) in manifests {
        let text: Vec<&str> = text.lines().map(str::trim).collect();
        world.manifests.insert((*name).to_owned(), text.join("\n"));
    }
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        world.play(line);
    }
    expected.assert_eq(&world.out);
}

/// Plays `script` and compares what the brain decided.
#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value, and so scenarios stay short")]
fn check(script: &str, expected: Expect) {
    let mut world = world::World::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        world.play(line);
    }
    expected.assert_eq(&world.out);
}
