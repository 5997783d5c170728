//! Why there is no node for an allocation: how many nodes fell at which filter.

use std::fmt;

use dunlin_model::{Bytes, Feature, FuelRate, Resources};

use super::Demand;
use super::filter::{Dropped, judge};
use crate::Cluster;

/// Why no node can run an allocation: how many nodes each filter dropped, in the order of the filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unplaceable {
    need: Resources,
    labels: Vec<String>,
    features: Vec<String>,
    lost: u32,
    unheard: u32,
    disconnected: u32,
    cordoned: u32,
    set_aside: u32,
    featureless: u32,
    mislabelled: u32,
    too_full: u32,
    freest_memory: Option<Bytes>,
    freest_fuel_rate: Option<FuelRate>,
}

impl Unplaceable {
    /// Counts why no node can run what is demanded.
    pub(crate) fn count(cluster: &Cluster, demand: &Demand) -> Self {
        let (features, labels): (Vec<_>, Vec<_>) =
            demand.spec.node_labels.iter().partition(|(key, _)| Feature::is_label(key));
        let mut counted = Self {
            need: demand.need(),
            labels: labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            features: features.iter().map(|(key, _)| key.replacen(Feature::LABEL_PREFIX, "", 1)).collect(),
            ..Self::default()
        };
        for class in cluster.volatile.pools.classes().values() {
            let nodes = match judge(&class.key, demand) {
                Err(Dropped::Lost) => &mut counted.lost,
                Err(Dropped::Unheard) => &mut counted.unheard,
                Err(Dropped::Disconnected) => &mut counted.disconnected,
                Err(Dropped::Cordoned) => &mut counted.cordoned,
                Err(Dropped::SetAside) => &mut counted.set_aside,
                Err(Dropped::Featureless) => &mut counted.featureless,
                Err(Dropped::Mislabelled) => &mut counted.mislabelled,
                Ok(()) => &mut counted.too_full,
            };
            *nodes += class.len();
            if judge(&class.key, demand).is_ok() {
                let freest = class.freest(&cluster.volatile.pools);
                counted.freest_memory = counted.freest_memory.max(Some(freest.memory));
                counted.freest_fuel_rate = counted.freest_fuel_rate.max(Some(freest.fuel_rate));
            }
        }
        counted
    }
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
        let mut is_told = is_told || self.featureless > 0;
        let lesser = [
            (self.set_aside, "set aside"),
            (self.cordoned, "cordoned"),
            (self.disconnected, "not connected"),
            (self.unheard, "not heard yet"),
            (self.lost, "lost"),
        ];
        for (nodes, what) in lesser {
            // The first of all is the reason itself.
            if is_told && nodes > 0 {
                others.push(format!("{} {what}", counted(nodes)));
            }
            is_told |= nodes > 0;
        }
        if others.is_empty() { Ok(()) } else { write!(f, " ({})", others.join(", ")) }
    }
}

fn counted(nodes: u32) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}
