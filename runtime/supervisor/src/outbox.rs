//! The outbox: reports of items that were run, kept until the coordinator says that they are recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_model::{AllocationId, ItemReport, Outcome};

use crate::Config;

/// Item reports, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    reports: BTreeMap<u64, ItemReport>,
    sequence: BTreeMap<(AllocationId, u32), u64>,
    next: u64,
    bytes: usize,
    /// What the coordinator is told, until all of it is recorded.
    told: Arc<[ItemReport]>,
    /// The number after the last that is told.
    told_until: u64,
    /// Whether something that is told is not here any more.
    told_changed: bool,
}

/// How much more may come before some reports are recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// How many reports.
    pub(crate) items: u64,
    /// How many bytes of output and reasons.
    pub(crate) bytes: u64,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            reports: BTreeMap::new(),
            sequence: BTreeMap::new(),
            next: 0,
            bytes: 0,
            told: Arc::new([]),
            told_until: 0,
            told_changed: false,
        }
    }
}

impl Outbox {
    /// Adds a report.
    pub(crate) fn push(&mut self, report: ItemReport) {
        self.bytes += size(&report);
        let number = self.next;
        self.next += 1;
        let former = self.sequence.insert((report.allocation, report.item), number);
        assert!(former.is_none(), "an item ends once in the life of its allocation");
        self.reports.insert(number, report);
    }

    /// Drops the report of one item, if it is here.
    pub(crate) fn remove(&mut self, allocation: AllocationId, item: u32) {
        let Some(number) = self.sequence.remove(&(allocation, item)) else { return };
        self.told_changed |= number < self.told_until;
        if let Some(report) = self.reports.remove(&number) {
            self.bytes -= size(&report);
        }
    }

    /// Drops all reports of an allocation.
    pub(crate) fn forget(&mut self, allocation: AllocationId) {
        let range = (allocation, 0)..=(allocation, u32::MAX);
        let items: Vec<u32> = self.sequence.range(range).map(|((_, item), _)| *item).collect();
        for item in items {
            self.remove(allocation, item);
        }
    }

    /// Tells whether no further item should be run before some of these are recorded.
    pub(crate) fn is_full(&self, config: &Config) -> bool {
        self.reports.len() >= config.outbox_items || self.bytes >= config.outbox_bytes
    }

    /// Returns how much more may come.
    pub(crate) fn room(&self, config: &Config) -> Room {
        let left = |most: usize, taken: usize| u64::try_from(most.saturating_sub(taken)).unwrap_or(u64::MAX);
        Room {
            items: left(config.outbox_items, self.reports.len()),
            bytes: left(config.outbox_bytes, self.bytes),
        }
    }

    /// Returns what the coordinator is to be told: the oldest reports that fit into one heartbeat, at least one if
    /// there is any. It is the same list until something of it is recorded or forgotten.
    pub(crate) fn told(&mut self, config: &Config) -> Arc<[ItemReport]> {
        if self.told_changed || self.told.is_empty() {
            self.told_changed = false;
            let mut bytes = 0;
            let fitting = self.reports.iter().take(config.report_items).enumerate();
            let fitting = fitting.take_while(|(index, (_, report))| {
                bytes += size(report);
                *index == 0 || bytes <= config.report_bytes
            });
            let fitting: Vec<(u64, ItemReport)> =
                fitting.map(|(_, (number, report))| (*number, report.clone())).collect();
            self.told_until = fitting.last().map_or(self.next, |(number, _)| number + 1);
            if !(fitting.is_empty() && self.told.is_empty()) {
                self.told = fitting.into_iter().map(|(_, report)| report).collect();
            }
        }
        Arc::clone(&self.told)
    }
}

/// Returns the bytes in a report whose number is not fixed.
fn size(report: &ItemReport) -> usize {
    let reason = match &report.record.outcome {
        Outcome::Trapped { reason } | Outcome::NotStarted { reason } | Outcome::Unknown { reason } => {
            reason.len()
        }
        Outcome::LimitExceeded { hit } => hit.limit.len() + hit.value.len() + hit.observed.len(),
        Outcome::Completed
        | Outcome::Exited { .. }
        | Outcome::OutOfFuel { .. }
        | Outcome::OutOfMemory { .. }
        | Outcome::DeadlineExceeded { .. }
        | Outcome::Cancelled => 0,
    };
    report.record.output.len() + reason
}
