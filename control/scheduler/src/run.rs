//! Runs: items are leased in ranges, their ends recorded once each, and what failed is tried again.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_model::{
    AllocationId, Bytes, DurationMs, Fuel, ItemRange, ItemRecord, ItemReport, NodeId, Outcome, RunId,
    Timestamp, Work,
};

use crate::durable::Durable;
use crate::effort::Effort;
use crate::placement::{Demand, Search};
use crate::planted::{Bug, planted};
use crate::range_set::single;
use crate::retry::{backoff, needs_combining};
use crate::turns::{Claim, Turn};
use crate::{AllocationRecord, AllocationState, Change, Cluster, RangeSet, RunRecord, RunState, Step};

/// The most items one allocation is given at a time.
const MAX_RANGE: u32 = 100_000;
/// An allocation is given at least what one of its run has been doing in about this time, since with each range comes
/// a pause: it is recorded, assigned, and its component is loaded.
const MIN_LEASE: DurationMs = DurationMs(2_000);
/// And at most what one has been doing in this time: what it has, nobody else is given before it comes back.
const MAX_LEASE: DurationMs = DurationMs(10_000);
/// So many records tell that a run is fast.
const MIN_SHOWN: u32 = 1_000;
/// So many tell how slow it is.
const MIN_SHOWN_SLOW: u32 = 64;
/// Until then an allocation is given this many times as many items as it may run at a time.
const FIRST_ROUNDS: u32 = 16;
/// A run's open items are cut so that each of its allocations comes back for more about so many times.
const RANGES_PER_ALLOCATION: u32 = 4;

/// Returns the items of `record` that are its concern and have no record yet.
pub(crate) fn outstanding(run: &RunRecord, record: &AllocationRecord) -> RangeSet {
    let Work::Items { range, .. } = record.work else { return RangeSet::new() };
    let mut items = run.recorded.missing_from(range);
    items.remove_all(&record.returned);
    items
}

/// Returns the items of a run that allocations work on.
pub(crate) fn leased(durable: &Durable, run: &RunRecord) -> RangeSet {
    let mut leased = RangeSet::new();
    for record in durable.of_run(run.id).filter(|record| record.is_live() || durable.is_held(record)) {
        leased.insert_all(&outstanding(run, record));
    }
    leased
}

impl Cluster {
    /// Returns the items of an allocation that have no record yet.
    pub(crate) fn outstanding(&self, record: &AllocationRecord) -> RangeSet {
        let Work::Items { run, .. } = record.work else { return RangeSet::new() };
        self.durable.runs().get(&run).map_or_else(RangeSet::new, |run| outstanding(run, record))
    }

    /// Records the ends of items which `node` tells of, each at most once.
    pub(crate) fn record_items(
        &mut self,
        step: &mut Step,
        node: &NodeId,
        items: Vec<ItemReport>,
        now: Timestamp,
    ) {
        // Copies to work on, so that each record is written once though a report holds many items.
        let mut runs: BTreeMap<RunId, RunRecord> = BTreeMap::new();
        let mut allocations: BTreeMap<AllocationId, AllocationRecord> = BTreeMap::new();
        for ItemReport { allocation: id, run: run_id, item, mut record } in items {
            let known = self.durable.allocations().get(&id).filter(|known| known.node == *node);
            let (Some(known), Some(run)) = (known, self.durable.runs().get(&run_id)) else { continue };
            let Work::Items { run: owner, range, attempt, .. } = known.work else { continue };
            let run = runs.entry(run_id).or_insert_with(|| run.clone());
            let is_recorded = run.recorded.contains(item) && !planted(Bug::RecordTwice);
            if owner != run_id || !range.contains(item) || !run.is_running() || is_recorded {
                continue;
            }
            let allocation = allocations.entry(id).or_insert_with(|| AllocationRecord::clone(known));
            let queue = self.volatile.queues.entry(run_id).or_default();
            record.node = node.clone();
            record.attempt = attempt;
            // What must not be started twice has ended, however it did.
            if !record.outcome.is_completed() && !run.job().is_at_most_once() {
                // A failure counts only while the item is this allocation's concern.
                if allocation.state == AllocationState::Lost || allocation.returned.contains(item) {
                    continue;
                }
                let was_stopped = record.outcome == Outcome::Cancelled;
                if was_stopped || attempt < run.job().attempts + u32::from(planted(Bug::RetryOnceMore)) {
                    let next = if was_stopped { attempt } else { attempt + 1 };
                    allocation.returned.insert(single(item));
                    run.fuel = run.fuel.plus(record.fuel);
                    if !was_stopped {
                        set_tried(run, item, attempt);
                    }
                    let due = now.plus(backoff(&self.config, attempt));
                    if !planted(Bug::DropRetries) {
                        queue.add_later(due, next, item);
                    }
                    self.volatile.retries.insert((due, run_id));
                    continue;
                }
            }
            queue.remove(single(item));
            take_record(run, item, &record);
            step.changes.push(Change::Item { run: run_id, item, record });
        }
        for (id, allocation) in allocations {
            if *self.durable.allocations()[&id] != allocation {
                self.change(step, Change::Allocation(Arc::new(allocation)), now);
            }
        }
        for (id, run) in runs {
            if self.durable.runs()[&id] != run {
                self.change(step, Change::Run(run), now);
                self.advance_run(step, id, now);
            }
        }
    }

