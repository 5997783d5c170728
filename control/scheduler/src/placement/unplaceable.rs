//! Why there is no node for an allocation: how many nodes fell at which filter, and what the nearest lack.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dunlin_model::{Feature, NodeId, Resources};

use super::Demand;
use super::filter::{Dropped, judge};
use super::relation::Relations;
use crate::Cluster;

/// Why no node can run an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unplaceable {
    need: Resources,
    /// The countable resources that are asked for.
    countable: BTreeMap<String, u32>,
    /// The labels that are asked for, and the other conditions.
    labels: Vec<String>,
    conditions: Vec<String>,
    features: Vec<String>,
    lost: u32,
    unheard: u32,
    disconnected: u32,
    cordoned: u32,
    set_aside: u32,
    kept: u32,
    featureless: u32,
    mislabelled: u32,
    /// Without a countable resource at all, by which.
    resourceless: BTreeMap<String, u32>,
    /// Where something is that it must be apart from, or nothing is that it must be near.
    unrelated: u32,
    too_full: u32,
    /// The most that one of those that are too full has free of each.
    freest: Resources,
}

impl Unplaceable {
    /// Counts why no node can run what is demanded.
    pub(crate) fn count(cluster: &Cluster, demand: &Demand) -> Self {
        let placement = &demand.spec.placement;
        let (features, labels): (Vec<_>, Vec<_>) =
            demand.spec.node_labels.iter().partition(|(key, _)| Feature::is_label(key));
        let mut counted = Self {
            need: demand.need(),
            countable: placement.resources.clone(),
            labels: labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            conditions: placement.require.iter().map(|condition| format!("`{condition}`")).collect(),
            features: features.iter().map(|(key, _)| key.replacen(Feature::LABEL_PREFIX, "", 1)).collect(),
            ..Self::default()
        };
        let relations = Relations::of(cluster, &demand.workload, placement);
        let (only, forbidden) = (relations.only(), relations.forbidden_nodes().collect::<BTreeSet<_>>());
        // Of nodes that are ruled out each by itself it does not matter how much room they have.
        let counts =
            |node: &NodeId| only.as_ref().is_none_or(|only| only.contains(node)) && !forbidden.contains(node);
        let pools = &cluster.volatile.pools;
        for class in pools.classes().values() {
            let nodes = match judge(&class.key, demand) {
                Err(Dropped::Lost) => &mut counted.lost,
                Err(Dropped::Unheard) => &mut counted.unheard,
                Err(Dropped::Disconnected) => &mut counted.disconnected,
                Err(Dropped::Cordoned) => &mut counted.cordoned,
                Err(Dropped::SetAside) => &mut counted.set_aside,
                Err(Dropped::Kept) => &mut counted.kept,
                Err(Dropped::Featureless) => &mut counted.featureless,
                Err(Dropped::Mislabelled) => &mut counted.mislabelled,
                Err(Dropped::Resourceless(name)) => counted.resourceless.entry(name).or_default(),
                Ok(()) if relations.forbids(&class.key) => &mut counted.unrelated,
                Ok(()) => {
                    let free = class.order(demand.is_batch()).freest(pools, demand.is_batch(), counts);
                    counted.freest.memory = counted.freest.memory.max(free.memory);
                    counted.freest.fuel_rate = counted.freest.fuel_rate.max(free.fuel_rate);
                    &mut counted.too_full
                }
            };
            *nodes += class.len();
        }
        let is_able = |node: &&&NodeId| {
            pools.node(node).is_some_and(|(class, _)| {
                let key = &pools.classes()[class].key;
                judge(key, demand).is_ok() && !relations.forbids(key)
            })
        };
        counted.leave_out(match &only {
            Some(only) => {
                let able = only.difference(&forbidden).filter(is_able).count();
                counted.too_full.saturating_sub(u32::try_from(able).unwrap_or(u32::MAX))
            }
            None => u32::try_from(forbidden.iter().filter(is_able).count()).unwrap_or(u32::MAX),
        });
        counted
    }

    /// Moves nodes that are ruled out each by itself from those that are too full to those that are unrelated.
    fn leave_out(&mut self, nodes: u32) {
        let nodes = nodes.min(self.too_full);
        self.too_full -= nodes;
        self.unrelated += nodes;
    }

