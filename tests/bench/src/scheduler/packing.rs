//! How well nodes are filled: a mixed load comes as it comes, against the same load sorted by size beforehand.

use std::collections::BTreeSet;

use dunlin_model::{Bytes, FuelRate, NamespaceSpec, Packing};
use dunlin_scheduler::Command;

use super::deploy;
use super::fleet::{Fleet, NAMESPACES, app, capacity, service};
use super::series;
use crate::report::Row;

const NODES: usize = 500;
/// The least share of what the sorted load reaches.
const BOUND: f64 = 0.95;

/// Measures which share of the fleet's memory is used when the first allocation does not fit.
pub(super) fn quality() -> Row {
    let load = load();
    let ours = as_it_comes(&load);
    let sorted = best_fit_decreasing(&load);
    let case = format!("memory of {NODES} nodes used when the first allocation of a mixed load does not fit");
    Row::new(case, "share", &series(ours))
        .against("best fit, the load sorted by size", &series(sorted))
        .ratio_at_least(BOUND)
}

/// Returns the sizes of the allocations of a mixed load, more than the fleet has room for.
fn load() -> Vec<Bytes> {
    let capacity: u64 = (0..NODES).map(|number| capacity(number).memory.0).sum();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut sizes = Vec::new();
    let mut sum = 0;
    while sum < capacity * 12 / 10 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Many are small and few are large, up to a gibibyte.
        let mebibytes = match state % 100 {
            0..50 => 16 + (state >> 32) % 112,
            50..90 => 128 + (state >> 32) % 384,
            _ => 512 + (state >> 32) % 512,
        };
        sizes.push(Bytes(mebibytes << 20));
        sum += mebibytes << 20;
    }
    sizes
}

fn as_it_comes(load: &[Bytes]) -> f64 {
    let mut fleet = Fleet::new(NODES);
    for namespace in 0..NAMESPACES {
        let spec = NamespaceSpec { packing: Packing::Pack, ..NamespaceSpec::default() };
        let namespace = format!("team-{namespace}").parse().expect("it is a name");
        fleet.submit(Command::SetNamespace { namespace, spec });
    }
    for (number, memory) in load.iter().enumerate() {
        // A number with which the service has no condition, so that any node would do.
        let number = number * 4 + 3;
        fleet.placed = 0;
        fleet.submit(deploy(app(number, service(number, 1, *memory, FuelRate(1_000)))));
        if fleet.placed == 0 {
            break;
        }
    }
    fleet.memory_used()
}

fn best_fit_decreasing(load: &[Bytes]) -> f64 {
    let mut sizes: Vec<u64> = load.iter().map(|size| size.0).collect();
    sizes.sort_unstable_by(|one, other| other.cmp(one));
    let mut free: BTreeSet<(u64, usize)> =
        (0..NODES).map(|number| (capacity(number).memory.0, number)).collect();
    let all: u64 = free.iter().map(|(memory, _)| memory).sum();
    let mut used = 0;
    for size in sizes {
        let Some(place) = free.range((size, 0)..).next().copied() else { break };
        free.remove(&place);
        free.insert((place.0 - size, place.1));
        used += size;
    }
    used as f64 / all as f64
}
