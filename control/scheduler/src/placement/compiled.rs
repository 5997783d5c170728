//! Where components have run lately: a node that has one compiled starts it faster.
//!
//! It is a guess from what nodes said, kept for a bounded number of components; a wrong one costs a compilation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dunlin_model::{Digest, NodeId};

/// How many components are remembered of each node.
const MAX_OF_NODE: usize = 64;

/// Where components have run lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compiled {
    by_node: BTreeMap<NodeId, VecDeque<Digest>>,
    by_component: BTreeMap<Digest, BTreeSet<NodeId>>,
}

impl Compiled {
    /// Takes note that a component runs on a node.
    pub(crate) fn runs(&mut self, component: Digest, node: &NodeId) {
        if !self.by_component.entry(component).or_default().insert(node.clone()) {
            return;
        }
        let known = self.by_node.entry(node.clone()).or_default();
        known.push_back(component);
        if known.len() > MAX_OF_NODE
            && let Some(oldest) = known.pop_front()
        {
            self.forget(&oldest, node);
        }
    }

    /// Forgets what was known of a node: another machine may have its name.
    pub(crate) fn forget_node(&mut self, node: &NodeId) {
        for component in self.by_node.remove(node).into_iter().flatten() {
            self.forget(&component, node);
        }
    }

    /// Returns the nodes which have a component.
    pub(crate) fn nodes(&self, component: &Digest) -> impl Iterator<Item = &NodeId> {
        self.by_component.get(component).into_iter().flatten()
    }

    /// Tells whether a node has a component.
    pub(crate) fn has(&self, node: &NodeId, component: &Digest) -> bool {
        self.by_component.get(component).is_some_and(|nodes| nodes.contains(node))
    }

    fn forget(&mut self, component: &Digest, node: &NodeId) {
        if let Some(nodes) = self.by_component.get_mut(component) {
            nodes.remove(node);
            if nodes.is_empty() {
                self.by_component.remove(component);
            }
        }
    }
}
