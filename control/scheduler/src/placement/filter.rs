//! Which classes of nodes can run a workload, whatever room they have, and for what want the others cannot.

use dunlin_model::Feature;

use super::Demand;
use super::pools::{ClassKey, Standing};

/// Why no node of a class can run a workload. The first that applies is told; nearer to running is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dropped {
    Lost,
    Unheard,
    Disconnected,
    Cordoned,
    SetAside,
    /// They have not switched on what it needs.
    Featureless,
    /// They do not have its labels.
    Mislabelled,
}

/// Tells whether the nodes of a class can run what is demanded.
pub(crate) fn judge(class: &ClassKey, demand: &Demand) -> Result<(), Dropped> {
    match class.standing {
        Standing::Open => {}
        Standing::SetAside => return Err(Dropped::SetAside),
        Standing::Cordoned => return Err(Dropped::Cordoned),
        Standing::Disconnected => return Err(Dropped::Disconnected),
        Standing::Unheard => return Err(Dropped::Unheard),
        Standing::Lost => return Err(Dropped::Lost),
    }
    let lacks = |(key, value): (&String, &String)| class.labels.get(key) != Some(value);
    let labels = &demand.spec.node_labels;
    if labels.iter().filter(|(key, _)| Feature::is_label(key)).any(lacks) {
        return Err(Dropped::Featureless);
    }
    if labels.iter().filter(|(key, _)| !Feature::is_label(key)).any(lacks) {
        return Err(Dropped::Mislabelled);
    }
    Ok(())
}
