//! The limits of this crate: G4, G5, G13, C3 and C4 of the limits table, and those which wasmtime's pool needs.

use std::time::Duration;

/// G4: the most stack a guest may use.
pub(crate) const WASM_STACK: usize = 512 << 10;
/// G4: the stack of one instance, of which the host's own calls may use what the guest's do not.
pub(crate) const ASYNC_STACK: usize = 2 << 20;
/// G5: how often a computing guest must let others run, by time.
pub const EPOCH_TICK: Duration = Duration::from_millis(10);
/// How often a computing guest must let others run, by fuel. It also bounds how wrong the count of fuel can be when
/// a guest is ended from outside: a loop without calls writes its fuel back only here. Measured: from 1,000,000 on,
/// the slices cost nothing; at 10,000 a guest takes 2.6 times as long.
pub const FUEL_SLICE: u64 = 1_000_000;
/// G13: the most bytes of one request's body.
pub const MAX_REQUEST_BODY: u64 = 64 << 20;
/// G13: the most bytes of one response's body.
pub const MAX_RESPONSE_BODY: u64 = 64 << 20;
/// How long a request waits for a free instance before it is refused. As many may wait as may run.
pub const MAX_WAIT: Duration = Duration::from_secs(5);
/// The most bytes of what is said of a trap, with the guest's stack.
pub const MAX_TRAP_TEXT: usize = 4 << 10;

/// C3: the most memory of the compiler, in bytes that can be written to.
pub const COMPILE_MEMORY: u64 = 1 << 30;
/// C3: the most address space of the compiler. Allocators reserve far more than they use.
pub(crate) const COMPILE_ADDRESS_SPACE: u64 = 8 << 30;
/// C3: the most time of a processor that compiling one component may take.
pub const COMPILE_CPU_SECONDS: u64 = 60;
/// The most time that compiling one component may take, however busy the machine is.
pub const COMPILE_TIME: Duration = Duration::from_secs(180);
/// C4: the most bytes that a compiled component may have.
pub const MAX_COMPILED: u64 = 256 << 20;
/// The most bytes that one cache of compiled components may hold; beyond it the oldest go.
pub(crate) const MAX_CACHE: u64 = 4 << 30;

/// How many instances one worker can hold at the same time.
pub(crate) const POOL_INSTANCES: u32 = 1024;
/// How many core instances, memories and tables those may have together.
pub(crate) const POOL_CORE_INSTANCES: u32 = 8192;
pub(crate) const POOL_MEMORIES: u32 = 2048;
pub(crate) const POOL_TABLES: u32 = 8192;
