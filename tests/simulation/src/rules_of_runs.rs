//! The rules of runs: each item one record, no attempt too many, and what has ended stays as it is.

use std::collections::BTreeSet;

use dunlin_model::{RunId, Work, WorkloadKind};
use dunlin_scheduler::{Abandoned, AllocationRecord, Change, Command, RunRecord, RunState};

use crate::rules::Commit;

impl Commit<'_> {
    /// Tells what is wrong with the runs that have changed, and with what is newly leased of any.
    pub(crate) fn check_runs(&self) -> Result<(), String> {
        let touched = self.changes.iter().filter_map(|change| match change {
            Change::Run(record) => Some(record.id),
            Change::Item { run, .. } => Some(*run),
            _ => None,
        });
        for run in touched.collect::<BTreeSet<_>>() {
            self.check_records(run)?;
            self.check_state(run)?;
        }
        self.check_open_items()?;
        let placed = self.placed.iter().filter_map(|id| self.after.allocations.get(id));
        placed.filter(|record| !record.serves()).try_for_each(|record| self.check_leased(record))
    }

    /// A run is started only within its namespace's quota of open items.
    fn check_open_items(&self) -> Result<(), String> {
        let Some(Command::StartRun { workload, .. }) = self.facts.command else { return Ok(()) };
        let quota = self.after.namespaces.get(&workload.namespace).and_then(|spec| spec.quota.items);
        let own = self.after.runs.values().filter(|run| run.workload.namespace == workload.namespace);
        let open: u32 =
            own.filter(|run| run.is_open()).map(|run| run.items.saturating_sub(run.recorded.len())).sum();
        match quota.filter(|most| open > *most) {
            Some(most) => Err(format!("{} has {open} open items of {most}", workload.namespace)),
            None => Ok(()),
        }
    }

    /// What a run says of its items is what is recorded.
    fn check_records(&self, id: RunId) -> Result<(), String> {
        let Some(run) = self.after.runs.get(&id) else { return Ok(()) };
        let (mut count, mut succeeded, mut fuel) = (0, 0, 0);
        for ((_, item), record) in self.after.items.range((id, 0)..=(id, u32::MAX)) {
            count += 1;
            succeeded += u32::from(record.outcome.is_completed());
            fuel += record.fuel.0;
            if !run.recorded.contains(*item) {
                return Err(format!("item {item} of {id} has a record of which the run does not know"));
            }
        }
        if run.recorded.len() != count || run.succeeded != succeeded || run.failed != count - succeeded {
            return Err(format!("{id} believes in {} records, there are {count}", run.recorded.len()));
        }
        // Attempts that failed and were made again have burned some besides.
        if run.fuel.0 < fuel {
            return Err(format!("{id} accounts {} of fuel, its records {fuel}", run.fuel.0));
        }
        Ok(())
    }

    /// A run that has ended has all it should, and stays so.
    fn check_state(&self, id: RunId) -> Result<(), String> {
        let Some(run) = self.after.runs.get(&id) else { return Ok(()) };
        let before = self.before.runs.get(&id);
        if before.is_some_and(|before| !before.is_open() && before != run) {
            return Err(format!("{id} has ended and changes all the same"));
        }
        let all = run.recorded.contains_range(dunlin_model::ItemRange { start: 0, end: run.items });
        let is_right = match run.state {
            RunState::Running | RunState::Cancelled => true,
            RunState::Waiting => run.recorded.is_empty(),
            RunState::Abandoned { why: Abandoned::After { run: earlier } } => {
                let earlier = self.after.runs.get(&earlier);
                run.recorded.is_empty()
                    && earlier.is_none_or(|it| !it.is_open() && it.state != RunState::Completed)
            }
            RunState::Abandoned { why: Abandoned::Deadline { limit } } => {
                run.began.is_some_and(|began| began.plus(limit) <= self.facts.now)
            }
            RunState::Completed => {
                all && run.failed == 0 && (!combines(run) || run.recorded.contains(run.items))
            }
            RunState::Failed { failed } => all && failed == run.failed && failed > 0,
        };
        if is_right { Ok(()) } else { Err(format!("{id} is {:?} too early", run.state)) }
    }

    /// Items are leased under the number of the attempt that is to be made, not more often than their job allows, and
    /// outputs are combined when there are all.
    fn check_leased(&self, record: &AllocationRecord) -> Result<(), String> {
        let Work::Items { run, range, attempt, combine, .. } = record.work else { return Ok(()) };
        let run = self.after.runs.get(&run).ok_or_else(|| format!("{} works for no run", record.id))?;
        let attempts = match &run.spec.kind {
            WorkloadKind::Job(job) => job.attempts,
            WorkloadKind::Service(_) => return Err(format!("{} is a run of a service", run.id)),
        };
        if attempt > attempts {
            return Err(format!("items {range} of {} are tried {attempt} times of {attempts}", run.id));
        }
        for item in range.start..range.end {
            let tried =
                run.tried.iter().find(|(_, items)| items.contains(item)).map_or(0, |(tried, _)| *tried);
            if attempt != tried + 1 {
                return Err(format!(
                    "item {item} of {} was tried {tried} times, and is {attempt} now",
                    run.id
                ));
            }
        }
        let all = run.recorded.contains_range(dunlin_model::ItemRange { start: 0, end: run.items });
        if combine && !(all && run.failed == 0) {
            return Err(format!("{} combines what is not all there", run.id));
        }
        Ok(())
    }
}

/// Tells whether the outputs of a run's items are combined.
pub(crate) fn combines(run: &RunRecord) -> bool {
    matches!(&run.spec.kind, WorkloadKind::Job(job) if job.combine)
}
