//! The machines of a simulated fleet: few and tiny most often, so that there is often no room, and sometimes many.

use std::collections::BTreeMap;

use dunlin_model::{Bytes, FuelRate, NodeId, NodeInfo, Overcommit, Resources};

use crate::agent::Agent;
use crate::clock::Clock;
use crate::options::Options;
use crate::random::Random;

/// Returns the nodes of a seed: from 3 to 8 in most, up to 50 in some.
pub(crate) fn nodes(random: &mut Random, options: &Options) -> BTreeMap<NodeId, Agent> {
    let drawn = match random.between(0, 99) {
        0..78 => random.between(3, 8),
        78..96 => random.between(9, 20),
        _ => random.between(21, 50),
    };
    let count = options.most_nodes.map_or(drawn, |most| drawn.min(most));
    // In some fleets nodes are alike, in others no two are.
    let (zones, is_varied) = (random.between(1, 3), random.chance(700));
    let agents = (0..count).map(|number| {
        let node: NodeId = format!("node-{number}").parse().expect("it is a name");
        (node.clone(), Agent::new(node, info(number, zones, is_varied, random), Clock::draw(random, options)))
    });
    agents.collect()
}

/// Returns what a node tells of itself.
fn info(number: u64, zones: u64, is_varied: bool, random: &mut Random) -> NodeInfo {
    let zone = ["a", "b", "c"][usize::try_from(random.between(0, zones - 1)).expect("it is small")];
    let port = u16::try_from(8_000 + number).expect("there are few nodes");
    let mut size = || if is_varied { random.between(4, 12) } else { 8 };
    let (memory, fuel_rate) = (size(), size());
    let gpus = if random.chance(500) { random.small(1, 3) } else { 0 };
    NodeInfo {
        capacity: Resources {
            memory: Bytes(memory * (64 << 20)),
            fuel_rate: FuelRate(fuel_rate * 50_000_000),
        },
        labels: [("zone".to_owned(), zone.to_owned())].into(),
        ingress: ([10, 0, 0, 1], port).into(),
        peer: ([10, 0, 0, 2], port).into(),
        version: "simulated".to_owned(),
        resources: (gpus > 0).then(|| ("gpu".to_owned(), gpus)).into_iter().collect(),
        clock_unset: false,
        program: None,
        batch_overcommit: if random.chance(300) {
            Overcommit::new(150).expect("it is one")
        } else {
            Overcommit::NONE
        },
    }
}
