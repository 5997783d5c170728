//! Whose turn it is when there is not room for all: first by priority, then the namespace that has the least.
//!
//! What a namespace has is its dominant share: of memory or of computing, whichever it has more of, in relation to the
//! whole fleet and to its weight. Who has the least is given something next, so that over time the shares of busy
//! namespaces are as their weights (weighted dominant resource fairness).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dunlin_model::{Name, Priority, Resources, RunId, Timestamp, WorkloadName};

use crate::dirty::NewRoom;
use crate::effort::Effort;
use crate::{Cluster, RunRecord, Step};

/// Somebody who wants allocations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claim {
    /// A service that has fewer than it should.
    Service(WorkloadName),
    /// A run that has items nobody works on.
    Run(RunId),
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has what it wants, or there is no room for more.
    Over,
    /// It wants more, and there may be room.
    More,
}

/// Of what one namespace is given in one turn, the share of the fleet, as one in so many.
const TURN: u64 = 1_000;

/// Claims by urgency and namespace, the most urgent first; those of one namespace in the order of their names.
type Lines = BTreeMap<Reverse<Priority>, BTreeMap<Name, VecDeque<Claim>>>;

impl Cluster {
    /// Gives everybody in turn what is wanted and there is room for: `workloads` and the runs that have changed, and
    /// those that wait if there is new room.
    pub(crate) fn give_turns(
        &mut self,
        step: &mut Step,
        mut workloads: BTreeSet<WorkloadName>,
        room: &NewRoom,
        effort: &mut Effort,
        now: Timestamp,
    ) {
        let mut runs = std::mem::take(&mut self.volatile.dirty.runs);
        if !room.is_none() {
            let waiting = self.volatile.waiting_services.iter();
            workloads.extend(waiting.filter(|workload| room.concerns(workload)).cloned());
            let waiting = self.volatile.waiting_runs.iter();
            runs.extend(
                waiting
                    .filter(|id| self.durable.runs().get(id).is_some_and(|run| room.concerns(&run.workload))),
            );
        }
        for (_, mut line) in self.lines(workloads, runs) {
            while let Some(namespace) = self.next_of(&line) {
                if effort.is_over() {
                    line.into_values().flatten().for_each(|claim| effort.leave(claim));
                    break;
                }
                let is_alone = line.len() == 1;
                let Some(claims) = line.get_mut(&namespace) else { break };
                let Some(claim) = claims.front().cloned() else {
                    line.remove(&namespace);
                    continue;
                };
                if self.give(step, &claim, is_alone, effort, now) == Turn::Over {
                    claims.pop_front();
                }
            }
        }
    }

    /// Returns who wants something, in order.
    fn lines(&self, workloads: BTreeSet<WorkloadName>, runs: BTreeSet<RunId>) -> Lines {
        let mut lines = Lines::new();
        for workload in workloads {
            let spec = self.durable.specs().get(&workload);
            let priority = spec.map(|spec| spec.priority).unwrap_or_default();
            let line = lines.entry(Reverse(priority)).or_default().entry(workload.namespace.clone());
            line.or_default().push_back(Claim::Service(workload));
        }
        for id in runs {
            let Some(run) = self.durable.runs().get(&id) else { continue };
            let line = lines.entry(Reverse(run.spec.priority)).or_default();
            line.entry(run.workload.namespace.clone()).or_default().push_back(Claim::Run(id));
        }
        lines
    }

    /// Returns the namespace whose turn it is: the one that has the least.
    fn next_of(&self, line: &BTreeMap<Name, VecDeque<Claim>>) -> Option<Name> {
        match line.len() {
            0 | 1 => line.keys().next().cloned(),
            _ => line.keys().min_by_key(|namespace| self.weighted_share(namespace)).cloned(),
        }
    }

    /// Returns the dominant share of a namespace by its weight: in billionths of the fleet.
    pub(crate) fn weighted_share(&self, namespace: &Name) -> u128 {
        let Resources { memory, fuel_rate } = self.durable.usage(namespace).reserved;
        let total = self.volatile.pools.total();
        let share = |has: u64, all: u64| u128::from(has) * 1_000_000_000 / u128::from(all.max(1));
        let dominant = share(memory.0, total.memory.0).max(share(fuel_rate.0, total.fuel_rate.0));
        dominant / u128::from(self.durable.namespace(namespace).weight.max(1))
    }

    /// Returns how many allocations that need so much a namespace is given in one turn.
    pub(crate) fn allocations_of_a_turn(&self, need: Resources) -> u32 {
        let total = self.volatile.pools.total();
        let fitting = |all: u64, need: u64| (all / TURN).checked_div(need).unwrap_or(u64::MAX);
        let memory = fitting(total.memory.0, need.memory.0);
        let computing = fitting(total.fuel_rate.0, need.fuel_rate.0);
        u32::try_from(memory.min(computing)).unwrap_or(u32::MAX).max(1)
    }

    /// Gives somebody a turn.
    pub(crate) fn give(
        &mut self,
        step: &mut Step,
        claim: &Claim,
        is_alone: bool,
        effort: &mut Effort,
        now: Timestamp,
    ) -> Turn {
        match claim {
            Claim::Service(workload) => self.place_service(step, workload, is_alone, effort, now),
            Claim::Run(id) => {
                match self.durable.runs().get(id) {
                    Some(run) => self.volatile.set_run_waiting(run, false),
                    None => drop(self.volatile.waiting_runs.remove(id)),
                }
                if self.durable.runs().get(id).is_some_and(RunRecord::is_running) {
                    self.lease_items(step, *id, is_alone, effort, now)
                } else {
                    Turn::Over
                }
            }
        }
    }
}
