//! What is known only from what agents said lately. A coordinator that starts again hears it again.

use std::collections::BTreeMap;

use dunlin_model::{
    AllocationId, AllocationReport, Generation, NodeId, Revision, RouteTable, RunId, Term, Timestamp,
    WorkloadName,
};

use crate::Config;
use crate::durable::Durable;
use crate::retry::Queue;
use crate::routes::route_table;
use crate::run::leased;

/// What is not kept.
#[derive(Debug, Default)]
pub(crate) struct Volatile {
    /// Every member, also those that were never heard.
    pub(crate) nodes: BTreeMap<NodeId, NodeState>,
    /// The last word on each allocation.
    pub(crate) observed: BTreeMap<AllocationId, AllocationReport>,
    /// The queue of each run that goes on.
    pub(crate) queues: BTreeMap<RunId, Queue>,
    /// Why a service has fewer allocations than it should.
    pub(crate) service_waiting: BTreeMap<WorkloadName, String>,
    /// Why a run has fewer allocations than it could.
    pub(crate) run_waiting: BTreeMap<RunId, String>,
    /// What every ingress must know.
    pub(crate) routes: RouteTable,
    /// Counts the route tables, so that what was sent can be compared by a number.
    pub(crate) routes_version: u64,
    /// Since when something changed that was not yet thought through.
    pub(crate) unsettled: Option<Timestamp>,
}

/// What is known of one node beside its record.
#[derive(Debug, Default)]
pub(crate) struct NodeState {
    /// Until when it is believed; absent if it is lost or was never heard.
    pub(crate) lease: Option<Timestamp>,
    /// When it last reported to this coordinator.
    pub(crate) last_seen: Option<Timestamp>,
    /// Whether it can be spoken to.
    pub(crate) connected: bool,
    /// The assignment it acts on, as it last said.
    pub(crate) reported: Option<(Term, Generation)>,
    /// The assignment it was last sent.
    pub(crate) sent: Option<Sent>,
    /// Whether the last assignment should be sent again though it has not changed.
    pub(crate) resend: bool,
}

/// The content of an assignment, short: an allocation changes only together with its revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) generation: Generation,
    pub(crate) allocations: Vec<(AllocationId, Revision)>,
    pub(crate) routes_version: u64,
}

impl Volatile {
    /// Returns what a coordinator knows that has just been started: everybody is believed for a while.
    pub(crate) fn restore(durable: &Durable, config: &Config, now: Timestamp) -> Self {
        let grace = now.plus(config.lease.max(config.start_grace));
        let nodes = durable.nodes().values().map(|record| {
            let believed = record.info.is_some() && record.lost.is_none();
            let state = NodeState { lease: believed.then_some(grace), ..NodeState::default() };
            (record.id.clone(), state)
        });
        let running = durable.runs().values().filter(|run| run.is_running());
        let queues = running.map(|run| (run.id, Queue::restore(run, &leased(durable, run))));
        Self {
            nodes: nodes.collect(),
            queues: queues.collect(),
            routes: route_table(durable),
            unsettled: Some(now),
            ..Self::default()
        }
    }

    /// Returns what is known of a member.
    pub(crate) fn node(&mut self, node: &NodeId) -> &mut NodeState {
        self.nodes.entry(node.clone()).or_default()
    }
}
