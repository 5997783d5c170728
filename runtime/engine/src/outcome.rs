//! What wasmtime reports, as an outcome.

use dunlin_host::Limiter;
use dunlin_model::{Limits, Outcome};
use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::I32Exit;

use crate::limits::MAX_TRAP_TEXT;

/// How a call into a guest came to its end.
pub(crate) enum Ending<T> {
    /// By itself: it returned, exited or trapped.
    Returned(wasmtime::Result<T>),
    /// Its deadline passed.
    DeadlinePassed,
    /// It was ended from outside.
    Cancelled,
}

/// Returns the outcome of a call that failed with `error`, in an instance whose memory `limiter` has watched.
pub(crate) fn of_error(error: &wasmtime::Error, limiter: &Limiter, limits: &Limits) -> Outcome {
    if let Some(I32Exit(0)) = error.downcast_ref() {
        return Outcome::Completed;
    }
    if error.downcast_ref() == Some(&Trap::OutOfFuel) {
        return Outcome::OutOfFuel { limit: limits.fuel };
    }
    // A guest that is refused memory mostly panics or exits; what it could not do is the reason to name.
    if let Some(denied) = limiter.denied() {
        return Outcome::OutOfMemory { limit: denied.limit, observed: denied.observed };
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return Outcome::Exited { code: u8::try_from(*code).unwrap_or(u8::MAX) };
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Outcome::NotStarted {
            reason: format!("the worker has no room for one more instance: {error:#}"),
        };
    }
    Outcome::Trapped { reason: trap_text(error) }
}

/// Returns what wasmtime says of an error, with the guest's stack, cut at [`MAX_TRAP_TEXT`].
pub(crate) fn trap_text(error: &wasmtime::Error) -> String {
    let mut text = format!("{error:?}");
    if text.len() > MAX_TRAP_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TRAP_TEXT));
        text.push_str(" ...");
    }
    text
}
