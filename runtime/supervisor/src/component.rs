//! The components which allocations of this node need: each is fetched once for all of them.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{Digest, Timestamp};

use crate::Config;
use crate::backoff::Backoff;

/// Where the components stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Components(BTreeMap<Digest, Component>);

#[derive(Clone, Debug)]
struct Component {
    state: ComponentState,
    backoff: Backoff,
}

/// Where one component stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ComponentState {
    /// The agent is at it.
    Fetching,
    /// It is on the node.
    Present,
    /// It could not be fetched.
    Failed {
        /// When to try again.
        until: Timestamp,
        /// Why it could not.
        reason: String,
    },
}

impl Components {
    /// Returns where a component stands, if it was asked for.
    pub(crate) fn state(&self, digest: &Digest) -> Option<&ComponentState> {
        self.0.get(digest).map(|component| &component.state)
    }

    /// Notes that a component is needed now; tells whether it must be fetched.
    pub(crate) fn need(&mut self, digest: Digest, now: Timestamp) -> bool {
        let Some(component) = self.0.get_mut(&digest) else {
            let component = Component { state: ComponentState::Fetching, backoff: Backoff::default() };
            self.0.insert(digest, component);
            return true;
        };
        match component.state {
            ComponentState::Fetching | ComponentState::Present => false,
            ComponentState::Failed { until, .. } if until > now => false,
            ComponentState::Failed { .. } => {
                component.state = ComponentState::Fetching;
                true
            }
        }
    }

    /// Notes that a component has come.
    pub(crate) fn fetched(&mut self, digest: &Digest) {
        if let Some(component) = self.0.get_mut(digest) {
            component.state = ComponentState::Present;
            component.backoff.reset();
        }
    }

    /// Notes that a component did not come.
    pub(crate) fn failed(&mut self, digest: &Digest, reason: String, now: Timestamp, config: &Config) {
        let Some(component) = self.0.get_mut(digest) else { return };
        if component.state == ComponentState::Fetching {
            let until = component.backoff.failed(now, config);
            component.state = ComponentState::Failed { until, reason };
        }
    }

    /// Forgets that a component is present, so that it is asked for again before the next start.
    pub(crate) fn doubt(&mut self, digest: &Digest) {
        if self.state(digest) == Some(&ComponentState::Present) {
            self.0.remove(digest);
        }
    }

    /// Forgets all components which nobody needs. What is being fetched is kept, since its answer is still to come.
    pub(crate) fn keep(&mut self, needed: &BTreeSet<Digest>) {
        self.0.retain(|digest, component| {
            needed.contains(digest) || component.state == ComponentState::Fetching
        });
    }

    /// Returns the moments at which something may be tried again.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Timestamp> {
        self.0.values().filter_map(|component| match component.state {
            ComponentState::Failed { until, .. } => Some(until),
            ComponentState::Fetching | ComponentState::Present => None,
        })
    }
}
