//! Preemption: batch work makes way for what is more urgent and finds no node.
//!
//! Only allocations of runs make way, only for a higher priority, and only where that makes the demand fit. They are
//! told first: they take no new items, finish what they have, and are ended when that is done or at a deadline. Items
//! without a record are queued again, under the same attempt. Until then the node is kept for the one who asked.
//!
//! Not here: how an agent finishes (`supervisor`), and where the one who asked is placed then (`turns`).

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use dunlin_model::{AllocationId, NodeId, Priority, Timestamp};

use crate::effort::Effort;
use crate::index::may_make_way;
use crate::placement::{Barriers, Demand, Room, Standing};
use crate::planted::{Bug, planted};
use crate::turns::Claim;
use crate::{AllocationRecord, Change, Cluster, MakesWay, RunRecord, Step};

/// How long who makes way may take to finish what it has begun.
const NOTICE: dunlin_model::DurationMs = dunlin_model::DurationMs(30_000);
/// How long nothing is looked for again for somebody for whom nothing was found.
const PAUSE: dunlin_model::DurationMs = dunlin_model::DurationMs(10_000);
/// So many allocations that could make way are looked at, the least urgent first.
const MAX_LOOKED_AT: usize = 256;
/// On so many nodes something makes way for one workload or run at a time.
const MAX_NODES: usize = 8;
/// And so many nodes are kept for anybody.
pub(crate) const MAX_KEPT: usize = 64;

/// Who would have to make way on a node.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Plan {
    /// The most urgent of them.
    priority: Priority,
    count: usize,
    /// The oldest of them, youngest first: what has run longest has most to lose.
    oldest: Reverse<AllocationId>,
    node: NodeId,
    victims: Vec<AllocationId>,
}

impl Cluster {
    /// Lets batch work make way for `missing` allocations of a demand that found no node.
    pub(crate) fn make_way(
        &mut self,
        step: &mut Step,
        claim: &Claim,
        demand: &Demand,
        missing: u32,
        effort: &mut Effort,
        now: Timestamp,
    ) {
        let kept = self.volatile.kept.values().filter(|known| *known == claim).count();
        let wanted = usize::try_from(missing).unwrap_or(usize::MAX).min(MAX_NODES).saturating_sub(kept);
        let is_pausing = self.volatile.in_vain.contains_key(claim);
        if wanted == 0 || is_pausing || self.quota_hit(&demand.workload.namespace, &demand.spec).is_some() {
            return;
        }
        for _ in 0..wanted {
            let is_outranked = self.durable.is_outranked(demand.spec.priority);
            let Some(plan) = is_outranked.then(|| self.best_plan(demand, effort)).flatten() else {
                let is_run = matches!(claim, Claim::Run(_));
                if !(is_run && self.wait_for_share(claim, demand, effort, now)) && is_outranked {
                    self.in_vain(claim, now);
                }
                return;
            };
            let run = match claim {
                Claim::Service(_) => None,
                Claim::Run(run) => Some(*run),
            };
            let workload = demand.workload.clone();
            let makes_way = Box::new(MakesWay { until: now.plus(NOTICE), workload, run });
            for id in plan.victims {
                let mut record = AllocationRecord::clone(&self.durable.allocations()[&id]);
                record.makes_way = Some(makes_way.clone());
                self.change(step, Change::Allocation(Arc::new(record)), now);
            }
            self.keep_for(&plan.node, Some(claim.clone()));
        }
    }

    /// Looks for nothing more for somebody for a while.
    pub(crate) fn in_vain(&mut self, claim: &Claim, now: Timestamp) {
        let until = now.plus(PAUSE);
        self.volatile.in_vain.insert(claim.clone(), until);
        self.volatile.in_vain_ends.insert((until, claim.clone()));
    }

    /// Returns where least is lost, if it fits anywhere then.
    fn best_plan(&self, demand: &Demand, effort: &mut Effort) -> Option<Plan> {
        if self.volatile.kept.len() >= MAX_KEPT {
            return None;
        }
        let barriers = Barriers::new(self, demand);
        let mut seen: BTreeSet<&NodeId> = BTreeSet::new();
        let mut best: Option<Plan> = None;
        for id in self.durable.less_urgent(demand.spec.priority).take(MAX_LOOKED_AT) {
            let node = &self.durable.allocations()[&id].node;
            if !seen.insert(node) || self.volatile.kept.contains_key(node) || !barriers.allow(self, node) {
                continue;
            }
            effort.spend(1);
            best = best.into_iter().chain(self.plan_on(node, demand)).min();
        }
        effort.spend(4);
        best
    }