    /// Writes the same end for all items of an allocation that have none: it can never run them.
    pub(crate) fn fail_outstanding(
        &mut self,
        step: &mut Step,
        id: AllocationId,
        outcome: &Outcome,
        now: Timestamp,
    ) {
        let allocation = &self.durable.allocations()[&id];
        let Work::Items { run: run_id, attempt, .. } = allocation.work else { return };
        let mut run = self.durable.runs()[&run_id].clone();
        let items = outstanding(&run, allocation);
        let record = ItemRecord {
            outcome: outcome.clone(),
            node: allocation.node.clone(),
            attempt,
            fuel: Fuel(0),
            memory: Bytes(0),
            wall: DurationMs(0),
            host: Default::default(),
            output: String::new(),
            output_cut: false,
        };
        for item in items.ranges().iter().flat_map(|range| range.start..range.end) {
            take_record(&mut run, item, &record);
            step.changes.push(Change::Item { run: run_id, item, record: record.clone() });
        }
        self.change(step, Change::Run(run), now);
        self.advance_run(step, run_id, now);
    }

    /// Ends an allocation which says that it is done; items of it that have no record are queued again.
    pub(crate) fn give_back(&mut self, step: &mut Step, id: AllocationId, now: Timestamp) {
        let allocation = &self.durable.allocations()[&id];
        let Work::Items { run, attempt, .. } = allocation.work else { return };
        if self.is_at_most_once(allocation) {
            return self.give_up(step, id, "its node does not know any more", now);
        }
        let items = self.outstanding(allocation);
        let due = now.plus(backoff(&self.config, attempt));
        if let Some(queue) = self.volatile.queues.get_mut(&run) {
            // Not at once: an agent that finishes without records would be asked again and again.
            for item in items.ranges().iter().flat_map(|range| range.start..range.end) {
                queue.add_later(due, attempt, item);
            }
            self.volatile.retries.insert((due, run));
        }
        self.end(step, id, now);
    }

    /// Tells whether none of the items of an allocation may be started twice.
    pub(crate) fn is_at_most_once(&self, record: &AllocationRecord) -> bool {
        let Work::Items { run, .. } = record.work else { return false };
        self.durable.runs().get(&run).is_some_and(|run| run.job().is_at_most_once())
    }

    /// Ends an allocation whose items may not be started twice. Nobody will know what became of those without a record.
    pub(crate) fn give_up(&mut self, step: &mut Step, id: AllocationId, why: &str, now: Timestamp) {
        self.fail_outstanding(step, id, &Outcome::Unknown { reason: why.to_owned() }, now);
        if self.durable.allocations().contains_key(&id) {
            self.end(step, id, now);
        }
    }

    /// Ends allocations of a run that have nothing left to do, and the run if there is nothing left at all.
    fn advance_run(&mut self, step: &mut Step, id: RunId, now: Timestamp) {
        let run = &self.durable.runs()[&id];
        let allocations = self.durable.of_run(id);
        let done: Vec<AllocationId> = allocations
            .filter(|allocation| outstanding(run, allocation).is_empty())
            .map(|allocation| allocation.id)
            .collect();
        let all_recorded = run.recorded.contains_range(run.all_items());
        if all_recorded && needs_combining(run) {
            let combining = ItemRange { start: run.items, end: run.items + 1 };
            let has_allocation = self.durable.of_run(id).any(|allocation| {
                matches!(allocation.work, Work::Items { combine: true, .. })
                    && (allocation.is_live() || self.durable.is_held(allocation))
            });
            let queue = self.volatile.queues.entry(id).or_default();
            if !has_allocation && !queue.all().contains(run.items) && !planted(Bug::LoseCombine) {
                queue.add(1, &RangeSet::from(vec![combining]));
            }
        } else if all_recorded {
            let state =
                if run.failed == 0 { RunState::Completed } else { RunState::Failed { failed: run.failed } };
            return self.end_run(step, id, state, now);
        }
        for allocation in done {
            self.end(step, allocation, now);
        }
    }

    /// Ends a run with all its allocations.
    pub(crate) fn end_run(&mut self, step: &mut Step, id: RunId, state: RunState, now: Timestamp) {
        if state != RunState::Cancelled || !planted(Bug::CancelKeepsAllocations) {
            self.end_allocations_of_run(step, id, now);
        }
        let mut run = self.durable.runs()[&id].clone();
        run.state = state;
        run.ended = Some(now);
        run.tried.clear();
        self.volatile.queues.remove(&id);
        let job = run.workload.clone();
        self.change(step, Change::Run(run), now);
        self.go_on_after(step, id, now);
        self.forget_old_runs(step, &job, now);
    }

