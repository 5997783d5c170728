//! Which classes of nodes can run a workload, whatever room they have, and for what want the others cannot.

use dunlin_model::Feature;

use super::Demand;
use super::pools::{ClassKey, Standing};
use crate::planted::{Bug, planted};

/// Why no node of a class can run a workload. The first that applies is told; nearer to running is later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dropped {
    Lost,
    Unheard,
    Disconnected,
    Cordoned,
    SetAside,
    /// Something makes way there for somebody else.
    Kept,
    /// They have not switched on what it needs.
    Featureless,
    /// They do not have its labels.
    Mislabelled,
    /// They do not have a countable resource at all.
    Resourceless(String),
}

/// Tells whether the nodes of a class can run what is demanded.
pub(crate) fn judge(class: &ClassKey, demand: &Demand) -> Result<(), Dropped> {
    match class.standing {
        Standing::Open => judge_labels(class, demand),
        Standing::Kept => Err(Dropped::Kept),
        Standing::SetAside => Err(Dropped::SetAside),
        Standing::Cordoned => Err(Dropped::Cordoned),
        Standing::Disconnected => Err(Dropped::Disconnected),
        Standing::Unheard => Err(Dropped::Unheard),
        Standing::Lost => Err(Dropped::Lost),
    }
}

/// Tells whether the nodes of a class are such as could run what is demanded, if nothing else were in the way.
pub(crate) fn judge_labels(class: &ClassKey, demand: &Demand) -> Result<(), Dropped> {
    let labels = &class.labels;
    let lacks = |(key, value): &(&String, &String)| labels.get(*key) != Some(*value);
    let (features, plain): (Vec<_>, Vec<_>) =
        demand.spec.node_labels.iter().partition(|(key, _)| Feature::is_label(key));
    if features.iter().any(lacks) {
        return Err(Dropped::Featureless);
    }
    let placement = &demand.spec.placement;
    let is_met = placement.require.iter().all(|condition| condition.matches(labels));
    if plain.iter().any(lacks) && !planted(Bug::IgnoreLabels) || !is_met && !planted(Bug::IgnoreRequired) {
        return Err(Dropped::Mislabelled);
    }
    match placement.resources.keys().find(|name| !class.resources.contains(*name)) {
        Some(name) => Err(Dropped::Resourceless(name.clone())),
        None => Ok(()),
    }
}
