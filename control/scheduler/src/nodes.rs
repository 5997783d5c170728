//! What operators say of nodes: nothing new shall go there, or what is there shall leave; and whom nobody trusts for a
//! while, as it was lost again and again.

use dunlin_model::{DurationMs, NodeId, Timestamp};

use crate::effort::Effort;
use crate::planted::{Bug, planted};
use crate::{Action, Answer, Change, Cluster, Cordon, NodeRecord, Rejection, Step};

impl Cluster {
    /// Lets nothing new go to a node. With `drain` what it runs leaves it too, and is ended if that takes longer.
    pub(crate) fn cordon(
        &mut self,
        step: &mut Step,
        node: &NodeId,
        drain: Option<DurationMs>,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        let mut record = self.member(node)?;
        let since = record.cordon.map_or(now, |cordon| cordon.since);
        record.cordon = Some(Cordon { since, drain: drain.map(|time| now.plus(time)) });
        self.change(step, Change::Node(record), now);
        Ok(Answer::Cordoned)
    }

    /// Lets a node be used as any other.
    pub(crate) fn uncordon(
        &mut self,
        step: &mut Step,
        node: &NodeId,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        let mut record = self.member(node)?;
        if record.cordon.take().is_some() {
            self.change(step, Change::Node(record), now);
        }
        Ok(Answer::Uncordoned)
    }

    /// Accepts the key of a node no more: it is cut off, and what it runs is replaced at once. The brake does not hold
    /// that, since nothing has failed.
    pub(crate) fn revoke(
        &mut self,
        step: &mut Step,
        node: &NodeId,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        let mut record = self.member(node)?;
        if record.revoked {
            return Ok(Answer::Revoked);
        }
        let mut effort = Effort::of_one_step();
        record.revoked = true;
        record.revoked_keys.insert(record.key_fingerprint);
        let was_released = record.released;
        if record.lost.is_some() {
            self.change(step, Change::Node(record), now);
        } else {
            record.lost = Some(now);
            self.lose_node(step, record, &mut effort, now);
        }
        // What it ran is queued already if it was.
        if !was_released {
            self.release(step, node, &mut effort, now);
        }
        // It is no loss any more, so its zone may not be held.
        self.volatile.may_release(now, self.config.heartbeat);
        self.observe_disconnected(node);
        step.actions.push(Action::Expel { node: node.clone() });
        Ok(Answer::Revoked)
    }

    /// Takes a node off the list: one that is lost, was revoked, or has never reported. Its key is accepted no more, as
    /// it may come back with it. A machine that waits to become a node is sent away.
    pub(crate) fn remove_node(
        &mut self,
        step: &mut Step,
        node: &NodeId,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        if self.durable.pending().contains_key(node) {
            self.change(step, Change::PendingDeleted(node.clone()), now);
            return Ok(Answer::Removed);
        }
        let record = self.member(node)?;
        if record.info.is_some() && record.lost.is_none() {
            return Err(Rejection::NodeInUse(node.clone()));
        }
        self.revoke(step, node, now)?;
        // What was said of it is not said of who has the name next.
        let record = NodeRecord { removed: true, cordon: None, losses: Vec::new(), ..self.member(node)? };
        self.change(step, Change::Node(record), now);
        Ok(Answer::Removed)
    }

    /// Ends what has not left a drained node in time. The node stays cordoned.
    pub(crate) fn leave_drained(&mut self, step: &mut Step, now: Timestamp) {
        while let Some((until, node)) = self.durable.drained_nodes().first().cloned() {
            if until > now || planted(Bug::DrainForgetsDeadline) {
                break;
            }
            let mut record = self.durable.nodes()[&node].clone();
            record.cordon = record.cordon.map(|cordon| Cordon { drain: None, ..cordon });
            self.change(step, Change::Node(record), now);
            for id in self.ids_on_node(&node) {
                // With one of them their run may have ended, and so all of it.
                let Some(record) = self.durable.allocations().get(&id) else { continue };
                // The items of a lost node that was released are queued already.
                let has_items = record.is_live() || self.durable.is_held(record);
                if record.serves() {
                    self.end_serving(step, id, now);
                } else {
                    if has_items && !planted(Bug::DrainLosesItems) {
                        self.queue_again(step, id, now);
                    }
                    if self.durable.allocations().contains_key(&id) {
                        self.end(step, id, now);
                    }
                }
            }
        }
    }

    /// Trusts nodes again that have not been lost for a while.
    pub(crate) fn trust_again(&mut self, now: Timestamp) {
        while let Some((until, node)) = self.volatile.set_aside.first().cloned() {
            if until > now {
                break;
            }
            self.volatile.set_aside.pop_first();
            let record = self.durable.nodes().get(&node);
            if record.and_then(NodeRecord::set_aside_until).is_some_and(|until| until > now) {
                // It was lost once more since.
                continue;
            }
            self.volatile.node(&node).is_set_aside = false;
            self.volatile.dirty_since = now;
            self.refresh_pools(&node);
        }
    }

    fn member(&self, node: &NodeId) -> Result<NodeRecord, Rejection> {
        let record = self.durable.nodes().get(node).filter(|record| !record.removed);
        record.cloned().ok_or_else(|| Rejection::UnknownNode(node.clone()))
    }
}
