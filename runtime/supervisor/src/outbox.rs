//! The outbox: reports of items that were run, until the coordinator says that they are recorded.
//!
//! Those that are not recorded after a while, most often since the coordinator is out of reach, are kept on disk, so that
//! a node that loses power need not do the work again. Where the coordinator answers none ever is.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_model::{AllocationId, ItemReport, Outcome, Timestamp};

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
    /// Of those that were not given to be kept: when one came, and the number after it.
    unkept_since: Option<(Timestamp, u64)>,
    /// The number after the last that was given to be kept on disk.
    kept_until: u64,
    /// How many reports the disk holds, those included that are recorded meanwhile,
    on_disk: usize,
    /// and about how many bytes of them were added since it was tidied last.
    bytes_on_disk: usize,
}

/// What is to be done with the reports on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Add these to those that are there.
    Add(Vec<ItemReport>),
    /// Put these in the place of those that are there.
    Replace(Vec<ItemReport>),
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
            unkept_since: None,
            kept_until: 0,
            on_disk: 0,
            bytes_on_disk: 0,
        }
    }
}

impl Outbox {
    /// Adds a report that came now.
    pub(crate) fn push(&mut self, report: ItemReport, now: Timestamp) {
        self.insert(report);
        self.unkept_since.get_or_insert((now, self.next));
    }

    /// Takes reports that were on disk when the agent started, where there are so many.
    pub(crate) fn restore(&mut self, reports: Vec<ItemReport>, on_disk: usize) {
        self.on_disk = on_disk;
        for report in reports {
            // A disk may say the same twice.
            if !self.sequence.contains_key(&(report.allocation, report.item)) {
                self.insert(report);
            }
        }
        self.kept_until = self.next;
    }

    fn insert(&mut self, report: ItemReport) {
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

    /// Returns what is to be done with the reports on disk, if anything is. When one has waited for long all are kept, so
    /// that the disk is not busy with each of them.
    pub(crate) fn keep(&mut self, now: Timestamp, config: &Config) -> Option<Keep> {
        let is_due = self.keeps_at(config).is_some_and(|due| due <= now);
        if self.on_disk > 0 && self.reports.range(..self.kept_until).next().is_none() {
            // All that is on disk is recorded.
            (self.on_disk, self.bytes_on_disk) = (0, 0);
            if !is_due {
                return Some(Keep::Replace(Vec::new()));
            }
            return Some(Keep::Replace(self.give_to_keep(0)));
        }
        if !is_due {
            return None;
        }
        let old = self.kept_until..self.unkept_since.map_or(self.next, |(_, next)| next);
        if self.reports.range(old).next().is_none() {
            // Those that came then are recorded; the others are younger.
            let is_any = self.reports.range(self.kept_until..).next().is_some();
            self.unkept_since = is_any.then_some((now, self.next));
            return None;
        }
        let is_large = self.on_disk + self.reports.len() > 2 * config.outbox_items
            || self.bytes_on_disk + self.bytes > 2 * config.outbox_bytes;
        if is_large {
            (self.on_disk, self.bytes_on_disk) = (0, 0);
            return Some(Keep::Replace(self.give_to_keep(0)));
        }
        let new = self.give_to_keep(self.kept_until);
        (!new.is_empty()).then_some(Keep::Add(new))
    }

    /// Returns all reports.
    pub(crate) fn all(&self) -> impl Iterator<Item = ItemReport> {
        self.reports.values().cloned()
    }

    /// Returns all reports from a number on, which are on disk then.
    fn give_to_keep(&mut self, from: u64) -> Vec<ItemReport> {
        let given: Vec<ItemReport> = self.reports.range(from..).map(|(_, report)| report.clone()).collect();
        self.kept_until = self.next;
        self.unkept_since = None;
        self.on_disk += given.len();
        self.bytes_on_disk += given.iter().map(size).sum::<usize>();
        given
    }

    /// Returns when what is not kept is to be.
    pub(crate) fn keeps_at(&self, config: &Config) -> Option<Timestamp> {
        self.unkept_since.map(|(since, _)| since.plus(config.keep_items_after))
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
