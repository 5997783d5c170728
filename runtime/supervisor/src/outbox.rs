//! The outbox: reports of items that were run, kept until the coordinator says that they are recorded.

use std::collections::BTreeMap;

use dunlin_model::{AllocationId, ItemReport, Outcome};

use crate::Config;

/// Item reports, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    reports: BTreeMap<u64, ItemReport>,
    sequence: BTreeMap<(AllocationId, u32), u64>,
    next: u64,
    bytes: usize,
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
        let number = self.sequence.remove(&(allocation, item));
        if let Some(report) = number.and_then(|number| self.reports.remove(&number)) {
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

    /// Returns the oldest reports that fit into one heartbeat, at least one if there is any.
    pub(crate) fn oldest(&self, config: &Config) -> Vec<ItemReport> {
        let mut bytes = 0;
        self.reports
            .values()
            .take(config.report_items)
            .enumerate()
            .take_while(|(index, report)| {
                bytes += size(report);
                *index == 0 || bytes <= config.report_bytes
            })
            .map(|(_, report)| report.clone())
            .collect()
    }
}

/// Returns the bytes in a report whose number is not fixed.
fn size(report: &ItemReport) -> usize {
    let reason = match &report.record.outcome {
        Outcome::Trapped { reason } | Outcome::NotStarted { reason } => reason.len(),
        Outcome::Completed
        | Outcome::Exited { .. }
        | Outcome::OutOfFuel { .. }
        | Outcome::OutOfMemory { .. }
        | Outcome::DeadlineExceeded { .. }
        | Outcome::Cancelled => 0,
    };
    report.record.output.len() + reason
}
