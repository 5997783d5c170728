//! The agent's brain: the life of allocations on one node, without I/O.
//!
//! A [`Supervisor`] is fed with what the coordinator wants ([`Supervisor::assign`]), with what happens on the node
//! ([`Supervisor::observe`]) and with the passing of time ([`Supervisor::tick`]). Each of them returns [`Action`]s,
//! which the agent carries out in their order. What the coordinator is to hear is read with [`Supervisor::report`].
//!
//! There is no clock, no randomness, no file, no socket and no thread in here: the same inputs give the same
//! actions, in the agent as in the simulation. How an action is carried out is the agent's business.

mod action;
mod allocation;
mod backoff;
mod component;
mod config;
mod contact;
pub mod egress;
mod fallback;
mod health;
mod items;
mod outbox;
mod program;
mod secrets;
mod supervisor;

pub use action::{Action, Event};
pub use config::Config;
pub use program::KeptProgram;
pub use supervisor::{Kept, Stale, Supervisor};
