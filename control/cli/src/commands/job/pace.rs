//! How fast a run goes on, and how that is said: its share, its rate, and about how long it will take.

use std::collections::VecDeque;
use std::time::Duration;

use dunlin_api::{RunState, RunStatus};
use dunlin_model::DurationMs;

use crate::time::about;

/// What was done within so long tells how fast it goes on.
const SHOWN: Duration = Duration::from_secs(30);
/// A line is worth it after so long,
const LINE_TIME: Duration = Duration::from_secs(10);
/// or when so many more in a hundred are done.
const LINE_SHARE: u64 = 10;

/// How somebody waits for a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// Whether it is said now and then how far it has come.
    pub(super) follow: bool,
    /// How long, at most.
    pub(super) timeout: Option<Duration>,
}

/// What was seen of a run.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How many items had a record when, oldest first.
    seen: VecDeque<(Duration, u32)>,
    /// When a line was written last, and what it told.
    line: Option<(Duration, RunState, u64)>,
}

impl Pace {
    /// Takes note of how many items have a record.
    pub(super) fn note(&mut self, at: Duration, recorded: u32) {
        self.seen.push_back((at, recorded));
        // One that is older than what is shown stays, so that the whole of that time is known.
        while self.seen.get(1).is_some_and(|(second, _)| at.saturating_sub(*second) >= SHOWN) {
            self.seen.pop_front();
        }
    }

    /// Says how a run stands.
    pub(super) fn words(&self, status: &RunStatus) -> String {
        let RunStatus { run, items, recorded, failed, waiting, .. } = status;
        let mut words = format!("{run} {} %, {recorded}/{items} items", share(status));
        if let Some((done, time)) = self.done() {
            let tenths = done * 10_000 / time;
            let rate = if tenths < 100 {
                format!("{}.{}", tenths / 10, tenths % 10)
            } else {
                (tenths / 10).to_string()
            };
            let left = u64::from(items.saturating_sub(*recorded)) * time / done;
            words.push_str(&format!(", {rate}/s, {} left", about(DurationMs(left))));
        }
        if *failed > 0 {
            words.push_str(&format!(", {failed} failed"));
        }
        if let Some(waiting) = waiting {
            words.push_str(&format!("; waiting: {waiting}"));
        }
        words
    }

    /// Returns how much was done lately, and in how many milliseconds; nothing if nothing was.
    fn done(&self) -> Option<(u64, u64)> {
        let ((began, before), (at, now)) = (self.seen.front()?, self.seen.back()?);
        let time = u64::try_from(at.saturating_sub(*began).as_millis()).unwrap_or(u64::MAX);
        let done = u64::from(now.saturating_sub(*before));
        (done > 0 && time > 0).then_some((done, time))
    }

    /// Tells whether enough has changed, or enough time has passed, for one more line.
    pub(super) fn is_worth_a_line(&mut self, at: Duration, status: &RunStatus) -> bool {
        let share = share(status);
        let is_worth_it = self.line.is_none_or(|(before, state, told)| {
            state != status.state
                || share / LINE_SHARE != told / LINE_SHARE
                || at.saturating_sub(before) >= LINE_TIME
        });
        if is_worth_it {
            self.line = Some((at, status.state, share));
        }
        is_worth_it
    }
}

/// Returns how many in a hundred have a record.
fn share(status: &RunStatus) -> u64 {
    u64::from(status.recorded) * 100 / u64::from(status.items).max(1)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn run(state: &str, recorded: u32, failed: u32) -> RunStatus {
        let json = format!(
            r#"{{"run":"r3","workload":"default/shop/sum","state":"{state}","items":2000,"recorded":{recorded},
            "succeeded":0,"failed":{failed},"fuel":0,"created":0}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    /// Says what is said of a run of which so many items have a record after so many seconds.
    fn said(seen: &[(u64, u32)]) -> String {
        let mut pace = Pace::default();
        let mut lines = String::new();
        for (seconds, recorded) in seen {
            let at = Duration::from_secs(*seconds);
            let status = run("running", *recorded, recorded / 500);
            pace.note(at, *recorded);
            let mark = if pace.is_worth_a_line(at, &status) { "*" } else { " " };
            lines.push_str(&format!("{seconds:02} s {mark} {}\n", pace.words(&status)));
        }
        lines
    }

    #[test]
    fn share_rate_and_time_left_are_those_of_the_last_half_minute() {
        expect![[r#"
            00 s * r3 0 %, 0/2000 items
            01 s   r3 0 %, 1/2000 items, 1.0/s, 33m19s left
            02 s   r3 5 %, 100/2000 items, 50/s, 38.0s left
            03 s * r3 10 %, 200/2000 items, 66/s, 27.0s left
            04 s   r3 11 %, 230/2000 items, 57/s, 30.7s left
            13 s * r3 15 %, 300/2000 items, 23/s, 1m13s left
            14 s   r3 15 %, 300/2000 items, 21/s, 1m19s left
            60 s * r3 15 %, 300/2000 items
            61 s   r3 15 %, 310/2000 items, 0.2/s, 2h12m left
            90 s * r3 30 %, 600/2000 items, 10/s, 2m20s left, 1 failed
            95 s * r3 100 %, 2000/2000 items, 49/s, 0ms left, 4 failed
        "#]]
        .assert_eq(&said(&[
            (0, 0),
            (1, 1),
            (2, 100),
            (3, 200),
            (4, 230),
            (13, 300),
            (14, 300),
            (60, 300),
            (61, 310),
            (90, 600),
            (95, 2000),
        ]));
    }

    #[test]
    fn a_run_that_waits_says_for_what() {
        let status = RunStatus { waiting: Some("it comes after r1".to_owned()), ..run("waiting", 0, 0) };
        let mut pace = Pace::default();
        pace.note(Duration::ZERO, 0);
        expect!["r3 0 %, 0/2000 items; waiting: it comes after r1"].assert_eq(&pace.words(&status));
        assert!(pace.is_worth_a_line(Duration::ZERO, &status));
        assert!(!pace.is_worth_a_line(Duration::from_secs(9), &status));
        assert!(pace.is_worth_a_line(Duration::from_secs(9), &run("running", 0, 0)));
        let empty = RunStatus { items: 0, ..run("running", 0, 0) };
        expect!["r3 0 %, 0/0 items"].assert_eq(&pace.words(&empty));
    }
}
