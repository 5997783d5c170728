//! Users' wishes about apps and runs.

use std::sync::Arc;

use dunlin_model::{
    Affinity, AppName, AppSpec, Digest, LimitHit, MAX_ITEMS, Placement, Revision, RunId, Timestamp,
    WorkloadKind, WorkloadName, WorkloadSpec,
};

use crate::retry::Queue;
use crate::validate::{check_routes, check_spec};
use crate::{
    AllocationRecord, AllocationState, Answer, AppRecord, Change, Cluster, Counters, RangeSet, Rejection,
    RunRecord, RunState, Step,
};

impl Cluster {
    pub(crate) fn deploy(
        &mut self,
        step: &mut Step,
        spec: AppSpec,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        check_spec(&spec)?;
        check_routes(&self.volatile.routes.routes, &spec)?;
        let (revision, changed) = self.revise(step, spec, now);
        Ok(Answer::Deployed { revision, changed })
    }

    pub(crate) fn stop(
        &mut self,
        step: &mut Step,
        app: &AppName,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        let mut spec = self.app(app)?.spec.clone();
        for workload in spec.workloads.values_mut() {
            match &mut workload.kind {
                WorkloadKind::Service(service) => service.allocations = 0,
                WorkloadKind::Job(_) => {}
            }
        }
        for run in self.runs_of(app) {
            if self.durable.runs()[&run].is_running() {
                self.end_run(step, run, RunState::Cancelled, now);
            }
        }
        let (revision, changed) = self.revise(step, spec, now);
        Ok(Answer::Stopped { revision, changed })
    }

    pub(crate) fn delete(
        &mut self,
        step: &mut Step,
        app: &AppName,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        self.app(app)?;
        for run in self.runs_of(app) {
            self.end_allocations_of_run(step, run, now);
            self.volatile.queues.remove(&run);
            self.volatile.set_run_waiting(&self.durable.runs()[&run], false);
            self.change(step, Change::RunDeleted(run), now);
        }
        // Its services are surplus from now on, and end as such.
        self.change(step, Change::AppDeleted(app.clone()), now);
        Ok(Answer::Deleted)
    }

    pub(crate) fn start_run(
        &mut self,
        step: &mut Step,
        workload: &WorkloadName,
        items: u32,
        inputs: Option<Digest>,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        let app = self.app(&workload.app_name())?;
        let spec = app.spec.workloads.get(&workload.workload);
        let spec = spec.ok_or_else(|| Rejection::UnknownWorkload(workload.clone()))?.clone();
        let spec = Arc::new(spec);
        match &spec.kind {
            WorkloadKind::Job(_) => {}
            WorkloadKind::Service(_) => return Err(Rejection::NotAJob(workload.clone())),
        }
        if items == 0 {
            return Err(Rejection::NoItems);
        }
        if items > MAX_ITEMS {
            return Err(Rejection::TooManyItems(LimitHit::new("items", MAX_ITEMS, items)));
        }
        if let Some(hit) = self.items_hit(&workload.namespace, items) {
            return Err(Rejection::QuotaExceeded { namespace: workload.namespace.clone(), hit });
        }
        let revision = app.revision;
        let Counters { allocation, run } = self.durable.counters();
        let id = RunId::new(run + 1);
        self.change(step, Change::Counters(Counters { allocation, run: run + 1 }), now);
        let record = RunRecord {
            id,
            workload: workload.clone(),
            revision,
            spec,
            items,
            inputs,
            state: RunState::Running,
            recorded: RangeSet::new(),
            succeeded: 0,
            failed: 0,
            tried: std::collections::BTreeMap::new(),
            fuel: dunlin_model::Fuel(0),
            created: now,
            ended: None,
        };
        self.volatile.queues.insert(id, Queue::restore(&record, &RangeSet::new()));
        self.change(step, Change::Run(record), now);
        Ok(Answer::RunStarted(id))
    }

    pub(crate) fn cancel_run(
        &mut self,
        step: &mut Step,
        id: RunId,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        let run = self.durable.runs().get(&id).ok_or(Rejection::UnknownRun(id))?;
        if run.is_running() {
            self.end_run(step, id, RunState::Cancelled, now);
        }
        Ok(Answer::Cancelled)
    }

    fn app(&self, name: &AppName) -> Result<&AppRecord, Rejection> {
        self.durable.apps().get(name).ok_or_else(|| Rejection::UnknownApp(name.clone()))
    }

    fn runs_of(&self, app: &AppName) -> Vec<RunId> {
        let runs = self.durable.runs().values();
        runs.filter(|run| run.workload.app_name() == *app).map(|run| run.id).collect()
    }

    /// Makes `spec` the newest revision, unless it is that already. Allocations that would be no other under the new
    /// revision go on as part of it.
    fn revise(&mut self, step: &mut Step, spec: AppSpec, now: Timestamp) -> (Revision, bool) {
        let before = self.durable.apps().get(&spec.name);
        if let Some(app) = before.filter(|app| app.spec == spec) {
            return (app.revision, false);
        }
        let revision = before.map_or(Revision(0), |app| app.revision).next();
        for (name, workload) in &spec.workloads {
            let serving = self.durable.of_workload(&spec.name.workload(name));
            let kept: Vec<AllocationRecord> =
                serving.filter(|record| goes_on(record, workload)).cloned().collect();
            let shared = Arc::new(workload.clone());
            for mut record in kept {
                record.revision = revision;
                record.spec = Arc::clone(&shared);
                self.change(step, Change::Allocation(Arc::new(record)), now);
            }
        }
        self.change(
            step,
            Change::App(AppRecord { name: spec.name.clone(), revision, spec, deployed: now }),
            now,
        );
        (revision, true)
    }
}

/// Tells whether an allocation goes on under `spec`: it runs as before, and may stay where it is.
fn goes_on(record: &AllocationRecord, spec: &WorkloadSpec) -> bool {
    let is_draining = matches!(record.state, AllocationState::Draining { .. });
    let binds = |spec: &WorkloadSpec| {
        let Placement { require, prefer: _, spread: _, near, apart, resources } = spec.placement.clone();
        let binding = |affinities: Vec<Affinity>| affinities.into_iter().filter(|it| it.required).collect();
        let (near, apart): (Vec<Affinity>, Vec<Affinity>) = (binding(near), binding(apart));
        (spec.node_labels.clone(), require, near, apart, resources)
    };
    record.serves() && !is_draining && record.spec.runs_as(spec) && binds(&record.spec) == binds(spec)
}
