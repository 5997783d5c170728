//! Compiles and runs components under limits.
//!
//! [`compile_child`] is the compiler: a process of its own that admits and compiles one component. [`Engine::load`]
//! makes a [`Loaded`] of what it made, once it is shown to be genuine. A [`Service`] or a [`Job`] then runs it, each request and each item in a fresh instance
//! that ends with one [`dunlin_model::Outcome`].
//!
//! Every instance is bound in three ways at once: fuel bounds what it computes, the limiter of `runtime/host` what
//! it holds, and a deadline how long it lasts. None of them needs the guest to cooperate.
//!
//! Not here: what a guest can call (`runtime/host`), and who asks for what (`runtime/worker`).

mod backtrace;
mod body;
mod calibrate;
mod checks;
mod code;
mod compile;
mod config;
mod dump;
mod engine;
mod exchange;
mod gate;
mod gauge;
mod genuine;
mod job;
mod kinds;
mod limits;
mod meter;
mod outcome;
mod pause;
mod platform;
mod reuse;
mod sandbox;
mod service;
mod trailer;
mod turns;
mod wasi03;

pub use body::{BodyError, GuestBody};
pub use calibrate::{CalibrateError, calibrate};
pub use code::Loaded;
pub use compile::{CompileError, EXIT_FAILED, EXIT_REFUSED, compile, compile_as, compile_child};
pub use config::prepare_process;
pub use engine::{Engine, EngineConfig, EngineError, LoadError, Renewal};
pub use gate::set_namespace_concurrency;
pub use job::{Item, ItemEnd, Job, Streams};
pub use limits::{
    CODE_IDLE, EPOCH_TICK, FUEL_SLICE, MAX_COMPILED, MAX_LOADED_CODE, MAX_TRAP_TEXT, MAX_USES, MAX_WAIT,
    REUSE_IDLE,
};
pub use platform::platform;
pub use sandbox::{Usage, check_environment};
pub use service::{Failure, Place, Service, Spent};
pub use trailer::AccountNames;
