//! What a guest may touch: one file per capability; read it to audit the sandbox.
//!
//! Everything is denied unless it is added in `linker`. What is added without meaning anything (files, sockets,
//! outbound HTTP) is there since programs built on a standard library import it; every use of it fails.
//!
//! | What | Where | What it gives |
//! | --- | --- | --- |
//! | standard output and error | `stdio` | lines in the log, or the bounded output of an item |
//! | `wasi:logging` | `logging` | lines in the log |
//! | outbound HTTP | `outbound_http` | a refusal |
//! | memory, tables, instances | `limiter` | as much as the limits say |
//! | clocks, randomness, arguments, environment | `guest` | what WASI says |
//!
//! Not here: fuel, deadlines and who calls the guest (`runtime/engine`).

mod guest;
mod limiter;
mod limits;
mod linker;
mod logging;
mod logs;
mod outbound_http;
mod stdio;

pub use guest::{Guest, GuestSetup, Stdin, Stdout};
pub use limiter::{Denied, Limiter};
pub use limits::{
    HOSTCALL_FUEL, LOG_BURST, LOG_RATE, MAX_CORE_INSTANCES, MAX_FIELDS, MAX_MEMORIES, MAX_RANDOM,
    MAX_RESOURCES, MAX_TABLE_ELEMENTS, MAX_TABLES, MAX_WRITE,
};
pub use linker::linker;
pub use logs::{LogSink, Logs};
pub use stdio::Capture;
