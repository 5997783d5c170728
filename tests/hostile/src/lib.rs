//! Guests and inputs which mean harm.
//!
//! Each [`Case`] is one line of the threat list (groups 1 to 5): how it is made, how it is tried, and what must become
//! of it. They all run on one real fleet beside a [`Canary`], a service of another namespace which must not notice;
//! the result is a table in which every line must say `contained`.
//!
//! Not here: clients of the API, peers and disks that misbehave.

mod canary;
mod case;
mod cases;
mod expected;
mod machine;
mod network;
mod run;
mod special;
mod tamper;
mod threats;
mod wat;

pub use canary::{Canary, Latencies};
pub use case::{Case, Component, How, Verdict};
pub use cases::all;
pub use machine::{Reading, children, is_alive, read, resident, resident_at_rest, settled};
pub use run::{Arena, markdown, table};
pub use threats::{THREATS, page};
