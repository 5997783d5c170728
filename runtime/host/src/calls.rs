//! What one instance asks of the host: counted, and charged in fuel.
//!
//! A call into the host costs time that the guest's own fuel does not show, also when it does nothing; so each costs
//! [`CALL_FUEL`] and each byte that it moves its share of [`BYTES_PER_FUEL`]. It is charged where the call returns,
//! which is at the same place on every run. Calls that wasmtime makes for itself, because time has passed or a slice of
//! fuel is used up, are no calls of the guest: they are neither counted nor charged.
//!
//! A slice goes on over calls into the host: what is left of it after a call is what the guest gets before wasmtime
//! looks at it again. So a guest that does nothing but call the host stops as often as one that computes.

use dunlin_model::{Bytes, Fuel, HostCalls};
use wasmtime::{AsContextMut as _, CallHook, Store, StoreContextMut, Trap};

use crate::guest::Guest;

/// What a call into the host costs. Measured by the bench `fuel-rate`: the cheapest, which reads the clock, takes as long
/// as about 530 of the guest's own steps, one that writes nothing as long as 1,600.
pub const CALL_FUEL: u64 = 500;
/// How many bytes that a call moves cost one fuel more. Measured there: writing twelve takes as long as one step.
pub const BYTES_PER_FUEL: u64 = 8;

/// What is done when a slice of fuel is used up, before the guest gives its thread back; returns how much the next has.
pub type SliceEnd = Box<dyn FnMut(StoreContextMut<'_, Guest>) -> wasmtime::Result<u64> + Send + Sync>;

/// How an instance whose fuel is counted is stopped.
pub struct Slice {
    /// How much it may burn before wasmtime looks at it for the first time.
    pub fuel: u64,
    /// What is done then, and each time after.
    pub ended: SliceEnd,
}

/// The account of one instance.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    calls: u64,
    bytes: u64,
    /// Of these, what is not yet charged.
    uncharged: u64,
    /// Whether the call that is under way is wasmtime's own.
    is_own: bool,
    /// Whether a call of the guest by the host is one of its calls, too: where a guest does several things at a time, it
    /// is called whenever one of them goes on, and each time is work of the host.
    counts_entries: bool,
    metered: Option<Metered>,
}

/// How an instance is metered whose fuel is counted.
#[derive(Debug)]
struct Metered {
    /// How much its first slice has.
    first: u64,
    /// What it has left when its slice is used up.
    end: u64,
}

impl Calls {
    /// Returns the account of an instance; by fuel if there is a slice after which wasmtime looks at it.
    pub(crate) fn new(slice: Option<u64>) -> Self {
        Self { metered: slice.map(|first| Metered { first, end: 0 }), ..Self::default() }
    }

    pub(crate) fn count(&self) -> HostCalls {
        HostCalls { calls: self.calls, bytes: Bytes(self.bytes) }
    }

    /// Takes note of bytes that the call under way moves.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.uncharged += bytes as u64;
    }

    /// Begins anew for the next request of a reused instance.
    pub(crate) fn reset(&mut self) {
        let slice = self.metered.as_ref().map(|metered| metered.first);
        *self = Self { counts_entries: self.counts_entries, ..Self::new(slice) };
    }

    /// Says that the call under way is wasmtime's own.
    pub(crate) fn disown(&mut self) {
        if !self.is_own {
            self.is_own = true;
            self.calls = self.calls.saturating_sub(1);
        }
    }

    /// Takes note of a call when it begins, with the fuel that is left, and tells whether that is wasmtime's own, since
    /// the slice is used up.
    fn begin(&mut self, left: u64) -> bool {
        self.calls += 1;
        let is_used_up = self.metered.as_ref().is_some_and(|metered| left <= metered.end);
        if is_used_up {
            self.disown();
        }
        is_used_up
    }

    /// Begins a slice of so much, with the fuel that is left.
    fn begin_slice(&mut self, left: u64, slice: u64) {
        if let Some(metered) = &mut self.metered {
            metered.end = left.saturating_sub(slice);
        }
    }

    /// Returns how much is left of the slice of a guest that has so much fuel; at least some, so that it comes to its
    /// end.
    fn rest(&self, left: u64) -> Option<u64> {
        self.metered.as_ref().map(|metered| left.saturating_sub(metered.end).max(1))
    }

    /// Returns what the call that ends costs.
    fn cost(&mut self) -> u64 {
        if std::mem::take(&mut self.is_own) {
            return 0;
        }
        CALL_FUEL + std::mem::take(&mut self.uncharged).div_ceil(BYTES_PER_FUEL)
    }
}

