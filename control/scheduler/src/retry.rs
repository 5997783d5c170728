//! The items of a run which nobody works on: those that may be leased now, and those that wait after a failure.
//!
//! Only the reported end of an attempt counts as one; an item whose node was lost is tried again under the same
//! number, as often as that happens.

use std::collections::BTreeMap;

use dunlin_model::{DurationMs, ItemRange, Timestamp};

use crate::planted::{Bug, planted};
use crate::range_set::single;
use crate::{Config, RangeSet, RunRecord};

/// The items of one run which nobody works on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    /// By number of the attempt that is to be made.
    ready: BTreeMap<u32, RangeSet>,
    /// By the moment they become ready and the number of the attempt.
    waiting: BTreeMap<(Timestamp, u32), RangeSet>,
}

impl Queue {
    /// Returns the queue of a run of whose items those in `leased` are worked on.
    ///
    /// Waiting is not durable: after a start of the coordinator all are ready at once.
    pub(crate) fn restore(run: &RunRecord, leased: &RangeSet) -> Self {
        let mut open = run.recorded.missing_from(run.all_items());
        if open.is_empty() && needs_combining(run) {
            open.insert(single(run.items));
        }
        if !planted(Bug::RestoreQueuesLeased) {
            open.remove_all(leased);
        }
        let mut queue = Self::default();
        for (tried, items) in run.tried.iter().filter(|_| !planted(Bug::RestoreForgetsTried)) {
            let mut again = items.clone();
            for range in items.ranges() {
                again.remove_all(&open.missing_from(*range));
            }
            open.remove_all(&again);
            queue.add(tried + 1, &again);
        }
        queue.add(1, &open);
        queue
    }

    /// Lets `items` be leased for this attempt.
    pub(crate) fn add(&mut self, attempt: u32, items: &RangeSet) {
        if !items.is_empty() {
            self.ready.entry(attempt).or_default().insert_all(items);
        }
    }

    /// Lets `item` be leased for this attempt from `due` on.
    pub(crate) fn add_later(&mut self, due: Timestamp, attempt: u32, item: u32) {
        self.waiting.entry((due, attempt)).or_default().insert(single(item));
    }

    /// Moves what is due to what is ready; tells whether there was any.
    pub(crate) fn promote(&mut self, now: Timestamp) -> bool {
        let mut moved = false;
        while let Some(entry) = self.waiting.first_entry() {
            let (due, attempt) = *entry.key();
            if due > now {
                break;
            }
            let items = entry.remove();
            self.add(attempt, &items);
            moved = true;
        }
        moved
    }

    /// Returns how many may be leased now.
    pub(crate) fn ready(&self) -> u32 {
        self.ready.values().map(RangeSet::len).sum()
    }

    /// Returns how many wait.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.values().map(RangeSet::len).sum()
    }

    /// Returns the next items to lease, at most `size`, and the number of the attempt.
    pub(crate) fn peek(&self, size: u32) -> Option<(u32, ItemRange)> {
        let (attempt, items) = self.ready.first_key_value()?;
        let first = items.ranges().first()?;
        Some((
            *attempt,
            ItemRange { start: first.start, end: first.end.min(first.start.saturating_add(size)) },
        ))
    }

    /// Tells whether all of `items` could be leased for this attempt.
    pub(crate) fn offers(&self, attempt: u32, items: &RangeSet) -> bool {
        let ready = self.ready.get(&attempt);
        items.ranges().iter().all(|range| ready.is_some_and(|ready| ready.contains_range(*range)))
    }

    /// Takes `range` out, whatever it waits for.
    pub(crate) fn remove(&mut self, range: ItemRange) {
        for items in self.ready.values_mut().chain(self.waiting.values_mut()) {
            items.remove(range);
        }
        self.ready.retain(|_, items| !items.is_empty());
        self.waiting.retain(|_, items| !items.is_empty());
    }

    /// Returns all that is in it.
    pub(crate) fn all(&self) -> RangeSet {
        let mut all = RangeSet::new();
        for items in self.ready.values().chain(self.waiting.values()) {
            all.insert_all(items);
        }
        all
    }
}

/// Tells whether the combining instance of a run is due: all items have records, all of them good.
pub(crate) fn needs_combining(run: &RunRecord) -> bool {
    run.is_running()
        && run.job().combine
        && (run.failed == 0 || planted(Bug::CombineFailed))
        && run.recorded.contains_range(run.all_items())
        && !run.recorded.contains(run.items)
}

/// Returns how long an item waits after so many failed attempts: doubled each time, up to a longest time.
pub(crate) fn backoff(config: &Config, failed_attempts: u32) -> DurationMs {
    let factor = 1_u64.checked_shl(failed_attempts.saturating_sub(1)).unwrap_or(u64::MAX);
    DurationMs(config.retry_backoff.0.saturating_mul(factor).min(config.retry_backoff_max.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_longest_one() {
        let waits: Vec<u64> = [1, 2, 3, 7, 64, 1_000].map(|failed| backoff(&Config::EDGE, failed).0).into();
        assert_eq!(waits, [1_000, 2_000, 4_000, 60_000, 60_000, 60_000]);
    }
}
