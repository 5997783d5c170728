//! What is counted: by one item line by line, and of all items together.
//!
//! Between the two it is text, one count a line. Of each item's output 64 KiB are kept, so an item tells as many of its
//! paths as fit, the most asked first, and how often one that it leaves out may have been asked at most. By the sum of
//! these the counts of the report may be too low, and the report says so.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use dunlin_guest::{Context, Result, bail};

use crate::line::Line;

/// The most paths that an item keeps in its memory. What is asked first has a place.
const PATHS_KEPT: usize = 50_000;

/// The most bytes of lines about paths in the output of an item.
const PATHS_TOLD: usize = 60 << 10;

/// How many paths are in the report.
const PATHS_REPORTED: usize = 10;

/// The classes of statuses, as they are told. The last one is of what belongs to no class, such as 000.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// How often what was asked for and answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    requests: u64,
    /// Lines that are none of an access log.
    broken: u64,
    bytes: u64,
    statuses: [u64; CLASSES.len()],
    paths: BTreeMap<String, u64>,
    /// How often a path that is not among these may have been asked at most.
    missed: u64,
}

impl Tally {
    /// Counts one request.
    pub(crate) fn add(&mut self, line: Line) {
        add(&mut self.requests, 1);
        add(&mut self.bytes, line.bytes);
        let class = usize::from(line.status / 100);
        let class = if (1..CLASSES.len()).contains(&class) { class - 1 } else { CLASSES.len() - 1 };
        add(&mut self.statuses[class], 1);
        let Some(path) = line.path else { return };
        if self.paths.len() < PATHS_KEPT || self.paths.contains_key(&path) {
            add(self.paths.entry(path).or_default(), 1);
        } else {
            add(&mut self.missed, 1);
        }
    }

    /// Counts a line that cannot be read.
    pub(crate) fn add_broken(&mut self) {
        add(&mut self.broken, 1);
    }

    /// Returns how many lines could not be read.
    pub(crate) fn broken(&self) -> u64 {
        self.broken
    }

    /// Writes the counts of one item for [`add_told`](Self::add_told).
    pub(crate) fn told(&self) -> String {
        let Self { requests, broken, bytes, .. } = self;
        let mut told = format!("requests {requests}\nbroken {broken}\nbytes {bytes}\n");
        for (class, count) in self.classes() {
            // A `String` takes whatever is written.
            let _ = writeln!(told, "{class} {count}");
        }
        let (start, mut missed) = (told.len(), self.missed);
        for (path, count) in self.most_asked() {
            let line = format!("path {count} {path}\n");
            if told.len() - start + line.len() > PATHS_TOLD {
                missed = missed.max(count);
                break;
            }
            told.push_str(&line);
        }
        let _ = writeln!(told, "missed {missed}");
        told
    }

    /// Adds a line that an item has told.
    ///
    /// # Errors
    ///
    /// If no item tells such a line.
    pub(crate) fn add_told(&mut self, line: &str) -> Result<()> {
        let strange = || format!("no item tells the line `{line}`");
        let (what, rest) = line.split_once(' ').with_context(strange)?;
        if what == "path" {
            let (count, path) = rest.split_once(' ').with_context(strange)?;
            let count = count.parse().with_context(strange)?;
            add(self.paths.entry(path.to_owned()).or_default(), count);
            return Ok(());
        }
        let count = rest.parse().with_context(strange)?;
        match what {
            "requests" => add(&mut self.requests, count),
            "broken" => add(&mut self.broken, count),
            "bytes" => add(&mut self.bytes, count),
            "missed" => add(&mut self.missed, count),
            class => match CLASSES.iter().position(|known| *known == class) {
                Some(class) => add(&mut self.statuses[class], count),
                None => bail!("{}", strange()),
            },
        }
        Ok(())
    }

    /// Returns the report for people.
    pub(crate) fn report(&self) -> String {
        let Self { requests, broken, bytes, missed, .. } = self;
        let mut report = format!("{requests:>12} requests\n{bytes:>12} bytes\n{broken:>12} broken lines\n");
        for (class, count) in self.classes() {
            let _ = writeln!(report, "{count:>12} {class}");
        }
        report.push_str("most asked:\n");
        for (path, count) in self.most_asked().into_iter().take(PATHS_REPORTED) {
            let _ = writeln!(report, "{count:>12} {path}");
        }
        if *missed > 0 {
            let _ =
                writeln!(report, "there were too many paths: each may have been asked {missed} times more");
        }
        report
    }

    fn classes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CLASSES.into_iter().zip(self.statuses)
    }

    /// Returns the paths, the most asked first, and of those that are asked as often the first by the alphabet: the same
    /// requests give the same report, in whatever order they came.
    fn most_asked(&self) -> Vec<(&str, u64)> {
        let mut paths: Vec<(&str, u64)> =
            self.paths.iter().map(|(path, count)| (path.as_str(), *count)).collect();
        // The sort is stable, and a `BTreeMap` is in the order of the alphabet.
        paths.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        paths
    }
}

/// Adds to a count, which ends at its largest number: a log can hold any number, and none should end the item.
fn add(count: &mut u64, more: u64) {
    *count = count.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str) -> Line {
        Line { status: 200, bytes: 10, path: Some(path.to_owned()) }
    }

    fn told_by(tallies: &[Tally]) -> Tally {
        let mut all = Tally::default();
        for line in tallies.iter().map(Tally::told).collect::<String>().lines() {
            all.add_told(line).expect("an item tells what is read");
        }
        all
    }

    #[test]
    fn what_items_tell_is_read_as_it_was_meant() {
        let mut tally = Tally::default();
        tally.add(asked("/a b"));
        tally.add(Line { status: 0, bytes: u64::MAX, path: None });
        tally.add(Line { status: 599, bytes: 1, path: None });
        tally.add_broken();
        assert_eq!(told_by(std::slice::from_ref(&tally)), tally);
    }

    #[test]
    fn lines_that_nobody_tells_are_errors() {
        for line in ["", "requests", "requests x", "6xx 1", "path 1", "path x /", "nonsense 1"] {
            assert!(Tally::default().add_told(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_order_is_by_count_and_then_by_path() {
        let mut tally = Tally::default();
        for path in ["/c", "/b", "/a", "/c", "/b", "/d"] {
            tally.add(asked(path));
        }
        assert_eq!(tally.most_asked(), [("/b", 2), ("/c", 2), ("/a", 1), ("/d", 1)]);
    }

    #[test]
    fn an_item_with_many_paths_tells_the_most_asked_and_what_may_be_missed() {
        let mut tally = Tally::default();
        for number in 0..PATHS_KEPT + 3 {
            tally.add(asked(&format!("/{number:0>200}")));
        }
        tally.add(asked("/zebra"));
        (0..2).for_each(|_| tally.add(asked(&format!("/{:0>200}", 7))));
        let told = tally.told();
        assert!(told.len() < 64 << 10, "{}", told.len());
        assert!(told.contains(&format!("path 3 /{:0>200}\n", 7)));
        // Four paths came when there was no more room for them.
        assert!(told.ends_with("missed 4\n"), "{}", &told[told.len() - 40..]);
        let two = told_by(&[tally, Tally::default()]);
        assert!(two.report().ends_with("each may have been asked 4 times more\n"), "{}", two.report());
    }
}
