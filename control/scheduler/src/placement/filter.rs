//! The nodes which can run an allocation, or for what want none can.

use std::fmt;

use dunlin_model::{Bytes, Feature, FuelRate, NodeId, NodeInfo, Resources};

use super::Demand;
use crate::{Cluster, NodeRecord};

/// A node which can run the allocation.
pub(crate) struct Candidate<'a> {
    pub(crate) id: &'a NodeId,
    pub(crate) reserved: Resources,
    pub(crate) capacity: Resources,
}

/// Why no node can run an allocation: how many nodes each filter dropped, in the order of the filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unplaceable {
    need: Resources,
    labels: Vec<String>,
    features: Vec<String>,
    lost: u32,
    unheard: u32,
    disconnected: u32,
    featureless: u32,
    mislabelled: u32,
    too_full: u32,
    freest_memory: Option<Bytes>,
    freest_fuel_rate: Option<FuelRate>,
}

/// Returns the nodes which can run what is demanded; there is at least one.
pub(crate) fn filter<'a>(
    cluster: &'a Cluster,
    demand: &Demand<'_>,
) -> Result<Vec<Candidate<'a>>, Unplaceable> {
    let (features, labels): (Vec<_>, Vec<_>) =
        demand.labels.iter().partition(|(key, _)| Feature::is_label(key));
    let mut dropped = Unplaceable {
        need: demand.need,
        labels: labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        features: features.iter().map(|(key, _)| key.replacen(Feature::LABEL_PREFIX, "", 1)).collect(),
        ..Unplaceable::default()
    };
    let mut candidates = Vec::new();
    for record in cluster.durable.nodes().values() {
        if record.lost.is_some() {
            dropped.lost += 1;
            continue;
        }
        let Some(info) = heard(cluster, record) else {
            dropped.unheard += 1;
            continue;
        };
        // It is believed until its lease is over and keeps what it has, but what is new could not even be told to it.
        if !cluster.volatile.nodes.get(&record.id).is_some_and(|state| state.connected) {
            dropped.disconnected += 1;
            continue;
        }
        let lacks = |(key, value): &(&String, &String)| info.labels.get(*key) != Some(*value);
        if features.iter().any(lacks) {
            dropped.featureless += 1;
            continue;
        }
        if labels.iter().any(lacks) {
            dropped.mislabelled += 1;
            continue;
        }
        let reserved = cluster.durable.reserved(&record.id);
        let free = info.capacity.minus(reserved);
        if !free.holds(&demand.need) {
            dropped.too_full += 1;
            dropped.freest_memory = dropped.freest_memory.max(Some(free.memory));
            dropped.freest_fuel_rate = dropped.freest_fuel_rate.max(Some(free.fuel_rate));
            continue;
        }
        candidates.push(Candidate { id: &record.id, reserved, capacity: info.capacity });
    }
    if candidates.is_empty() { Err(dropped) } else { Ok(candidates) }
}

/// Returns what a node told this coordinator, not one before it.
fn heard<'a>(cluster: &Cluster, record: &'a NodeRecord) -> Option<&'a NodeInfo> {
    let state = cluster.volatile.nodes.get(&record.id)?;
    state.last_seen.and(record.info.as_ref())
}

impl Unplaceable {
    /// Says what the nearest nodes lack, the nodes that are left out for lesser reasons not counted.
    fn main_reason(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Resources { memory, fuel_rate } = self.need;
        if let (Some(freest_memory), Some(freest_rate)) = (self.freest_memory, self.freest_fuel_rate) {
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
                (false, false) => write!(
                    f,
                    "needs {memory} and a fuel rate of {fuel_rate}; none of {nodes} has both free at once"
                ),
            }
        } else if self.mislabelled > 0 {
            let word = if self.labels.len() == 1 { "label" } else { "all of the labels" };
            write!(f, "no node has {word} {}", self.labels.join(", "))
        } else if self.featureless > 0 {
            let features = self.features.join(", ");
            let listed =
                self.features.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
            write!(
                f,
                "no node has the feature {features}, which is off unless a node's config file says \
                 `features = [{listed}]`"
            )
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
}

impl fmt::Display for Unplaceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.main_reason(f)?;
        let mut others = Vec::new();
        let is_full = self.too_full > 0;
        if is_full && self.mislabelled > 0 {
            others.push(format!("{} without label {}", counted(self.mislabelled), self.labels.join(", ")));
        }
        let is_told = is_full || self.mislabelled > 0;
        if is_told && self.featureless > 0 {
            others.push(format!(
                "{} without the feature {}",
                counted(self.featureless),
                self.features.join(", ")
            ));
        }
        let is_told = is_told || self.featureless > 0;
        if is_told && self.disconnected > 0 {
            others.push(format!("{} not connected", counted(self.disconnected)));
        }
        if (is_told || self.disconnected > 0) && self.unheard > 0 {
            others.push(format!("{} not heard yet", counted(self.unheard)));
        }
        if (is_told || self.disconnected > 0 || self.unheard > 0) && self.lost > 0 {
            others.push(format!("{} lost", counted(self.lost)));
        }
        if others.is_empty() { Ok(()) } else { write!(f, " ({})", others.join(", ")) }
    }
}

fn counted(nodes: u32) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}
