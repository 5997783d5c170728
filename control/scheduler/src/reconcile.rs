//! Services: what should run against what does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_model::{
    AllocationId, Name, NodeId, Revision, Timestamp, Work, WorkloadKind, WorkloadName, WorkloadSpec,
};

use crate::durable::Durable;
use crate::effort::Effort;
use crate::everywhere::{self, PlanEverywhere};
use crate::index::Tally;
use crate::judge::phase;
use crate::placement::{Demand, Search, Standing, judge_labels};
use crate::planted::{Bug, planted};
use crate::record::need;
use crate::rollout::{Copy, Phase, Plan, Rules, plan};
use crate::singleton::wait_for_the_other;
use crate::turns::{Claim, Turn};
use crate::{AllocationRecord, AllocationState, AppRecord, Change, Cluster, RangeSet, Step};

/// Returns all services with their app and spec.
pub(crate) fn services(durable: &Durable) -> impl Iterator<Item = (&AppRecord, &Name, &WorkloadSpec, u32)> {
    durable.apps().values().flat_map(|app| {
        app.spec.workloads.iter().filter_map(move |(name, spec)| match &spec.kind {
            WorkloadKind::Service(service) => Some((app, name, spec, service.allocations)),
            WorkloadKind::Job(_) => None,
        })
    })
}

/// Returns how many allocations of a workload should serve.
pub(crate) fn desired(cluster: &Cluster, workload: &WorkloadName) -> u32 {
    let Some(spec) = cluster.durable.specs().get(workload) else { return 0 };
    match &spec.kind {
        // Zero stops it; else each node counts that can be given one, or has one.
        WorkloadKind::Service(service) if service.everywhere && service.allocations > 0 => {
            let live =
                cluster.durable.of_workload(workload).filter(|record| record.serves() && record.is_live());
            let having: BTreeSet<&NodeId> = live.map(|record| &record.node).collect();
            let places = places(cluster, workload, spec);
            let counting = places.iter().filter(|(node, is_open)| **is_open || having.contains(node));
            u32::try_from(counting.count()).unwrap_or(u32::MAX)
        }
        WorkloadKind::Service(service) => service.allocations,
        WorkloadKind::Job(_) => 0,
    }
}

/// Returns the nodes on which a service is to run that runs everywhere, and whether each may be given one now. It stays
/// where it is on those that may not, unless they are to be left: one that is lost or was not heard yet may be back.
fn places(cluster: &Cluster, workload: &WorkloadName, spec: &Arc<WorkloadSpec>) -> BTreeMap<NodeId, bool> {
    let demand = Demand::new(cluster, workload, spec);
    let mut places = BTreeMap::new();
    for class in cluster.volatile.pools.classes().values() {
        if judge_labels(&class.key, &demand).is_ok() {
            let is_open = class.key.standing == Standing::Open;
            places.extend(class.nodes().map(|node| (node.clone(), is_open)));
        }
    }
    for (_, node) in cluster.durable.drained_nodes() {
        places.remove(node);
    }
    places.retain(|node, is_open| *is_open || !cluster.durable.nodes()[node].revoked);
    places
}

/// Tells whether a service is as it should be: all allocations that it should have are of the newest revision, and none
/// of them is lost or is to leave its node.
pub(crate) fn is_settled(cluster: &Cluster, workload: &WorkloadName) -> bool {
    let durable = &cluster.durable;
    let Some(tally) = durable.tally(workload) else { return desired(cluster, workload) == 0 };
    if durable.everywhere().contains(workload) {
        return false;
    }
    let app = durable.apps().get(&workload.app_name());
    let current = app.and_then(|app| tally.live.get(&app.revision)).copied().unwrap_or_default();
    let leaves = |record: &AllocationRecord| record.is_live() && is_leaving(cluster, record);
    tally.lost == 0
        && !cluster.volatile.rebalancing.moves(workload)
        && (durable.drained_nodes().is_empty() || !durable.of_workload(workload).any(leaves))
        && tally.live.values().sum::<u32>() == current
        && current == desired(cluster, workload)
}

