//! Rebalancing: services move, slowly, to where they would be placed today if that is clearly better.
//!
//! Five minutes after something has changed all services are looked at, some at each heartbeat, and of each at most one
//! allocation is moved: a new one is placed, and the old one ends when the new one answers. A move that has not come to
//! an end when the services are looked at again is taken back. What has moved is not worth a move back: each makes its
//! service better spread, better liked or less crowded, or a node a good deal emptier.
//!
//! Not here: how a service goes from one allocation to another (`rollout`). A coordinator that starts again forgets its
//! moves, and ends whichever allocation is too much.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{AllocationId, DurationMs, NodeId, Packing, Timestamp, WorkloadKind, WorkloadName};

use crate::effort::Effort;
use crate::explain::{Judge, difference};
use crate::placement::{Comparison, Rank, Relations, Search, Standing};
use crate::planted::{Bug, planted};
use crate::reconcile::{is_settled, rules};
use crate::{AllocationRecord, AllocationState, Cluster};

/// How long after a change, and after the last time, services are looked at.
const PAUSE: DurationMs = DurationMs(300_000);
/// The same in a planted bug.
const SHORT: DurationMs = DurationMs(20_000);
/// So many services are looked at at each heartbeat.
const MAX_SERVICES: usize = 16;
/// So many of its allocations are compared with what would be their place today, the youngest first.
const MAX_COMPARED: usize = 64;
/// As many of one that stands near or apart from itself: each costs a search of its own.
const MAX_SEARCHES: usize = 4;
/// How much emptier the other node must be, in millionths of what it has.
const CLEARLY_EMPTIER: u64 = 200_000;

/// Returns how long after a change, and after the last time, services are looked at.
fn pause() -> DurationMs {
    if planted(Bug::MoveWithoutPause) { SHORT } else { PAUSE }
}

/// How far the services are looked at, and what is on its way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rebalancing {
    /// When the next ones are looked at; absent if nothing has changed since all were.
    next: Option<Timestamp>,
    /// Those that are still to be looked at this time.
    left: BTreeSet<WorkloadName>,
    /// What is to leave its node.
    moves: BTreeMap<WorkloadName, Move>,
    /// Whether nothing is moved, in a copy that looks ahead.
    is_off: bool,
}

/// An allocation that is to leave its node for a better one.
#[derive(Clone, Debug)]
struct Move {
    id: AllocationId,
    from: NodeId,
    to: NodeId,
    because: String,
}

/// How much better another node is, what decides first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Gain {
    crowd: u64,
    dislike: i32,
    copies: u32,
    fill: u64,
}

impl Gain {
    /// Tells whether it is only that the other node is emptier.
    const fn is_of_fill(self) -> bool {
        self.crowd == 0 && self.dislike == 0 && self.copies == 0
    }
}

impl Rebalancing {
    /// Returns what a coordinator knows that starts `now`: everything may have changed.
    pub(crate) fn begin(now: Timestamp) -> Self {
        Self { next: Some(now.plus(pause())), ..Self::default() }
    }

    /// Moves nothing from now on.
    pub(crate) fn stop(&mut self) {
        *self = Self { is_off: true, ..Self::default() };
    }

    /// Takes note that something has changed.
    pub(crate) fn changed(&mut self, now: Timestamp) {
        if self.next.is_none() && !self.is_off {
            self.next = Some(now.plus(pause()));
        }
    }

    /// Takes note that an allocation does not run any more.
    pub(crate) fn ended(&mut self, record: &AllocationRecord) {
        if self.is_moved(record) {
            self.moves.remove(&record.workload);
        }
    }

    /// Returns when services are looked at next.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.next
    }

    /// Tells whether an allocation of a workload is moved.
    pub(crate) fn moves(&self, workload: &WorkloadName) -> bool {
        !self.moves.is_empty() && self.moves.contains_key(workload)
    }

    /// Tells whether an allocation is to leave its node for a better one.
    pub(crate) fn is_moved(&self, record: &AllocationRecord) -> bool {
        self.reason(record).is_some()
    }

    /// Returns why an allocation is to leave its node, if it is for a better one.
    pub(crate) fn reason(&self, record: &AllocationRecord) -> Option<&str> {
        let found = self.moves.get(&record.workload)?;
        (found.id == record.id).then_some(&found.because)
    }

    /// Tells whether a node gets emptier or fuller by what is moved: how full it is says nothing then.
    fn is_changing(&self, node: &NodeId) -> bool {
        self.moves.values().any(|other| other.from == *node || other.to == *node)
    }
}

impl Cluster {
    /// Returns the allocations of services that are to leave their nodes for better ones.
    pub fn moves(&self) -> impl Iterator<Item = (&WorkloadName, AllocationId)> {
        self.volatile.rebalancing.moves.iter().map(|(workload, found)| (workload, found.id))
    }

