//! A whole fleet of real processes, real sockets on free ports, in a temporary folder.
//!
//! Tests start a [`Fleet`], use it through the typed client, through the `dunlin` program and through HTTP, kill what
//! they like, and wait for states with a time limit. Dropping the fleet ends its processes.

mod ballast;
mod coordinators;
mod etcd;
mod fleet;
mod http;
mod load;
mod network;
mod oci;
mod place;
mod process;
mod s3;
mod simulated;
mod toolchain;
mod wait;

pub use ballast::with_ballast;
pub use coordinators::{Coordinators, Places};
pub use etcd::Etcd;
pub use fleet::{App, Fleet};
pub use http::http;
pub use load::Load;
pub use network::Network;
pub use oci::OciRegistry;
pub use place::Place;
pub use process::{Process, children, is_running, program};
pub use s3::S3;
pub use simulated::SimulatedAgents;
pub use wait::{PATIENCE, eventually};
