//! What one instance asks of the host: counted, and charged in fuel.
//!
//! A call into the host costs time that the guest's own fuel does not show, also when it does nothing; so each costs
//! [`CALL_FUEL`] and each byte that it moves its share of [`BYTES_PER_FUEL`]. It is charged where the call returns,
//! which is at the same place on every run. Calls that wasmtime makes for itself, because time has passed or a slice of
//! fuel is used up, are no calls of the guest: they are neither counted nor charged.

use dunlin_model::{Bytes, Fuel, HostCalls};
use wasmtime::{CallHook, Store, StoreContextMut, Trap};

use crate::guest::Guest;

/// What a call into the host costs. Measured by the bench `fuel-rate`: the cheapest, which reads the clock, takes as long
/// as about 530 of the guest's own steps, one that writes nothing as long as 1,600.
pub const CALL_FUEL: u64 = 500;
/// How many bytes that a call moves cost one fuel more. Measured there: writing twelve takes as long as one step.
pub const BYTES_PER_FUEL: u64 = 8;

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
    /// How much it may burn before wasmtime looks at it again.
    slice: u64,
    /// What it had when that count began.
    began: u64,
}

impl Calls {
    /// Returns the account of an instance; by fuel if there is a slice after which wasmtime looks at it.
    pub(crate) fn new(slice: Option<u64>) -> Self {
        Self { metered: slice.map(|slice| Metered { slice, began: 0 }), ..Self::default() }
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
        let slice = self.metered.as_ref().map(|metered| metered.slice);
        *self = Self { counts_entries: self.counts_entries, ..Self::new(slice) };
    }

    /// Says that the call under way is wasmtime's own.
    pub(crate) fn disown(&mut self) {
        if !self.is_own {
            self.is_own = true;
            self.calls = self.calls.saturating_sub(1);
        }
    }

    /// Takes note of a call when it begins, with the fuel that is left.
    fn begin(&mut self, left: u64) {
        self.calls += 1;
        if let Some(metered) = &mut self.metered
            && left.saturating_add(metered.slice) <= metered.began
        {
            // The slice is used up, so this is wasmtime looking for more.
            metered.began = left;
            self.disown();
        }
    }

    /// Returns what the call that ends costs.
    fn cost(&mut self) -> u64 {
        if std::mem::take(&mut self.is_own) {
            return 0;
        }
        CALL_FUEL + std::mem::take(&mut self.uncharged).div_ceil(BYTES_PER_FUEL)
    }
}

/// Counts and charges the calls of the instance in `store`.
pub(crate) fn watch(store: &mut Store<Guest>) {
    store.data_mut().calls.counts_entries = store.concurrent_resource_table().is_some();
    if store.data().calls.metered.is_some() {
        store.call_hook(charged);
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

fn charged(mut context: StoreContextMut<'_, Guest>, hook: CallHook) -> wasmtime::Result<()> {
    match hook {
        CallHook::CallingHost => {
            let left = context.get_fuel()?;
            context.data_mut().calls.begin(left);
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

fn charge(mut context: StoreContextMut<'_, Guest>, cost: u64) -> wasmtime::Result<()> {
    let left = context.get_fuel()?;
    let rest = left.saturating_sub(cost);
    context.set_fuel(rest)?;
    if let Some(metered) = &mut context.data_mut().calls.metered {
        metered.began = rest;
    }
    if left < cost { Err(Trap::OutOfFuel.into()) } else { Ok(()) }
}

/// Gives the instance in `store` so much fuel to burn.
pub(crate) fn set_fuel(store: &mut Store<Guest>, fuel: Fuel) -> wasmtime::Result<()> {
    if let Some(metered) = &mut store.data_mut().calls.metered {
        metered.began = fuel.0;
        let slice = metered.slice;
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
        calls.metered.as_mut().unwrap().began = 10_000;
        calls.begin(9_000);
        assert_eq!(calls.cost(), 0, "a slice was used up");
        calls.begin(8_500);
        calls.disown();
        assert_eq!(calls.cost(), 0, "time had passed");
        calls.begin(8_400);
        assert_eq!(calls.cost(), CALL_FUEL);
        assert_eq!(calls.count().calls, 1);
    }
}
