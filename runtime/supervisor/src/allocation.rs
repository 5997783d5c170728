//! The life of one allocation on its node.
//!
//! Waiting (for its component, or for a back-off to pass) → starting → running; back to waiting when its start fails
//! or its worker dies. Refused is the end. Whether it is finished is asked of its items.

use std::collections::BTreeSet;

use dunlin_model::{
    AllocationReport, AssignedAllocation, Begun, Bytes, Fuel, HealthSpec, Name, ObservedState, Timestamp,
    WorkloadKind,
};

use crate::Config;
use crate::backoff::Backoff;
use crate::component::ComponentState;
use crate::contact::Contact;
use crate::health::Health;
use crate::items::Items;

/// One allocation.
#[derive(Clone, Debug)]
pub(crate) struct Allocation {
    /// What the coordinator wants.
    pub(crate) assigned: AssignedAllocation,
    /// Where it stands.
    pub(crate) phase: Phase,
    /// Its items, if it is a job's.
    pub(crate) items: Option<Items>,
    /// What it has used since its worker started.
    pub(crate) usage: Usage,
    /// How it answers its health checks since it was started.
    pub(crate) health: Health,
    backoff: Backoff,
    restarts: u32,
}

/// Where an allocation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is to be started as soon as its component is present and this moment has come.
    Waiting {
        /// Not before.
        until: Timestamp,
        /// Why it waits, if it has failed.
        reason: Option<String>,
    },
    /// Its worker was told to load it.
    Starting,
    /// Its worker has loaded it.
    Running {
        /// When that was.
        since: Timestamp,
    },
    /// It can never run here.
    Refused {
        /// Why.
        reason: String,
    },
    /// All its items have ended or were broken off, and then it was stopped, its worker died or the agent was started
    /// again: there is nothing to be started.
    Ended,
}

/// What an allocation has used since its worker started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Fuel burned.
    pub(crate) fuel: Fuel,
    /// The most memory one instance held.
    pub(crate) memory: Bytes,
    /// Requests answered or items run.
    pub(crate) instances: u64,
    /// How many of these failed.
    pub(crate) failed: u64,
}

impl Allocation {
    /// Returns a new one, which waits for its component.
    pub(crate) fn new(assigned: AssignedAllocation, now: Timestamp) -> Self {
        Self {
            items: Items::of(&assigned),
            assigned,
            phase: Phase::Waiting { until: now, reason: None },
            usage: Usage::default(),
            health: Health::default(),
            backoff: Backoff::default(),
            restarts: 0,
        }
    }

    /// Returns one that this agent has had before it was started again, and its items that are not to be run any more:
    /// those that may be started at most once, since they may have been. How far it had come is known only if the agent
    /// was to be started again.
    pub(crate) fn restored(
        assigned: AssignedAllocation,
        done: BTreeSet<u32>,
        begun: Option<&Begun>,
        now: Timestamp,
    ) -> (Self, Vec<u32>) {
        let mut allocation = Self::new(assigned, now);
        if let (Some(items), Some(begun)) = (&mut allocation.items, begun) {
            let given_up = items.resume(begun, now);
            return (allocation, given_up);
        }
        if let Some(items) = &mut allocation.items {
            items.skip(done);
        }
        let Some(items) = allocation.items.as_mut().filter(|items| items.is_at_most_once) else {
            return (allocation, Vec::new());
        };
        let given_up = items.give_up();
        allocation.phase = Phase::Ended;
        (allocation, given_up)
    }

    /// Tells whether `other` would be run in the same way: a new revision which leaves the guest as it is, such as one
    /// with another number of allocations or other routes, must not cost a restart.
    pub(crate) fn runs_alike(&self, other: &AssignedAllocation) -> bool {
        let own = &self.assigned;
        own.workload == other.workload && own.work == other.work && own.spec.runs_as(&other.spec)
    }

    /// Returns the namespace in whose worker it runs.
    pub(crate) fn namespace(&self) -> &Name {
        &self.assigned.workload.namespace
    }

    /// Tells whether its worker was told of it.
    pub(crate) fn is_in_worker(&self) -> bool {
        match self.phase {
            Phase::Starting | Phase::Running { .. } => true,
            Phase::Waiting { .. } | Phase::Refused { .. } | Phase::Ended => false,
        }
    }