    /// Says what the nearest nodes lack, the nodes that are left out for lesser reasons not counted.
    fn main_reason(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.too_full > 0 {
            self.what_is_full(f)
        } else if self.unrelated > 0 {
            f.write_str("no node is both near what it must be near and apart from what it must be apart from")
        } else if let Some(name) = self.resourceless.keys().next() {
            write!(
                f,
                "no node has the resource {name}; nodes declare theirs in their config file: `[resources]`"
            )
        } else if self.mislabelled > 0 {
            self.what_is_asked_for(f)
        } else if self.featureless > 0 {
            let listed = self.features.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>();
            write!(
                f,
                "no node has the feature {}, which is off unless a node's config file says `features = [{}]`",
                self.features.join(", "),
                listed.join(", ")
            )
        } else if self.kept > 0 {
            write!(f, "{} kept for what is more urgent or has less than its share", counted(self.kept))
        } else if self.set_aside > 0 {
            write!(f, "{} set aside for a while, as lost again and again", counted(self.set_aside))
        } else if self.cordoned > 0 {
            write!(f, "{} cordoned; `dunlin node uncordon` lets them be used again", counted(self.cordoned))
        } else if self.disconnected > 0 {
            write!(f, "{} not connected at this moment", counted(self.disconnected))
        } else if self.unheard > 0 {
            f.write_str("no node has reported yet")
        } else if self.lost > 0 {
            f.write_str("all nodes are lost")
        } else {
            f.write_str("no node has joined yet")
        }
    }

    fn what_is_full(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Resources { memory, fuel_rate } = self.need;
        let Resources { memory: freest_memory, fuel_rate: freest_rate } = self.freest;
        let nodes = counted(self.too_full);
        match (freest_memory < memory, freest_rate < fuel_rate) {
            (true, false) => write!(f, "needs {memory}; the freest of {nodes} has {freest_memory}"),
            (false, true) => {
                write!(f, "needs a fuel rate of {fuel_rate}; the freest of {nodes} has {freest_rate}")
            }
            (true, true) => write!(
                f,
                "needs {memory} and a fuel rate of {fuel_rate}; \
                 the freest of {nodes} have {freest_memory} and {freest_rate}"
            ),
            (false, false) if self.countable.is_empty() => write!(
                f,
                "needs {memory} and a fuel rate of {fuel_rate}; none of {nodes} has both free at once"
            ),
            (false, false) => {
                let asked = self.countable.iter().map(|(name, count)| format!("{count} {name}"));
                write!(
                    f,
                    "needs {memory}, a fuel rate of {fuel_rate} and {}; none of {nodes} has all of it free at once",
                    asked.collect::<Vec<_>>().join(", ")
                )
            }
        }
    }

    fn what_is_asked_for(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.labels.as_slice(), self.conditions.as_slice()) {
            ([one], []) => write!(f, "no node has label {one}"),
            (labels, []) => write!(f, "no node has all of the labels {}", labels.join(", ")),
            ([], [one]) => write!(f, "no node fulfils {one}"),
            (labels, conditions) => {
                write!(f, "no node fulfils all of {}", [labels, conditions].concat().join(", "))
            }
        }
    }
}

impl fmt::Display for Unplaceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.main_reason(f)?;
        let asked = [self.labels.as_slice(), self.conditions.as_slice()].concat().join(", ");
        let lesser = [
            (self.too_full, String::new()),
            (self.unrelated, "not near or apart as required".to_owned()),
            (self.resourceless.values().sum(), "without a resource".to_owned()),
            (
                self.mislabelled,
                if self.conditions.is_empty() {
                    format!("without label {asked}")
                } else {
                    format!("not fulfilling {asked}")
                },
            ),
            (self.featureless, format!("without the feature {}", self.features.join(", "))),
            (self.kept, "kept for what is more urgent or has less than its share".to_owned()),
            (self.set_aside, "set aside".to_owned()),
            (self.cordoned, "cordoned".to_owned()),
            (self.disconnected, "not connected".to_owned()),
            (self.unheard, "not heard yet".to_owned()),
            (self.lost, "lost".to_owned()),
        ];
        // The first of all is the reason itself.
        let others = lesser.into_iter().filter(|(nodes, _)| *nodes > 0).skip(1);
        let others: Vec<String> = others.map(|(nodes, what)| format!("{} {what}", counted(nodes))).collect();
        if others.is_empty() { Ok(()) } else { write!(f, " ({})", others.join(", ")) }
    }
}

fn counted(nodes: u32) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}
