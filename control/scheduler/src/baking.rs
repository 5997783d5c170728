//! The code of the revision before stays compiled on its nodes until the new one has baked, so that the way back needs
//! neither to fetch nor to compile.
//!
//! Not here: when a rollout is over (`judge`), and where components have run (`placement/compiled`).

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{AppName, Digest, NodeId};

use crate::durable::Durable;
use crate::{AppRecord, Cluster};

/// The components of the revisions before, of the apps that have a rollout which may still fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Baking(BTreeMap<AppName, BTreeSet<Digest>>);

impl Baking {
    /// Returns what a coordinator knows that has just been started.
    pub(crate) fn restore(durable: &Durable) -> Self {
        let all = durable.apps().values().map(|app| (app.name.clone(), components_before(durable, app)));
        Self(all.filter(|(_, components)| !components.is_empty()).collect())
    }
}

/// Returns the components to which the rollout of an app would go back.
fn components_before(durable: &Durable, app: &AppRecord) -> BTreeSet<Digest> {
    let rollout = app.rollout.as_ref().filter(|rollout| rollout.failed.is_none());
    let from = rollout.and_then(|rollout| durable.revision(&app.name, rollout.from?));
    let Some(from) = from else { return BTreeSet::new() };
    from.spec.workloads.values().map(|spec| spec.component).collect()
}

impl Cluster {
    /// Takes note of how the rollout of an app stands now, and has those told who keep its code from now on or no longer.
    pub(crate) fn refresh_baking(&mut self, app: &AppName) {
        let record = self.durable.apps().get(app);
        let now = record.map(|record| components_before(&self.durable, record)).unwrap_or_default();
        let known = &mut self.volatile.baking.0;
        let before = known.remove(app).unwrap_or_default();
        if !now.is_empty() {
            known.insert(app.clone(), now.clone());
        }
        for component in before.symmetric_difference(&now) {
            self.volatile.dirty.nodes.extend(self.volatile.compiled.nodes(component).cloned());
        }
    }

    /// Returns the components whose code a node is to keep though it may not run them.
    pub(crate) fn kept_on(&self, node: &NodeId) -> BTreeSet<Digest> {
        let all = self.volatile.baking.0.values().flatten();
        all.filter(|component| self.volatile.compiled.has(node, component)).copied().collect()
    }
}
