//! Between agents and coordinator: messages are lost, late and doubled, and single nodes are cut off.
//!
//! The real link is QUIC, which loses and reorders nothing within a connection. What crosses the end of a connection
//! or of a process can be lost or late, and so can everything here: it is worse than the real thing on purpose.

use dunlin_model::{DurationMs, NodeId};
use dunlin_scheduler::Observation;

use crate::world::{Happening, World};

/// What is wrong with the ways to and from a node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Blocked {
    /// Nothing comes from the coordinator.
    pub(crate) to_agent: bool,
    /// Nothing comes to the coordinator.
    pub(crate) to_coordinator: bool,
    /// How much later what the coordinator sends may come, as through a buffer that is full.
    pub(crate) slow: DurationMs,
}

impl Blocked {
    /// Both ways are cut.
    pub(crate) const BOTH: Self = Self { to_agent: true, to_coordinator: true, slow: DurationMs(0) };
}

impl World {
    /// Returns what is wrong with the ways to and from a node.
    pub(crate) fn blocked(&self, node: &NodeId) -> Blocked {
        self.blocked.get(node).copied().unwrap_or_default()
    }

    /// Puts a message on its way, on which it may be lost, delayed and doubled.
    pub(crate) fn send(&mut self, message: Happening) {
        let copies = if self.random.chance(self.faults.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            if self.random.chance(self.faults.loss) {
                self.counts.lost_messages += 1;
                continue;
            }
            let lateness = if self.random.chance(self.faults.late) { self.faults.lateness } else { 20 };
            let slow = match &message {
                Happening::ToAgent { node, .. } => self.blocked(node).slow.0,
                _ => 0,
            };
            let wait = self.draw(1, 1 + lateness + slow);
            self.plan(wait, message.clone());
        }
    }

    /// Lets an agent try to reach the coordinator.
    pub(crate) fn dial(&mut self, node: &NodeId, life: u64) -> Result<(), String> {
        let blocked = self.blocked(node);
        let reachable = !blocked.to_agent && !blocked.to_coordinator && self.coordinator.cluster.is_some();
        let agent = &self.agents[node];
        if agent.life != life || agent.connection.is_some() {
            return Ok(());
        }
        if !reachable || agent.is_deaf() || !self.join(node)? {
            let wait = self.draw(500, 3_000);
            self.plan(wait, Happening::Dial { node: node.clone(), life });
            return Ok(());
        }
        self.connections += 1;
        let connection = self.connections;
        self.note(format_args!("{node} connects as {connection}"));
        self.agents.get_mut(node).expect("it is a node").connection = Some(connection);
        self.coordinator.connected.insert(node.clone(), connection);
        self.coordinator_observes(Observation::Connected { node: node.clone() })?;
        self.report_now(node);
        Ok(())
    }

    /// Lets both sides of a connection give it up, if it is cut.
    pub(crate) fn silence(&mut self, node: &NodeId, connection: u64) -> Result<(), String> {
        let blocked = self.blocked(node);
        if !blocked.to_agent && !blocked.to_coordinator {
            return Ok(());
        }
        self.connection_lost(node, connection)?;
        self.agent_loses_connection(node, connection);
        Ok(())
    }

    /// Lets the coordinator see that a connection is gone, unless there is a later one.
    pub(crate) fn connection_lost(&mut self, node: &NodeId, connection: u64) -> Result<(), String> {
        if self.coordinator.connected.get(node) != Some(&connection) {
            return Ok(());
        }
        self.coordinator.connected.remove(node);
        self.coordinator_observes(Observation::Disconnected { node: node.clone() })
    }

    /// Lets an agent see that a connection is gone, and dial again.
    pub(crate) fn agent_loses_connection(&mut self, node: &NodeId, connection: u64) {
        let agent = self.agents.get_mut(node).expect("it is a node");
        if agent.connection == Some(connection) {
            agent.connection = None;
            let life = agent.life;
            let wait = DurationMs(self.random.between(100, 3_000));
            self.plan(wait, Happening::Dial { node: node.clone(), life });
        }
    }
}
