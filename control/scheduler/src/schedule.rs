//! Schedules: runs that nobody has to start.
//!
//! Of each scheduled job it is kept up to which moment its schedule has been followed, in the same commit as the run
//! that follows from it. So a coordinator that starts again neither starts a run twice nor forgets one, and sees which
//! moments it has missed. Of moments that are past, at most one run is made.
//!
//! Not here: which moments a schedule means (`dunlin_model::Schedule`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dunlin_model::{
    AppName, DurationMs, Missed, Name, Overlap, RunId, Schedule, Timestamp, WorkloadKind, WorkloadName,
};
use serde::{Deserialize, Serialize};

use crate::durable::Durable;
use crate::effort::Effort;
use crate::{Change, Cluster, RunWish, Step};

/// A run that is started so late, at most, is not one that was missed: a coordinator may need that long to start.
const IN_TIME: DurationMs = DurationMs(60_000);

/// A scheduled job, and how far its schedule has been followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleRecord {
    /// Which job.
    pub job: WorkloadName,
    /// Its schedule.
    pub schedule: Schedule,
    /// Moments up to this one have been dealt with.
    pub followed: Timestamp,
    /// What became of the last of them.
    #[serde(default)]
    pub last: Option<Due>,
}

/// A moment at which a job was due, and what was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// When.
    pub at: Timestamp,
    /// What was done.
    pub done: Done,
}

/// What was done when a job was due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Done {
    /// A run was started.
    Started {
        /// Which.
        run: RunId,
    },
    /// Nothing.
    Skipped {
        /// Why.
        why: String,
    },
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { run } => write!(f, "{run}"),
            Self::Skipped { why } => write!(f, "skipped: {why}"),
        }
    }
}

/// When scheduled jobs are due. It follows from what is kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calendar {
    due: BTreeSet<(Timestamp, WorkloadName)>,
    of: BTreeMap<WorkloadName, Timestamp>,
    /// Apps whose jobs may have other schedules.
    pub(crate) changed: BTreeSet<AppName>,
    /// Whether nothing is ever due, in a copy that looks ahead.
    is_off: bool,
}

impl Calendar {
    /// Returns the calendar of all schedules.
    pub(crate) fn restore(durable: &Durable) -> Self {
        let mut calendar = Self::default();
        for (job, record) in durable.schedules() {
            calendar.set(job, record.schedule.next_after(record.followed));
        }
        calendar
    }

    /// Returns when the first job is due.
    pub(crate) fn first(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Returns when a job is due next.
    pub(crate) fn next_of(&self, job: &WorkloadName) -> Option<Timestamp> {
        self.of.get(job).copied()
    }

    /// Lets nothing be due from now on.
    pub(crate) fn stop(&mut self) {
        *self = Self { is_off: true, ..Self::default() };
    }

    fn set(&mut self, job: &WorkloadName, due: Option<Timestamp>) {
        if let Some(before) = self.of.remove(job) {
            self.due.remove(&(before, job.clone()));
        }
        if let Some(due) = due.filter(|_| !self.is_off) {
            self.of.insert(job.clone(), due);
            self.due.insert((due, job.clone()));
        }
    }
}

impl Cluster {
    /// Takes over the schedules of apps that have changed. One that is new or another is followed from now on.
    pub(crate) fn take_schedules(&mut self, step: &mut Step, now: Timestamp) {
        for app in std::mem::take(&mut self.volatile.calendar.changed) {
            let wanted = self.scheduled_jobs(&app);
            let known = self.durable.schedules().keys().filter(|job| job.app_name() == app);
            let gone: Vec<WorkloadName> =
                known.filter(|job| !wanted.contains_key(&job.workload)).cloned().collect();
            for job in gone {
                self.volatile.calendar.set(&job, None);
                self.change(step, Change::ScheduleDeleted(job), now);
            }
            for (name, schedule) in wanted {
                let job = app.workload(&name);
                let known = self.durable.schedules().get(&job);
                if known.is_none_or(|known| known.schedule != schedule) {
                    let last = known.and_then(|known| known.last.clone());
                    self.follow(step, ScheduleRecord { job, schedule, followed: now, last }, now);
                }
            }
        }
    }

    fn scheduled_jobs(&self, app: &AppName) -> BTreeMap<Name, Schedule> {
        let workloads = self.durable.apps().get(app).into_iter().flat_map(|app| &app.spec.workloads);
        let scheduled = workloads.filter_map(|(name, spec)| match &spec.kind {
            WorkloadKind::Job(job) => Some((name.clone(), job.schedule.clone()?)),
            WorkloadKind::Service(_) => None,
        });
        scheduled.collect()
    }

    /// Starts a run of each job that is due.
    pub(crate) fn start_due(&mut self, step: &mut Step, effort: &mut Effort, now: Timestamp) {
        while let Some((due, job)) = self.volatile.calendar.due.first().cloned() {
            if due > now || effort.is_over() {
                break;
            }
            effort.spend(1);
            let mut record = self.durable.schedules()[&job].clone();
            let at = moment_to_run(&record, due, now);
            let done = match at {
                None => Done::Skipped { why: "no coordinator was there".to_owned() },
                Some(at) => self.start_scheduled(step, &record, at, now),
            };
            record.last = Some(Due { at: at.unwrap_or(due), done });
            record.followed = now;
            self.follow(step, record, now);
        }
    }

    fn start_scheduled(
        &mut self,
        step: &mut Step,
        record: &ScheduleRecord,
        at: Timestamp,
        now: Timestamp,
    ) -> Done {
        let open = self.durable.run_index().open(&record.job).next();
        if let Some(run) = open.filter(|_| record.schedule.overlap == Overlap::Skip) {
            return Done::Skipped { why: format!("{run} had not ended") };
        }
        match self.start_chain(step, &record.job, &RunWish::default(), Some(at), now) {
            Ok(run) => Done::Started { run },
            Err(rejection) => Done::Skipped { why: rejection.to_string() },
        }
    }

    fn follow(&mut self, step: &mut Step, record: ScheduleRecord, now: Timestamp) {
        self.volatile.calendar.set(&record.job, record.schedule.next_after(record.followed));
        self.change(step, Change::Schedule(record), now);
    }
}

/// Returns the moment for which a run is to be started, if one is: the latest that is not missed, or else the first that
/// was if those count.
fn moment_to_run(record: &ScheduleRecord, due: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let schedule = &record.schedule;
    let from = record.followed.max(Timestamp(now.0.saturating_sub(IN_TIME.0)));
    let next = |moment: Timestamp| schedule.next_after(moment).filter(|moment| *moment <= now);
    let latest = std::iter::successors(next(from), |moment| next(*moment)).last();
    latest.or(match schedule.missed {
        Missed::Once => Some(due),
        Missed::Skip => None,
    })
}
