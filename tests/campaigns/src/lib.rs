//! Faults, many of them, on real processes, and what was acknowledged compared with what is there.
//!
//! A campaign is a function in a file of its own: it takes how many faults there shall be and a seed, and returns a
//! [`Report`] or what went wrong. The tests run each in its small size; `cargo x campaign NAME --rounds N` runs it as
//! long as wanted, and prints the report.
//!
//! | File | What |
//! | --- | --- |
//! | `kills` | `kill -9` of coordinator, agent and worker at any moment (T4) |
//! | `faults` | one system call that fails, or kills (T5); or a fault point of the program is reached |
//! | `coordinators` | the loss of coordinators and of members of etcd (T6) |
//! | `partitions` | cut networks (T6) |
//! | `flips` | one bit that is not as it was written (T5) |
//! | `reboots` | power that is cut while the coordinator is away (T7) |
//! | `updates` | new revisions, drains, new programs and killed agents, over which no request fails (T8) |
//! | `crowd` | a thousand agents whose coordinator is killed |
//! | `teeth` | whether those find what is planted |
//! | `ledger` | a client that remembers what was acknowledged |
//! | `singleton` | a client that finds out whether two of a singleton run |
//! | `traffic` | requests to a service all the time |
//! | `tails` | the ends of logs, if it has failed |
//! | `report` | what a campaign says |

mod chance;
mod coordinators;
mod crowd;
mod faults;
mod flips;
mod kills;
mod ledger;
mod partitions;
mod reboots;
mod report;
mod singleton;
mod tails;
mod teeth;
mod traffic;
mod updates;

pub use coordinators::{coordinators, show_coordinators};
pub use crowd::{crowd, crowd_of};
pub use faults::{faults, points};
pub use flips::flips;
pub use kills::kills;
pub use partitions::partitions;
pub use reboots::reboots;
pub use report::Report;
pub use teeth::teeth;
pub use updates::updates;
