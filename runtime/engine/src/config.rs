//! How wasmtime is set up: the same for the worker and for the compiler, but for how memory is found.

use std::num::NonZeroUsize;

use dunlin_model::Limits;
use wasmparser::WasmFeatures;
use wasmtime::{Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy};

use crate::limits::{
    ASYNC_STACK, POOL_CORE_INSTANCES, POOL_INSTANCES, POOL_MEMORIES, POOL_TABLES, WASM_STACK,
};

/// How much of each memory slot stays with the process between instances.
const KEPT_MEMORY: usize = 2 << 20;
/// How much of each table slot stays with the process between instances.
const KEPT_TABLE: usize = 64 << 10;
/// How many frames of a guest's stack a trap shows.
const BACKTRACE_FRAMES: usize = 32;

/// Returns what compiler and runtime must agree on.
pub(crate) fn config() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(ASYNC_STACK)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES))
        .relaxed_simd_deterministic(true)
        // What admission lets through is what the engine can run; all else is off, now and in later versions.
        .wasm_features(WasmFeatures::all().difference(dunlin_admission::features()), false)
        .wasm_features(dunlin_admission::features(), true)
        .allocation_strategy(InstanceAllocationStrategy::OnDemand);
    config
}

/// Returns the same with memory from a pool, from which instances are made in microseconds.
pub(crate) fn pooled_config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    let memory = usize::try_from(Limits::MAXIMUM.memory.0).expect("the largest memory fits in an address");
    pool.total_component_instances(POOL_INSTANCES)
        .total_stacks(POOL_INSTANCES)
        .total_core_instances(POOL_CORE_INSTANCES)
        .total_memories(POOL_MEMORIES)
        .total_tables(POOL_TABLES)
        .table_elements(dunlin_host::MAX_TABLE_ELEMENTS)
        // A slot is cleared by writing zeros up to here, and only beyond by asking the kernel: for small guests that
        // saves three system calls and the page faults after them on each request.
        .linear_memory_keep_resident(KEPT_MEMORY)
        .table_keep_resident(KEPT_TABLE)
        .max_memory_size(memory);
    let mut config = config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
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
        assert_eq!(hash(&config()), hash(&pooled_config()));
    }
}
