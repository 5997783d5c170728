//! Room that is kept for who has less than its share: otherwise whoever asks for little takes each bit that gets free, and
//! whoever asks for more at a time never finds enough of it on one node.
//!
//! A node is chosen on which batch work of namespaces that have more comes to its end soon, as all ranges of items do, and
//! it gets nothing new until the demand fits or a while has passed. Nobody is told to make way.
//!
//! Not here: what makes way for what is more urgent, and how a node is given to the one for whom it is kept (`preempt`).

use std::collections::BTreeSet;

use dunlin_model::{DurationMs, Name, NodeId, Timestamp};

use crate::effort::Effort;
use crate::placement::{Barriers, Demand};
use crate::preempt::MAX_KEPT;
use crate::turns::Claim;
use crate::{AllocationRecord, Cluster};

/// How long a node is kept at most. What runs on it has a range of items that takes about ten seconds.
const PATIENCE: DurationMs = DurationMs(30_000);
/// So many allocations that may end soon are looked at, the least urgent first.
const MAX_LOOKED_AT: usize = 256;

impl Cluster {
    /// Keeps a node for a run that found no room, if its namespace has less than others; tells whether there is any use in
    /// that.
    pub(crate) fn wait_for_share(
        &mut self,
        claim: &Claim,
        demand: &Demand,
        effort: &mut Effort,
        now: Timestamp,
    ) -> bool {
        let has_more = self.those_with_more(&demand.workload.namespace);
        effort.spend(u32::try_from(self.durable.usages().len() / 16).unwrap_or(u32::MAX));
        if has_more.is_empty() {
            return false;
        }
        if !self.awaits_share(&demand.workload.namespace) {
            match self.node_for_share(demand, &has_more, effort) {
                Some(node) => {
                    self.volatile.awaited.set(&node, now.plus(PATIENCE));
                    self.keep_for(&node, Some(claim.clone()));
                }
                None => self.in_vain(claim, now),
            }
        }
        true
    }

    /// Tells whether a node is kept for a namespace that has less than others: one at a time is enough.
    fn awaits_share(&self, namespace: &Name) -> bool {
        let is_of_it = |claim: &Claim| match claim {
            Claim::Run(run) => {
                self.durable.runs().get(run).is_some_and(|run| run.workload.namespace == *namespace)
            }
            Claim::Service(workload) => workload.namespace == *namespace,
        };
        self.volatile.kept.iter().any(|(node, claim)| self.is_awaited(node) && is_of_it(claim))
    }

    /// Returns the namespaces that have more than this one by weight.
    fn those_with_more(&self, namespace: &Name) -> BTreeSet<Name> {
        let own = self.weighted_share(namespace);
        let others = self.durable.usages().keys().filter(|other| self.weighted_share(other) > own);
        others.cloned().collect()
    }

    /// Returns the node on which fewest allocations of those that have more must end for the demand to fit.
    fn node_for_share(
        &self,
        demand: &Demand,
        has_more: &BTreeSet<Name>,
        effort: &mut Effort,
    ) -> Option<NodeId> {
        if self.volatile.kept.len() >= MAX_KEPT {
            return None;
        }
        let barriers = Barriers::new(self, demand);
        let mut seen: BTreeSet<&NodeId> = BTreeSet::new();
        let mut best: Option<(usize, &NodeId)> = None;
        for id in self.durable.as_urgent_or_less(demand.spec.priority).take(MAX_LOOKED_AT) {
            let node = &self.durable.allocations()[&id].node;
            if !seen.insert(node) || self.volatile.kept.contains_key(node) || !barriers.allow(self, node) {
                continue;
            }
            effort.spend(1);
            let ends = self.ends_before_it_fits(node, demand, has_more);
            best = best.into_iter().chain(ends.map(|ends| (ends, node))).min();
        }
        effort.spend(4);
        best.map(|(_, node)| node.clone())
    }

    /// Returns how many allocations on a node must end for the demand to fit, if it can.
    fn ends_before_it_fits(
        &self,
        node: &NodeId,
        demand: &Demand,
        has_more: &BTreeSet<Name>,
    ) -> Option<usize> {
        let (_, room) = self.volatile.pools.node(node)?;
        let ends_soon = |record: &&AllocationRecord| {
            !record.serves()
                && record.is_assigned()
                && record.spec.priority <= demand.spec.priority
                && has_more.contains(&record.workload.namespace)
        };
        let mut room = room.clone();
        let mut count = 0;
        for record in self.durable.on_node(node).filter(ends_soon) {
            if room.fits(demand) {
                break;
            }
            room = room.without(record);
            count += 1;
        }
        room.fits(demand).then_some(count)
    }

    /// Tells whether a node is kept until enough has ended on it by itself.
    pub(crate) fn is_awaited(&self, node: &NodeId) -> bool {
        self.volatile.awaited.has(node)
    }

    /// Keeps no node any longer than it may be.
    pub(crate) fn give_up_awaited(&mut self, now: Timestamp) {
        while let Some(node) = self.volatile.awaited.take_due(now) {
            if let Some(claim) = self.volatile.kept.get(&node).cloned() {
                self.in_vain(&claim, now);
            }
        }
    }
}
