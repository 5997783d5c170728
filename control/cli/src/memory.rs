//! The program's allocator, and how its processes give back what they have no use for any more.
//!
//! mimalloc keeps what a thread has freed for the same thread, in each size that there was, and returns it to the system
//! only while it is asked for more. A process that was busy once and idles now would keep all of it. So a thread that
//! is about to wait gives it back, though not often: what is given back must be asked for again.

use std::cell::Cell;
use std::time::{Duration, Instant};

// The default allocator of a static binary is slow under many threads, and workers have many.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often a thread gives back at most.
const INTERVAL: Duration = Duration::from_secs(1);

thread_local! {
    static TIDIED: Cell<Option<Instant>> = const { Cell::new(None) };
}

#[expect(unsafe_code, reason = "it is a function of C")]
unsafe extern "C" {
    fn mi_collect(force: bool);
}

/// Gives back what this thread has freed, unless it has done so a moment ago.
#[expect(unsafe_code, reason = "the allocator has no safe function for it")]
pub(crate) fn tidy() {
    let now = Instant::now();
    let is_recent = |at: Instant| now.duration_since(at) < INTERVAL;
    // A thread that is about to end gives back everything anyhow.
    let is_due = TIDIED.try_with(|tidied| {
        let is_due = !tidied.get().is_some_and(is_recent);
        if is_due {
            tidied.set(Some(now));
        }
        is_due
    });
    if is_due.unwrap_or(false) {
        // SAFETY: It is a function of the program's allocator, which may be called by any thread at any time and
        // touches nothing that is in use.
        unsafe { mi_collect(true) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_stays_as_it_is() {
        let kept: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
        drop((0..10_000).map(|number| vec![number; 100]).collect::<Vec<_>>());
        tidy();
        tidy();
        assert!(kept.iter().enumerate().all(|(number, text)| *text == number.to_string()));
    }
}