/// Returns how many allocations a service misses if it is none that has to end any: the same as the plan would say,
/// without a look at each.
fn missing(cluster: &Cluster, workload: &WorkloadName) -> Option<u32> {
    let durable = &cluster.durable;
    let app = durable.apps().get(&workload.app_name())?;
    let Tally { live, lost: _, held } = durable.tally(workload).cloned().unwrap_or_default();
    let is_current = live.keys().chain(held.keys()).all(|revision| *revision == app.revision)
        && app.rollout.as_ref().is_none_or(|rollout| rollout.promoted && rollout.failed.is_none());
    let all = live.values().chain(held.values()).sum();
    let missing = desired(cluster, workload).checked_sub(all);
    let is_moved = cluster.volatile.rebalancing.moves(workload);
    missing.filter(|_| is_current && !is_moved && durable.drained_nodes().is_empty())
}

/// Tells whether an allocation is to leave its node, as all that is there is, or as another is better for it.
fn is_leaving(cluster: &Cluster, record: &AllocationRecord) -> bool {
    cluster.durable.nodes().get(&record.node).is_some_and(crate::NodeRecord::is_draining)
        || cluster.volatile.rebalancing.is_moved(record)
}

/// Returns the allocations of a service that count.
fn copies(cluster: &Cluster, workload: &WorkloadName) -> Vec<(Copy, NodeId)> {
    let durable = &cluster.durable;
    let revision = durable.apps().get(&workload.app_name()).map(|app| app.revision);
    let serving = durable.of_workload(workload).filter(|record| record.serves());
    let counting: Vec<&AllocationRecord> =
        serving.filter(|record| record.is_live() || durable.is_held(record)).collect();
    let mut crowds: BTreeMap<&NodeId, u32> = BTreeMap::new();
    for record in &counting {
        *crowds.entry(&record.node).or_default() += 1;
    }
    let copies = counting.iter().map(|record| {
        let copy = Copy {
            id: record.id,
            is_newest: Some(record.revision) == revision,
            is_leaving: is_leaving(cluster, record),
            // Of a node that is held nobody knows better: what was before makes no way for it, and it makes none.
            is_running: match record.state {
                AllocationState::Running => {
                    !(planted(Bug::MoveEndsOldFirst) && cluster.volatile.rebalancing.is_moved(record))
                }
                AllocationState::Lost => Some(record.revision) != revision,
                AllocationState::Placed | AllocationState::Draining { .. } => false,
            },
            crowd: crowds[&record.node],
        };
        (copy, record.node.clone())
    });
    copies.collect()
}

/// Returns what a service needs next.
fn plan_of(cluster: &Cluster, workload: &WorkloadName) -> Plan {
    if let Some(start) = missing(cluster, workload) {
        let plan = Plan { start, ..Plan::default() };
        return wait_for_the_other(cluster, workload, Phase::Rolling, &[], plan);
    }
    let copies: Vec<Copy> = copies(cluster, workload).into_iter().map(|(copy, _)| copy).collect();
    let phase = phase_of(cluster, workload);
    let desired = desired(cluster, workload);
    let plan = plan(desired, phase, rules(cluster, workload), &copies);
    wait_for_the_other(cluster, workload, phase, &copies, plan)
}

/// Returns how far a service may be changed.
fn phase_of(cluster: &Cluster, workload: &WorkloadName) -> Phase {
    let app = cluster.durable.apps().get(&workload.app_name());
    app.map_or(Phase::Rolling, |app| phase(cluster, app, &workload.workload))
}

/// Returns how many allocations of a service more and less than desired there may be while some are replaced.
pub(crate) fn rules(cluster: &Cluster, workload: &WorkloadName) -> Rules {
    let app = cluster.durable.apps().get(&workload.app_name());
    let desired = desired(cluster, workload);
    // Nobody waits for a move: it is no reason to serve less.
    let is_moving = cluster.volatile.rebalancing.moves(workload);
    let Some((spec, _)) = app.and_then(|app| app.rollout_spec(&workload.workload)) else {
        return Rules { surge: 1, unavailable: 0 };
    };
    let surge = spec.max_surge.of_up(desired);
    let unavailable = match spec.max_unavailable.of_down(desired) {
        _ if is_moving => 0,
        // A share of few is less than one; then nothing could ever be replaced.
        0 if surge == 0 => 1,
        unavailable => unavailable,
    };
    Rules { surge, unavailable }
}

