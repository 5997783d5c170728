//! The items of one allocation: which runs, which is to be run again and when, which is still to come.
//!
//! Items are taken in their order. Of those without inputs the worker gets more than it can run at a time, so that it
//! need not wait for the agent after each; how many more follows from how long the last ones took and what they wrote.
//!
//! One that was running when its worker died may be what killed it, or may have died
//! with another: it is run again alone, so that after the next death the blame is not in doubt, and before the others,
//! even if the allocation takes no new ones: who gets it next would know nothing of the deaths, and one that kills every
//! worker would never come to its end. One that may be started at most once is not run again.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{
    AllocationId, AssignedAllocation, Begun, DurationMs, ItemRange, RunId, Timestamp, Work, WorkloadKind,
};

use crate::Config;
use crate::backoff::Backoff;
use crate::outbox::Room;

/// The most items that wait in a worker.
const MAX_AHEAD: u64 = 1_024;
/// Items wait in a worker that will be run within about this time. All of them come under suspicion if it dies.
const AHEAD: DurationMs = DurationMs(100);
/// After so many items the older ones count half.
const MEASURED: u64 = 256;

/// The items of one allocation.
#[derive(Clone, Debug)]
pub(crate) struct Items {
    /// The run they belong to.
    pub(crate) run: RunId,
    /// Which try this is.
    pub(crate) attempt: u32,
    /// Whether this is the combining instance.
    pub(crate) combine: bool,
    /// Whether there is something to be brought for each to read.
    pub(crate) inputs: bool,
    /// Whether none of them may be started twice.
    pub(crate) is_at_most_once: bool,
    /// Since when no new ones are taken, if that is so: those that run and the suspects are finished, and that is all.
    finishing: Option<Timestamp>,
    /// Whether those that ran then were broken off, as they took too long.
    is_broken_off: bool,
    range: ItemRange,
    concurrency: usize,
    /// The first that was not taken yet.
    next: u32,
    /// Those after it that ended before the agent was started, and are not run again.
    done: BTreeSet<u32>,
    running: BTreeSet<u32>,
    /// To be run again, and from when on.
    again: BTreeMap<u32, Timestamp>,
    /// How many workers died while running an item that has not ended.
    deaths: BTreeMap<u32, u32>,
    /// The failed attempts to run an item that has not ended.
    failures: BTreeMap<u32, Backoff>,
    measured: Measured,
}

/// What the last items took.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    items: u64,
    /// How long they ran, together.
    wall: u64,
    /// How many bytes they wrote, together.
    output: u64,
}

impl Items {
    /// Returns the items of an allocation, if it has any.
    pub(crate) fn of(allocation: &AssignedAllocation) -> Option<Self> {
        let Work::Items { run, range, attempt, combine, inputs } = allocation.work else { return None };
        Some(Self {
            run,
            attempt,
            combine,
            // The outputs of all items are the input of the one that combines them.
            inputs: inputs || combine,
            is_at_most_once: match &allocation.spec.kind {
                WorkloadKind::Job(job) => job.is_at_most_once(),
                WorkloadKind::Service(_) => false,
            },
            finishing: None,
            is_broken_off: false,
            range,
            concurrency: usize::try_from(allocation.spec.limits.concurrency).unwrap_or(usize::MAX).max(1),
            next: range.start,
            done: BTreeSet::new(),
            running: BTreeSet::new(),
            again: BTreeMap::new(),
            deaths: BTreeMap::new(),
            failures: BTreeMap::new(),
            measured: Measured::default(),
        })
    }

    /// Tells whether each item has ended, or each that was begun if no new ones are taken.
    pub(crate) fn is_done(&self) -> bool {
        let is_all = self.next >= self.range.end && self.again.is_empty();
        let is_enough = self.is_broken_off || self.finishing.is_some() && self.deaths.is_empty();
        self.running.is_empty() && (is_all || is_enough)
    }

    /// Tells whether the worker has some that have not ended.
    pub(crate) fn is_any_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Takes no new ones from now on, or takes them again.
    pub(crate) fn finish(&mut self, is_finishing: bool, now: Timestamp) {
        let since = self.finishing.unwrap_or(now);
        self.finishing = is_finishing.then_some(since);
    }

    /// Breaks off what is not done if it was to be by now; tells whether it has.
    pub(crate) fn break_off(&mut self, now: Timestamp, config: &Config) -> bool {
        let is_over = self.finish_by(config).is_some_and(|end| end <= now);
        self.is_broken_off |= is_over;
        is_over
    }

    /// Returns when what is not done is broken off.
    fn finish_by(&self, config: &Config) -> Option<Timestamp> {
        let end = self.finishing?.plus(config.finish_within);
        (!self.is_done() && !self.is_broken_off).then_some(end)
    }

    /// Notes that the worker has them no more; tells whether it was to break them off. Of those that it did not tell how
    /// they ended nobody will know.
    pub(crate) fn stopped(&mut self) -> bool {
        if self.is_broken_off {
            self.running.clear();
        }
        self.is_broken_off
    }

