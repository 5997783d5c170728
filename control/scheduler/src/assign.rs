//! What each node must run, said as one list: again when it changes, and again until the node reports it.

use dunlin_model::{Assignment, Generation, NodeId};

use crate::volatile::Sent;
use crate::{Action, Cluster, Step};

impl Cluster {
    /// Sends every node that can be spoken to what is new for it, or what it should be told again.
    pub(crate) fn assign_all(&mut self, step: &mut Step) {
        let nodes: Vec<NodeId> = self.durable.nodes().keys().cloned().collect();
        for node in nodes {
            self.assign(step, &node);
        }
    }

    /// Sends again what some nodes have not got; nothing else has changed.
    pub(crate) fn resend(&mut self, step: &mut Step) {
        let nodes = self.volatile.nodes.iter();
        let behind: Vec<NodeId> = nodes.filter(|(_, state)| state.resend).map(|(id, _)| id.clone()).collect();
        for node in behind {
            self.assign(step, &node);
        }
    }

    fn assign(&mut self, step: &mut Step, node: &NodeId) {
        // A lost node that is back first says what it runs: what was not replaced meanwhile it shall keep.
        if self.durable.nodes().get(node).is_none_or(|record| record.lost.is_some()) {
            return;
        }
        let due = self.due(node);
        let state = self.volatile.node(node);
        let is_new = state.sent.as_ref() != Some(&due);
        if !state.connected || !(is_new || state.resend) {
            return;
        }
        state.resend = false;
        let generation = due.generation;
        state.sent = Some(due);
        let allocations = self.durable.on_node(node).filter(|record| record.is_assigned());
        let assignment = Assignment {
            cluster: self.id.clone(),
            term: self.term,
            generation,
            allocations: allocations.map(crate::AllocationRecord::assigned).collect(),
            routes: self.volatile.routes.clone(),
        };
        step.actions.push(Action::Assign { node: node.clone(), assignment });
    }

    /// Returns what a node should have been sent: equal to what it was sent if that is still right.
    pub(crate) fn due(&self, node: &NodeId) -> Sent {
        let allocations = self.durable.on_node(node).filter(|record| record.is_assigned());
        let allocations = allocations.map(|record| (record.id, record.revision)).collect();
        let routes_version = self.volatile.routes_version;
        let sent = self.volatile.nodes.get(node).and_then(|state| state.sent.as_ref());
        let generation = match sent {
            None => Generation(1),
            Some(sent) if sent.allocations == allocations && sent.routes_version == routes_version => {
                sent.generation
            }
            Some(sent) => sent.generation.next(),
        };
        Sent { generation, allocations, routes_version }
    }
}
