//! A map and a reduce over access logs as nginx writes them: how many requests, with which statuses, how many bytes, and
//! which paths were asked most.
//!
//! A line that cannot be read is counted and ends nothing: logs are cut off by full disks and rotations, and clients
//! write into them.

mod line;
mod tally;

use std::io::{self, BufRead, Read};

use dunlin_guest::{Context, Item, Outputs, Result, log};

use crate::line::Line;
use crate::tally::Tally;

/// The most bytes of one line. nginx takes heads of requests up to 32 KiB, and writes some bytes as four.
const LINE: u64 = 256 << 10;

/// Counts one log. It may run twice for the same item, after a failure; its output is recorded once.
#[dunlin_guest::job(combine = report)]
fn count(mut item: Item) -> Result<String> {
    let mut tally = Tally::default();
    let mut line = Vec::new();
    while read_line(&mut item, &mut line).with_context(|| format!("cannot read `{}`", item.name()))? {
        match Line::parse(line.trim_ascii_end()) {
            Some(line) => tally.add(line),
            None if line.trim_ascii().is_empty() => {}
            None => tally.add_broken(),
        }
    }
    if tally.broken() > 0 {
        log::warn!("{} lines of `{}` are broken", tally.broken(), item.name());
    }
    Ok(tally.told())
}

/// Adds up what the items have told.
fn report(outputs: Outputs) -> Result<String> {
    let mut tally = Tally::default();
    for line in outputs.lines() {
        tally.add_told(&line?)?;
    }
    Ok(tally.report())
}

/// Reads the next line into `line`, and says whether there was one. One that is too long loses its end, so that a file
/// without lines needs no memory of its own size.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    if input.take(LINE).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() != Some(&b'\n') {
        input.skip_until(b'\n')?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use dunlin_guest::test::{self, Host};

    use super::*;

    const MONDAY: &str = include_str!("../logs/monday.log");
    const TUESDAY: &str = include_str!("../logs/tuesday.log");

    #[test]
    fn a_log_is_counted_and_its_broken_line_told() {
        let host = Host::new();
        let told = host.within(|| count(test::item("logs/tuesday.log", TUESDAY))).unwrap();
        assert!(told.starts_with("requests 7\nbroken 1\n"), "{told}");
        assert_eq!(host.log(), ["WARN log_analyser: 1 lines of `logs/tuesday.log` are broken"]);
    }

    #[test]
    fn the_report_is_of_all_logs_in_whatever_order() {
        let told = |log| count(test::item("a.log", log)).unwrap();
        let expected = include_str!("../report.txt");
        for both in [told(MONDAY) + &told(TUESDAY), told(TUESDAY) + &told(MONDAY)] {
            assert_eq!(report(test::outputs(&both)).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_no_log_is_counted_as_broken() {
        let told = count(test::item("a.log", [&[0xff; 300], &b"\n\r\n\n"[..]].concat())).unwrap();
        assert!(told.starts_with("requests 0\nbroken 1\n"), "{told}");
        assert!(report(test::outputs("nonsense\n")).is_err());
        assert!(report(test::outputs("")).is_ok());
    }

    #[test]
    fn a_line_without_an_end_is_read_in_bounds() {
        let long = vec![b'x'; 3 * usize::try_from(LINE).unwrap()];
        let mut input = io::Cursor::new([&long[..], b"\nnext"].concat());
        let mut line = Vec::new();
        assert!(read_line(&mut input, &mut line).unwrap());
        assert_eq!(line.len() as u64, LINE);
        assert!(read_line(&mut input, &mut line).unwrap());
        assert_eq!(line, b"next");
        assert!(!read_line(&mut input, &mut line).unwrap());
    }
}