    /// Tells whether all its items have ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.items.as_ref().is_some_and(Items::is_done)
    }

    /// Returns its items if they are run or will be.
    pub(crate) fn items_at_work(&self) -> Option<&Items> {
        match self.phase {
            Phase::Waiting { .. } | Phase::Running { .. } => self.items.as_ref(),
            Phase::Starting | Phase::Refused { .. } | Phase::Ended => None,
        }
    }

    /// Notes how it answered a health check; one that does not run was not asked.
    pub(crate) fn checked(&mut self, problem: Option<String>) {
        let spec = self.health_spec().cloned();
        if let (Phase::Running { .. }, Some(spec)) = (&self.phase, spec) {
            self.health.checked(problem, &spec);
        }
    }

    fn health_spec(&self) -> Option<&HealthSpec> {
        match &self.assigned.spec.kind {
            WorkloadKind::Service(service) => service.health.as_ref(),
            WorkloadKind::Job(_) => None,
        }
    }

    /// Has it wait for another start if it has answered so many health checks badly that it is to have one; tells whether
    /// that is so.
    pub(crate) fn gives_up(&mut self, now: Timestamp, config: &Config) -> bool {
        let Phase::Running { .. } = self.phase else { return false };
        let reason = self.health_spec().and_then(|spec| self.health.hopeless(spec));
        let Some(reason) = reason else { return false };
        self.fails(reason, now, config);
        true
    }

    /// Notes that it was stopped, as the coordinator is silent: nothing has failed.
    pub(crate) fn cut_off(&mut self, now: Timestamp) {
        self.usage = Usage::default();
        self.phase = Phase::Waiting { until: now, reason: None };
    }

    /// Breaks off its items if they were to be finished by now; tells whether its worker must be told.
    pub(crate) fn breaks_off(&mut self, now: Timestamp, config: &Config) -> bool {
        let is_waiting = match self.phase {
            Phase::Waiting { .. } => true,
            Phase::Running { .. } => false,
            Phase::Starting | Phase::Refused { .. } | Phase::Ended => return false,
        };
        let is_broken_off = self.items.as_mut().is_some_and(|items| items.break_off(now, config));
        if is_broken_off && is_waiting {
            self.phase = Phase::Ended;
        }
        is_broken_off && !is_waiting
    }

    /// Notes that its worker has stopped it. If it was to break off its items that is its end.
    pub(crate) fn stopped(&mut self) {
        if self.items.as_mut().is_some_and(Items::stopped) {
            self.phase = Phase::Ended;
        }
    }

    /// Notes that its start failed.
    pub(crate) fn not_started(&mut self, reason: String, now: Timestamp, config: &Config) {
        let until = self.backoff.failed(now, config);
        self.restarts = self.restarts.saturating_add(1);
        self.phase = Phase::Waiting { until, reason: Some(reason) };
    }

    /// Notes that its worker died; returns the items which will not be run again.
    pub(crate) fn died(&mut self, now: Timestamp, config: &Config) -> Vec<u32> {
        let given_up = self.items.as_mut().map(|items| items.died(now, config)).unwrap_or_default();
        if self.is_finished() {
            self.usage = Usage::default();
            self.phase = Phase::Ended;
            return given_up;
        }
        self.fails("its worker process died".to_owned(), now, config);
        given_up
    }

    /// Has it wait for another start, for longer if it has failed before and did not run for long.
    fn fails(&mut self, reason: String, now: Timestamp, config: &Config) {
        self.usage = Usage::default();
        if let Phase::Running { since } = self.phase
            && now.since(since) >= config.backoff_reset
        {
            self.backoff.reset();
        }
        self.restarts = self.restarts.saturating_add(1);
        let until = self.backoff.died(now, config);
        self.phase = Phase::Waiting { until, reason: Some(reason) };
    }

    /// Tells whether it answers requests as it should, as far as is known here. One that is being started may do so
    /// before that is heard.
    pub(crate) fn may_answer(&self) -> bool {
        let is_checked = self.health_spec().is_some();
        match self.phase {
            Phase::Starting => self.items.is_none() && !is_checked,
            Phase::Running { .. } => {
                self.items.is_none() && self.health.state(is_checked) == ObservedState::Running
            }
            Phase::Waiting { .. } | Phase::Refused { .. } | Phase::Ended => false,
        }
    }

    /// Returns what the coordinator is to hear of it.
    pub(crate) fn report(
        &self,
        component: Option<&ComponentState>,
        obstacle: Option<String>,
        contact: &Contact,
        now: Timestamp,
    ) -> AllocationReport {
        AllocationReport {
            id: self.assigned.id,
            state: self.state(component, obstacle, contact, now),
            restarts: self.restarts,
            fuel: self.usage.fuel,
            memory: self.usage.memory,
            instances: self.usage.instances,
            failed: self.usage.failed,
        }
    }

    fn state(
        &self,
        component: Option<&ComponentState>,
        obstacle: Option<String>,
        contact: &Contact,
        now: Timestamp,
    ) -> ObservedState {
        if let Phase::Waiting { .. } = self.phase
            && let Some(reason) = contact.must_not_run(&self.assigned, now)
        {
            return ObservedState::Stopped { reason };
        }
        match &self.phase {
            Phase::Waiting { .. } | Phase::Starting if self.is_finished() => ObservedState::Finished,
            Phase::Waiting { until, reason: Some(reason) } if *until > now => {
                ObservedState::BackingOff { reason: reason.clone() }
            }
            Phase::Waiting { .. } => match (component, obstacle) {
                (Some(ComponentState::Failed { reason, .. }), _) => ObservedState::BackingOff {
                    reason: format!("its component could not be fetched: {reason}"),
                },
                (_, Some(reason)) => ObservedState::BackingOff { reason },
                (Some(ComponentState::Fetching | ComponentState::Present) | None, None) => {
                    ObservedState::Fetching
                }
            },
            Phase::Starting => ObservedState::Starting,
            Phase::Running { .. } if self.is_finished() => ObservedState::Finished,
            Phase::Running { .. } => self.health.state(self.health_spec().is_some()),
            Phase::Refused { reason } => ObservedState::Refused { reason: reason.clone() },
            Phase::Ended => ObservedState::Finished,
        }
    }
}