    /// Returns who would have to make way on a node so that the demand fits.
    fn plan_on(&self, node: &NodeId, demand: &Demand) -> Option<Plan> {
        let (_, room) = self.volatile.pools.node(node)?;
        let near: BTreeSet<_> =
            demand.spec.placement.near.iter().map(|affinity| &affinity.workload).collect();
        let may_go = |record: &&AllocationRecord| {
            may_make_way(record)
                && (record.spec.priority < demand.spec.priority || planted(Bug::PreemptEqual))
                && !near.contains(&record.workload)
        };
        let mut victims: Vec<&AllocationRecord> = self.durable.on_node(node).filter(may_go).collect();
        victims.sort_by_key(|record| (record.spec.priority, Reverse(record.id)));
        let mut room = room.clone();
        let mut chosen: Vec<&AllocationRecord> = Vec::new();
        for record in victims {
            if room.fits(demand) {
                break;
            }
            room = room.without(record);
            chosen.push(record);
        }
        if chosen.is_empty() || !room.fits(demand) {
            return None;
        }
        // What was chosen first may not be needed now that larger ones go.
        let mut needed: Vec<&AllocationRecord> = Vec::new();
        for record in chosen.into_iter().rev() {
            let back: Room = room.with(record);
            if back.fits(demand) {
                room = back;
            } else {
                needed.push(record);
            }
        }
        let oldest = needed.iter().map(|record| record.id).min()?;
        Some(Plan {
            priority: needed.iter().map(|record| record.spec.priority).max()?,
            count: needed.len(),
            oldest: Reverse(oldest),
            node: node.clone(),
            victims: needed.iter().map(|record| record.id).collect(),
        })
    }

    /// Keeps a node for somebody, or for nobody any more.
    pub(crate) fn keep_for(&mut self, node: &NodeId, claim: Option<Claim>) {
        self.volatile.node(node).is_kept = claim.is_some();
        match claim {
            Some(claim) => drop(self.volatile.kept.insert(node.clone(), claim)),
            None => drop(self.volatile.kept.remove(node)),
        }
        self.refresh_pools(node);
    }

    /// Lets it be looked again for those for whom nothing was found a while ago.
    pub(crate) fn look_again(&mut self, now: Timestamp) {
        while self.volatile.in_vain_ends.first().is_some_and(|(until, _)| *until <= now) {
            let Some((_, claim)) = self.volatile.in_vain_ends.pop_first() else { return };
            self.volatile.in_vain.remove(&claim);
            match claim {
                Claim::Service(workload) if self.volatile.waiting_services.contains(&workload) => {
                    self.volatile.dirty.workloads.insert(workload);
                }
                Claim::Run(run) if self.volatile.waiting_runs.contains(&run) => {
                    self.volatile.dirty.runs.insert(run);
                }
                Claim::Service(_) | Claim::Run(_) => {}
            }
        }
    }

    /// Ends what was to make way and has not in time; its items are queued again.
    pub(crate) fn end_what_makes_way(&mut self, step: &mut Step, now: Timestamp) {
        while let Some((until, id)) = self.durable.making_way().first().copied() {
            if until > now || planted(Bug::PreemptForgetsDeadline) {
                break;
            }
            let record = &self.durable.allocations()[&id];
            // The items of a lost node that was released are queued already.
            if (record.is_live() || self.durable.is_held(record)) && !planted(Bug::PreemptLosesItems) {
                self.queue_again(step, id, now);
            }
            // With its last items its run may have ended, and so all of it.
            if self.durable.allocations().contains_key(&id) {
                self.end(step, id, now);
            }
        }
    }

