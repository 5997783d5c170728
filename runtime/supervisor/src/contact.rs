//! What the coordinator's silence means for what runs here: when it was last heard, and which leases it has given.
//!
//! A coordinator that answers a report says back when that was sent, by this node's own clock. From then on its answer
//! counts, not from its arrival: what was on its way for long is old.
//!
//! An agent that was started again has no leases, and counts the time without word from its start. An answer to what it
//! sent in its former life says nothing: its clock was another one then.

use std::collections::BTreeMap;

use dunlin_model::{
    AllocationId, AllocationReport, AssignedAllocation, Bytes, DurationMs, Fuel, Name, ObservedState,
    OnPartition, Timestamp,
};

/// A singleton is stopped this share of its lease before that is over, as one in so many,
const MARGIN: u64 = 10;
/// and no sooner than this: in that time it ends, and the clocks of the two sides may differ.
const LONGEST_MARGIN: DurationMs = DurationMs(10_000);

/// What is known of the coordinator's attention.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contact {
    /// When there was a first look at the clock.
    began: Option<Timestamp>,
    /// Since when nothing was heard; absent until there was a first look at the clock.
    heard: Option<Timestamp>,
    /// Until when each singleton may run.
    leases: BTreeMap<AllocationId, Timestamp>,
    /// What was told to stop and has not said yet that it has, by allocation, with its namespace.
    stopping: BTreeMap<AllocationId, Name>,
}

impl Contact {
    /// Takes notice of the time, and forgets leases that are over.
    pub(crate) fn look(&mut self, now: Timestamp) {
        self.began.get_or_insert(now);
        self.heard.get_or_insert(now);
        self.leases.retain(|_, until| *until > now);
    }

    /// Takes note of an answer to what was sent at that moment, if it is one to this life of the agent.
    pub(crate) fn answered(
        &mut self,
        sent: Timestamp,
        now: Timestamp,
        leases: &BTreeMap<AllocationId, DurationMs>,
    ) {
        let began = *self.began.get_or_insert(now);
        if sent < began || sent > now {
            return;
        }
        self.heard(sent);
        for (id, lease) in leases {
            let margin = DurationMs(lease.0 / MARGIN).min(LONGEST_MARGIN);
            let until = sent.plus(DurationMs(lease.0.saturating_sub(margin.0)));
            let known = self.leases.entry(*id).or_default();
            *known = until.max(*known);
        }
    }

    /// Takes note of a sign of life.
    pub(crate) fn heard(&mut self, at: Timestamp) {
        self.heard = self.heard.max(Some(at));
    }

    /// Returns until when an allocation may run if nothing is heard; for ever if it does not ask.
    pub(crate) fn may_run_until(&self, assigned: &AssignedAllocation) -> Option<Timestamp> {
        match assigned.spec.on_partition() {
            OnPartition::Keep => None,
            OnPartition::StopAfter(time) => Some(self.heard.unwrap_or_default().plus(time)),
            OnPartition::Singleton => Some(self.leases.get(&assigned.id).copied().unwrap_or_default()),
        }
    }

    /// Returns why an allocation must not run now, if it must not.
    pub(crate) fn must_not_run(&self, assigned: &AssignedAllocation, now: Timestamp) -> Option<String> {
        self.may_run_until(assigned).filter(|until| *until <= now)?;
        match assigned.spec.on_partition() {
            OnPartition::Keep => None,
            OnPartition::StopAfter(time) => {
                Some(format!("nothing was heard from the coordinator for {time}"))
            }
            OnPartition::Singleton => Some("it has no lease: the coordinator has to answer first".to_owned()),
        }
    }

    /// Takes note that an allocation was told to stop, which has to be waited for.
    pub(crate) fn stops(&mut self, assigned: &AssignedAllocation) {
        self.stopping.insert(assigned.id, assigned.workload.namespace.clone());
    }

    /// Takes note that an allocation has stopped.
    pub(crate) fn stopped(&mut self, id: AllocationId) {
        self.stopping.remove(&id);
    }

    /// Takes note that a worker is gone, and all that was in it.
    pub(crate) fn worker_died(&mut self, namespace: &Name) {
        self.stopping.retain(|_, stopping| stopping != namespace);
    }

    /// Tells whether an allocation was told to stop and may still run.
    pub(crate) fn is_stopping(&self, id: AllocationId) -> bool {
        self.stopping.contains_key(&id)
    }

    /// Returns what is to be said of allocations that are not wanted any more and may still run.
    pub(crate) fn reports<'a>(
        &'a self,
        is_known: impl Fn(AllocationId) -> bool + 'a,
    ) -> impl Iterator<Item = AllocationReport> + 'a {
        let leaving = self.stopping.keys().filter(move |id| !is_known(**id));
        leaving.map(|id| AllocationReport {
            id: *id,
            state: ObservedState::Stopped { reason: "it was told to stop and has not yet".to_owned() },
            restarts: 0,
            fuel: Fuel(0),
            memory: Bytes(0),
            instances: 0,
            failed: 0,
        })
    }
}
