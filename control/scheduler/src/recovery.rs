//! Recovery: a store that is older than what the fleet obeys.
//!
//! A coordinator that was restored from a backup, or started on an old copy of its folder, does not know what was decided
//! since. What it would decide could stop what nobody wants stopped. So it decides nothing, whatever happens and whoever
//! wishes, until an operator says that what it has is to be from now on. That takes the fleet's next term, so that agents
//! obey again, and numbers that nothing had meanwhile. What may be started at most once may have been: its runs end.
//!
//! A backup says itself what it is. Another old store is known by agents that have obeyed a later term: most of them, so
//! that no single one can bring the whole fleet to a stop.

use std::fmt;

use dunlin_model::{JobSpec, NodeId, Term, Timestamp, WorkloadKind};
use serde::{Deserialize, Serialize};

use crate::{
    Action, Answer, Change, Cluster, Command, Counters, NodeRecord, Rejection, RunRecord, RunState,
    ScheduleRecord, Step, UpgradeRecord, UpgradeState,
};

/// By how much the numbers of allocations and runs go on at least, so that none is used again that was given out meanwhile.
const SKIPPED: u64 = 1_000_000;
/// By how much the term goes on beyond the highest that was heard of.
const SKIPPED_TERMS: u64 = 1_000;
/// An agent that says it has obeyed a term so much later is not believed.
const MOST_TERMS: u64 = 1 << 32;

/// That nothing is decided, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryRecord {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: RecoveryReason,
    /// The highest term that agents were heard to have obeyed; once it is confirmed, the one that the next start goes
    /// beyond.
    pub highest_term: Term,
    /// Whether an operator has said that it is to go on; it does at the next start.
    pub confirmed: bool,
}

/// Why nothing is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryReason {
    /// The store was made from a backup.
    Restored {
        /// When that was taken.
        taken: Timestamp,
    },
    /// Agents have obeyed a later coordinator.
    Behind,
}

impl fmt::Display for RecoveryReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restored { .. } => "its store was made from a backup",
            Self::Behind => "most nodes have obeyed a later term: its store is an old copy, or another coordinator is in charge",
        })
    }
}

impl Cluster {
    /// Returns why nothing is decided, if that is so.
    pub fn recovery(&self) -> Option<&RecoveryRecord> {
        self.durable.recovery()
    }

    /// Takes a wish while nothing is decided.
    pub(crate) fn submit_in_recovery(
        &mut self,
        command: Command,
        record: RecoveryRecord,
        now: Timestamp,
    ) -> Result<(Answer, Step), Rejection> {
        let mut step = Step::default();
        match command {
            Command::Recover => {}
            // Who was revoked since is a member again by an old store, and must not be let in.
            Command::Revoke(node) => {
                let answer = self.revoke(&mut step, &node, now)?;
                return Ok((answer, step));
            }
            _ => return Err(Rejection::Recovering { reason: record.reason.to_string() }),
        }
        self.start_nothing_twice(&mut step, now);
        self.forget_upgrade(&mut step, now);
        let Counters { allocation, run } = self.durable.counters();
        // By the clock too: of two recoveries from one backup the second must not give out what the first one has.
        let skipped = |number: u64| number.saturating_add(SKIPPED).max(now.0);
        let counters = Counters { allocation: skipped(allocation), run: skipped(run) };
        self.change(&mut step, Change::Counters(counters), now);
        // Those that are out of reach now may have obeyed a later one than those that were heard.
        let seconds = now.since(record.since).0 / 1_000;
        let highest = record.highest_term.max(self.term).0;
        let highest_term = Term(highest.saturating_add(SKIPPED_TERMS).saturating_add(seconds));
        let record = RecoveryRecord { confirmed: true, highest_term, ..record };
        self.change(&mut step, Change::Recovery(record), now);
        step.actions.push(Action::StartAgain);
        Ok((Answer::Recovered, step))
    }

    /// Returns how many members may have something to say: those that are not lost, and those that have spoken.
    fn voices(&self) -> usize {
        let is_there = |node: &&NodeRecord| {
            !node.revoked && (node.lost.is_none() || self.volatile.fenced.contains_key(&node.id))
        };
        self.durable.nodes().values().filter(is_there).count()
    }

    /// Has no node told of an upgrade that this store believes to be the last one.
    fn forget_upgrade(&mut self, step: &mut Step, now: Timestamp) {
        if let Some(upgrade) = self.durable.upgrade().cloned() {
            let reason =
                "the coordinator went on from an older store, and may not know of the last one".to_owned();
            let state = UpgradeState::Stopped { reason };
            // Nodes may have tried some that it does not know of; and what it has told counts no more.
            let number = upgrade.number.saturating_add(SKIPPED);
            self.change(step, Change::Upgrade(UpgradeRecord { number, state, ..upgrade }), now);
        }
    }

    /// Ends what may have been started since: runs of jobs that are `at-most-once`, and the moments of their schedules.
    fn start_nothing_twice(&mut self, step: &mut Step, now: Timestamp) {
        let is_once = |job: &JobSpec| job.is_at_most_once();
        let open = self.durable.runs().values().filter(|run| run.is_open() && is_once(run.job()));
        // Those that come after others first: with an earlier one they would be abandoned, and perhaps forgotten.
        for run in open.map(|run| run.id).rev().collect::<Vec<_>>() {
            if self.durable.runs().get(&run).is_some_and(RunRecord::is_open) {
                self.end_run(step, run, RunState::Cancelled, now);
            }
        }
        let is_of_one = |record: &&ScheduleRecord| match self.durable.specs().get(&record.job) {
            Some(spec) => matches!(&spec.kind, WorkloadKind::Job(job) if is_once(job)),
            None => false,
        };
        let followed: Vec<ScheduleRecord> =
            self.durable.schedules().values().filter(is_of_one).cloned().collect();
        for record in followed {
            let followed = record.followed.max(now);
            self.change(step, Change::Schedule(ScheduleRecord { followed, ..record }), now);
        }
    }

    /// Takes note of an agent that does not obey this coordinator, as it has obeyed a later one.
    pub(crate) fn observe_fenced(&mut self, step: &mut Step, node: NodeId, term: Term, now: Timestamp) {
        let is_credible = term > self.term && term.0 - self.term.0 < MOST_TERMS;
        if !is_credible || !self.durable.nodes().contains_key(&node) {
            return;
        }
        self.volatile.fenced.insert(node, term);
        let fenced = self.volatile.fenced.len();
        let highest = self.volatile.fenced.values().copied().max().unwrap_or(term);
        let record = match self.durable.recovery() {
            Some(record) if record.highest_term >= highest || record.confirmed => return,
            Some(record) => RecoveryRecord { highest_term: highest, ..record.clone() },
            None if fenced * 2 <= self.voices() => return,
            None => RecoveryRecord {
                since: now,
                reason: RecoveryReason::Behind,
                highest_term: highest,
                confirmed: false,
            },
        };
        self.change(step, Change::Recovery(record), now);
    }
}
