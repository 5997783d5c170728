//! How a run is started: together with the runs of all jobs that it comes after, or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_model::{
    AppName, Digest, Fuel, JobSpec, LimitHit, MAX_ITEMS, Name, Revision, RunId, Timestamp, WorkloadKind,
    WorkloadName, WorkloadSpec, chain_of,
};

use crate::retry::Queue;
use crate::{Answer, Change, Cluster, Counters, RangeSet, Rejection, RunRecord, RunState, Step};

/// What whoever starts a run says of it. What is not said is as the job's spec has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunWish {
    /// Over how many items.
    pub items: Option<u32>,
    /// Where the inputs of these items are listed; without, and with `items`, each knows only its number.
    pub inputs: Option<Digest>,
    /// Variables beside those of the spec, or in place of them.
    pub environment: BTreeMap<String, String>,
}

impl RunWish {
    /// Returns a wish for so many items that know only their numbers.
    pub fn of_items(items: u32) -> Self {
        Self { items: Some(items), ..Self::default() }
    }
}

/// One run of a chain that is about to be started.
struct Planned {
    name: Name,
    spec: Arc<WorkloadSpec>,
    items: u32,
    inputs: Option<Digest>,
    reads_outputs: bool,
}

impl Cluster {
    /// Starts a run as a user wants it.
    pub(crate) fn start_run(
        &mut self,
        step: &mut Step,
        workload: &WorkloadName,
        wish: &RunWish,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        self.start_chain(step, workload, wish, None, now).map(Answer::RunStarted)
    }

    /// Starts a run and those of all jobs that it comes after; nothing has changed if that is refused. `due` is the
    /// moment for which a schedule wants it.
    pub(crate) fn start_chain(
        &mut self,
        step: &mut Step,
        workload: &WorkloadName,
        wish: &RunWish,
        due: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<RunId, Rejection> {
        let (revision, planned) = self.plan_chain(workload, wish)?;
        let items = planned.iter().map(|run| run.items).fold(0_u32, u32::saturating_add);
        if let Some(hit) = self.items_hit(&workload.namespace, items) {
            return Err(Rejection::QuotaExceeded { namespace: workload.namespace.clone(), hit });
        }
        let app = workload.app_name();
        let mut started: BTreeMap<Name, RunId> = BTreeMap::new();
        for run in planned {
            let name = run.name.clone();
            let due = due.filter(|_| name == workload.workload);
            let id = self.start_planned(step, &app, run, (revision, due), &started, now);
            started.insert(name, id);
        }
        Ok(started.remove(&workload.workload).expect("the chain of a job has that job in it"))
    }

    /// Returns the runs of a chain in their order, the one that is wished for last.
    fn plan_chain(
        &self,
        workload: &WorkloadName,
        wish: &RunWish,
    ) -> Result<(Revision, Vec<Planned>), Rejection> {
        let app = self.app(&workload.app_name())?;
        let mut planned = Vec::new();
        for name in chain_of(&app.spec, &workload.workload) {
            let full = workload.app_name().workload(&name);
            let spec = app.spec.workloads.get(&name);
            let spec = spec.ok_or_else(|| Rejection::UnknownWorkload(full.clone()))?;
            let WorkloadKind::Job(job) = &spec.kind else { return Err(Rejection::NotAJob(full)) };
            let is_wished = name == workload.workload;
            let own = RunWish::default();
            let wish = if is_wished { wish } else { &own };
            planned.push(plan(name, &full, spec, job, wish)?);
        }
        Ok((app.revision, planned))
    }

    fn start_planned(
        &mut self,
        step: &mut Step,
        app: &AppName,
        planned: Planned,
        (revision, due): (Revision, Option<Timestamp>),
        started: &BTreeMap<Name, RunId>,
        now: Timestamp,
    ) -> RunId {
        let Planned { name, spec, items, inputs, reads_outputs } = planned;
        let Counters { allocation, run } = self.durable.counters();
        let id = RunId::new(run + 1);
        self.change(step, Change::Counters(Counters { allocation, run: run + 1 }), now);
        let after: Vec<RunId> = match &spec.kind {
            WorkloadKind::Job(job) => {
                job.after.iter().filter_map(|name| started.get(name)).copied().collect()
            }
            WorkloadKind::Service(_) => Vec::new(),
        };
        let waits = !after.is_empty();
        let record = RunRecord {
            id,
            workload: app.workload(&name),
            revision,
            spec,
            items,
            inputs,
            state: if waits { RunState::Waiting } else { RunState::Running },
            recorded: RangeSet::new(),
            succeeded: 0,
            failed: 0,
            tried: BTreeMap::new(),
            fuel: Fuel(0),
            created: now,
            ended: None,
            after,
            reads_outputs,
            began: (!waits).then_some(now),
            due,
        };
        if !waits {
            self.volatile.queues.insert(id, Queue::restore(&record, &RangeSet::new()));
        }
        self.change(step, Change::Run(record), now);
        id
    }
}

/// Returns what a run of a job will be like, if nothing is in the way.
fn plan(
    name: Name,
    full: &WorkloadName,
    spec: &WorkloadSpec,
    job: &JobSpec,
    wish: &RunWish,
) -> Result<Planned, Rejection> {
    let (items, inputs, reads_outputs) = match (wish.items, job.items) {
        (Some(items), _) => (items, wish.inputs, false),
        (None, Some(items)) => (items, job.inputs, false),
        (None, None) if job.reads_outputs() => (1, None, true),
        (None, None) => return Err(Rejection::NothingToWorkOn(full.clone())),
    };
    if items == 0 {
        return Err(Rejection::NoItems);
    }
    if items > MAX_ITEMS {
        return Err(Rejection::TooManyItems(LimitHit::new("items", MAX_ITEMS, items)));
    }
    let mut spec = spec.clone();
    if !wish.environment.is_empty() {
        spec.environment.extend(wish.environment.clone());
        if let Some(error) = spec.check_environment().into_iter().next() {
            return Err(Rejection::InvalidRun {
                job: full.clone(),
                field: error.field,
                reason: error.message,
            });
        }
    }
    Ok(Planned { name, spec: Arc::new(spec), items, inputs, reads_outputs })
}
