//! A map and a reduce: counts the statuses in each access log, and adds up the counts of all of them.
//!
//! Between the two are lines like `404 17`. Of each item's output 64 KiB are kept, so a map should give little: counts
//! rather than what was counted.

use std::collections::BTreeMap;
use std::io::BufRead;

use dunlin_guest::{Context, Item, Outputs, Result, log};

/// How often each status occurs.
type Counts = BTreeMap<u16, u64>;

/// Counts in one log. It may run twice for the same item, after a failure; its output is recorded once.
#[dunlin_guest::job(combine = add_up)]
fn count(item: Item) -> Result<String> {
    let name = item.name().to_owned();
    let (mut counts, mut strange) = (Counts::new(), 0_u64);
    for line in item.split(b'\n') {
        let line = line?;
        match status(&String::from_utf8_lossy(&line)) {
            Some(status) => *counts.entry(status).or_default() += 1,
            None => strange += 1,
        }
    }
    if strange > 0 {
        log::warn!("{strange} lines of {name} have no status");
    }
    Ok(lines(&counts))
}

/// Adds up the lines which [`count`] gave, of all items one after the other.
fn add_up(outputs: Outputs) -> Result<String> {
    let mut total = Counts::new();
    for line in outputs.lines() {
        let line = line?;
        let (status, count) = line
            .split_once(' ')
            .with_context(|| format!("`{line}` is no status and count"))?;
        *total.entry(status.parse()?).or_default() += count.parse::<u64>()?;
    }
    Ok(lines(&total))
}

fn lines(counts: &Counts) -> String {
    counts
        .iter()
        .map(|(status, count)| format!("{status} {count}\n"))
        .collect()
}

/// Returns the status of a line in the common log format: what follows the quoted request.
fn status(line: &str) -> Option<u16> {
    let (_, after_request) = line.split_once('"')?.1.rsplit_once("\" ")?;
    after_request.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use dunlin_guest::test::{self, Host};

    use super::*;

    const LOG: &str = concat!(
        "192.0.2.1 - - [23/Nov/2026:04:00:00 +0000] \"GET / HTTP/1.1\" 200 512\n",
        "192.0.2.1 - - [23/Nov/2026:04:00:01 +0000] \"GET /a HTTP/1.1\" 404 9\n",
        "192.0.2.1 - - [23/Nov/2026:04:00:02 +0000] \"GET / HTTP/1.1\" 200 512\n",
    );

    #[test]
    fn each_status_is_counted() {
        assert_eq!(count(test::item("a.log", LOG)).unwrap(), "200 2\n404 1\n");
    }

    #[test]
    fn a_line_without_a_status_is_told_in_the_log() {
        let host = Host::new();
        assert_eq!(
            host.within(|| count(test::item("a.log", "nonsense\n")))
                .unwrap(),
            ""
        );
        assert!(host.log()[0].ends_with("1 lines of a.log have no status"));
    }

    #[test]
    fn the_counts_of_all_items_are_added_up() {
        assert_eq!(
            add_up(test::outputs("200 2\n404 1\n200 3\n")).unwrap(),
            "200 5\n404 1\n"
        );
    }

    #[test]
    fn what_no_item_has_given_is_an_error() {
        assert!(add_up(test::outputs("nonsense\n")).is_err());
    }
}
