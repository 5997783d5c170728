//! The search for nodes for several allocations of one workload, one after the other.
//!
//! Most nodes of a class are alike for the workload and stand in an order already: of them only the first is looked at.
//! Those which differ (they run it already, say) are ranked one by one. So a placement costs a look at each class, not
//! at each node.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{NodeId, Resources};

use super::Demand;
use super::filter::judge;
use super::pools::{Class, ClassId, Pools};
use crate::Cluster;

/// How good a node is for a workload within its class, best first: what stands above decides before what stands below.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// How many allocations of the workload it has already.
    copies: u32,
    /// Which share of it is reserved, in millionths.
    reserved: u64,
    node: NodeId,
}

/// A class of nodes that can run the workload.
#[derive(Debug)]
struct Eligible {
    class: ClassId,
    /// Its nodes that differ for this workload.
    special: BTreeSet<Rank>,
    /// How far its other nodes have been looked at.
    seen: Option<(u64, NodeId)>,
    /// The best of all that has room.
    best: Option<Rank>,
}

/// A search for nodes for allocations of one workload.
///
/// As long as it goes on, nothing else may be placed, and nodes must not change.
#[derive(Debug)]
pub(crate) struct Search {
    need: Resources,
    eligible: Vec<Eligible>,
    /// The allocations of the workload on each node that has some: these are not looked at as one of many.
    copies: BTreeMap<NodeId, u32>,
}

impl Search {
    /// Begins a search.
    pub(crate) fn new(cluster: &Cluster, demand: &Demand) -> Self {
        let need = demand.need();
        let pools = &cluster.volatile.pools;
        let mut copies: BTreeMap<NodeId, u32> = BTreeMap::new();
        for record in cluster.durable.of_workload(&demand.workload).filter(|record| record.is_live()) {
            *copies.entry(record.node.clone()).or_default() += 1;
        }
        let mut special: BTreeMap<ClassId, BTreeSet<Rank>> = BTreeMap::new();
        for (node, copies) in &copies {
            if let Some((class, room)) = pools.node(node) {
                let rank = Rank { copies: *copies, reserved: room.reserved_share(), node: node.clone() };
                special.entry(class).or_default().insert(rank);
            }
        }
        let fitting = pools.classes().iter().filter(|(_, class)| class.may_fit(&need));
        let able = fitting.filter(|(_, class)| judge(&class.key, demand).is_ok());
        let eligible = able.map(|(id, _)| Eligible {
            class: *id,
            special: special.remove(id).unwrap_or_default(),
            seen: None,
            best: None,
        });
        let mut search = Self { need, eligible: eligible.collect(), copies };
        for index in 0..search.eligible.len() {
            search.look(pools, index);
        }
        search
    }

    /// Returns what beginning it has cost, in placements.
    pub(crate) fn cost(cluster: &Cluster) -> u32 {
        1 + u32::try_from(cluster.volatile.pools.classes().len() / 16).unwrap_or(u32::MAX)
    }

    /// Returns the best node, if there is room on any.
    pub(crate) fn best(&self) -> Option<&NodeId> {
        self.eligible.iter().filter_map(|eligible| eligible.best.as_ref()).min().map(|rank| &rank.node)
    }

    /// Takes note that an allocation was placed on `node`.
    pub(crate) fn placed(&mut self, pools: &Pools, node: &NodeId) {
        let copies = self.copies.entry(node.clone()).or_default();
        *copies += 1;
        let Some((class, room)) = pools.node(node) else { return };
        let Some(index) = self.eligible.iter().position(|eligible| eligible.class == class) else { return };
        let eligible = &mut self.eligible[index];
        if let Some(before) = eligible.best.take() {
            eligible.special.remove(&before);
        }
        let rank = Rank { copies: *copies, reserved: room.reserved_share(), node: node.clone() };
        eligible.special.insert(rank);
        self.look(pools, index);
    }

    /// Finds the best of one class that has room.
    fn look(&mut self, pools: &Pools, index: usize) {
        let Self { need, eligible, copies } = self;
        let eligible = &mut eligible[index];
        // In a search room only gets less, so what has not enough now need not be looked at again.
        while let Some(first) = eligible.special.first() {
            if pools.fits(&first.node, need) {
                break;
            }
            eligible.special.pop_first();
        }
        let class = &pools.classes()[&eligible.class];
        let other = next_of_many(class, pools, need, copies, &mut eligible.seen);
        eligible.best = other.into_iter().chain(eligible.special.first().cloned()).min();
    }
}

/// Returns the best of those nodes of a class which do not differ for the workload.
fn next_of_many(
    class: &Class,
    pools: &Pools,
    need: &Resources,
    special: &BTreeMap<NodeId, u32>,
    seen: &mut Option<(u64, NodeId)>,
) -> Option<Rank> {
    let mut last = None;
    let mut found = None;
    for place in class.emptiest(seen.as_ref()) {
        if !special.contains_key(&place.1) && pools.fits(&place.1, need) {
            found = Some(Rank { copies: 0, reserved: place.0, node: place.1.clone() });
            break;
        }
        last = Some(place);
    }
    if let Some(last) = last {
        *seen = Some(last.clone());
    }
    found
}
