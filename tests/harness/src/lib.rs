//! A whole fleet of real processes, real sockets on free ports, in a temporary folder.
//!
//! Tests start a [`Fleet`], use it through the typed client, through the `dunlin` program and through HTTP, kill what
//! they like, and wait for states with a time limit. Dropping the fleet ends its processes.

mod coordinators;
mod etcd;
mod fleet;
mod http;
mod process;
mod s3;
mod wait;

pub use coordinators::Coordinators;
pub use etcd::Etcd;
pub use fleet::{App, Fleet};
pub use http::http;
pub use process::{Process, is_running, program};
pub use s3::S3;
pub use wait::{PATIENCE, eventually};
