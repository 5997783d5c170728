//! The worker process: the engine behind a process wall, one per namespace and node.
//!
//! An agent starts it with a socket in place of standard input and talks to it in frames; requests reach it as
//! HTTP on a socket of its own. It holds no keys but that of its cache, and it ends when its agent does.
//!
//! Not here: how guests are run (`runtime/engine`) and what they can touch (`runtime/host`).

mod allocations;
mod confine;
mod control;
mod data;
mod failure;
mod log_queue;
mod worker;

pub use dunlin_engine::{CalibrateError, calibrate, compile_child};
pub use worker::{run, run_from_stdin};