/// Tells whether it is a service that is to run on each node.
fn runs_everywhere(spec: &WorkloadSpec) -> bool {
    match &spec.kind {
        WorkloadKind::Service(service) => service.everywhere && service.allocations > 0,
        WorkloadKind::Job(_) => false,
    }
}

/// Returns the [`places`] of a service that runs everywhere and is not stopped, and none of another.
fn wanted_places(cluster: &Cluster, workload: &WorkloadName) -> BTreeMap<NodeId, bool> {
    let spec = cluster.durable.specs().get(workload).filter(|spec| runs_everywhere(spec));
    spec.map(|spec| places(cluster, workload, spec)).unwrap_or_default()
}

/// Returns what a service needs next that runs everywhere.
fn plan_everywhere(cluster: &Cluster, workload: &WorkloadName) -> PlanEverywhere {
    let wanted = wanted_places(cluster, workload);
    let phase = phase_of(cluster, workload);
    let mut plan =
        everywhere::plan_everywhere(&wanted, phase, rules(cluster, workload), &copies(cluster, workload));
    if let Some((_, before)) = cluster.to_start_of_before(workload).filter(|_| !plan.start_earlier.is_empty())
    {
        // It may have had others.
        let places = places(cluster, workload, &before);
        plan.start_earlier.retain(|node| places.get(node) == Some(&true));
    }
    plan
}

impl Cluster {
    /// Returns the nodes on which a service is to run that runs everywhere, and does not.
    pub(crate) fn nodes_without(&self, workload: &WorkloadName) -> Vec<NodeId> {
        if self.durable.everywhere().contains(workload) {
            let PlanEverywhere { start, start_earlier, replace, .. } = plan_everywhere(self, workload);
            [start, start_earlier, replace].concat()
        } else {
            Vec::new()
        }
    }

    /// Ends what no revision wants any more.
    pub(crate) fn end_surplus(
        &mut self,
        step: &mut Step,
        workloads: &BTreeSet<WorkloadName>,
        now: Timestamp,
    ) {
        for workload in workloads {
            if is_settled(self, workload) {
                continue;
            }
            let end = if self.durable.everywhere().contains(workload) {
                plan_everywhere(self, workload).end
            } else {
                plan_of(self, workload).end
            };
            for id in end {
                self.end_serving(step, id, now);
            }
        }
    }

    /// Places what is missing of a service, if it is its turn alone all of it; forgets lost allocations that are
    /// replaced or not wanted any more.
    pub(crate) fn place_service(
        &mut self,
        step: &mut Step,
        workload: &WorkloadName,
        is_alone: bool,
        effort: &mut Effort,
        now: Timestamp,
    ) -> Turn {
        if is_settled(self, workload) {
            self.volatile.set_waiting(workload, None);
            return Turn::Over;
        }
        let (wanted, placed) = match self.durable.specs().get(workload).map(Arc::clone) {
            Some(spec) if self.durable.everywhere().contains(workload) => {
                self.place_everywhere(step, workload, &spec, effort, now)
            }
            Some(spec) => {
                let Plan { end: _, start, start_earlier } = plan_of(self, workload);
                let turn = if is_alone { u32::MAX } else { self.allocations_of_a_turn(need(&spec)) };
                let revision = self.durable.apps()[&workload.app_name()].revision;
                let placed = self.place(step, workload, (revision, &spec), start.min(turn), effort, now);
                if placed == turn && placed < start {
                    return Turn::More;
                }
                let before = self.to_start_of_before(workload).filter(|_| start_earlier > 0);
                let earlier = before.map_or(0, |(revision, spec)| {
                    self.place(step, workload, (revision, &spec), start_earlier, effort, now)
                });
                (start + start_earlier, placed + earlier)
            }
            None => (0, 0),
        };
        let missing = wanted - placed;
        if missing > 0 && !effort.is_over() {
            self.make_way_for_service(step, workload, effort, now);
        }
        if wanted == 0 && desired(self, workload) > 0 && !self.is_served(workload) {
            let spec = self.durable.specs().get(workload).map(Arc::clone);
            if self.why_singleton_waits(workload).is_some() {
                // Its lost allocation may be back before another is placed.
                self.volatile.set_waiting(workload, spec.as_deref());
                return Turn::Over;
            }
        }
        self.forget_lost(step, workload, missing, now);
        if missing == 0 {
            self.volatile.set_waiting(workload, None);
        } else if effort.is_over() {
            effort.leave(Claim::Service(workload.clone()));
        } else {
            let spec = self.durable.specs().get(workload).map(Arc::clone);
            self.volatile.set_waiting(workload, spec.as_deref());
        }
        Turn::Over
    }

