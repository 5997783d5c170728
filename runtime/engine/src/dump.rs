//! Core dumps: what a guest held where it trapped, as a module that debuggers of wasm read.
//!
//! wasmtime notes what a dump needs when a trap unwinds a guest's stack, if its engine was made to; so guests whose
//! dumps are wanted run on engines of their own, and the others pay nothing. Code is the same for both. The dump itself
//! is written later, beside the guests, from the memory that the instance still has: one at a time in a worker, since it
//! is in memory as a whole.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dunlin_host::{DumpBytes, Guest, Logs};
use dunlin_model::{Bytes, CoreDump, LimitHit, LimitRow, Outcome, TrapRecord};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::{Store, WasmCoreDump};

/// What binds core dumps in one worker.
pub(crate) struct Dumps {
    /// G21: the most bytes of one.
    size: AtomicU64,
    /// Held while one is made, and until it has left.
    turn: Arc<Semaphore>,
}

impl Dumps {
    pub(crate) fn new() -> Self {
        let size = AtomicU64::new(LimitRow::default_of("coredump_size").number());
        Self { size, turn: Arc::new(Semaphore::new(1)) }
    }

    pub(crate) fn set_size(&self, size: Bytes) {
        self.size.store(size.0, Ordering::Relaxed);
    }

    /// Tells of an instance that ended with `error`, or returns what is told once its dump is made.
    pub(crate) fn begin(
        &self,
        mut trap: TrapRecord,
        error: Option<&wasmtime::Error>,
        logs: &Arc<Logs>,
    ) -> Option<Untold> {
        let not_made = |reason: &str| Some(CoreDump::NotMade { reason: reason.to_owned() });
        trap.coredump = match (error, &trap.outcome) {
            // Who exits has nothing to find.
            (Some(_), Outcome::Exited { .. }) => None,
            (Some(error), _) if error.is::<WasmCoreDump>() => match self.turn.clone().try_acquire_owned() {
                Ok(turn) => {
                    let size = Bytes(self.size.load(Ordering::Relaxed));
                    return Some(Untold { trap, logs: Arc::clone(logs), size, turn });
                }
                Err(_) => not_made("another was being made: there is one at a time"),
            },
            _ => not_made("it did not trap, but was ended from outside"),
        };
        logs.trap(trap);
        None
    }
}

/// A trap that is to be told with a dump.
pub(crate) struct Untold {
    trap: TrapRecord,
    logs: Arc<Logs>,
    size: Bytes,
    turn: OwnedSemaphorePermit,
}

impl Untold {
    /// Makes the dump of the instance that `error` has ended, and tells of both. It takes a while.
    pub(crate) fn tell(self, error: &wasmtime::Error, store: &mut Store<Guest>) {
        let Self { mut trap, logs, size, turn } = self;
        let name = format!("{} {}", trap.workload, trap.instance);
        // It walks through all that a guest has made, in code that few have used.
        let made = catch_unwind(AssertUnwindSafe(|| dump(error, store, &name, size)));
        let reason = match made {
            Ok(Ok(bytes)) => {
                trap.coredump = Some(CoreDump::Made { size: Bytes(bytes.len() as u64) });
                return logs.trap_with_dump(trap, DumpBytes { bytes, turn });
            }
            Ok(Err(hit)) => hit.to_string(),
            Err(_panic) => "wasmtime failed to write it".to_owned(),
        };
        trap.coredump = Some(CoreDump::NotMade { reason });
        logs.trap(trap);
    }
}

fn dump(
    error: &wasmtime::Error,
    store: &mut Store<Guest>,
    name: &str,
    size: Bytes,
) -> Result<Vec<u8>, LimitHit> {
    let within = |observed: u64| {
        let hit = || LimitHit::new("coredump_size", size, Bytes(observed));
        if observed <= size.0 { Ok(()) } else { Err(hit()) }
    };
    let dump = error.downcast_ref::<WasmCoreDump>().expect("this was looked at before");
    within(dump.memories().iter().map(|memory| memory.data_size(&*store) as u64).sum())?;
    let bytes = dump.serialize(&mut *store, name);
    within(bytes.len() as u64)?;
    Ok(bytes)
}
