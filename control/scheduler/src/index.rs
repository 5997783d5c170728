//! Indexes over the allocations, kept by the code that makes changes (`durable`): what is on each node, what there is of
//! each workload and run, what each namespace has, and who is to be ended when.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_model::{
    AllocationId, Name, NodeId, NodeInfo, Overcommit, Priority, Resources, Revision, RunId, Timestamp, Work,
    WorkloadKind, WorkloadName,
};
use serde::Serialize;

use crate::lookup::Lookup;
use crate::placement::Room;
use crate::planted::{Bug, planted};
use crate::{AllocationRecord, AllocationState, NodeRecord};

/// What the allocations of a namespace have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// What they reserve.
    pub reserved: Resources,
    /// How many there are, without those of lost nodes which may be replaced.
    pub allocations: u32,
}

/// How many allocations a service has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Those that are neither on their way out nor lost, by revision.
    pub(crate) live: BTreeMap<Revision, u32>,
    /// Those whose node is lost.
    pub(crate) lost: u32,
    /// Those of them which may not be replaced yet, by revision.
    pub(crate) held: BTreeMap<Revision, u32>,
}

impl Tally {
    /// Counts an allocation in or out, if it counts.
    fn count(&mut self, record: &AllocationRecord, is_held: bool, by: i32) {
        match record.state {
            AllocationState::Placed | AllocationState::Running => count_of(&mut self.live, record, by),
            AllocationState::Lost => {
                self.lost = self.lost.wrapping_add_signed(by);
                if is_held {
                    count_of(&mut self.held, record, by);
                }
            }
            AllocationState::Draining { .. } => {}
        }
    }
}

/// Counts an allocation in or out of those of its revision.
fn count_of(counts: &mut BTreeMap<Revision, u32>, record: &AllocationRecord, by: i32) {
    let count = counts.entry(record.revision).or_default();
    *count = count.wrapping_add_signed(by);
    if *count == 0 {
        counts.remove(&record.revision);
    }
}

/// Allocations in the order of their ids; an index shares the records, so that going over it needs no other look.
pub(crate) type Records = BTreeMap<AllocationId, Arc<AllocationRecord>>;

/// What is on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OnNode {
    records: Records,
    /// What its allocations reserve, those on their way out included.
    reserved: Resources,
    /// How much of its countable resources is taken.
    counted: BTreeMap<String, u32>,
    /// What it has, if it has said so.
    declared: Option<Declared>,
    /// Its allocations that ask for an answer to its reports.
    asking: BTreeSet<AllocationId>,
    /// Whether it is a member, and nothing of it that was lost may be replaced.
    is_holding: bool,
}

/// What a node has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Declared {
    capacity: Resources,
    overcommit: Overcommit,
    countable: BTreeMap<String, u32>,
}

impl OnNode {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Tells whether an allocation on it still counts though it is lost.
    fn holds(&self, record: &AllocationRecord) -> bool {
        record.state == AllocationState::Lost && self.is_holding
    }

    /// Tells whether an allocation on it is part of what its namespace has: what is lost is, as long as nothing may take
    /// its place.
    fn charges(&self, record: &AllocationRecord) -> bool {
        record.is_assigned() || self.holds(record)
    }

    fn reserve(&mut self, record: &AllocationRecord) {
        self.reserved = self.reserved.plus(record.resources());
        for (name, count) in taken(record) {
            *self.counted.entry(name.clone()).or_default() += count;
        }
        if !record.spec.on_partition().is_keep() {
            self.asking.insert(record.id);
        }
    }

    fn release(&mut self, record: &AllocationRecord) {
        self.reserved = self.reserved.minus(record.resources());
        for (name, count) in taken(record) {
            if let Some(taken) = self.counted.get_mut(name) {
                *taken = taken.saturating_sub(count);
            }
            self.counted.retain(|_, taken| *taken > 0);
        }
        self.asking.remove(&record.id);
    }

