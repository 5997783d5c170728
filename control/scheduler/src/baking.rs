//! The code of the revision before stays compiled on its nodes until the new one has baked, so that the way back needs
//! neither to fetch nor to compile.
//!
//! All nodes are told the same: to keep what is not there costs nothing.
//!
//! Not here: when a rollout is over (`judge`).

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{AppName, Digest};

use crate::durable::Durable;
use crate::{AppRecord, Cluster};

/// The components of the revisions before, of the apps that have a rollout which may still fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Baking {
    before: BTreeMap<AppName, BTreeSet<Digest>>,
    /// Whether they are others since this was last asked.
    is_new: bool,
}

impl Baking {
    /// Returns what a coordinator knows that has just been started.
    pub(crate) fn restore(durable: &Durable) -> Self {
        let all = durable.apps().values().map(|app| (app.name.clone(), components_before(durable, app)));
        Self { before: all.filter(|(_, components)| !components.is_empty()).collect(), is_new: false }
    }

    /// Tells whether something is to be said of it.
    pub(crate) fn take_new(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    /// Returns the components whose code nodes are to keep though they may not run them.
    pub(crate) fn kept(&self) -> BTreeSet<Digest> {
        self.before.values().flatten().copied().collect()
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
    /// Takes note of how the rollout of an app stands now.
    pub(crate) fn refresh_baking(&mut self, app: &AppName) {
        let record = self.durable.apps().get(app);
        let now = record.map(|record| components_before(&self.durable, record)).unwrap_or_default();
        let baking = &mut self.volatile.baking;
        if now.is_empty() {
            baking.is_new |= baking.before.remove(app).is_some();
        } else if baking.before.get(app) != Some(&now) {
            baking.before.insert(app.clone(), now);
            baking.is_new = true;
        }
    }
}
