//! What is in the way of one more allocation on each node, and the smallest changes that would let it be placed.
//!
//! Each node is looked at once, and everything is noted that it does not fulfil. Where that is one thing alone, to
//! change it would do; where it is nowhere one thing alone, the node that lacks least is told. It is done when
//! somebody asks and costs a look at every node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use dunlin_model::{
    Bytes, ExplainedWait, Feature, FilterCount, FuelRate, NodeId, Remedy, RemedyKind, Resources,
};

use super::Demand;
use super::pools::{ClassKey, Room, Standing};
use super::relation::Relations;
use crate::{AllocationRecord, Cluster};

/// One thing that a node does not fulfil, in the order in which nodes are judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Obstacle {
    /// What is less urgent makes way there, for the very demand.
    MakingWay,
    /// It may not be given anything.
    Standing(Standing),
    /// It has not switched this on.
    Feature(String),
    /// It has not this label or does not fulfil this condition.
    Condition(String),
    /// It has none at all of this countable resource.
    Resource(String),
    /// It is not near or apart as required.
    Relation(String),
    /// It has not enough left of something.
    Room,
}

/// How much a node has too little of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shortage {
    resources: Resources,
    countable: BTreeMap<String, u32>,
}

/// A node and what it lacks.
#[derive(Clone, Debug)]
pub(crate) struct Lack {
    pub(crate) obstacles: Vec<Obstacle>,
    shortage: Shortage,
}

/// What is in the way on all nodes.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    nodes: u32,
    able: u32,
    fallen: BTreeMap<Obstacle, u32>,
    /// The nodes of which one thing alone is in the way: how many, and the one that lacks least.
    alone: BTreeMap<Obstacle, (u32, NodeId, Shortage)>,
    nearest: Option<(NodeId, Lack)>,
}

/// Returns what is in the way of what is demanded on the node of an allocation, as if that were not there.
pub(crate) fn lack(
    cluster: &Cluster,
    demand: &Demand,
    relations: &Relations,
    record: &AllocationRecord,
) -> Option<Lack> {
    let pools = &cluster.volatile.pools;
    let (class, room) = pools.node(&record.node)?;
    let key = &pools.classes()[class].key;
    let mut room = room.clone();
    if record.is_assigned() {
        room.reserved = room.reserved.minus(record.resources());
        let countable = Arc::make_mut(&mut room.countable);
        for (name, count) in &record.spec.placement.resources {
            countable.entry(name.clone()).and_modify(|left| *left += count);
        }
    }
    Some(lack_of(demand, relations, (key, &of_class(key, demand)), &record.node, &room))
}

/// Returns what all nodes of a class do not fulfil.
fn of_class(class: &ClassKey, demand: &Demand) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    if class.standing != Standing::Open {
        obstacles.push(Obstacle::Standing(class.standing));
    }
    for (key, value) in &demand.spec.node_labels {
        if class.labels.get(key) != Some(value) {
            obstacles.push(if Feature::is_label(key) {
                Obstacle::Feature(key.replacen(Feature::LABEL_PREFIX, "", 1))
            } else {
                Obstacle::Condition(format!("{key}={value}"))
            });
        }
    }
    let placement = &demand.spec.placement;
    let conditions = placement.require.iter().filter(|condition| !condition.matches(&class.labels));
    obstacles.extend(conditions.map(|condition| Obstacle::Condition(condition.to_string())));
    let absent = placement.resources.keys().filter(|name| !class.resources.contains(*name));
    obstacles.extend(absent.map(|name| Obstacle::Resource(name.clone())));
    obstacles
}

/// Returns what a node lacks of whose class all that its nodes lack is known.
fn lack_of(
    demand: &Demand,
    relations: &Relations,
    (class, of_class): (&ClassKey, &[Obstacle]),
    node: &NodeId,
    room: &Room,
) -> Lack {
    let mut obstacles = of_class.to_vec();
    obstacles.extend(relations.broken(class, node).into_iter().map(Obstacle::Relation));
    let free = room.free(demand.is_batch());
    let asked = demand.spec.placement.resources.iter().filter(|(name, _)| class.resources.contains(*name));
    let short = asked.filter_map(|(name, count)| {
        let left = room.countable.get(name).copied().unwrap_or_default();
        (left < *count).then(|| (name.clone(), count - left))
    });
    let shortage = Shortage { resources: demand.need().minus(free), countable: short.collect() };
    if shortage != Shortage::default() {
        obstacles.push(Obstacle::Room);
    }
    Lack { obstacles, shortage }
}