/// Counts and charges the calls of the instance in `store`, and stops it as `slice` says, if its fuel is counted.
pub(crate) fn watch(store: &mut Store<Guest>, slice: Option<SliceEnd>) {
    store.data_mut().calls.counts_entries = store.concurrent_resource_table().is_some();
    if let Some(mut ended) = slice {
        store.call_hook(move |context, hook| charged(context, hook, &mut ended));
    } else {
        store.call_hook(|mut context, hook| {
            let calls = &mut context.data_mut().calls;
            match hook {
                CallHook::CallingHost => calls.calls += 1,
                CallHook::ReturningFromHost => calls.is_own = false,
                CallHook::CallingWasm if calls.counts_entries => calls.calls += 1,
                CallHook::CallingWasm | CallHook::ReturningFromWasm => {}
            }
            Ok(())
        });
    }
}

fn charged(
    mut context: StoreContextMut<'_, Guest>,
    hook: CallHook,
    slice_ended: &mut SliceEnd,
) -> wasmtime::Result<()> {
    match hook {
        CallHook::CallingHost => {
            let left = context.get_fuel()?;
            if context.data_mut().calls.begin(left) {
                let next = slice_ended(context.as_context_mut())?.max(1);
                context.data_mut().calls.begin_slice(left, next);
                context.fuel_async_yield_interval(Some(next))?;
            }
            Ok(())
        }
        CallHook::ReturningFromHost => {
            let cost = context.data_mut().calls.cost();
            if cost == 0 { Ok(()) } else { charge(context, cost) }
        }
        CallHook::CallingWasm if context.data().calls.counts_entries => {
            context.data_mut().calls.calls += 1;
            charge(context, CALL_FUEL)
        }
        CallHook::CallingWasm | CallHook::ReturningFromWasm => Ok(()),
    }
}

/// Takes what a call costs from the fuel of its instance, and from the slice that it is in.
fn charge(mut context: StoreContextMut<'_, Guest>, cost: u64) -> wasmtime::Result<()> {
    let left = context.get_fuel()?;
    let rest = left.saturating_sub(cost);
    let slice = context.data().calls.rest(rest);
    context.fuel_async_yield_interval(slice)?;
    context.set_fuel(rest)?;
    if left < cost { Err(Trap::OutOfFuel.into()) } else { Ok(()) }
}

/// Gives the instance in `store` so much fuel to burn.
pub(crate) fn set_fuel(store: &mut Store<Guest>, fuel: Fuel) -> wasmtime::Result<()> {
    if let Some(metered) = &mut store.data_mut().calls.metered {
        metered.end = fuel.0.saturating_sub(metered.first);
        let slice = metered.first;
        store.set_fuel(fuel.0)?;
        store.fuel_async_yield_interval(Some(slice))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_and_every_byte_has_its_price() {
        let mut calls = Calls::new(Some(1_000));
        calls.begin(10_000);
        assert_eq!(calls.cost(), CALL_FUEL, "an empty call costs, too");
        calls.begin(9_800);
        calls.moved(4_096);
        assert_eq!(calls.cost(), CALL_FUEL + 512);
        assert_eq!(calls.count(), HostCalls { calls: 2, bytes: Bytes(4_096) });
    }

    #[test]
    fn what_wasmtime_does_for_itself_is_free() {
        let mut calls = Calls::new(Some(1_000));
        calls.metered.as_mut().unwrap().end = 9_000;
        assert!(calls.begin(9_000));
        calls.begin_slice(9_000, 1_000);
        assert_eq!(calls.cost(), 0, "a slice was used up");
        assert!(!calls.begin(8_500));
        calls.disown();
        assert_eq!(calls.cost(), 0, "time had passed");
        calls.begin(8_400);
        assert_eq!(calls.cost(), CALL_FUEL);
        assert_eq!(calls.count().calls, 1);
    }

    #[test]
    fn a_slice_goes_on_over_calls_and_comes_to_its_end() {
        let mut calls = Calls::new(Some(1_000));
        calls.metered.as_mut().unwrap().end = 9_000;
        assert_eq!(calls.rest(9_400), Some(400));
        assert_eq!(calls.rest(8_900), Some(1), "a call took what was left of it");
        assert!(calls.begin(8_899));
        calls.begin_slice(8_899, 2_000);
        assert_eq!(calls.rest(8_000), Some(1_101), "the next slice may have another length");
    }
}
