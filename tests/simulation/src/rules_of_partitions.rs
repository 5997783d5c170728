//! What must hold on nodes that are cut off, read off what the workers hold, whatever the two brains believe.

use dunlin_model::{AssignedAllocation, NodeId, OnPartition, Timestamp};

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
        // Of a clock that goes too fast two milliseconds may pass in one, in which its tick is still to come.
        let now = Timestamp(agent.clock.at(self.now).0 - 1);
        // What was started may have another say in that by now, under a later revision.
        let assigned = agent.disk.iter().flat_map(|saved| &saved.allocations);
        for assigned in assigned.filter(|assigned| agent.loaded.contains_key(&assigned.id)) {
            if let OnPartition::StopAfter(time) = assigned.spec.on_partition()
                && now > agent.heard.plus(time)
            {
                let (id, silence) = (assigned.id, now.since(agent.heard));
                return Err(format!("{id} runs on {node}, which has heard nothing for {silence}"));
            }
        }
        Ok(())
    }
}
