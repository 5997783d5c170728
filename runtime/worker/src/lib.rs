//! The worker process: the engine behind a process wall, one per namespace and node.
//!
//! An agent starts it with a socket in place of standard input and talks to it in frames; connections reach
//! it over a second socket, in place of standard output. It holds no keys but that of its cache, and it ends when its agent does.
//!
//! Not here: how guests are run (`runtime/engine`) and what they can touch (`runtime/host`).

mod allocations;
mod attached;
mod channel;
mod compiler;
mod confine;
mod control;
mod data;
mod failure;
mod handed;
mod health;
mod items;
mod kept;
mod log_queue;
mod outbound;
mod passed;
mod resident;
mod services;
mod worker;

pub use compiler::{BareWall, compile_component, platform, probe};
pub use dunlin_compiled::CodeKind;
pub use dunlin_engine::{CalibrateError, calibrate};
pub use dunlin_host::{HostCallWatch, watch_host_calls};
pub use resident::let_go_of_code;
pub use worker::{run, run_from_stdin};
