//! Where a computing guest stops to let others run.
//!
//! At the end of a slice the guest leaves its code and gives its thread back, as wasmtime sees to. Whether it may go on
//! at once, or must first wait for what it burned or called too fast, is decided here, by whoever polls it: nothing is
//! kept ready for that in an instance that ends before its first slice does.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use dunlin_model::FuelRate;

use crate::limits::{FUEL_SLICE, MOST_FUEL_SLICE, SHORT_SLICE, SLICES_OF_A_RATE};
use crate::meter::{Meter, next_instance};

/// The pauses of one instance. Cheap to clone; all clones are of the same one.
#[derive(Clone, Debug)]
pub(crate) struct Pause(Arc<Asked>);

#[derive(Debug)]
struct Asked {
    /// Tells the instance from all others of the process.
    instance: u64,
    due: Mutex<Option<Due>>,
}

/// A pause that is due.
#[derive(Clone, Copy, Debug)]
struct Due {
    /// For how long it must wait in any case.
    at_least: Option<Duration>,
}

impl Pause {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Asked { instance: next_instance(), due: Mutex::default() }))
    }

    /// Asks for a pause as soon as the guest gives its thread back, of a certain length if that is known already.
    pub(crate) fn ask(&self, at_least: Option<Duration>) {
        *self.0.due.lock().unwrap_or_else(PoisonError::into_inner) = Some(Due { at_least });
    }

    fn take(&self) -> Option<Due> {
        self.0.due.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Runs `call`, with a pause wherever one is asked for, until `meter` says that it is the instance's turn again.
    pub(crate) async fn between<T>(&self, meter: &Arc<Meter>, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        loop {
            let ended = std::future::poll_fn(|context| match call.as_mut().poll(context) {
                Poll::Ready(value) => Poll::Ready(Ok(value)),
                Poll::Pending => match self.take() {
                    Some(due) => Poll::Ready(Err(due)),
                    None => Poll::Pending,
                },
            });
            match ended.await {
                Ok(value) => return value,
                // In a box, since most instances never come here.
                Err(due) => Box::pin(meter.turn(self.0.instance, due.at_least)).await,
            }
        }
    }
}

/// Returns how much fuel the slice has that comes after one of `last`, which took so long, at this rate.
///
/// Straight code burns a million in a thirtieth of a millisecond, a chain of loads from memory in a hundred. What a slice
/// costs beside is the same for both, so those that are over at once become longer, and no longer at the first that is
/// not. A rate is kept as well as before: what is burned at one go is what may be burned in 10 ms, or a million.
pub(crate) fn next_slice(last: u64, took: Duration, rate: FuelRate) -> u64 {
    let most = (rate.0 / SLICES_OF_A_RATE).clamp(FUEL_SLICE, MOST_FUEL_SLICE);
    if took < SHORT_SLICE { last.saturating_mul(2).min(most) } else { FUEL_SLICE }
}

#[cfg(test)]
mod tests {
    use dunlin_model::{Fuel, FuelRate};
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn who_is_asked_to_pause_does_so_once_and_for_as_long_as_it_must() {
        let meter = Arc::new(Meter::new(1, FuelRate(1_000_000), Fuel(1)));
        let pause = Pause::new();
        let began = Instant::now();
        let polled = pause
            .between(&meter, async {
                pause.ask(Some(Duration::from_millis(20)));
                tokio::task::yield_now().await;
                let waited = began.elapsed();
                tokio::task::yield_now().await;
                (waited, began.elapsed() - waited)
            })
            .await;
        assert!(polled.0 >= Duration::from_millis(20), "{polled:?}");
        assert!(polled.1 < Duration::from_millis(20), "{polled:?}");
    }

    #[tokio::test]
    async fn a_pause_lasts_until_what_was_burned_is_earned() {
        let meter = Arc::new(Meter::new(2, FuelRate(1_000), Fuel(1)));
        let pause = Pause::new();
        let began = Instant::now();
        pause
            .between(&meter, async {
                meter.debit(Fuel(31), Instant::now());
                pause.ask(None);
                tokio::task::yield_now().await;
            })
            .await;
        assert!(began.elapsed() >= Duration::from_millis(25), "{:?}", began.elapsed());
    }

    #[test]
    fn slices_become_longer_while_they_are_over_at_once_and_the_rate_allows_it() {
        let (short, long) = (Duration::from_micros(30), Duration::from_micros(300));
        let fast = FuelRate(1_000_000_000_000);
        assert_eq!(next_slice(FUEL_SLICE, short, fast), 2 * FUEL_SLICE);
        assert_eq!(next_slice(2 * FUEL_SLICE, short, fast), 4 * FUEL_SLICE);
        assert_eq!(next_slice(4 * FUEL_SLICE, short, fast), MOST_FUEL_SLICE);
        assert_eq!(next_slice(4 * FUEL_SLICE, long, fast), FUEL_SLICE);
        assert_eq!(
            next_slice(2 * FUEL_SLICE, short, FuelRate(300_000_000)),
            3 * FUEL_SLICE,
            "10 ms of its rate"
        );
        assert_eq!(next_slice(FUEL_SLICE, short, FuelRate(20_000_000)), FUEL_SLICE);
    }
}
