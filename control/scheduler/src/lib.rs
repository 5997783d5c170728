//! The coordinator's brain: placement, rollout, leases and retries, without I/O.
//!
//! A [`Cluster`] takes a wish ([`Command`]), news from an agent ([`Observation`]) or the passing of time, and returns
//! a [`Step`]: changes to commit first, and actions to carry out once they are durable. It has no clock, no
//! randomness, no sockets and no logs; a real coordinator and a simulation drive the same code.
//!
//! All ways in end in one private `settle`: expire leases → end what is surplus or lost → advance rollouts → place
//! what is missing → say what each node must run. Applying a [`Change`] is the only code that mutates durable state.
//! Ids are counted, not drawn.

mod assign;
mod baking;
mod brake;
mod called;
mod chain;
mod check;
mod cluster;
mod config;
mod course;
mod dirty;
mod durable;
mod effort;
mod everywhere;
mod explain;
mod failures;
mod foresee;
mod history;
mod index;
mod input;
mod judge;
mod lease;
mod lookup;
mod namespaces;
mod nodes;
mod observe;
mod placement;
mod planted;
mod preempt;
mod range_set;
mod rebalance;
mod reconcile;
mod record;
mod recovery;
mod rejection;
mod retention;
mod retry;
mod revisions;
mod rollout;
mod routes;
mod run;
mod schedule;
mod secrets;
mod share;
mod signed;
mod singleton;
mod start;
mod step;
mod submit;
mod timers;
mod token;
mod turns;
mod upgrade;
mod validate;
mod view;
mod volatile;

pub use brake::{Held, ZONE};
pub use chain::Abandoned;
pub use cluster::Cluster;
pub use config::Config;
pub use durable::Change;
pub use foresee::{Foresight, Planned, plan};
pub use index::Usage;
pub use input::{Answer, Command, Observation};
#[cfg(feature = "planted-bugs")]
pub use planted::{Bug, plant};
pub use range_set::RangeSet;
pub use record::{
    AllocationRecord, AllocationState, AppRecord, Cordon, Counters, Fate, Leaving, MakesWay, NamespaceRecord,
    NodeRecord, NodeUpgrade, PendingRecord, RevisionRecord, RolloutRecord, RunRecord, RunState, SecretRecord,
    TokenRecord, UpgradeRecord, UpgradeState,
};
pub use recovery::{RecoveryReason, RecoveryRecord};
pub use rejection::Rejection;
pub use schedule::{Done, Due, ScheduleRecord};
pub use start::RunWish;
pub use step::{Action, Step};
pub use view::{
    AllocationView, AppView, NamespaceView, NodeStatus, NodeView, RunView, TokenView, View, WorkloadView,
};