    /// Returns the revision before of which allocations may be started.
    fn to_start_of_before(&self, workload: &WorkloadName) -> Option<(Revision, Arc<WorkloadSpec>)> {
        let is_everywhere = self.durable.everywhere().contains(workload);
        // One that ran here and there, or once, does not run on each node now.
        self.spec_before(workload).filter(|(_, spec)| !is_everywhere || runs_everywhere(spec))
    }

    /// Says why nothing of a service is started though there may be room, if that is so.
    pub(crate) fn why_halted(&self, workload: &WorkloadName) -> Option<String> {
        let is_stuck =
            phase_of(self, workload) == Phase::Halted && self.to_start_of_before(workload).is_none();
        let reason = "the rollout of its newest revision has failed, and of the one before there is nothing that could \
                      be started instead: deploy another, or roll back";
        is_stuck.then(|| reason.to_owned())
    }

    /// Places what is missing of a service that runs everywhere; returns how many were wanted, and how many were placed.
    fn place_everywhere(
        &mut self,
        step: &mut Step,
        workload: &WorkloadName,
        spec: &Arc<WorkloadSpec>,
        effort: &mut Effort,
        now: Timestamp,
    ) -> (u32, u32) {
        let plan = plan_everywhere(self, workload);
        let count = |nodes: &[NodeId]| u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let revision = self.durable.apps()[&workload.app_name()].revision;
        let mut placed = 0;
        for (nodes, most) in [(&plan.start, u32::MAX), (&plan.replace, plan.at_once)] {
            placed += self.place_on_each(step, workload, (revision, spec), (nodes, most), effort, now);
        }
        if let Some((revision, spec)) = self.to_start_of_before(workload) {
            let nodes = (plan.start_earlier.as_slice(), u32::MAX);
            placed += self.place_on_each(step, workload, (revision, &spec), nodes, effort, now);
        }
        let replaced = plan.at_once.min(count(&plan.replace));
        (count(&plan.start) + count(&plan.start_earlier) + replaced, placed)
    }

    /// Tells whether a service has an allocation that is neither lost nor on its way out.
    fn is_served(&self, workload: &WorkloadName) -> bool {
        self.durable.tally(workload).is_some_and(|tally| !tally.live.is_empty())
    }

    /// Lets batch work make way for what is missing of a service, unless that runs everywhere.
    fn make_way_for_service(
        &mut self,
        step: &mut Step,
        workload: &WorkloadName,
        effort: &mut Effort,
        now: Timestamp,
    ) {
        if self.durable.everywhere().contains(workload) {
            return;
        }
        if let Some((demand, missing)) = self.demand_of_service(workload) {
            self.make_way(step, &Claim::Service(workload.clone()), &demand, missing, effort, now);
        }
    }

    /// Returns what is to be started of a service, and how many: of the newest revision first, then of the one before.
    pub(crate) fn demand_of_service(&self, workload: &WorkloadName) -> Option<(Demand, u32)> {
        let spec = self.durable.specs().get(workload)?;
        let Plan { end: _, start, start_earlier } = plan_of(self, workload);
        if start > 0 {
            return Some((Demand::new(self, workload, spec), start));
        }
        let (revision, spec) = self.spec_before(workload).filter(|_| start_earlier > 0)?;
        Some((Demand::new(self, workload, &spec).of(revision), start_earlier))
    }

