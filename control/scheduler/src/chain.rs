//! Chains: runs of one app that were started together, each after those that it comes after have completed.
//!
//! All of them are there from the start, so that a chain is whole after any crash. One that waits begins when the last
//! run that it waits for has completed, and is abandoned as soon as one of these has not.
//!
//! Not here: how a chain is started (`start`), and how the items of a run that has begun are given out (`run`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dunlin_model::{DurationMs, RunId, Timestamp, WorkloadName};
use serde::{Deserialize, Serialize};

use crate::retry::Queue;
use crate::{Change, Cluster, RangeSet, RunRecord, RunState, Step};

/// Why a run was ended before all its items had a record, though no user wanted that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "kebab-case")]
pub enum Abandoned {
    /// A run that it comes after has not completed.
    After {
        /// Which.
        run: RunId,
    },
    /// It took too long.
    Deadline {
        /// How long it might take.
        limit: DurationMs,
    },
}

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After { run } => write!(f, "{run}, which it comes after, has not completed"),
            Self::Deadline { limit } => {
                write!(f, "limit `deadline` of its run is {limit}, and it had passed")
            }
        }
    }
}

/// Runs by what must be known of them without a look at each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunIndex {
    /// Those that have not ended, by job.
    open: BTreeMap<WorkloadName, BTreeSet<RunId>>,
    /// Those that have ended, by job and the moment of their end, with the number of their records.
    ended: BTreeMap<WorkloadName, BTreeMap<(Timestamp, RunId), u32>>,
    /// Those that have not ended, by each run that they come after.
    followers: BTreeMap<RunId, BTreeSet<RunId>>,
    /// Those that go on and must have ended at some moment, soonest first.
    deadlines: BTreeSet<(Timestamp, RunId)>,
}

impl RunIndex {
    /// Takes note that a run is `after` now, and was `before`.
    pub(crate) fn update(&mut self, before: Option<&RunRecord>, after: Option<&RunRecord>) {
        let place = |run: &RunRecord| (run.state, run.began);
        if before.is_some() && before.map(place) == after.map(place) {
            return;
        }
        if let Some(run) = before {
            remove(&mut self.open, &run.workload, |runs| runs.remove(&run.id), BTreeSet::is_empty);
            let key = (run.ended.unwrap_or_default(), run.id);
            remove(&mut self.ended, &run.workload, |runs| runs.remove(&key).is_some(), BTreeMap::is_empty);
            for earlier in &run.after {
                remove(&mut self.followers, earlier, |runs| runs.remove(&run.id), BTreeSet::is_empty);
            }
            if let Some(end) = run.deadline() {
                self.deadlines.remove(&(end, run.id));
            }
        }
        let Some(run) = after else { return };
        if run.is_open() {
            self.open.entry(run.workload.clone()).or_default().insert(run.id);
            for earlier in &run.after {
                self.followers.entry(*earlier).or_default().insert(run.id);
            }
            self.deadlines.extend(run.deadline().map(|end| (end, run.id)));
        } else {
            let ended = self.ended.entry(run.workload.clone()).or_default();
            ended.insert((run.ended.unwrap_or_default(), run.id), run.recorded.len());
        }
    }

    /// Returns the runs of a job that have not ended.
    pub(crate) fn open(&self, job: &WorkloadName) -> impl Iterator<Item = RunId> + use<'_> {
        self.open.get(job).into_iter().flatten().copied()
    }

    /// Returns the runs of a job that have ended, with the number of their records, the first that ended first.
    pub(crate) fn ended(
        &self,
        job: &WorkloadName,
    ) -> impl DoubleEndedIterator<Item = (RunId, u32)> + use<'_> {
        self.ended.get(job).into_iter().flatten().map(|((_, run), records)| (*run, *records))
    }

    /// Returns the runs that come after one and have not ended.
    pub(crate) fn followers(&self, run: RunId) -> impl Iterator<Item = RunId> + use<'_> {
        self.followers.get(&run).into_iter().flatten().copied()
    }

    /// Returns when the first run must have ended, and which.
    pub(crate) fn first_deadline(&self) -> Option<(Timestamp, RunId)> {
        self.deadlines.first().copied()
    }
}

/// Takes something out of what stands at `key`, and that too if nothing is left of it.
fn remove<K: Ord, V>(
    index: &mut BTreeMap<K, V>,
    key: &K,
    take: impl FnOnce(&mut V) -> bool,
    is_empty: impl FnOnce(&V) -> bool,
) {
    if let Some(entry) = index.get_mut(key) {
        take(entry);
        if is_empty(entry) {
            index.remove(key);
        }
    }
}

impl Cluster {
    /// Lets those begin that waited for a run alone, or ends them if it has not completed.
    pub(crate) fn go_on_after(&mut self, step: &mut Step, ended: RunId, now: Timestamp) {
        let has_completed = self.durable.runs()[&ended].state == RunState::Completed;
        let followers: Vec<RunId> = self.durable.run_index().followers(ended).collect();
        for id in followers {
            let Some(run) = self.durable.runs().get(&id).filter(|run| run.state == RunState::Waiting) else {
                continue;
            };
            if !has_completed {
                let state = RunState::Abandoned { why: Abandoned::After { run: ended } };
                self.end_run(step, id, state, now);
            } else if self.waits_for(run).is_empty() {
                self.begin(step, id, now);
            }
        }
    }

    /// Returns the runs that have not completed and that a run comes after.
    pub(crate) fn waits_for(&self, run: &RunRecord) -> Vec<RunId> {
        let runs = self.durable.runs();
        let has_completed = |run: &RunId| runs.get(run).is_some_and(|run| run.state == RunState::Completed);
        run.after.iter().filter(|run| !has_completed(run)).copied().collect()
    }

    fn begin(&mut self, step: &mut Step, id: RunId, now: Timestamp) {
        let mut run = self.durable.runs()[&id].clone();
        run.state = RunState::Running;
        run.began = Some(now);
        self.volatile.queues.insert(id, Queue::restore(&run, &RangeSet::new()));
        self.change(step, Change::Run(run), now);
    }

    /// Ends runs that take too long.
    pub(crate) fn end_overdue(&mut self, step: &mut Step, now: Timestamp) {
        while let Some((end, id)) = self.durable.run_index().first_deadline() {
            if end > now {
                break;
            }
            let limit = self.durable.runs()[&id].job().deadline.unwrap_or_default();
            self.end_run(step, id, RunState::Abandoned { why: Abandoned::Deadline { limit } }, now);
        }
    }
}
