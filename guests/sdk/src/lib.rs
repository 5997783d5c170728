//! Guests for Dunlin in Rust: services, jobs, configuration, logs and outgoing HTTP.
//!
//! A guest needs no library of Dunlin; this one makes a guest short, and lets `cargo test` call it on the machine where
//! it is written. Compiled to wasm it speaks the standard interfaces of WASI 0.2; compiled for any other target, fakes
//! take their place, which a test scripts with `test::Host`.
//!
//! A service:
//!
//! ```
//! use dunlin_guest::{Request, Response, Result};
//!
//! #[dunlin_guest::service]
//! async fn greet(request: Request) -> Result<Response> {
//!     Ok(Response::new(format!("good day, {}\n", request.uri().path()).into()))
//! }
//! ```
//!
//! A job:
//!
//! ```
//! use dunlin_guest::{Item, Result};
//!
//! #[dunlin_guest::job]
//! fn count(mut item: Item) -> Result<String> {
//!     Ok(format!("{} {}", item.text()?.split_whitespace().count(), item.name()))
//! }
//! ```
//!
//! # Logs
//!
//! Both attributes bring into the guest's log what the crate `log` is told (feature `log`, on unless switched off) and
//! what the crate `tracing` is told (feature `tracing`). Lines below the level in the variable `LOG_LEVEL` are left
//! out: `off`, `error`, `warn`, `info` (where it is not set), `debug` or `trace`.
//!
//! # Errors
//!
//! `?` takes any error into [`Error`]; [`Context`] says what could not be done because of it.
#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod __private;
mod block_on;
mod body;
mod body_length;
pub mod config;
mod error;
#[cfg(not(target_family = "wasm"))]
mod fake;
mod job;
mod log_level;
#[cfg(feature = "log")]
mod log_lines;
mod outbound;
mod output;
mod service;
#[cfg(not(target_family = "wasm"))]
pub mod test;
#[cfg(feature = "tracing")]
mod trace_lines;
#[cfg(target_family = "wasm")]
mod wasi;

pub use block_on::block_on;
pub use body::Body;
pub use bytes::Bytes;
pub use config::config;
pub use dunlin_guest_macros::{job, service};
pub use error::{Context, Error};
pub use http;
pub use job::{Item, Outputs};
#[cfg(feature = "log")]
pub use log;
pub use outbound::{Client, send};
pub use output::Output;
pub use service::{Request, Response, Result};
#[cfg(feature = "tracing")]
pub use tracing;
pub use wasip2::http::types::ErrorCode;

#[cfg(not(target_family = "wasm"))]
pub(crate) use fake as platform;
#[cfg(target_family = "wasm")]
pub(crate) use wasi as platform;
