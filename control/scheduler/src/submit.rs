//! Users' wishes about apps and runs.

use dunlin_model::{AppName, AppSpec, Name, NewWants, RunId, Timestamp, Want, WorkloadKind};

use crate::revisions::Origin;
use crate::validate::{check_patience, check_routes, check_spec};
use crate::{Answer, AppRecord, Change, Cluster, Rejection, RunRecord, RunState, Step};

impl Cluster {
    pub(crate) fn deploy(
        &mut self,
        step: &mut Step,
        spec: AppSpec,
        accept: bool,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        check_spec(&spec)?;
        check_patience(&spec, &self.config)?;
        check_routes(&self.volatile.routes.routes, &spec)?;
        self.check_secrets(&spec)?;
        self.check_signed_anew(&spec, now)?;
        let wants = self.newly_wants(&spec);
        if !accept && !wants.is_empty() && self.asks(&spec.name.namespace) {
            return Err(Rejection::NotAccepted { app: spec.name, wants });
        }
        let (revision, changed) = self.revise(step, spec, Origin::Wish, now);
        Ok(Answer::Deployed { revision, changed, wants })
    }

    /// Tells whether a namespace asks before an app may do or have more.
    pub(crate) fn asks(&self, namespace: &Name) -> bool {
        self.durable.namespaces().get(namespace).is_some_and(|spec| spec.new_wants == NewWants::Ask)
    }

    /// Returns what a spec wants that its app as it is deployed had not. To go back to an earlier revision is no new wish:
    /// that was deployed once.
    fn newly_wants(&self, spec: &AppSpec) -> Vec<Want> {
        spec.newly_wants(self.durable.apps().get(&spec.name).map(|app| &app.spec))
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
                WorkloadKind::Job(job) => job.schedule = None,
            }
        }
        // Those that come after others first: they are cancelled too, and not abandoned.
        for run in self.runs_of(app).into_iter().rev() {
            if self.durable.runs().get(&run).is_some_and(RunRecord::is_open) {
                self.end_run(step, run, RunState::Cancelled, now);
            }
        }
        let (revision, changed) = self.revise(step, spec, Origin::Stop, now);
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
        let kept = self.durable.revisions().get(app).into_iter().flat_map(|kept| kept.keys());
        for revision in kept.copied().collect::<Vec<_>>() {
            self.change(step, Change::RevisionDeleted(app.clone(), revision), now);
        }
        // Its services are surplus from now on, and end as such.
        self.change(step, Change::AppDeleted(app.clone()), now);
        Ok(Answer::Deleted)
    }

    pub(crate) fn cancel_run(
        &mut self,
        step: &mut Step,
        id: RunId,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        let run = self.durable.runs().get(&id).ok_or(Rejection::UnknownRun(id))?;
        if run.is_open() {
            self.end_run(step, id, RunState::Cancelled, now);
        }
        Ok(Answer::Cancelled)
    }

    pub(crate) fn app(&self, name: &AppName) -> Result<&AppRecord, Rejection> {
        self.durable.apps().get(name).ok_or_else(|| Rejection::UnknownApp(name.clone()))
    }

    fn runs_of(&self, app: &AppName) -> Vec<RunId> {
        let runs = self.durable.runs().values();
        runs.filter(|run| run.workload.app_name() == *app).map(|run| run.id).collect()
    }
}
