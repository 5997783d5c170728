//! How much fuel this machine burns in a second.

use std::time::{Duration, Instant};

use dunlin_model::FuelRate;
use wasmtime::{Engine, Instance, Module, Store};

use crate::checks::Checks;
use crate::config::config;

/// How long one measurement lasts at least.
const MEASURED: Duration = Duration::from_millis(60);
/// How many are made; the fastest counts, since others only ever make it slower.
const MEASUREMENTS: usize = 3;

/// Why there is no measure.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// wasmtime does not work on this machine.
    #[error("cannot measure how much fuel this machine burns: {0}")]
    Wasmtime(String),
}

/// Returns how much fuel all processors of this machine burn in a second: the rate of one, which is measured in a
/// fraction of a second, times their number.
pub fn calibrate() -> Result<FuelRate, CalibrateError> {
    let one = measure().map_err(|error| CalibrateError::Wasmtime(format!("{error:#}")))?;
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    Ok(FuelRate(one.saturating_mul(processors)))
}

fn measure() -> wasmtime::Result<u64> {
    let engine = Engine::new(&config(Checks::Fuel, false))?;
    let wasm = wat::parse_str(include_str!("calibration.wat"))
        .map_err(|error| wasmtime::format_err!("calibration.wat: {error}"))?;
    let module = Module::new(&engine, wasm)?;
    let mut store = Store::new(&engine, ());
    store.set_fuel(u64::MAX)?;
    let instance = Instance::new(&mut store, &module, &[])?;
    let run = instance.get_typed_func::<i32, i32>(&mut store, "run")?;

    let mut rounds = 100_000;
    let mut best = 0;
    let mut measurements = 0;
    while measurements < MEASUREMENTS {
        let (before, started) = (store.get_fuel()?, Instant::now());
        run.call(&mut store, rounds)?;
        let (burned, took) = (before - store.get_fuel()?, started.elapsed());
        if took < MEASURED && rounds < i32::MAX / 2 {
            rounds *= 2;
            continue;
        }
        let nanos = took.as_nanos().max(1);
        let rate = u128::from(burned) * 1_000_000_000 / nanos;
        best = best.max(u64::try_from(rate).unwrap_or(u64::MAX));
        measurements += 1;
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_burns_millions_per_second_and_it_is_measured_in_less_than_one() {
        let started = Instant::now();
        let rate = calibrate().unwrap();
        assert!(rate.0 > 10_000_000, "{rate}");
        assert!(started.elapsed() < Duration::from_secs(10), "on a loaded machine, too");
    }
}
