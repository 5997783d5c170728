//! Compiles and runs components under limits.
//!
//! [`Engine::load`] makes a [`Loaded`] of a component's bytes: admitted, compiled by a child process or taken from
//! an authenticated cache. A [`Service`] or a [`Job`] then runs it, each request and each item in a fresh instance
//! that ends with one [`dunlin_model::Outcome`].
//!
//! Every instance is bound in three ways at once: fuel bounds what it computes, the limiter of `runtime/host` what
//! it holds, and a deadline how long it lasts. None of them needs the guest to cooperate.
//!
//! Not here: what a guest can call (`runtime/host`), and who asks for what (`runtime/worker`).

mod body;
mod cache;
mod calibrate;
mod compile;
mod config;
mod engine;
mod gate;
mod job;
mod limits;
mod outcome;
mod sandbox;
mod service;

pub use body::{BodyError, GuestBody};
pub use calibrate::{CalibrateError, calibrate};
pub use compile::compile_child;
pub use engine::{Compiler, Engine, EngineConfig, EngineError, LoadError, Loaded};
pub use job::{Item, ItemEnd, Job};
pub use limits::{
    COMPILE_CPU_SECONDS, COMPILE_MEMORY, COMPILE_TIME, EPOCH_TICK, FUEL_SLICE, MAX_COMPILED,
    MAX_REQUEST_BODY, MAX_RESPONSE_BODY, MAX_TRAP_TEXT, MAX_WAIT,
};
pub use sandbox::Usage;
pub use service::{Failure, Service};
