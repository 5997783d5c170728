//! Faults, many of them, on real processes, and what was acknowledged compared with what is there.
//!
//! A campaign is a function in a file of its own: it takes how many faults there shall be and a seed, and returns a
//! [`Report`] or what went wrong. The tests run each in its small size; `cargo x campaign NAME --rounds N` runs it as
//! long as wanted, and prints the report.
//!
//! | File | What |
//! | --- | --- |
//! | `kills` | `kill -9` of coordinator, agent and worker at any moment (T4) |
//! | `coordinators` | the loss of coordinators and of members of etcd (T6) |
//! | `ledger` | a client that remembers what was acknowledged |
//! | `traffic` | requests to a service all the time |
//! | `report` | what a campaign says |

mod chance;
mod coordinators;
mod kills;
mod ledger;
mod report;
mod traffic;

pub use coordinators::{coordinators, show_coordinators};
pub use kills::kills;
pub use report::Report;
