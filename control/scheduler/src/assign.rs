//! What each node must run, said as one list: again when it changes, and again until the node reports it.
//!
//! The generation of a node's assignment counts what has changed in it: its own allocations, and the routes and the code
//! to be kept, which are the same for all. So a change of these is one step for the whole fleet, and two assignments of
//! one generation say the same.

use dunlin_model::{Assignment, Generation, NodeId};

use crate::planted::{Bug, planted};
use crate::{Action, Cluster, Step};

impl Cluster {
    /// Returns everything that a member must run, and the routes; nothing if there is no such member.
    ///
    /// Ask for it when it is sent, after the step which decided it is durable.
    pub fn assignment(&self, node: &NodeId) -> Option<Assignment> {
        self.durable.nodes().get(node)?;
        let allocations = self.durable.on_node(node).filter(|record| record.is_assigned());
        let finishing = self.durable.on_node(node).filter(|it| it.is_assigned() && it.makes_way.is_some());
        Some(Assignment {
            cluster: self.id.clone(),
            term: if planted(Bug::IgnoreTerm) { dunlin_model::Term(1) } else { self.term },
            generation: self.due(node),
            allocations: allocations.map(crate::AllocationRecord::assigned).collect(),
            finishing: finishing.map(|record| record.id).collect(),
            kept: self.volatile.baking.kept(),
            secrets: self.secrets_on(node),
            program: self.program_of(node),
            routes: self.volatile.routes.clone(),
        })
    }

    /// Returns the members that can be spoken to and are believed: to whom something that concerns all is sent.
    pub fn listeners(&self) -> impl Iterator<Item = &NodeId> {
        self.durable.nodes().keys().filter(|node| self.listens(node))
    }

    /// Returns the generation of what a node must run now.
    pub fn due(&self, node: &NodeId) -> Generation {
        let own = self.volatile.nodes.get(node).map_or(0, |state| state.changes);
        let routes = if planted(Bug::GenerationForgetsRoutes) { 0 } else { self.volatile.routes_version };
        Generation(1 + own + routes)
    }

    /// Tells whether a node may be sent something. A lost node that is back first says what it runs: what was not
    /// replaced meanwhile it shall keep.
    pub(crate) fn listens(&self, node: &NodeId) -> bool {
        let is_believed = self.durable.nodes().get(node).is_some_and(|record| record.lost.is_none());
        // Nor one that is silent: its own ingress shall go on with its own allocations.
        let is_heard = !self.volatile.silent.contains(node);
        is_believed && is_heard && self.volatile.nodes.get(node).is_some_and(|state| state.connected)
    }

    /// Says what is new for each node, and says again what some have not got.
    pub(crate) fn assign(&mut self, step: &mut Step, are_routes_new: bool) {
        for node in std::mem::take(&mut self.volatile.dirty.nodes) {
            let Some(state) = self.volatile.nodes.get_mut(&node) else { continue };
            state.changes += u64::from(state.connected || !planted(Bug::GenerationForgetsAbsent));
            self.volatile.behind.insert(node);
        }
        let behind = std::mem::take(&mut self.volatile.behind);
        if are_routes_new {
            step.actions.push(Action::AssignAll);
            return;
        }
        for node in behind {
            if self.listens(&node) {
                step.actions.push(Action::Assign { node });
            }
        }
    }
}