    /// Gives the nodes that are kept to those for whom they are, as soon as there is room, and nobody's any more to all.
    pub(crate) fn give_what_is_kept(&mut self, step: &mut Step, effort: &mut Effort, now: Timestamp) {
        let kept: Vec<(NodeId, Claim)> =
            self.volatile.kept.iter().map(|(node, claim)| (node.clone(), claim.clone())).collect();
        for (node, claim) in kept {
            let demand = self.demand_of(&claim);
            let fits = demand.as_ref().is_some_and(|demand| self.volatile.pools.fits(&node, demand));
            let (is_there, is_open) = match self.volatile.pools.standing(&node) {
                Some(Standing::Kept) => (true, true),
                // A node that this coordinator has not heard yet may be there in a moment.
                Some(Standing::Unheard | Standing::Disconnected) => (true, false),
                Some(Standing::Open | Standing::SetAside | Standing::Cordoned | Standing::Lost) | None => {
                    (false, false)
                }
            };
            let makes_way = self.durable.on_node(&node).any(|record| record.makes_way.is_some());
            let is_emptying = makes_way || self.is_awaited(&node);
            let may_come = if fits { !is_open } else { is_emptying };
            if demand.is_some() && is_there && may_come {
                continue;
            }
            self.keep_for(&node, None);
            self.volatile.awaited.clear(&node);
            self.volatile.dirty.room = true;
            if fits && is_open {
                self.give(step, &claim, false, effort, now);
            }
        }
    }

    /// Returns the nodes that are kept for somebody.
    pub(crate) fn kept_for(&self, claim: &Claim) -> BTreeSet<&NodeId> {
        self.volatile.kept.iter().filter(|(_, known)| *known == claim).map(|(node, _)| node).collect()
    }

    /// Says on which nodes something makes way for somebody, if on any.
    pub(crate) fn what_makes_way_for(&self, claim: &Claim) -> Option<String> {
        let (awaited, cleared): (Vec<&NodeId>, Vec<&NodeId>) =
            self.kept_for(claim).into_iter().partition(|node| self.is_awaited(node));
        let named =
            |nodes: Vec<&NodeId>| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if !cleared.is_empty() {
            return Some(format!("less urgent batch work makes way for it on {}", named(cleared)));
        }
        (!awaited.is_empty()).then(|| {
            format!("others have more by weight, and what gets free on {} is kept for it", named(awaited))
        })
    }

    /// Returns what somebody still wants.
    fn demand_of(&self, claim: &Claim) -> Option<Demand> {
        match claim {
            Claim::Service(workload) => self.demand_of_service(workload).map(|(demand, _)| demand),
            Claim::Run(id) => {
                let run = self.durable.runs().get(id).filter(|run| run.is_running())?;
                let is_ready = self.volatile.queues.get(id).is_some_and(|queue| queue.ready() > 0);
                (is_ready && self.has_free_hands(run)).then(|| Demand::new(self, &run.workload, &run.spec))
            }
        }
    }

    /// Tells whether a run may have one more allocation.
    fn has_free_hands(&self, run: &RunRecord) -> bool {
        let durable = &self.durable;
        let live = durable.of_run(run.id).filter(|record| record.is_live() || durable.is_held(record));
        live.count() < usize::try_from(run.job().parallelism).unwrap_or(usize::MAX)
    }
}

impl MakesWay {
    /// Says why an allocation ends, to those whose it is.
    pub(crate) fn reason(&self) -> String {
        Self::reason_of([self])
    }

    /// Says the same of several allocations.
    pub(crate) fn reason_of<'a>(these: impl IntoIterator<Item = &'a Self>) -> String {
        let those: BTreeSet<String> = these.into_iter().map(Self::beneficiary).collect();
        let is = if those.len() == 1 { "is" } else { "are" };
        format!(
            "preempted for {}, which {is} more urgent: no new items begin there, those that have begun end within \
             {NOTICE}, and the others are queued again",
            those.into_iter().collect::<Vec<_>>().join(" and "),
        )
    }

    /// Says why an allocation has ended.
    pub(crate) fn reason_of_end(&self) -> String {
        format!(
            "preempted for {}, which was more urgent; items without a record were queued again",
            self.beneficiary()
        )
    }

    /// Returns for whom it makes way.
    fn beneficiary(&self) -> String {
        let run = self.run.map(|run| format!("{run} of ")).unwrap_or_default();
        format!("{run}{}", self.workload)
    }
}
