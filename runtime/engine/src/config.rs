//! How wasmtime is set up: the same for the worker and for the compiler, but for how memory is found.

use std::num::NonZeroUsize;

use dunlin_model::Limits;
use wasmparser::WasmFeatures;
use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, OperatorCost, OptLevel, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails,
};

use crate::checks::Checks;
use crate::limits::{ASYNC_STACK, FEWEST_INSTANCES, POOL_CORE_INSTANCES, POOL_INSTANCES, WASM_STACK};

/// How much of each memory slot that a guest wrote to stays with the process between instances.
const KEPT_MEMORY: usize = 1 << 20;
/// How much of each table slot that a guest wrote to stays with the process between instances.
const KEPT_TABLE: usize = 64 << 10;
/// How many slots that nobody uses keep what they hold for the next instance of the same component.
const WARM_SLOTS: u32 = 64;
/// What part of the room of most instances there is for those of a rarer kind.
const RARE_SHARE: u32 = 8;
/// What it costs to ask for more memory, or more of a table: as long as these take, whether there is any or not, other
/// steps take that are about as many.
const GROW_FUEL: u8 = 200;
/// What other steps cost for which the guest leaves its code.
const LEAVE_FUEL: u8 = 20;
/// How many frames of a guest's stack a trap shows.
const BACKTRACE_FRAMES: usize = 32;

/// Returns what compiler and runtime must agree on for code with these checks, of WASI 0.3 or not.
pub(crate) fn config(checks: Checks, wasi03: bool) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .consume_fuel(checks.counts_fuel())
        .operator_cost(costs())
        .epoch_interruption(checks.sees_time())
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(ASYNC_STACK)
        // Where a component says from which lines it was made, its author is told.
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES))
        .relaxed_simd_deterministic(true)
        .wasm_features(WasmFeatures::all().difference(features(wasi03)), false)
        .wasm_features(features(wasi03), true)
        // What runs several calls of one instance at a time is young, and costs every instance.
        .concurrency_support(wasi03)
        .allocation_strategy(InstanceAllocationStrategy::OnDemand);
    config
}

/// Returns what the engine can run: what admission lets through, of WASI 0.3 or not, and what wasmtime's own code between
/// the parts of a component needs, which has the memories of both. All else is off, now and in later versions.
pub(crate) fn features(wasi03: bool) -> WasmFeatures {
    let admitted = if wasi03 { dunlin_admission::wasi_03_features() } else { dunlin_admission::features() };
    admitted.union(WasmFeatures::MULTI_MEMORY)
}

/// Returns what each step costs of fuel: one, but where it takes far longer. A slice of fuel is therefore used up within
/// some milliseconds, whatever a guest does.
fn costs() -> OperatorCost {
    OperatorCost {
        MemoryGrow: GROW_FUEL,
        TableGrow: GROW_FUEL,
        RefFunc: LEAVE_FUEL,
        ElemDrop: LEAVE_FUEL,
        TableInit: LEAVE_FUEL,
        ..OperatorCost::new()
    }
}

/// Returns for how many instances of the most usual kind there is room where so many are to live at the same time. Those
/// that are used again wait beside those that run, and are as many at most.
pub(crate) fn places(instances: u32) -> u32 {
    instances.saturating_mul(2).clamp(FEWEST_INSTANCES, POOL_INSTANCES)
}

/// Returns the same with memory from a pool, from which instances are made in microseconds.
pub(crate) fn pooled_config(checks: Checks, wasi03: bool, instances: u32) -> Config {
    let most = places(instances);
    // Each place for an instance takes two of the mappings which the kernel gives a process, whether it is used or not.
    let instances = match (checks, wasi03) {
        (Checks::Fuel, false) => most,
        (Checks::FuelAndTime | Checks::Time, _) | (_, true) => {
            (most / RARE_SHARE).max(FEWEST_INSTANCES.min(most))
        }
    };
    let mut pool = PoolingAllocationConfig::new();
    let memory = usize::try_from(Limits::MAXIMUM.memory.0).expect("the largest memory fits in an address");
    pool.total_component_instances(instances)
        .total_stacks(instances)
        // Only a number: nothing is kept for those that do not live.
        .total_core_instances(POOL_CORE_INSTANCES)
        .total_memories(instances + instances / 4)
        .total_tables(instances * 4)
        .table_elements(Limits::MAXIMUM.table_elements as usize)
        // A slot is made clean by writing over the pages that a guest has written, which the kernel names (Linux 6.7
        // and later; before, by writing over all up to these sizes). To give pages back and take new ones for the
        // next instance costs twice as much as all else of a small guest.
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(KEPT_MEMORY)
        .table_keep_resident(KEPT_TABLE)
        .max_unused_warm_slots(WARM_SLOTS)
        .max_memory_size(memory);
    let mut config = config(checks, wasi03);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Returns the same for guests of which core dumps are wanted. Each instance is allocated by itself: there are few of
/// these guests, and a second pool would take address space from those that run.
pub(crate) fn dumping_config(checks: Checks, wasi03: bool) -> Config {
    let mut config = config(checks, wasi03);
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
    use std::collections::BTreeSet;
    use std::hash::{DefaultHasher, Hash, Hasher};

    use wasmtime::{Engine, Store};

    use super::*;

    fn all() -> impl Iterator<Item = (Checks, bool)> {
        Checks::ALL.into_iter().flat_map(|checks| [(checks, false), (checks, true)])
    }

    #[test]
    fn the_runtime_accepts_what_the_compiler_makes() {
        let hash = |config: &Config| {
            let mut hasher = DefaultHasher::new();
            Engine::new(config).unwrap().precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        for (checks, wasi03) in all() {
            assert_eq!(hash(&config(checks, wasi03)), hash(&pooled_config(checks, wasi03, 256)));
            assert_eq!(hash(&config(checks, wasi03)), hash(&dumping_config(checks, wasi03)));
        }
        let hashes: BTreeSet<u64> = all().map(|(checks, wasi03)| hash(&config(checks, wasi03))).collect();
        assert_eq!(hashes.len(), all().count(), "code of one kind is not taken for that of another");
    }

    #[test]
    fn only_what_is_of_wasi_03_has_to_do_with_concurrency() {
        let asynchronous = wat::parse_str("(component (type (future)))").unwrap();
        for (checks, wasi03) in all() {
            let engine = Engine::new(&config(checks, wasi03)).unwrap();
            let compiled = engine.precompile_component(&asynchronous);
            assert_eq!(compiled.is_ok(), wasi03, "{checks:?}");
            assert_eq!(Store::new(&engine, ()).concurrent_resource_table().is_some(), wasi03, "{checks:?}");
        }
    }
}
