//! Where the workloads are that one wants near or apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dunlin_model::{Affinity, AllocationId, NodeId, Placement, WorkloadName};

use super::pools::ClassKey;
use crate::Cluster;
use crate::planted::{Bug, planted};

/// One affinity with the places where the other workload is.
#[derive(Debug)]
struct Relation {
    workload: WorkloadName,
    over: String,
    is_near: bool,
    is_required: bool,
    /// The values of `over` on the nodes where it is, if `over` is a label.
    values: BTreeSet<String>,
    /// The nodes where it is, if `over` is the node itself.
    nodes: BTreeSet<NodeId>,
    /// Whether it is nowhere yet and is the workload itself, whose first allocation may go anywhere.
    is_first: bool,
}

/// All affinities of a workload.
#[derive(Debug)]
pub(crate) struct Relations {
    all: Vec<Relation>,
}

impl Relations {
    /// Looks where all workloads are that `workload` wants near or apart.
    pub(crate) fn of(cluster: &Cluster, workload: &WorkloadName, placement: &Placement) -> Self {
        Self::without(cluster, workload, placement, None)
    }

    /// The same, as if there were no allocation `except`.
    pub(crate) fn without(
        cluster: &Cluster,
        workload: &WorkloadName,
        placement: &Placement,
        except: Option<AllocationId>,
    ) -> Self {
        let near = placement.near.iter().map(|affinity| (affinity, true));
        let apart = placement.apart.iter().map(|affinity| (affinity, false));
        let all = near
            .chain(apart)
            .map(|(affinity, is_near)| relation(cluster, workload, affinity, (is_near, except)));
        Self { all: all.collect() }
    }

    /// Tells whether the nodes of a class are forbidden by what is required; single ones may be forbidden besides.
    pub(crate) fn forbids(&self, class: &ClassKey) -> bool {
        self.all.iter().filter(|relation| relation.is_required && !relation.is_of_nodes()).any(|relation| {
            match class.labels.get(&relation.over) {
                Some(value) => relation.values.contains(value) != relation.is_near && !relation.is_first,
                // A node without the label is near to nothing, and apart from everything.
                None => relation.is_near && !relation.is_first,
            }
        })
    }

    /// Returns how much speaks for the nodes of a class: what is preferred and holds, less what is preferred and does
    /// not.
    pub(crate) fn preference(&self, class: &ClassKey) -> i32 {
        let preferred = self.all.iter().filter(|relation| !relation.is_required && !relation.is_of_nodes());
        let holds = preferred.filter(|relation| {
            class.labels.get(&relation.over).is_some_and(|value| relation.values.contains(value))
        });
        holds.map(|relation| if relation.is_near { WEIGHT } else { -WEIGHT }).sum()
    }

    /// Returns the nodes of which something speaks for or against each by itself, and how much.
    pub(crate) fn preferred_nodes(&self) -> BTreeMap<&NodeId, i32> {
        let mut nodes: BTreeMap<&NodeId, i32> = BTreeMap::new();
        for relation in self.all.iter().filter(|relation| !relation.is_required && relation.is_of_nodes()) {
            for node in &relation.nodes {
                *nodes.entry(node).or_default() += if relation.is_near { WEIGHT } else { -WEIGHT };
            }
        }
        nodes
    }

    /// Returns the only nodes that are allowed, if it is required to be near something on the same node.
    pub(crate) fn only(&self) -> Option<BTreeSet<&NodeId>> {
        let mut only: Option<BTreeSet<&NodeId>> = None;
        let required = self.all.iter().filter(|relation| relation.is_required && relation.is_of_nodes());
        for relation in required.filter(|relation| relation.is_near && !relation.is_first) {
            let nodes: BTreeSet<&NodeId> = relation.nodes.iter().collect();
            only = Some(match only {
                Some(before) => before.intersection(&nodes).copied().collect(),
                None => nodes,
            });
        }
        only
    }

    /// Returns what is required and does not hold on a node of a class, as people write it.
    pub(crate) fn broken(&self, class: &ClassKey, node: &NodeId) -> Vec<String> {
        let required = self.all.iter().filter(|relation| relation.is_required && !relation.is_first);
        let broken = required.filter(|relation| {
            let is_there = if relation.is_of_nodes() {
                relation.nodes.contains(node)
            } else {
                class.labels.get(&relation.over).is_some_and(|value| relation.values.contains(value))
            };
            is_there != relation.is_near
        });
        broken.map(Relation::to_string).collect()
    }

    /// Returns the nodes that are forbidden each by itself.
    pub(crate) fn forbidden_nodes(&self) -> impl Iterator<Item = &NodeId> {
        let required = self.all.iter().filter(|relation| relation.is_required && !relation.is_near);
        required.flat_map(|relation| &relation.nodes)
    }
}

/// What an affinity that is not required weighs, beside the weights from -100 to 100 of preferred labels.
const WEIGHT: i32 = 50;

impl Relation {
    fn is_of_nodes(&self) -> bool {
        self.over == Placement::EACH_NODE
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_near { "near" } else { "apart from" };
        write!(f, "{word} `{}`", self.workload)?;
        if self.is_of_nodes() { Ok(()) } else { write!(f, " over `{}`", self.over) }
    }
}

fn relation(
    cluster: &Cluster,
    own: &WorkloadName,
    affinity: &Affinity,
    (is_near, except): (bool, Option<AllocationId>),
) -> Relation {
    let Affinity { workload, over, required } = affinity;
    let live = cluster.durable.of_workload(workload).filter(|record| record.is_live());
    let live = live.filter(|record| Some(record.id) != except);
    let nodes: BTreeSet<NodeId> = live.map(|record| record.node.clone()).collect();
    let is_of_nodes = over == Placement::EACH_NODE;
    let labels = nodes.iter().filter_map(|node| cluster.durable.nodes().get(node)?.info.as_ref());
    let values = labels.filter(|_| !is_of_nodes).filter_map(|info| info.labels.get(over).cloned());
    Relation {
        workload: workload.clone(),
        over: over.clone(),
        is_near,
        is_required: *required && !planted(Bug::TakeAffinityForAWish),
        is_first: is_near && workload == own && nodes.is_empty(),
        values: values.collect(),
        nodes: if is_of_nodes { nodes } else { BTreeSet::new() },
    }
}