    /// Looks at the services whose turn it is, and lets one allocation of each leave its node if another is better.
    pub(crate) fn rebalance(&mut self, effort: &mut Effort, now: Timestamp) {
        if self.volatile.rebalancing.next.is_none_or(|next| next > now) {
            return;
        }
        // A mass loss is no time to move anything, and what is lost may be back.
        if !self.durable.unreleased().is_empty() {
            self.volatile.rebalancing.next = Some(now.plus(pause()));
            return;
        }
        if self.volatile.rebalancing.left.is_empty() {
            let unfinished = std::mem::take(&mut self.volatile.rebalancing.moves);
            self.volatile.dirty.workloads.extend(unfinished.into_keys());
            self.volatile.rebalancing.left = self.durable.specs().keys().cloned().collect();
        }
        for _ in 0..MAX_SERVICES {
            if effort.is_over() {
                break;
            }
            let Some(workload) = self.volatile.rebalancing.left.pop_first() else { break };
            if let Some(found) = self.worst_place(&workload, effort) {
                self.volatile.rebalancing.moves.insert(workload.clone(), found);
                self.volatile.dirty.workloads.insert(workload);
                self.volatile.dirty_since = now;
            }
        }
        let rebalancing = &mut self.volatile.rebalancing;
        let is_over = rebalancing.left.is_empty();
        // Something on its way is a reason to look again, whether it arrives or not.
        let again = (!rebalancing.moves.is_empty()).then(|| now.plus(pause()));
        rebalancing.next = if is_over { again } else { Some(now.plus(self.config.heartbeat)) };
    }

    /// Returns how the allocation of a service moves for which another node is better by most, if for any it clearly is.
    fn worst_place(&self, workload: &WorkloadName, effort: &mut Effort) -> Option<Move> {
        let spec = self.durable.specs().get(workload)?;
        let may_move = match &spec.kind {
            WorkloadKind::Service(service) => !service.everywhere,
            WorkloadKind::Job(_) => false,
        };
        let app = self.durable.apps().get(&workload.app_name()).filter(|app| app.rollout.is_none())?;
        // What cannot start before another ends would serve less meanwhile.
        let may_move = may_move && rules(self, workload).surge > 0;
        if !may_move || !is_settled(self, workload) || self.quota_hit(&workload.namespace, spec).is_some() {
            return None;
        }
        let is_there = |record: &&AllocationRecord| {
            record.state == AllocationState::Running
                && record.revision == app.revision
                && self.volatile.pools.standing(&record.node) == Some(Standing::Open)
        };
        let mut running: Vec<&AllocationRecord> =
            self.durable.of_workload(workload).filter(is_there).collect();
        running.sort_by_key(|record| Reverse(record.id));
        let mut judge = Judge::new(self, running.first()?);
        effort.spend(Search::cost(self));
        let is_of_itself = judge.search.is_of_itself();
        running.truncate(if is_of_itself { MAX_SEARCHES } else { MAX_COMPARED });
        let mut best: Option<(Gain, AllocationId, Rank, Rank)> = None;
        for record in running {
            if is_of_itself {
                let placement = &record.spec.placement;
                judge.relations = Relations::without(self, workload, placement, Some(record.id));
                judge.search = Search::without(self, &judge.demand, &judge.relations, record);
                effort.spend(Search::cost(self));
            }
            let Judge { demand, relations, search } = &mut judge;
            effort.spend(1);
            let Comparison { own: Some(own), other: Some(other) } = search.compare(self, relations, record)
            else {
                continue;
            };
            let is_changing = || {
                let rebalancing = &self.volatile.rebalancing;
                rebalancing.is_changing(&own.node) || rebalancing.is_changing(&other.node)
            };
            if let Some(gain) = gain(demand.packing, &own, &other)
                && !(gain.is_of_fill() && is_changing())
                && best.as_ref().is_none_or(|(known, ..)| gain > *known)
            {
                best = Some((gain, record.id, own, other));
            }
        }
        let (_, id, own, other) = best?;
        let (_, why) = difference(&judge.demand, &other, &own);
        let because = format!("{} is better for it than {}: {why}", other.node, own.node);
        Some(Move { id, from: own.node, to: other.node, because })
    }
}

/// Returns how much better another node is, if it clearly is: a move that is made for it is never made back.
fn gain(packing: Packing, own: &Rank, other: &Rank) -> Option<Gain> {
    let decides = |rank: &Rank| (rank.crowd, rank.dislike, rank.copies);
    if other.has_failed {
        return None;
    }
    let emptier = match packing {
        Packing::Spread => own.fill.saturating_sub(other.fill),
        // Nodes are not emptied to fill others.
        Packing::Pack => 0,
    };
    let is_better = match decides(other).cmp(&decides(own)) {
        Ordering::Less => true,
        Ordering::Equal => emptier > CLEARLY_EMPTIER,
        Ordering::Greater => false,
    };
    is_better.then(|| Gain {
        crowd: own.crowd.saturating_sub(other.crowd),
        dislike: own.dislike.saturating_sub(other.dislike),
        copies: own.copies.saturating_sub(other.copies),
        fill: emptier,
    })
}