    /// Returns what it has and what of it is taken.
    fn room(&self) -> Room {
        let Some(Declared { capacity, overcommit, countable }) = &self.declared else {
            return Room::default();
        };
        let mut room =
            Room { capacity: *capacity, overcommit: *overcommit, reserved: self.reserved, ..Room::default() };
        if !countable.is_empty() {
            let left = countable.iter().map(|(name, count)| {
                let taken = self.counted.get(name).copied().unwrap_or_default();
                (name.clone(), count.saturating_sub(taken))
            });
            room.countable = Arc::new(left.collect());
        }
        room
    }
}

/// Returns the countable resources that an allocation takes.
fn taken(record: &AllocationRecord) -> impl Iterator<Item = (&String, u32)> {
    let times = if planted(Bug::CountResourceTwice) { 2 } else { 1 };
    record.spec.placement.resources.iter().map(move |(name, count)| (name, times * count))
}

/// What there is of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OfWorkload {
    records: Records,
    /// Those of them which are lost.
    lost: Records,
    tally: Tally,
}

/// All indexes over the allocations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    nodes: Lookup<NodeId, OnNode>,
    workloads: Lookup<WorkloadName, OfWorkload>,
    runs: BTreeMap<RunId, Records>,
    usage: BTreeMap<Name, Usage>,
    draining: BTreeSet<(Timestamp, AllocationId)>,
    /// Batch work that makes way, by the moment it must have.
    making_way: BTreeSet<(Timestamp, AllocationId)>,
    /// Batch work that could make way, the least urgent first and of those the youngest.
    could_make_way: BTreeSet<(Priority, Reverse<AllocationId>)>,
}

