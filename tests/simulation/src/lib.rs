//! Both brains in a faulty world, driven by seeds.
//!
//! [`simulate`] runs a real `Cluster` and several real `Supervisor`s in one thread on a virtual clock. All else is
//! simulated and fails: messages, nodes, agents, workers, the coordinator. After each step the safety rules are
//! checked; then the faults end, and within a bounded time everything must be as the users want it.
//!
//! A seed is a whole history: the same seed gives the same trace on every machine.

mod agent;
mod coordinator;
mod faults;
mod liveness;
mod network;
mod node_side;
mod random;
mod simulation;
mod store;
mod trace;
mod user;
mod world;

pub use faults::{Counts, Sabotage};
pub use simulation::{Failure, Summary, simulate};
