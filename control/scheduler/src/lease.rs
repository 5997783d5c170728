//! Leases: a silent node is believed until its lease ends, then it is lost with all it ran.
//!
//! A node that comes back before its services were replaced goes on with them.

use dunlin_model::{AllocationId, NodeId, Timestamp, Work};

use crate::{AllocationState, Change, Cluster, Step};

impl Cluster {
    /// Makes nodes lost whose lease is over.
    pub(crate) fn expire_leases(&mut self, step: &mut Step, now: Timestamp) {
        while let Some((end, node)) = self.volatile.first_lease_end().cloned() {
            if end > now {
                break;
            }
            self.volatile.set_lease(&node, None);
            let mut record = self.durable.nodes()[&node].clone();
            record.lost = Some(now);
            self.change(step, Change::Node(record), now);
            for id in self.ids_on_node(&node) {
                self.lose(step, id, now);
            }
        }
    }

    /// Makes an allocation lost: a service waits for a replacement, the items of a run are queued again.
    fn lose(&mut self, step: &mut Step, id: AllocationId, now: Timestamp) {
        let record = &self.durable.allocations()[&id];
        match (record.state, &record.work) {
            (AllocationState::Lost, _) => {}
            (AllocationState::Draining { .. }, _) => self.end(step, id, now),
            (_, Work::Serve) => self.set_state(step, id, AllocationState::Lost, now),
            (_, Work::Items { run, attempt, .. }) => {
                let (run, attempt) = (*run, *attempt);
                let items = self.outstanding(record);
                if let Some(queue) = self.volatile.queues.get_mut(&run) {
                    queue.add(attempt, &items);
                }
                self.set_state(step, id, AllocationState::Lost, now);
            }
        }
        self.volatile.observed.remove(&id);
    }

    /// Believes a node again that was lost, and lets it keep what was not replaced meanwhile.
    ///
    /// Call it after the items were recorded that the node brings.
    pub(crate) fn welcome_back(&mut self, step: &mut Step, node: &NodeId, now: Timestamp) {
        let mut record = self.durable.nodes()[node].clone();
        record.lost = None;
        self.change(step, Change::Node(record), now);
        for id in self.ids_on_node(node) {
            let record = &self.durable.allocations()[&id];
            if record.state != AllocationState::Lost {
                continue;
            }
            match record.work {
                Work::Serve => self.set_state(step, id, AllocationState::Placed, now),
                Work::Items { run, attempt, .. } => {
                    let items = self.outstanding(record);
                    match self.volatile.queues.get_mut(&run) {
                        Some(queue) if !items.is_empty() && queue.offers(attempt, &items) => {
                            for range in items.ranges() {
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
