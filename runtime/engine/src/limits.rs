//! The limits of this crate: G4, G5 and G13 of the limits table, and those which wasmtime's pool needs.

use std::time::Duration;

/// G4: the most stack a guest may use.
pub(crate) const WASM_STACK: usize = 512 << 10;
/// G4: the stack of one instance, of which the host's own calls may use what the guest's do not.
pub(crate) const ASYNC_STACK: usize = 2 << 20;
/// G5: how often a computing guest must let others run, by time.
pub const EPOCH_TICK: Duration = Duration::from_millis(10);
/// How often a computing guest must let others run, by fuel. It also bounds how wrong the count of fuel can be when
/// a guest is ended from outside: a loop without calls writes its fuel back only here. Measured: at 1,000,000
/// the slices cost nothing but where code is straight, a few hundredths there; at 10,000 a guest takes 2.6 times as long.
pub const FUEL_SLICE: u64 = 1_000_000;
/// The most that a slice has where steps take so little that one of [`FUEL_SLICE`] is over at once.
pub(crate) const MOST_FUEL_SLICE: u64 = 4_000_000;
/// A slice that took less is followed by a longer one.
pub(crate) const SHORT_SLICE: Duration = Duration::from_micros(250);
/// The most that a slice has of what its allocation may burn in a second, as one part of so many.
pub(crate) const SLICES_OF_A_RATE: u64 = 100;
/// G14: how many instances of one namespace live at the same time on one node, over all its allocations, if the node's
/// operator does not say.
pub(crate) const NAMESPACE_CONCURRENCY: u32 = 256;
/// How long a request waits for a free instance before it is refused. As many may wait as may run.
pub const MAX_WAIT: Duration = Duration::from_secs(5);
/// The most bytes of what is said of a trap, with the guest's stack.
pub const MAX_TRAP_TEXT: usize = 4 << 10;

/// C3: the most address space of the compiler. Allocators reserve far more than they use.
pub(crate) const COMPILE_ADDRESS_SPACE: u64 = 8 << 30;
/// C4: the most bytes that a compiled component may have whatever a node's operator says. The agent has kept none that
/// is larger than he allows.
pub const MAX_COMPILED: u64 = 1 << 30;

/// How many instances one worker can hold at the same time. Each takes about six of the 65,530 mappings which Linux
/// gives a process unless told otherwise.
pub(crate) const POOL_INSTANCES: u32 = 10_240;
/// How many core instances those may have together.
pub(crate) const POOL_CORE_INSTANCES: u32 = 65_536;
/// For how many instances there is room at least.
pub(crate) const FEWEST_INSTANCES: u32 = 128;

/// How many bytes of compiled components one worker keeps in memory. Those that were not wanted for longest are
/// dropped and loaded again when they are. Kept small, since it counts against every service on the node that is idle.
pub const MAX_LOADED_CODE: u64 = 32 << 20;
/// After how long without a request code is dropped, also if there is room for it.
pub const CODE_IDLE: Duration = Duration::from_secs(60);
/// The same for code that was loaded to see whether it can be run, and that nobody has asked for yet. What is deployed is
/// asked for at once or, most likely, not for long.
pub(crate) const CODE_UNASKED: Duration = Duration::from_secs(2);

/// How many bytes of a response are gathered before any of it goes out, if the guest writes them without waiting: a
/// response that is whole goes out in one piece and tells its length.
pub(crate) const WHOLE_BODY: u64 = 64 << 10;

/// How many requests one instance answers at most, where instances are used again: whatever a guest leaks ends.
pub const MAX_USES: u32 = 10_000;
/// How long an instance waits for its next request.
pub const REUSE_IDLE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use dunlin_model::{Bytes, LimitRow, LimitValue};

    use super::*;

    #[test]
    fn what_the_table_says_is_what_holds() {
        for (name, value) in [
            ("stack", WASM_STACK as u64),
            ("instance_stack", ASYNC_STACK as u64),
            ("slice", u64::try_from(EPOCH_TICK.as_millis()).unwrap()),
            ("write", dunlin_host::MAX_WRITE as u64),
        ] {
            assert_eq!(LimitRow::fixed(name).unwrap().number(), value, "{name}");
        }
        let compiled = LimitValue::Bytes(Bytes(MAX_COMPILED));
        assert_eq!(LimitRow::refused("compiled_size", compiled), None);
        let more = LimitValue::Bytes(Bytes(MAX_COMPILED + 1));
        assert!(LimitRow::refused("compiled_size", more).is_some());
    }
}
