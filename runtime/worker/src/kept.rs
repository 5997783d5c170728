//! Memory that guests have left behind, and when it is given back.
//!
//! The places in which guests run keep memory between one guest and the next (`runtime/engine/src/kinds.rs`). While guests
//! come and go that is what makes them cheap; afterwards it is only held. What one guest after the other has taken is
//! therefore given back when nobody runs anything for a moment, and where somebody always does, now and then.
//!
//! What one thread has asked for and another frees stays with the first one, which gives it back when it is about to wait
//! (`run`'s `tidy`). A thread that waits already would hold it until there is something to do for it: it is woken.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use dunlin_engine::{Engine, Renewal};
use tokio::runtime::Handle;

/// How much more memory than the least there was is kept while nothing runs.
const IDLE_KEPT: u64 = 4 << 20;
/// After how long nothing runs, as far as memory is concerned.
const IDLE: Duration = Duration::from_secs(2);
/// How much more there may be while something runs.
const BUSY_KEPT: u64 = 64 << 20;
/// How often that is looked at: to give back makes all code be loaded again.
const BUSY: Duration = Duration::from_secs(60);
/// At how many looks after it was given back threads are woken: one that is busy at the first is not at the next.
const ROUSED: u32 = 3;
/// The list of a process's figures is longer than what is read of it, which has the memory in it.
const FIGURES: usize = 2 << 10;

/// The memory of this process.
#[derive(Debug)]
pub(crate) struct Kept {
    /// What the system says of this process.
    figures: Option<File>,
    /// The least there was since all of it was given back.
    least: Option<u64>,
    /// When it was given back.
    given_back: Instant,
    /// At how many more looks threads are to be woken.
    to_rouse: u32,
}

impl Kept {
    /// Opens what tells of it. Behind a wall that cannot be done any more.
    pub(crate) fn of_this_process() -> Self {
        Self {
            figures: File::open("/proc/self/status").ok(),
            least: None,
            given_back: Instant::now(),
            to_rouse: 0,
        }
    }

    /// Gives back what is kept, if it is time. Is to be called once a second by a task of the runtime.
    pub(crate) fn look(&mut self, engine: &Engine) {
        if let Some(left) = self.to_rouse.checked_sub(1) {
            self.to_rouse = left;
            rouse();
        }
        let Some(held) = self.held() else { return };
        let least = held.min(self.least.unwrap_or(held));
        self.least = Some(least);
        let more = held - least;
        if !is_due(more, engine.idle(), self.given_back.elapsed()) {
            return;
        }
        let began = Instant::now();
        let renewal = engine.renew();
        match renewal {
            Renewal::Refused => return,
            // It is read at once: in a moment the next guests have come.
            Renewal::Done => self.least = self.held().map(|held| least_after(least, held)),
            Renewal::Begun => {}
        }
        self.given_back = Instant::now();
        self.to_rouse = ROUSED;
        let took_ms = began.elapsed().as_millis();
        tracing::debug!(more, ?renewal, took_ms, "memory of guests given back");
    }

    fn held(&self) -> Option<u64> {
        held(self.figures.as_ref()?)
    }
}

/// Tells whether memory is to be given back of which there is so much more than the least, when nothing ran for `idle`
/// and the last time is `since` ago.
fn is_due(more: u64, idle: Duration, since: Duration) -> bool {
    let has_run = idle < since;
    has_run && ((more > IDLE_KEPT && idle >= IDLE) || (more > BUSY_KEPT && since >= BUSY))
}

/// Returns what is taken for the least, when it was `least` before and so much is `held` right after all was given back.
/// What there is more may be loaded and stay, or threads may not have let go of it yet: half of it is believed each time.
fn least_after(least: u64, held: u64) -> u64 {
    held.min(least) + held.saturating_sub(least) / 2
}

/// Wakes threads of the runtime that wait, as many as there are. Each gives back what it has no use for before it waits again.
fn rouse() {
    for _ in 0..Handle::current().metrics().num_workers() {
        drop(tokio::spawn(async {}));
    }
}

/// Returns how many bytes of memory are this process's own.
fn held(figures: &File) -> Option<u64> {
    let mut text = [0; FIGURES];
    let length = figures.read_at(&mut text, 0).ok()?;
    own_memory(std::str::from_utf8(text.get(..length)?).ok()?)
}

fn own_memory(figures: &str) -> Option<u64> {
    let line = figures.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_given_back_when_nothing_runs_or_now_and_then_if_it_is_much() {
        let (moment, hour) = (Duration::from_millis(1), Duration::from_secs(3600));
        assert!(is_due(IDLE_KEPT + 1, IDLE, IDLE + moment));
        assert!(!is_due(IDLE_KEPT + 1, IDLE, IDLE), "nothing has run since");
        assert!(!is_due(IDLE_KEPT, IDLE, hour), "it is worth nothing");
        assert!(!is_due(BUSY_KEPT, moment, hour), "guests come and go");
        assert!(is_due(BUSY_KEPT + 1, moment, BUSY));
        assert!(!is_due(BUSY_KEPT + 1, moment, BUSY - moment), "it was done a moment ago");
    }

    #[test]
    fn what_is_left_is_believed_to_stay_only_when_it_does() {
        let mebibytes = 1 << 20;
        assert_eq!(least_after(8 * mebibytes, 6 * mebibytes), 6 * mebibytes);
        assert_eq!(least_after(8 * mebibytes, 14 * mebibytes), 11 * mebibytes);
        // What is loaded and stays is not given back for ever.
        let left = 72 * mebibytes;
        let mut times = 0;
        let mut least = 8 * mebibytes;
        while left - least > IDLE_KEPT {
            least = least_after(least, left);
            times += 1;
        }
        assert_eq!(times, 4);
    }

    #[test]
    fn the_memory_of_a_process_is_what_the_system_says() {
        let figures = "Name:\tdunlin\nVmRSS:\t   20000 kB\nRssAnon:\t    7680 kB\nRssFile:\t  12320 kB\n";
        assert_eq!(own_memory(figures), Some(7680 << 10));
        assert_eq!(own_memory("Name:\tdunlin\n"), None);
        let kept = Kept::of_this_process();
        assert!(held(&kept.figures.unwrap()).unwrap() > 0);
    }
}
