//! The items of one allocation: which runs, which is to be run again and when, which is still to come.
//!
//! Items are taken in their order. One that was running when its worker died may be what killed it, or may have died
//! with another: it is run again alone, so that after the next death the blame is not in doubt.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{AssignedAllocation, ItemRange, RunId, Timestamp, Work};

use crate::Config;
use crate::backoff::Backoff;

/// The items of one allocation.
#[derive(Clone, Debug)]
pub(crate) struct Items {
    /// The run they belong to.
    pub(crate) run: RunId,
    /// Which try this is.
    pub(crate) attempt: u32,
    /// Whether this is the combining instance.
    pub(crate) combine: bool,
    range: ItemRange,
    concurrency: usize,
    /// The first that was not taken yet.
    next: u32,
    running: BTreeSet<u32>,
    /// To be run again, and from when on.
    again: BTreeMap<u32, Timestamp>,
    /// How many workers died while running an item that has not ended.
    deaths: BTreeMap<u32, u32>,
    /// The failed attempts to run an item that has not ended.
    failures: BTreeMap<u32, Backoff>,
}

impl Items {
    /// Returns the items of an allocation, if it has any.
    pub(crate) fn of(allocation: &AssignedAllocation) -> Option<Self> {
        let Work::Items { run, range, attempt, combine } = allocation.work else { return None };
        Some(Self {
            run,
            attempt,
            combine,
            range,
            concurrency: usize::try_from(allocation.spec.limits.concurrency).unwrap_or(usize::MAX).max(1),
            next: range.start,
            running: BTreeSet::new(),
            again: BTreeMap::new(),
            deaths: BTreeMap::new(),
            failures: BTreeMap::new(),
        })
    }

    /// Tells whether each item has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.next >= self.range.end && self.running.is_empty() && self.again.is_empty()
    }

    /// Takes the item which is to be started now, if there is one.
    pub(crate) fn take(&mut self, now: Timestamp) -> Option<u32> {
        let suspect_runs = self.running.iter().any(|item| self.deaths.contains_key(item));
        if suspect_runs || self.running.len() >= self.concurrency {
            return None;
        }
        let is_due = |item: &&u32| self.again.get(item).is_some_and(|due| *due <= now);
        let suspect = self.deaths.keys().find(is_due).copied();
        if suspect.is_some() && !self.running.is_empty() {
            return None;
        }
        let item = suspect.or_else(|| self.again.keys().find(is_due).copied()).or_else(|| self.fresh())?;
        self.again.remove(&item);
        self.running.insert(item);
        Some(item)
    }

    /// Takes the next item that was never run.
    fn fresh(&mut self) -> Option<u32> {
        let item = self.next;
        if item >= self.range.end {
            return None;
        }
        self.next += 1;
        Some(item)
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

    /// Returns the moments at which something may be tried again.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Timestamp> {
        self.again.values().copied()
    }
}