    /// Ends all allocations of a run.
    pub(crate) fn end_allocations_of_run(&mut self, step: &mut Step, id: RunId, now: Timestamp) {
        let allocations: Vec<AllocationId> = self.durable.of_run(id).map(|record| record.id).collect();
        for allocation in allocations {
            self.end(step, allocation, now);
        }
    }

    /// Leases queued items of a run to new allocations, as many as it may have and there is room for; those of one
    /// turn if it is not its turn alone.
    pub(crate) fn lease_items(
        &mut self,
        step: &mut Step,
        id: RunId,
        is_alone: bool,
        effort: &mut Effort,
        now: Timestamp,
    ) -> Turn {
        let run = &self.durable.runs()[&id];
        let parallelism = run.job().parallelism;
        let demand = Demand::new(self, &run.workload, &run.spec).of(run.revision);
        let (revision, items) = (run.revision, run.items);
        let inputs = run.inputs.is_some() || run.reads_outputs;
        let least = done_within(run, MIN_LEASE, now, MIN_SHOWN).unwrap_or_default() / parallelism.max(1);
        // What is lost with an allocation is not run again: so no more of it than may have been started.
        let at_once = run.spec.limits.concurrency.clamp(1, MAX_RANGE);
        let most = done_within(run, MAX_LEASE, now, MIN_SHOWN_SLOW).map(|done| done / parallelism.max(1));
        let most = most.unwrap_or(at_once.saturating_mul(FIRST_ROUNDS)).clamp(at_once, MAX_RANGE);
        let largest = if run.job().is_at_most_once() { at_once } else { most };
        let durable = &self.durable;
        let live = durable.of_run(id).filter(|record| record.is_live() || durable.is_held(record)).count();
        let mut free = parallelism.saturating_sub(u32::try_from(live).unwrap_or(u32::MAX));
        let mut turn = if is_alone { u32::MAX } else { self.allocations_of_a_turn(demand.need()) };
        let mut search = None;
        while free > 0 {
            let queue = self.volatile.queues.entry(id).or_default();
            let ranges = parallelism.saturating_mul(RANGES_PER_ALLOCATION).max(1);
            let size = queue.ready().div_ceil(ranges).max(least).clamp(1, largest);
            let Some((attempt, range)) = queue.peek(size) else { return Turn::Over };
            if turn == 0 {
                return Turn::More;
            }
            if effort.is_over() {
                effort.leave(Claim::Run(id));
                return Turn::Over;
            }
            let search = search.get_or_insert_with(|| Search::new(self, &demand));
            effort.spend(1);
            let is_allowed = self.quota_hit(&demand.workload.namespace, &demand.spec).is_none();
            let Some(node) = search.best().filter(|_| is_allowed) else {
                self.volatile.set_run_waiting(&self.durable.runs()[&id], true);
                self.make_way(step, &Claim::Run(id), &demand, free, effort, now);
                return Turn::Over;
            };
            self.volatile.queues.entry(id).or_default().remove(range);
            let record = AllocationRecord {
                id: self.next_allocation(),
                workload: demand.workload.clone(),
                revision,
                node: node.clone(),
                spec: Arc::clone(&demand.spec),
                work: Work::Items { run: id, range, attempt, combine: range.start == items, inputs },
                returned: RangeSet::new(),
                makes_way: None,
                lease: None,
                state: AllocationState::Placed,
                created: now,
            };
            self.change(step, Change::Allocation(Arc::new(record)), now);
            search.placed(self, &node);
            free -= 1;
            turn -= 1;
        }
        Turn::Over
    }
}

/// Returns how many items of a run are done within `time`, if so many records have shown that.
fn done_within(run: &RunRecord, time: DurationMs, now: Timestamp, shown: u32) -> Option<u32> {
    if run.recorded.len() < shown {
        return None;
    }
    let passed = now.since(run.began.unwrap_or(run.created)).0.max(1);
    let done = u64::from(run.recorded.len()).saturating_mul(time.0) / passed;
    Some(u32::try_from(done).unwrap_or(u32::MAX))
}

/// Notes that an item has its record.
fn take_record(run: &mut RunRecord, item: u32, record: &ItemRecord) {
    run.recorded.insert(single(item));
    if record.outcome.is_completed() {
        run.succeeded += 1;
    } else {
        run.failed += 1;
    }
    if !planted(Bug::ForgetFuel) {
        run.fuel = run.fuel.plus(record.fuel);
    }
    set_tried(run, item, 0);
}

/// Notes how often an item without record was tried in vain.
fn set_tried(run: &mut RunRecord, item: u32, attempts: u32) {
    for items in run.tried.values_mut() {
        items.remove(single(item));
    }
    run.tried.retain(|_, items| !items.is_empty());
    if attempts > 0 {
        run.tried.entry(attempts).or_default().insert(single(item));
    }
}
