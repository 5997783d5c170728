//! What must hold on nodes that are cut off, read off what the workers hold, whatever the two brains believe.

use dunlin_model::{AssignedAllocation, NodeId, OnPartition};

use crate::world::World;

impl World {
    /// Of a singleton nothing else runs, anywhere, from its start until it has stopped.
    pub(crate) fn check_alone(&self, node: &NodeId, assigned: &AssignedAllocation) -> Result<(), String> {
        if !assigned.spec.on_partition().is_singleton() {
            return Ok(());
        }
        let is_another = |held: &&AssignedAllocation| {
            held.workload == assigned.workload && held.spec.on_partition().is_singleton()
        };
        for agent in self.agents.values() {
            let held = agent.loaded.values().chain(agent.ending.values()).map(|loaded| &loaded.assigned);
            if let Some(other) = held.into_iter().find(is_another) {
                return Err(format!(
                    "{} of the singleton {} starts on {node}, and {} still runs on {}",
                    assigned.id, assigned.workload, other.id, agent.node
                ));
            }
        }
        Ok(())
    }

    /// What stops when nothing is heard for long does.
    pub(crate) fn check_silence(&self, node: &NodeId) -> Result<(), String> {
        let agent = &self.agents[node];
        let now = agent.clock.at(self.now);
        for loaded in agent.loaded.values() {
            if let OnPartition::StopAfter(time) = loaded.assigned.spec.on_partition()
                && now > agent.heard.plus(time)
            {
                let (id, silence) = (loaded.assigned.id, now.since(agent.heard));
                return Err(format!("{id} runs on {node}, which has heard nothing for {silence}"));
            }
        }
        Ok(())
    }
}