    /// Takes the items which the worker is to be told of now, if there are any. `room` is left for what they give.
    pub(crate) fn take(&mut self, now: Timestamp, room: Room) -> Option<ItemRange> {
        let suspect_runs = self.deaths.keys().any(|item| self.running.contains(item));
        let window = if self.inputs { self.concurrency } else { self.concurrency + self.ahead(room) };
        let free = u32::try_from(window.saturating_sub(self.running.len())).unwrap_or(u32::MAX);
        if suspect_runs || free == 0 || self.is_broken_off {
            return None;
        }
        let is_due = |item: &&u32| self.again.get(item).is_some_and(|due| *due <= now);
        let suspect = self.deaths.keys().find(is_due).copied();
        if suspect.is_some() && !self.running.is_empty() {
            return None;
        }
        if suspect.is_none() && self.finishing.is_some() {
            return None;
        }
        let again = suspect.or_else(|| self.again.keys().find(is_due).copied());
        let range = match again {
            Some(item) => ItemRange { start: item, end: item + 1 },
            None => self.fresh(if self.inputs { 1 } else { free })?,
        };
        for item in range.start..range.end {
            self.again.remove(&item);
            self.running.insert(item);
        }
        Some(range)
    }

    /// Takes the next items that were never run, so many at most.
    fn fresh(&mut self, most: u32) -> Option<ItemRange> {
        let end = self.done.first().copied().unwrap_or(self.range.end);
        let range = ItemRange { start: self.next, end: end.min(self.next.saturating_add(most)) };
        if range.is_empty() {
            return None;
        }
        self.next = range.end;
        self.pass_done();
        Some(range)
    }

    /// Runs none of these, which ended before the agent was started.
    pub(crate) fn skip(&mut self, done: BTreeSet<u32>) {
        self.done = done;
        self.pass_done();
    }

    /// Returns how far it has come.
    pub(crate) fn begun(&self, allocation: AllocationId) -> Begun {
        let (run, next, done, running) = (self.run, self.next, self.done.clone(), self.running.clone());
        Begun { allocation, run, next, done, running, again: self.again.keys().copied().collect() }
    }

    /// Goes on from where an agent had come before this one; returns what is not run again, as it may have been run.
    pub(crate) fn resume(&mut self, begun: &Begun, now: Timestamp) -> Vec<u32> {
        self.next = begun.next.clamp(self.range.start, self.range.end);
        self.done.extend(&begun.done);
        self.pass_done();
        self.again.extend(begun.again.iter().map(|item| (*item, now)));
        if self.is_at_most_once {
            return begun.running.iter().copied().collect();
        }
        self.again.extend(begun.running.iter().map(|item| (*item, now)));
        Vec::new()
    }

    fn pass_done(&mut self) {
        while self.done.remove(&self.next) {
            self.next += 1;
        }
    }

    /// Returns how many items may wait in the worker beside those that it runs.
    fn ahead(&self, room: Room) -> usize {
        let Measured { items, wall, output } = self.measured;
        if items == 0 {
            return 0;
        }
        let concurrency = u64::try_from(self.concurrency).unwrap_or(u64::MAX);
        let in_time = AHEAD.0.saturating_mul(concurrency).saturating_mul(items).checked_div(wall);
        let in_room = room.bytes.saturating_mul(items).checked_div(output);
        let ahead = MAX_AHEAD.min(room.items);
        let ahead = ahead.min(in_time.unwrap_or(u64::MAX)).min(in_room.unwrap_or(u64::MAX));
        usize::try_from(ahead).unwrap_or(usize::MAX)
    }

    /// Notes what an item took that has ended.
    pub(crate) fn measure(&mut self, wall: DurationMs, output: usize) {
        let measured = &mut self.measured;
        if measured.items >= MEASURED {
            measured.items /= 2;
            measured.wall /= 2;
            measured.output /= 2;
        }
        measured.items += 1;
        measured.wall = measured.wall.saturating_add(wall.0);
        measured.output = measured.output.saturating_add(u64::try_from(output).unwrap_or(u64::MAX));
    }

    /// Notes that an item has ended; tells whether it was running.
    pub(crate) fn ended(&mut self, item: u32) -> bool {
        self.deaths.remove(&item);
        self.failures.remove(&item);
        self.running.remove(&item)
    }

    /// Notes that an item could not be run.
    pub(crate) fn not_run(&mut self, item: u32, now: Timestamp, config: &Config) {
        if self.running.remove(&item) {
            let until = self.failures.entry(item).or_default().failed(now, config);
            self.again.insert(item, until);
        }
    }

    /// Notes that the worker died; returns the items which will not be run again.
    pub(crate) fn died(&mut self, now: Timestamp, config: &Config) -> Vec<u32> {
        let mut given_up = Vec::new();
        for item in std::mem::take(&mut self.running) {
            if self.is_at_most_once {
                given_up.push(item);
                continue;
            }
            let deaths = self.deaths.entry(item).or_default();
            *deaths += 1;
            if *deaths >= config.item_deaths {
                self.deaths.remove(&item);
                self.failures.remove(&item);
                given_up.push(item);
            } else {
                self.again.insert(item, now);
            }
        }
        given_up
    }

    /// Takes all that were never taken; returns them.
    pub(crate) fn give_up(&mut self) -> Vec<u32> {
        let done = std::mem::take(&mut self.done);
        let rest = (self.next..self.range.end).filter(|item| !done.contains(item)).collect();
        self.next = self.range.end;
        rest
    }

    /// Returns the moments at which something may be tried again, or is broken off.
    pub(crate) fn deadlines(&self, config: &Config) -> impl Iterator<Item = Timestamp> {
        self.again.values().copied().chain(self.finish_by(config))
    }
}