impl Survey {
    /// Looks at all nodes, or only at those that count; some are kept for this demand.
    pub(crate) fn of(
        cluster: &Cluster,
        demand: &Demand,
        only: Option<&BTreeSet<NodeId>>,
        kept: &BTreeSet<&NodeId>,
    ) -> Self {
        let relations = Relations::of(cluster, &demand.workload, &demand.spec.placement);
        let pools = &cluster.volatile.pools;
        let mut survey = Self::default();
        for class in pools.classes().values() {
            let of_class = of_class(&class.key, demand);
            for node in class.nodes().filter(|node| only.is_none_or(|only| only.contains(*node))) {
                let Some((_, room)) = pools.node(node) else { continue };
                let mut lack = lack_of(demand, &relations, (&class.key, &of_class), node, room);
                if kept.contains(node) {
                    // That it is full, and nobody else's, is what is being mended.
                    lack.obstacles.retain(|it| !matches!(it, Obstacle::Standing(_) | Obstacle::Room));
                    lack.obstacles.insert(0, Obstacle::MakingWay);
                }
                survey.count(demand, node, lack);
            }
        }
        survey
    }

    fn count(&mut self, demand: &Demand, node: &NodeId, lack: Lack) {
        self.nodes += 1;
        let need = demand.need();
        match lack.obstacles.as_slice() {
            [] => self.able += 1,
            [first, rest @ ..] => {
                *self.fallen.entry(first.clone()).or_default() += 1;
                if rest.is_empty() {
                    let (count, best, least) = self
                        .alone
                        .entry(first.clone())
                        .or_insert_with(|| (0, node.clone(), lack.shortage.clone()));
                    *count += 1;
                    if (lack.shortage.weight(&need), node) < (least.weight(&need), best) {
                        (*best, *least) = (node.clone(), lack.shortage.clone());
                    }
                }
            }
        }
        let order =
            |node: &NodeId, lack: &Lack| (lack.obstacles.len(), lack.shortage.weight(&need), node.clone());
        let is_nearer =
            self.nearest.as_ref().is_none_or(|(before, known)| order(node, &lack) < order(before, known));
        if is_nearer {
            self.nearest = Some((node.clone(), lack));
        }
    }

    /// Returns what is in the way in short, and what would help; `quota` is what would lift that of the namespace if
    /// it is in the way too.
    pub(crate) fn wait(&self, demand: &Demand, quota: Option<Remedy>) -> ExplainedWait {
        let filters = self
            .fallen
            .iter()
            .map(|(obstacle, nodes)| FilterCount { filter: obstacle.to_string(), nodes: *nodes });
        let mut remedies: Vec<Remedy> = Vec::new();
        for (obstacle, (nodes, node, shortage)) in &self.alone {
            remedies.extend(remedies_of(demand, obstacle, (*nodes, node), shortage));
        }
        remedies.sort_by_key(|remedy| remedy.kind);
        let mut nearest = None;
        if self.able == 0 && remedies.is_empty() {
            nearest = self.nearest.as_ref().map(|(node, lack)| lacking(demand, node, lack));
            if nearest.is_none() {
                let text = format!("add a node with {} free", amount(&demand.need(), &BTreeMap::new()));
                remedies.push(Remedy { kind: RemedyKind::AddNode, text, nodes: 1 });
            }
        }
        if let Some(mut quota) = quota {
            // It is in the way on each node: it alone does only where nothing else is.
            if self.able > 0 {
                quota.nodes = self.able;
                remedies = vec![quota];
            } else {
                let others: Vec<String> = remedies.into_iter().map(|remedy| remedy.text).collect();
                let others =
                    if others.is_empty() { nearest.unwrap_or_default() } else { others.join(", or ") };
                nearest = Some(format!("{}; besides, {others}", quota.text));
                remedies = Vec::new();
            }
        }
        ExplainedWait {
            missing: 0,
            ready_items: 0,
            reason: String::new(),
            nodes: self.nodes,
            able: self.able,
            filters: filters.collect(),
            remedies,
            nearest,
        }
    }
}

impl Shortage {
    /// Returns how much it is in relation to what is asked for, to find the least.
    fn weight(&self, need: &Resources) -> u128 {
        let share = |short: u64, need: u64| u128::from(short) * 1_000_000 / u128::from(need.max(1));
        let counted: u128 = self.countable.values().map(|count| u128::from(*count) * 1_000_000).sum();
        share(self.resources.memory.0, need.memory.0)
            + share(self.resources.fuel_rate.0, need.fuel_rate.0)
            + counted
    }
}

