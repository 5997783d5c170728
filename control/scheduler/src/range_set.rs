//! A set of item numbers as merged ranges: a million recorded items are usually a handful of ranges.

use dunlin_model::ItemRange;
use serde::{Deserialize, Serialize};

/// A set of item numbers: sorted ranges which neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<ItemRange>", into = "Vec<ItemRange>")]
pub struct RangeSet {
    ranges: Vec<ItemRange>,
}

impl RangeSet {
    /// Returns the empty set.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Returns its ranges in order.
    pub fn ranges(&self) -> &[ItemRange] {
        &self.ranges
    }

    /// Returns how many numbers are in it.
    pub fn len(&self) -> u32 {
        self.ranges.iter().fold(0, |sum, range| sum.saturating_add(range.len()))
    }

    /// Tells whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Tells whether `item` is in it.
    pub fn contains(&self, item: u32) -> bool {
        self.contains_range(ItemRange { start: item, end: item.saturating_add(1) })
    }

    /// Tells whether all of `range` is in it.
    pub fn contains_range(&self, range: ItemRange) -> bool {
        if range.is_empty() {
            return true;
        }
        // Ranges do not touch, so one of them must hold all of it.
        let after = self.ranges.partition_point(|one| one.start <= range.start);
        after.checked_sub(1).is_some_and(|index| self.ranges[index].end >= range.end)
    }

    /// Adds all of `range`.
    pub fn insert(&mut self, range: ItemRange) {
        if range.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|one| one.end < range.start);
        let last = self.ranges.partition_point(|one| one.start <= range.end);
        let mut merged = range;
        for one in &self.ranges[first..last] {
            merged.start = merged.start.min(one.start);
            merged.end = merged.end.max(one.end);
        }
        self.ranges.splice(first..last, [merged]);
    }

    /// Takes all of `range` out.
    pub fn remove(&mut self, range: ItemRange) {
        if range.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|one| one.end <= range.start);
        let last = self.ranges.partition_point(|one| one.start < range.end);
        if first >= last {
            return;
        }
        let before = ItemRange { start: self.ranges[first].start, end: range.start };
        let after = ItemRange { start: range.end, end: self.ranges[last - 1].end };
        self.ranges.splice(first..last, [before, after].into_iter().filter(|one| !one.is_empty()));
    }

    /// Adds all of `other`.
    pub(crate) fn insert_all(&mut self, other: &Self) {
        for range in &other.ranges {
            self.insert(*range);
        }
    }

    /// Takes all of `other` out.
    pub(crate) fn remove_all(&mut self, other: &Self) {
        for range in &other.ranges {
            self.remove(*range);
        }
    }

    /// Returns what of `range` is not in it.
    pub(crate) fn missing_from(&self, range: ItemRange) -> Self {
        let mut missing = Self::from(vec![range]);
        let first = self.ranges.partition_point(|one| one.end <= range.start);
        for one in self.ranges[first..].iter().take_while(|one| one.start < range.end) {
            missing.remove(*one);
        }
        missing
    }
}

/// Returns the range of this one item.
pub(crate) const fn single(item: u32) -> ItemRange {
    ItemRange { start: item, end: item.saturating_add(1) }
}

impl From<Vec<ItemRange>> for RangeSet {
    fn from(ranges: Vec<ItemRange>) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

impl From<RangeSet> for Vec<ItemRange> {
    fn from(set: RangeSet) -> Self {
        set.ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u32, end: u32) -> ItemRange {
        ItemRange { start, end }
    }

    fn shown(set: &RangeSet) -> String {
        set.ranges().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ranges_which_touch_become_one() {
        let set = RangeSet::from(vec![range(5, 7), range(0, 2), range(2, 5), range(9, 10)]);
        assert_eq!(shown(&set), "0..7 9..10");
        assert_eq!(set.len(), 8);
    }

    #[test]
    fn what_is_removed_splits_a_range() {
        let mut set = RangeSet::from(vec![range(0, 10), range(20, 30)]);
        set.remove(range(3, 4));
        set.remove(range(8, 22));
        set.remove(range(12, 15));
        assert_eq!(shown(&set), "0..3 4..8 22..30");
        assert_eq!(shown(&set.missing_from(range(2, 24))), "3..4 8..22");
    }

    #[test]
    fn it_agrees_with_a_plain_list_of_flags() {
        let mut set = RangeSet::new();
        let mut flags = [false; 64];
        let mut state = 7_u32;
        for _ in 0..2_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let start = (state >> 8) % 60;
            let end = start + (state >> 20) % 5;
            let add = state >> 31 == 0;
            if add {
                set.insert(range(start, end))
            } else {
                set.remove(range(start, end))
            }
            for item in start..end {
                flags[item as usize] = add;
            }
            for (item, flag) in (0_u32..).zip(flags) {
                assert_eq!(set.contains(item), flag, "item {item} in {}", shown(&set));
            }
            assert!(set.ranges().windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
