//! What wasmtime reports, as an outcome.

use dunlin_host::{Guest, LimitExceeded};
use dunlin_model::{Bytes, LimitHit, Limits, Outcome};
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmCoreDump};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::FieldMapError;

use crate::limits::{MAX_TRAP_TEXT, WASM_STACK};

/// How a call into a guest came to its end.
pub(crate) enum Ending<T> {
    /// By itself: it returned, exited or trapped.
    Returned(wasmtime::Result<T>),
    /// Its deadline passed.
    DeadlinePassed,
    /// It was ended from outside.
    Cancelled,
}

/// Returns the outcome of a call into `guest` that failed with `error`.
pub(crate) fn of_error(error: &wasmtime::Error, guest: &Guest) -> Outcome {
    let limits = guest.limits();
    if let Some(I32Exit(0)) = error.downcast_ref() {
        return Outcome::Completed;
    }
    if error.downcast_ref() == Some(&Trap::OutOfFuel) {
        return Outcome::OutOfFuel { limit: limits.fuel };
    }
    if let Some(hit) = limit_of_error(error, limits) {
        return Outcome::LimitExceeded { hit };
    }
    let outcome = match error.downcast_ref() {
        Some(I32Exit(code)) => Outcome::Exited { code: u8::try_from(*code).unwrap_or(u8::MAX) },
        None if error.is::<PoolConcurrencyLimitError>() => {
            Outcome::NotStarted { reason: format!("the worker has no room for one more instance: {error:#}") }
        }
        None => Outcome::Trapped { reason: trap_text(error) },
    };
    or_denied(outcome, guest)
}

/// A guest that is refused memory mostly panics or exits; what it could not do is the reason to name.
pub(crate) fn or_denied(outcome: Outcome, guest: &Guest) -> Outcome {
    if let Some(denial) = guest.denials().of("memory") {
        let (limit, observed) = (Bytes(denial.value.number()), Bytes(denial.observed.number()));
        return Outcome::OutOfMemory { limit, observed };
    }
    match guest.denials().of("table_elements") {
        Some(denial) => Outcome::LimitExceeded { hit: denial.into() },
        None => outcome,
    }
}

/// Returns the limit for which a call failed, if it was one. Where wasmtime has no type for it, its words decide; a
/// test for each of them sees when they change.
fn limit_of_error(error: &wasmtime::Error, limits: &Limits) -> Option<LimitHit> {
    if let Some(LimitExceeded(denial)) = error.downcast_ref() {
        return Some((*denial).into());
    }
    if error.downcast_ref() == Some(&Trap::StackOverflow) {
        return Some(LimitHit::new("stack", Bytes(WASM_STACK as u64), "more"));
    }
    match error.downcast_ref() {
        Some(FieldMapError::TotalSizeTooBig) => {
            return Some(LimitHit::new("header_bytes", limits.header_bytes, "more"));
        }
        Some(FieldMapError::TooManyFields) => {
            return Some(LimitHit::new("headers", limits.headers, "more"));
        }
        Some(_) | None => {}
    }
    let one_more = |count: u32| format!("{}", u64::from(count) + 1);
    if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
        return Some(LimitHit::new("handles", limits.handles, one_more(limits.handles)));
    }
    let text = without_dump(error, |error| format!("{error:#}"));
    if text.contains("store handle limit exceeded") {
        return Some(LimitHit::new("handles", limits.handles, one_more(limits.handles)));
    }
    if text.contains("fuel allocated for hostcalls has been exhausted") {
        return Some(LimitHit::new("host_call_bytes", limits.host_call_bytes, "more"));
    }
    let counts = [
        ("core_instances", limits.core_instances, "instance count too high at "),
        ("memories", limits.memories, "memory count too high at "),
        ("tables", limits.tables, "table count too high at "),
    ];
    counts.into_iter().find_map(|(name, limit, words)| {
        let (_, observed) = text.split_once(words)?;
        let digits = observed.bytes().take_while(u8::is_ascii_digit).count();
        Some(LimitHit::new(name, limit, &observed[..digits]))
    })
}

/// Returns what wasmtime says of an error, with the guest's stack, cut at [`MAX_TRAP_TEXT`].
pub(crate) fn trap_text(error: &wasmtime::Error) -> String {
    let mut text = without_dump(error, |error| format!("{error:?}"));
    if text.len() > MAX_TRAP_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TRAP_TEXT));
        text.push_str(" ...");
    }
    text
}

/// Returns what `form` makes of an error, without what it says of a core dump: that is a list of all that a guest has.
fn without_dump(error: &wasmtime::Error, form: impl Fn(&wasmtime::Error) -> String) -> String {
    const DUMP: &str = "wasm coredump generated while executing";
    if !error.is::<WasmCoreDump>() {
        return form(error);
    }
    let mut words: Vec<String> = error.chain().map(ToString::to_string).collect();
    words.retain(|words| !words.starts_with(DUMP));
    let Some(cause) = words.pop() else { return String::new() };
    form(&words.into_iter().rev().fold(wasmtime::Error::msg(cause), wasmtime::Error::context))
}
