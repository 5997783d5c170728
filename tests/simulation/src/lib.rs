//! Both brains in a faulty world, driven by seeds.
//!
//! [`simulate`] runs a real `Cluster` and several real `Supervisor`s in one thread on a virtual clock. All else is
//! simulated and fails: messages, nodes, agents, workers, the coordinator. After each step the safety rules are
//! checked; then the faults end, and within a bounded time everything must be as the users want it.
//!
//! A seed is a whole history: the same seed gives the same trace on every machine.

mod agent;
mod campaign;
mod clock;
mod coordinator;
mod disasters;
mod faults;
mod fleet;
mod liveness;
mod network;
mod node_side;
mod options;
mod random;
mod rules;
mod rules_of_partitions;
mod rules_of_places;
mod rules_of_preemption;
mod rules_of_runs;
mod secrets;
mod shrink;
mod simulation;
mod store;
mod trace;
mod upgrades;
mod user;
mod wishes;
mod world;

pub use campaign::{Campaign, Found, run};
pub use faults::Counts;
pub use options::{Kind, Options, Sabotage};
pub use shrink::shrink;
pub use simulation::{Failure, Summary, simulate};