impl Index {
    pub(crate) fn on_node(&self, node: &NodeId) -> impl Iterator<Item = &AllocationRecord> + use<'_> {
        records(self.nodes.get(node).map(|on_node| &on_node.records))
    }

    pub(crate) fn of_workload(
        &self,
        workload: &WorkloadName,
    ) -> impl Iterator<Item = &AllocationRecord> + use<'_> {
        records(self.workloads.get(workload).map(|of_workload| &of_workload.records))
    }

    /// Returns the lost allocations of a workload.
    pub(crate) fn lost_of(
        &self,
        workload: &WorkloadName,
    ) -> impl Iterator<Item = &AllocationRecord> + use<'_> {
        records(self.workloads.get(workload).map(|of_workload| &of_workload.lost))
    }

    pub(crate) fn of_run(&self, run: RunId) -> impl Iterator<Item = &AllocationRecord> + use<'_> {
        records(self.runs.get(&run))
    }

    /// Returns how many allocations a service has; nothing if none.
    pub(crate) fn tally(&self, workload: &WorkloadName) -> Option<&Tally> {
        self.workloads
            .get(workload)
            .map(|of_workload| &of_workload.tally)
            .filter(|it| **it != Tally::default())
    }

    /// Returns what the allocations of a node reserve, those on their way out included.
    pub(crate) fn reserved(&self, node: &NodeId) -> Resources {
        self.nodes.get(node).map(|on_node| on_node.reserved).unwrap_or_default()
    }

    /// Returns the allocations of a node that ask for an answer to its reports.
    pub(crate) fn asking(&self, node: &NodeId) -> &BTreeSet<AllocationId> {
        static NONE: BTreeSet<AllocationId> = BTreeSet::new();
        self.nodes.get(node).map_or(&NONE, |on_node| &on_node.asking)
    }

    /// Returns what a node has and what of it is taken.
    pub(crate) fn room(&self, node: &NodeId) -> Room {
        self.nodes.get(node).map(OnNode::room).unwrap_or_default()
    }

    /// Tells whether an allocation of a lost node still counts, as nothing of that node may be replaced yet.
    pub(crate) fn is_held(&self, record: &AllocationRecord) -> bool {
        record.state == AllocationState::Lost
            && self.nodes.get(&record.node).is_some_and(|on_node| on_node.is_holding)
    }

    /// Returns what the allocations of each namespace that has some have.
    pub(crate) fn usages(&self) -> &BTreeMap<Name, Usage> {
        &self.usage
    }

    /// Returns who is to be ended when, soonest first.
    pub(crate) fn draining(&self) -> &BTreeSet<(Timestamp, AllocationId)> {
        &self.draining
    }

    /// Returns who makes way until when, soonest first.
    pub(crate) fn making_way(&self) -> &BTreeSet<(Timestamp, AllocationId)> {
        &self.making_way
    }

    /// Returns the batch work that could make way for a priority, the least urgent first and of those the youngest.
    pub(crate) fn less_urgent(&self, priority: Priority) -> impl Iterator<Item = AllocationId> {
        let all = self.could_make_way.iter();
        all.take_while(move |(own, _)| *own < priority || planted(Bug::PreemptEqual)).map(|(_, id)| id.0)
    }

    /// Returns batch work that is as urgent or less, the least urgent first and of those the youngest.
    pub(crate) fn as_urgent_or_less(&self, priority: Priority) -> impl Iterator<Item = AllocationId> {
        let all = self.could_make_way.iter();
        all.take_while(move |(own, _)| *own <= priority).map(|(_, id)| id.0)
    }

    /// Takes in what a node has, and whether what it lost may be replaced now.
    pub(crate) fn set_node(&mut self, record: &NodeRecord) {
        let declared = |info: &NodeInfo| Declared {
            capacity: info.capacity,
            overcommit: info.batch_overcommit,
            countable: info.resources.clone(),
        };
        let on_node = self.nodes.or_default(&record.id);
        on_node.declared = record.info.as_ref().map(declared);
        if on_node.is_holding != record.released {
            return;
        }
        // What is lost counts otherwise now.
        let lost = on_node.records.values().filter(|record| record.state == AllocationState::Lost);
        let lost: Vec<Arc<AllocationRecord>> = lost.cloned().collect();
        lost.iter().for_each(|record| self.uncount(record));
        if let Some(on_node) = self.nodes.get_mut(&record.id) {
            on_node.is_holding = !record.released;
        }
        lost.iter().for_each(|record| self.count(record));
    }

    /// Takes in an allocation, in place of what it was `before`.
    pub(crate) fn set(&mut self, before: Option<&AllocationRecord>, record: &Arc<AllocationRecord>) {
        if let Some(before) = before {
            let places = |it: &AllocationRecord| (it.node.clone(), it.workload.clone(), run_of(it));
            if places(before) == places(record) {
                self.discharge(before);
            } else {
                self.remove(before);
            }
        }
        let id = record.id;
        let on_node = self.nodes.or_default(&record.node);
        on_node.records.insert(id, Arc::clone(record));
        let is_held = on_node.holds(record);
        let is_charged = on_node.charges(record);
        if record.is_assigned() {
            on_node.reserve(record);
        }
        let of_workload = self.workloads.or_default(&record.workload);
        of_workload.records.insert(id, Arc::clone(record));
        if record.state == AllocationState::Lost {
            of_workload.lost.insert(id, Arc::clone(record));
        } else {
            of_workload.lost.remove(&id);
        }
        if record.serves() {
            of_workload.tally.count(record, is_held, 1);
        }
        if is_charged {
            self.charge(record);
        }
        if let Some(run) = run_of(record) {
            self.runs.entry(run).or_default().insert(id, Arc::clone(record));
        }
        if let AllocationState::Draining { until } = record.state {
            self.draining.insert((until, id));
        }
        if let Some(makes_way) = &record.makes_way {
            self.making_way.insert((makes_way.until, id));
        } else if may_make_way(record) {
            self.could_make_way.insert((record.spec.priority, Reverse(id)));
        }
    }

    /// Forgets an allocation.
    pub(crate) fn remove(&mut self, record: &AllocationRecord) {
        self.discharge(record);
        if let Some(on_node) = self.nodes.get_mut(&record.node) {
            on_node.records.remove(&record.id);
            if on_node.records.is_empty() && on_node.is_empty() {
                self.nodes.remove(&record.node);
            }
        }
        if let Some(of_workload) = self.workloads.get_mut(&record.workload) {
            of_workload.records.remove(&record.id);
            of_workload.lost.remove(&record.id);
            if of_workload.records.is_empty() {
                self.workloads.remove(&record.workload);
            }
        }
        if let Some(run) = run_of(record)
            && let Some(of_run) = self.runs.get_mut(&run)
        {
            of_run.remove(&record.id);
            if of_run.is_empty() {
                self.runs.remove(&run);
            }
        }
    }

    /// Takes an allocation out of all that is counted.
    fn discharge(&mut self, record: &AllocationRecord) {
        self.uncount(record);
        if record.is_assigned()
            && let Some(on_node) = self.nodes.get_mut(&record.node)
        {
            on_node.release(record);
        }
        if let AllocationState::Draining { until } = record.state {
            self.draining.remove(&(until, record.id));
        }
        if let Some(makes_way) = &record.makes_way {
            self.making_way.remove(&(makes_way.until, record.id));
        }
        if !record.serves() {
            self.could_make_way.remove(&(record.spec.priority, Reverse(record.id)));
        }
    }

    /// Counts an allocation in what its service and its namespace have.
    fn count(&mut self, record: &AllocationRecord) {
        let Some(on_node) = self.nodes.get(&record.node) else { return };
        let (is_held, is_charged) = (on_node.holds(record), on_node.charges(record));
        if record.serves() {
            self.workloads.or_default(&record.workload).tally.count(record, is_held, 1);
        }
        if is_charged {
            self.charge(record);
        }
    }

    /// Counts it out again. Call it before anything changes that decides whether it counts.
    fn uncount(&mut self, record: &AllocationRecord) {
        let Some(on_node) = self.nodes.get(&record.node) else { return };
        let (is_held, is_charged) = (on_node.holds(record), on_node.charges(record));
        if record.serves()
            && let Some(of_workload) = self.workloads.get_mut(&record.workload)
        {
            of_workload.tally.count(record, is_held, -1);
        }
        let namespace = &record.workload.namespace;
        if is_charged && let Some(usage) = self.usage.get_mut(namespace) {
            usage.reserved = usage.reserved.minus(record.resources());
            usage.allocations -= 1;
            if usage.allocations == 0 {
                self.usage.remove(namespace);
            }
        }
    }

    /// Adds an allocation to what its namespace has.
    fn charge(&mut self, record: &AllocationRecord) {
        let namespace = &record.workload.namespace;
        let usage = match self.usage.get_mut(namespace) {
            Some(usage) => usage,
            None => self.usage.entry(namespace.clone()).or_default(),
        };
        usage.reserved = usage.reserved.plus(record.resources());
        usage.allocations += 1;
    }
}

/// Tells whether an allocation is batch work that works, was not told yet to make way, and may be begun again.
pub(crate) fn may_make_way(record: &AllocationRecord) -> bool {
    let is_batch = match &record.spec.kind {
        // What it is killed at nobody may begin again.
        WorkloadKind::Job(job) => !job.is_at_most_once(),
        WorkloadKind::Service(_) => planted(Bug::PreemptServices),
    };
    is_batch && record.is_live() && record.makes_way.is_none()
}

/// Returns for which run an allocation works, if it does.
fn run_of(record: &AllocationRecord) -> Option<RunId> {
    match record.work {
        Work::Items { run, .. } => Some(run),
        Work::Serve => None,
    }
}

fn records(records: Option<&Records>) -> impl Iterator<Item = &AllocationRecord> + use<'_> {
    records.into_iter().flat_map(BTreeMap::values).map(|record| &**record)
}