    /// Places allocations of a service, as many as are wanted and there is room for; returns how many.
    fn place(
        &mut self,
        step: &mut Step,
        workload: &WorkloadName,
        (revision, spec): (Revision, &Arc<WorkloadSpec>),
        wanted: u32,
        effort: &mut Effort,
        now: Timestamp,
    ) -> u32 {
        if wanted == 0 {
            return 0;
        }
        let demand = Demand::new(self, workload, spec).of(revision);
        effort.spend(Search::cost(self));
        let mut search = Search::new(self, &demand);
        let mut placed = 0;
        while placed < wanted && !effort.is_over() {
            let is_looked_at = placed == 0 || !planted(Bug::LookAtQuotaOnce);
            if is_looked_at && self.quota_hit(&workload.namespace, spec).is_some() {
                break;
            }
            let Some(node) = search.best() else { break };
            self.place_on(step, workload, (revision, spec), &node, now);
            search.placed(self, &node);
            effort.spend(1);
            placed += 1;
        }
        placed
    }

    /// Places an allocation of a service on each of `nodes` that has room, on so many at most; returns on how many.
    fn place_on_each(
        &mut self,
        step: &mut Step,
        workload: &WorkloadName,
        (revision, spec): (Revision, &Arc<WorkloadSpec>),
        (nodes, most): (&[NodeId], u32),
        effort: &mut Effort,
        now: Timestamp,
    ) -> u32 {
        let demand = Demand::new(self, workload, spec).of(revision);
        let mut placed = 0;
        for node in nodes {
            if placed == most || effort.is_over() || self.quota_hit(&workload.namespace, spec).is_some() {
                break;
            }
            effort.spend(1);
            if self.volatile.pools.fits(node, &demand) {
                self.place_on(step, workload, (revision, spec), node, now);
                placed += 1;
            }
        }
        placed
    }

    fn place_on(
        &mut self,
        step: &mut Step,
        workload: &WorkloadName,
        (revision, spec): (Revision, &Arc<WorkloadSpec>),
        node: &NodeId,
        now: Timestamp,
    ) {
        let lease = spec.on_partition().is_singleton().then_some(self.config.lease);
        if lease.is_some() {
            self.end_lost_singletons(step, workload, now);
        }
        let record = AllocationRecord {
            id: self.next_allocation(),
            workload: workload.clone(),
            revision,
            node: node.clone(),
            spec: Arc::clone(spec),
            work: Work::Serve,
            returned: RangeSet::new(),
            makes_way: None,
            lease,
            state: AllocationState::Placed,
            created: now,
        };
        self.change(step, Change::Allocation(Arc::new(record)), now);
    }

    /// Keeps as many lost allocations of a service as are missing: their nodes may come back. Oldest first. Of one that
    /// runs everywhere nothing takes their place elsewhere: they are kept as long as their nodes are lost.
    fn forget_lost(&mut self, step: &mut Step, workload: &WorkloadName, missing: u32, now: Timestamp) {
        let tally = self.durable.tally(workload);
        if tally.is_none_or(|tally| tally.lost - tally.held.values().sum::<u32>() <= missing)
            || planted(Bug::KeepReplaced)
        {
            return;
        }
        let is_kept = !planted(Bug::EverywhereForgetsLost);
        let kept = if is_kept { wanted_places(self, workload) } else { BTreeMap::new() };
        let may_go = |record: &&AllocationRecord| {
            record.serves() && !self.durable.is_held(record) && !kept.contains_key(&record.node)
        };
        let lost = self.durable.lost_of(workload).filter(may_go);
        let surplus: Vec<AllocationId> =
            lost.skip(usize::try_from(missing).unwrap_or(usize::MAX)).map(|record| record.id).collect();
        for id in surplus {
            self.end(step, id, now);
        }
    }
}
