//! Leases: a silent node is believed until its lease ends, then it is lost with all it ran.
//!
//! A node that comes back before its services were replaced goes on with them.

use dunlin_model::{AllocationId, NodeId, Timestamp, Work};

use crate::effort::Effort;
use crate::planted::{Bug, planted};
use crate::{AllocationState, Change, Cluster, NodeRecord, Step};

impl Cluster {
    /// Makes nodes lost whose lease is over.
    pub(crate) fn expire_leases(&mut self, step: &mut Step, effort: &mut Effort, now: Timestamp) {
        while let Some((end, node)) = self.volatile.first_lease_end().cloned() {
            if end > now || effort.is_over() {
                break;
            }
            let mut record = self.durable.nodes()[&node].clone();
            record.lose(now);
            self.lose_node(step, record, effort, now);
        }
    }

    /// Makes a node lost, with all it runs.
    pub(crate) fn lose_node(
        &mut self,
        step: &mut Step,
        record: NodeRecord,
        effort: &mut Effort,
        now: Timestamp,
    ) {
        let node = record.id.clone();
        self.volatile.set_lease(&node, None);
        self.volatile.node(&node).reports.clear();
        self.volatile.may_release(now, self.config.heartbeat);
        self.change(step, Change::Node(record), now);
        for id in self.ids_on_node(&node) {
            self.lose(step, id, now);
            effort.spend(1);
        }
    }

    /// Makes an allocation lost: a service waits for a replacement, the items of a run are queued again.
    fn lose(&mut self, step: &mut Step, id: AllocationId, now: Timestamp) {
        let record = &self.durable.allocations()[&id];
        match (record.state, &record.work) {
            (AllocationState::Lost, _) => {}
            (AllocationState::Draining { .. }, _) => self.end(step, id, now),
            (AllocationState::Placed | AllocationState::Running, _) => {
                self.set_state(step, id, AllocationState::Lost, now);
                self.remember_lost_lease(id);
            }
        }
    }

    /// Lets the items of a lost allocation be run by others, if they may be.
    pub(crate) fn queue_again(&mut self, step: &mut Step, id: AllocationId, now: Timestamp) {
        let record = &self.durable.allocations()[&id];
        if self.is_at_most_once(record) {
            return self.give_up(step, id, "its node was lost or left while it ran", now);
        }
        let Work::Items { run, attempt, .. } = record.work else { return };
        let items = self.outstanding(record);
        if let Some(queue) = self.volatile.queues.get_mut(&run) {
            queue.add(attempt, &items);
            self.volatile.dirty.runs.insert(run);
        }
    }

    /// Believes a node again that was lost, and lets it keep what was not replaced meanwhile.
    ///
    /// Call it after the items were recorded that the node brings.
    pub(crate) fn welcome_back(&mut self, step: &mut Step, node: &NodeId, now: Timestamp) {
        let mut record = self.durable.nodes()[node].clone();
        let was_released = record.released;
        record.lost = None;
        record.released = false;
        if !planted(Bug::ForgetToLookAgain) {
            self.volatile.may_release(now, self.config.release_pause);
        }
        self.volatile.set_aside(&record, now);
        self.change(step, Change::Node(record), now);
        for id in self.ids_on_node(node) {
            // With one of them their run may have ended, and so all of it.
            let Some(record) = self.durable.allocations().get(&id) else { continue };
            if record.state != AllocationState::Lost {
                continue;
            }
            if self.is_at_most_once(record) {
                // It may have been told to stop meanwhile, and would begin again.
                self.give_up(step, id, "its node was lost while it ran, and is back", now);
                continue;
            }
            match record.work {
                _ if !was_released => self.set_state(step, id, AllocationState::Placed, now),
                // What was not charged meanwhile may not be allowed any more.
                _ if self.is_over_quota(&record.workload.namespace) => self.end(step, id, now),
                Work::Serve => self.set_state(step, id, AllocationState::Placed, now),
                Work::Items { run, attempt, .. } => {
                    let items = self.outstanding(record);
                    match self.volatile.queues.get_mut(&run) {
                        Some(queue) if !items.is_empty() && queue.offers(attempt, &items) => {
                            for range in
                                items.ranges().iter().filter(|_| !planted(Bug::DuplicateAfterPartition))
                            {
                                queue.remove(*range);
                            }
                            self.set_state(step, id, AllocationState::Placed, now);
                        }
                        _ => self.end(step, id, now),
                    }
                }
            }
        }
    }
}
