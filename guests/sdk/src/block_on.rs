//! Runs a future to its end. There is one at a time on a thread: what waits is woken by the outermost.

use std::cell::Cell;
use std::future::Future;

use crate::platform;

thread_local! {
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a future to its end: what a job that is not `async` needs for [`send`](crate::send()).
///
/// # Panics
///
/// If it is called within a future that it runs, or within a service.
pub fn block_on<F: Future>(future: F) -> F::Output {
    /// Says that it has ended, also where the future panics.
    struct End;

    impl Drop for End {
        fn drop(&mut self) {
            IS_RUNNING.set(false);
        }
    }

    assert!(
        !IS_RUNNING.replace(true),
        "`block_on` is called within a service, an `async` job or another `block_on`: make the function `async` and write \
         `.await` instead"
    );
    let _end = End;
    platform::block_on(future)
}

#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod tests {
    use super::*;
    use crate::test::Host;

    /// Returns what is said where this panics.
    fn panics(work: impl FnOnce() + std::panic::UnwindSafe) -> &'static str {
        *std::panic::catch_unwind(work).unwrap_err().downcast::<&str>().unwrap()
    }

    #[test]
    fn within_another_it_panics_with_what_to_write_instead() {
        let within_itself = || block_on(async { block_on(async {}) });
        let within_a_service = || Host::new().run(async { block_on(async {}) });
        for said in [panics(within_itself), panics(within_a_service)] {
            assert!(said.contains("write `.await` instead"), "{said}");
        }
        assert_eq!(block_on(async { 7 }), 7);
    }
}
