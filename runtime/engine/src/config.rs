//! How wasmtime is set up: the same for the worker and for the compiler, but for how memory is found.

use std::num::NonZeroUsize;

use dunlin_model::{Limits, Metering};
use wasmparser::WasmFeatures;
use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails,
};

use crate::limits::{
    ASYNC_STACK, POOL_CORE_INSTANCES, POOL_INSTANCES, POOL_MEMORIES, POOL_TABLES, WASM_STACK,
};

/// How much of each memory slot that a guest wrote to stays with the process between instances.
const KEPT_MEMORY: usize = 1 << 20;
/// How much of each table slot that a guest wrote to stays with the process between instances.
const KEPT_TABLE: usize = 64 << 10;
/// How many slots that nobody uses keep what they hold for the next instance of the same component.
const WARM_SLOTS: u32 = 64;
/// What part of the room for others there is for instances that are metered by time.
const BY_TIME_SHARE: u32 = 8;
/// How many frames of a guest's stack a trap shows.
const BACKTRACE_FRAMES: usize = 32;

/// Returns what compiler and runtime must agree on for guests that are metered so. Epochs are in all code: without them
/// a guest could keep a thread for ever.
pub(crate) fn config(metering: Metering) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .consume_fuel(metering == Metering::Fuel)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(ASYNC_STACK)
        // Where a component says from which lines it was made, its author is told.
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES))
        .relaxed_simd_deterministic(true)
        // What admission lets through is what the engine can run; all else is off, now and in later versions.
        .wasm_features(WasmFeatures::all().difference(dunlin_admission::features()), false)
        .wasm_features(dunlin_admission::features(), true)
        .allocation_strategy(InstanceAllocationStrategy::OnDemand);
    config
}

/// Returns the same with memory from a pool, from which instances are made in microseconds.
pub(crate) fn pooled_config(metering: Metering) -> Config {
    // Each place for an instance takes two of the mappings which the kernel gives a process, whether it is used or not.
    let share = match metering {
        Metering::Fuel => 1,
        Metering::Time => BY_TIME_SHARE,
    };
    let mut pool = PoolingAllocationConfig::new();
    let memory = usize::try_from(Limits::MAXIMUM.memory.0).expect("the largest memory fits in an address");
    pool.total_component_instances(POOL_INSTANCES / share)
        .total_stacks(POOL_INSTANCES / share)
        .total_core_instances(POOL_CORE_INSTANCES / share)
        .total_memories(POOL_MEMORIES / share)
        .total_tables(POOL_TABLES / share)
        .table_elements(Limits::MAXIMUM.table_elements as usize)
        // A slot is made clean by writing over the pages that a guest has written, which the kernel names (Linux 6.7
        // and later; before, by writing over all up to these sizes). To give pages back and take new ones for the
        // next instance costs twice as much as all else of a small guest.
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(KEPT_MEMORY)
        .table_keep_resident(KEPT_TABLE)
        .max_unused_warm_slots(WARM_SLOTS)
        .max_memory_size(memory);
    let mut config = config(metering);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Returns the same for guests of which core dumps are wanted. Each instance is allocated by itself: there are few of
/// these guests, and a second pool would take address space from those that run.
pub(crate) fn dumping_config(metering: Metering) -> Config {
    let mut config = config(metering);
    config.coredump_on_trap(true);
    config
}

/// Takes from the kernel what the pool needs and what a process behind a wall can no longer open: the list of its own
/// pages. Without it all works, and takes longer. Starts no thread.
pub fn prepare_process() {
    const SMALL: usize = 64 << 10;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(1)
        .total_core_instances(1)
        .total_memories(1)
        .total_tables(1)
        .total_stacks(1)
        .table_elements(1)
        .max_memory_size(SMALL)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .enable_compiler(false)
        .memory_reservation(SMALL as u64)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    // wasmtime opens it with the first pool of a process and keeps it for all later ones.
    if let Err(error) = wasmtime::Engine::new(&config) {
        tracing::debug!(error = format!("{error:#}"), "the list of pages was not opened");
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash, Hasher};

    use wasmtime::Engine;

    use super::*;

    #[test]
    fn the_runtime_accepts_what_the_compiler_makes() {
        let hash = |config: &Config| {
            let mut hasher = DefaultHasher::new();
            Engine::new(config).unwrap().precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        for metering in [Metering::Fuel, Metering::Time] {
            assert_eq!(hash(&config(metering)), hash(&pooled_config(metering)));
            assert_eq!(hash(&config(metering)), hash(&dumping_config(metering)));
        }
        assert_ne!(hash(&config(Metering::Fuel)), hash(&config(Metering::Time)));
    }
}