/// Returns the changes each of which takes away the only thing that is in the way on `nodes` nodes, of which `node`
/// lacks least.
fn remedies_of(
    demand: &Demand,
    obstacle: &Obstacle,
    (nodes, node): (u32, &NodeId),
    shortage: &Shortage,
) -> Vec<Remedy> {
    let others = if nodes > 1 { format!(", or one of {} more", nodes - 1) } else { String::new() };
    let remedy = |kind, text: String| Remedy { kind, text, nodes };
    match obstacle {
        Obstacle::MakingWay => {
            let text = format!("wait until what makes way for it on {node}{others} has ended");
            vec![remedy(RemedyKind::UseNode, text)]
        }
        Obstacle::Standing(standing) => {
            let text = match standing {
                Standing::Cordoned => format!("uncordon {node}{others}: `dunlin node uncordon {node}`"),
                Standing::SetAside => format!("wait until {node}{others} is no longer set aside"),
                Standing::Kept => {
                    format!("wait until {node}{others} is no longer kept for others")
                }
                Standing::Disconnected => format!("let {node}{others} connect again"),
                Standing::Unheard => format!("let {node}{others} report: is its agent running?"),
                Standing::Lost => format!("bring {node}{others} back, which is lost"),
                Standing::Open => return Vec::new(),
            };
            vec![remedy(RemedyKind::UseNode, text)]
        }
        Obstacle::Feature(name) => {
            let text =
                format!("switch {name} on at {node}{others}: `features = [\"{name}\"]` in its config file");
            vec![remedy(RemedyKind::SwitchOn, text)]
        }
        Obstacle::Condition(condition) => {
            vec![remedy(RemedyKind::Drop, format!("drop `{condition}`"))]
        }
        Obstacle::Relation(relation) => {
            vec![remedy(RemedyKind::Drop, format!("let it not have to be {relation}"))]
        }
        Obstacle::Resource(name) => {
            vec![remedy(
                RemedyKind::Drop,
                format!("drop `resources.{name}`, or declare it on {node}{others}"),
            )]
        }
        Obstacle::Room => {
            let Shortage { resources, countable } = shortage;
            let text = format!("free {} on {}", amount(resources, countable), place(demand, node));
            let mut remedies = vec![Remedy { kind: RemedyKind::Free, text, nodes: 1 }];
            remedies.extend(lowered(demand, shortage));
            remedies
        }
    }
}

/// Returns how little a workload would have to ask for, if it is only that it asks for too much.
fn lowered(demand: &Demand, shortage: &Shortage) -> Option<Remedy> {
    let left = demand.need().minus(shortage.resources);
    let is_possible = left.memory > Bytes(0) && left.fuel_rate > FuelRate(0) && shortage.countable.is_empty();
    let memory = (shortage.resources.memory > Bytes(0)).then(|| format!("`memory` to {}", left.memory));
    let rate =
        (shortage.resources.fuel_rate > FuelRate(0)).then(|| format!("`fuel_rate` to {}", left.fuel_rate));
    let what: Vec<String> = memory.into_iter().chain(rate).collect();
    let text = format!("lower its {}", what.join(" and its "));
    is_possible.then_some(Remedy { kind: RemedyKind::Lower, text, nodes: 1 })
}

/// Names a node by what it must have: whoever makes room may do so on any that is like it.
fn place(demand: &Demand, node: &NodeId) -> String {
    let labels = demand.spec.node_labels.iter().filter(|(key, _)| !Feature::is_label(key));
    let labels = labels.map(|(key, value)| format!("{key}={value}"));
    let all: Vec<String> =
        labels.chain(demand.spec.placement.require.iter().map(|it| format!("`{it}`"))).collect();
    if all.is_empty() {
        return node.to_string();
    }
    format!("a node with {}: on {node} it is least", all.join(", "))
}

fn amount(resources: &Resources, countable: &BTreeMap<String, u32>) -> String {
    let Resources { memory, fuel_rate } = resources;
    let memory = (*memory > Bytes(0)).then(|| format!("{memory} of memory"));
    let rate = (*fuel_rate > FuelRate(0)).then(|| format!("a fuel rate of {fuel_rate}"));
    let countable = countable.iter().map(|(name, count)| format!("{count} {name}"));
    let all: Vec<String> = memory.into_iter().chain(rate).chain(countable).collect();
    all.join(" and ")
}

/// Says all that a node lacks.
fn lacking(demand: &Demand, node: &NodeId, lack: &Lack) -> String {
    let remedies = lack.obstacles.iter().filter_map(|obstacle| match obstacle {
        Obstacle::Room => {
            let Shortage { resources, countable } = &lack.shortage;
            Some(format!("free {} on {node}", amount(resources, countable)))
        }
        other => remedies_of(demand, other, (1, node), &lack.shortage).into_iter().next().map(|it| it.text),
    });
    remedies.collect::<Vec<_>>().join(", and ")
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakingWay => f.write_str("being cleared for it"),
            Self::Standing(Standing::Open) => f.write_str("open"),
            Self::Standing(Standing::Kept) => {
                f.write_str("kept for what is more urgent or has less than its share")
            }
            Self::Standing(Standing::SetAside) => f.write_str("set aside, as lost again and again"),
            Self::Standing(Standing::Cordoned) => f.write_str("cordoned"),
            Self::Standing(Standing::Disconnected) => f.write_str("not connected"),
            Self::Standing(Standing::Unheard) => f.write_str("not heard yet"),
            Self::Standing(Standing::Lost) => f.write_str("lost"),
            Self::Feature(name) => write!(f, "without the feature {name}"),
            Self::Condition(condition) => write!(f, "not `{condition}`"),
            Self::Resource(name) => write!(f, "without any {name}"),
            Self::Relation(relation) => write!(f, "not {relation}"),
            Self::Room => f.write_str("too full"),
        }
    }
}
