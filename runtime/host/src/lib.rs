//! What a guest may touch: one file per capability; read it to audit the sandbox.
//!
//! Everything is denied unless it is added in `linker`. What is there without a grant (files, sockets, outbound HTTP)
//! is there since programs built on a standard library import it; every use of it fails.
//!
//! | What | Where | What it gives |
//! | --- | --- | --- |
//! | standard output and error | `stdio` | lines in the log, the bounded output of an item, or a pipe |
//! | `wasi:logging` | `logging` | lines in the log |
//! | outbound HTTP | `capability/outbound_http` | answers of the hosts that the manifest grants |
//! | folders and scratch | `capability/files` | what is below the folders that the manifest grants |
//! | `wasi:config` | `capability/config` | the values of the manifest |
//! | TCP connections, name lookup | `capability/sockets` | connections to the hosts that the manifest grants |
//! | UDP | nowhere | a refusal |
//! | memory, tables, instances | `limiter` | as much as the limits say |
//! | all of it by the interfaces of WASI 0.3 | `wasi03` | the same, without folders |
//! | clocks, randomness, arguments, environment | `guest` | what WASI says |
//!
//! What a guest did with it last is kept in `host_calls`, for its author.
//!
//! Not here: fuel, deadlines and who calls the guest (`runtime/engine`).

mod calls;
mod capability;
mod denials;
mod guest;
mod headers;
mod host_calls;
mod limiter;
mod limits;
mod linker;
mod logging;
mod logs;
mod metered;
mod pipe;
mod stdin;
mod stdio;
mod wasi03;

pub use calls::{BYTES_PER_FUEL, CALL_FUEL, Slice, SliceEnd};
pub use capability::{
    Access, Answering, CallBody, Callee, Calling, ConnectFailure, Connecting, Connector, Granted, NotGranted,
    OfferedFolder, Resolving, Secrets, Using, Wanted, call_body,
};
pub use denials::{Denial, Denials};
pub use guest::{Guest, GuestSetup, Stdin, Stdout, Told};
pub use headers::check_headers;
pub use host_calls::{HostCallWatch, LastCalls, watch_host_calls};
pub use limiter::Limiter;
pub use limits::MAX_WRITE;
pub use linker::linker;
pub use logs::{DumpBytes, LogSink, Logs};
pub use metered::LimitExceeded;
pub use pipe::Pipe;
pub use stdio::Capture;
pub use wasi03::wasi_03_linker;
