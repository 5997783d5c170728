//! Revisions of an app: each deploy makes one, the last few are kept, and each of them can be made the newest again.

use std::collections::BTreeSet;
use std::sync::Arc;

use dunlin_model::{
    Affinity, AppName, AppSpec, Name, Placement, Revision, Timestamp, WorkloadKind, WorkloadName,
    WorkloadSpec,
};

use crate::durable::Durable;
use crate::record::KEPT_REVISIONS;
use crate::validate::check_routes;
use crate::{
    AllocationRecord, AllocationState, Answer, AppRecord, Change, Cluster, Fate, Rejection, RevisionRecord,
    RolloutRecord, Step,
};

/// Why an app gets another revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A user wants this.
    Wish,
    /// A user wants it to be stopped.
    Stop,
    /// An earlier revision is restored.
    Rollback {
        /// Which.
        to: Revision,
        /// Why the newest one failed, if it did.
        because: Option<String>,
    },
}

impl Cluster {
    /// Makes an earlier revision the newest again: `to`, or the last that was well and not stopped.
    pub(crate) fn rollback(
        &mut self,
        step: &mut Step,
        app: &AppName,
        to: Option<Revision>,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        let record = self.app(app)?;
        let from = record.rollout.as_ref().and_then(|rollout| rollout.from);
        let to = match to.or(from) {
            Some(revision) => revision,
            None => {
                let kept = self.durable.revisions().get(app);
                let mut kept = kept.into_iter().flat_map(|kept| kept.values().rev());
                let good = kept.find(|record| record.fate == Fate::Completed);
                good.ok_or_else(|| Rejection::NothingToRestore(app.clone()))?.revision
            }
        };
        let Some(kept) = self.durable.revision(app, to) else {
            let kept = self.durable.revisions().get(app).into_iter().flat_map(|kept| kept.keys());
            let kept: Vec<String> = kept.map(ToString::to_string).collect();
            let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(", ") };
            return Err(Rejection::UnknownRevision { app: app.clone(), revision: to, kept });
        };
        let spec = kept.spec.clone();
        check_routes(&self.volatile.routes.routes, &spec)?;
        self.check_secrets(&spec)?;
        self.check_signed(&spec, now)?;
        let origin = Origin::Rollback { to, because: None };
        let (revision, changed) = self.revise(step, spec, origin, now);
        Ok(Answer::Deployed { revision, changed, wants: Vec::new() })
    }

    /// Lets all allocations follow the canaries of an app.
    pub(crate) fn promote(
        &mut self,
        step: &mut Step,
        app: &AppName,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        let record = self.app(app)?;
        match &record.rollout {
            Some(rollout) if !rollout.promoted && rollout.failed.is_none() => {}
            Some(_) | None => return Err(Rejection::NothingToPromote(app.clone())),
        }
        let record = record.clone();
        self.set_promoted(step, record, now);
        Ok(Answer::Promoted)
    }

    /// Lets all allocations follow, and gives them the whole time again.
    pub(crate) fn set_promoted(&mut self, step: &mut Step, mut record: AppRecord, now: Timestamp) {
        if let Some(rollout) = &mut record.rollout {
            *rollout = RolloutRecord { promoted: true, started: now, good_since: None, ..rollout.clone() };
        }
        self.volatile.rollouts.set(&record.name, now);
        self.change(step, Change::App(record), now);
    }

    /// Makes `spec` the newest revision, unless it is that already. Allocations that would be no other under the new
    /// revision go on as part of it.
    pub(crate) fn revise(
        &mut self,
        step: &mut Step,
        spec: AppSpec,
        origin: Origin,
        now: Timestamp,
    ) -> (Revision, bool) {
        let before = self.durable.apps().get(&spec.name).cloned();
        if let Some(app) = before.as_ref().filter(|app| app.spec == spec) {
            return (app.revision, false);
        }
        let revision = before.as_ref().map_or(Revision(0), |app| app.revision).next();
        let was_well = before.as_ref().is_some_and(|before| self.was_well(before));
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
        let rollout =
            before.as_ref().and_then(|before| self.rollout_to((before, was_well), &spec, &origin, now));
        let restores = match &origin {
            Origin::Wish | Origin::Stop => None,
            Origin::Rollback { to, because: _ } => Some(*to),
        };
        let app = spec.name.clone();
        let from = rollout.as_ref().and_then(|rollout| rollout.from);
        self.volatile.before.remove(&app);
        for name in rollout.iter().flat_map(|rollout| &rollout.services) {
            self.volatile.failures.forget(&app.workload(name));
        }
        self.volatile.rollouts.set(&app, now);
        let stopped = origin == Origin::Stop;
        let name = app.clone();
        let record = AppRecord { name, revision, spec, deployed: now, restores, rollout, stopped };
        self.change(step, Change::App(record), now);
        if let Some(before) = before {
            self.keep(step, (before, was_well), origin, now);
            self.forget_old_revisions(step, &app, from, now);
        }
        (revision, true)
    }

    /// Tells whether a revision that is in no rollout is known to be well: of each of its services one answers, or did until
    /// its node was lost. A first one may never have been.
    fn was_well(&self, app: &AppRecord) -> bool {
        let wanted = app.spec.workloads.iter().filter(|(_, spec)| is_wanted(spec));
        wanted.map(|(name, _)| app.name.workload(name)).all(|workload| {
            self.durable.of_workload(&workload).any(|record| {
                let has_answered = matches!(record.state, AllocationState::Running | AllocationState::Lost);
                record.serves() && record.revision == app.revision && has_answered
            })
        })
    }

    /// Returns the passage from what an app is to `spec`; nothing if no service changes that is to run.
    ///
    /// What is not over is no ground to stand on: it counts what is other than in the revision that was last well. So
    /// a deploy in the middle, of another number of allocations say, does not end the watch or let all follow the
    /// canaries.
    fn rollout_to(
        &self,
        (before, was_well): (&AppRecord, bool),
        spec: &AppSpec,
        origin: &Origin,
        now: Timestamp,
    ) -> Option<RolloutRecord> {
        let is_return = matches!(origin, Origin::Rollback { .. });
        let unfinished = before.rollout.as_ref().filter(|_| !is_return);
        let from = unfinished.and_then(|rollout| rollout.from);
        let kept = from.and_then(|from| self.durable.revision(&before.name, from));
        let ground = kept.map_or(&before.spec, |kept| &kept.spec);
        if !ground.workloads.values().any(is_wanted) {
            return None;
        }
        let mut services = changed(ground, spec);
        let is_only_watched = services.is_empty();
        // Where there is no way back, or this is the way back, what was to change goes on to be watched: it may be unwell
        // under both.
        let without_way_back = before.rollout.as_ref().filter(|rollout| rollout.from.is_none() || is_return);
        let watched = without_way_back.iter().flat_map(|rollout| &rollout.services);
        services.extend(watched.filter(|name| spec.workloads.get(name).is_some_and(is_wanted)).cloned());
        if services.is_empty() {
            return None;
        }
        let has_failed = without_way_back.is_some_and(|rollout| rollout.failed.is_some());
        let ground = from.or((was_well || before.rollout.is_some()).then_some(before.revision));
        let from = ground.filter(|_| !is_return && !has_failed && !is_only_watched);
        let goes_on = unfinished.filter(|rollout| {
            rollout.from == from && rollout.failed.is_none() && changed(&before.spec, spec).is_empty()
        });
        if let Some(rollout) = goes_on {
            return Some(RolloutRecord { services, good_since: None, ..rollout.clone() });
        }
        let has_canaries = |name: &Name| {
            let WorkloadKind::Service(service) = &spec.workloads[name].kind else { return false };
            service.rollout.canary.is_some()
        };
        let promoted = from.is_none() || !services.iter().any(has_canaries);
        Some(RolloutRecord { from, services, started: now, promoted, good_since: None, failed: None })
    }

    /// Keeps what was the newest revision so far.
    fn keep(
        &mut self,
        step: &mut Step,
        (before, was_well): (AppRecord, bool),
        origin: Origin,
        now: Timestamp,
    ) {
        let AppRecord { name, revision, spec, deployed, restores, rollout, stopped } = before;
        let failed = |reason: String| Fate::Failed { reason };
        let fate = match (origin, rollout) {
            (Origin::Rollback { because: Some(reason), .. }, _) => failed(reason),
            (_, None) if stopped => Fate::Stopped,
            (_, None) if was_well => Fate::Completed,
            (_, None) => Fate::Superseded,
            (_, Some(RolloutRecord { failed: Some(reason), .. })) => failed(reason),
            (_, Some(_)) => Fate::Superseded,
        };
        let record = RevisionRecord { app: name, revision, spec, deployed, restores, fate };
        self.change(step, Change::Revision(Arc::new(record)), now);
    }

    /// Forgets the oldest revisions of an app where there are too many, but never the one it is rolled back to.
    fn forget_old_revisions(
        &mut self,
        step: &mut Step,
        app: &AppName,
        from: Option<Revision>,
        now: Timestamp,
    ) {
        let kept = self.durable.revisions().get(app).into_iter().flat_map(|kept| kept.keys());
        let kept: Vec<Revision> = kept.copied().collect();
        let surplus = kept.len().saturating_sub(KEPT_REVISIONS);
        let old = kept.into_iter().filter(|revision| Some(*revision) != from).take(surplus);
        for revision in old.collect::<Vec<_>>() {
            self.change(step, Change::RevisionDeleted(app.clone(), revision), now);
        }
    }

    /// Returns how a service that is in a rollout was before: its allocations are of that as long as there is doubt.
    pub(crate) fn spec_before(&self, workload: &WorkloadName) -> Option<(Revision, Arc<WorkloadSpec>)> {
        let (from, spec) = before_rollout(&self.durable, workload)?;
        is_wanted(spec).then(|| (from, Arc::new(spec.clone())))
    }
}

/// Returns how a workload was before the rollout that its app is in.
pub(crate) fn before_rollout<'a>(
    durable: &'a Durable,
    workload: &WorkloadName,
) -> Option<(Revision, &'a WorkloadSpec)> {
    let app = workload.app_name();
    let from = durable.apps().get(&app)?.rollout.as_ref()?.from?;
    Some((from, durable.revision(&app, from)?.spec.workloads.get(&workload.workload)?))
}

/// Returns the services that are to run and are others under `after`.
fn changed(before: &AppSpec, after: &AppSpec) -> BTreeSet<Name> {
    let is_other = |(name, new): &(&Name, &WorkloadSpec)| {
        let old = before.workloads.get(*name);
        is_wanted(new) && old.is_none_or(|old| !is_alike(old, new))
    };
    after.workloads.iter().filter(is_other).map(|(name, _)| name.clone()).collect()
}

/// Tells whether it is a service that is to run.
fn is_wanted(spec: &WorkloadSpec) -> bool {
    matches!(&spec.kind, WorkloadKind::Service(service) if service.allocations > 0)
}

/// Tells whether an allocation goes on under `spec`: it runs as before, and may stay where it is.
fn goes_on(record: &AllocationRecord, spec: &WorkloadSpec) -> bool {
    let is_draining = matches!(record.state, AllocationState::Draining { .. });
    record.serves() && !is_draining && is_alike(&record.spec, spec)
}

/// Tells whether what runs under one spec may go on under the other.
fn is_alike(one: &WorkloadSpec, other: &WorkloadSpec) -> bool {
    let binds = |spec: &WorkloadSpec| {
        let Placement { require, prefer: _, spread: _, near, apart, resources } = spec.placement.clone();
        let binding = |affinities: Vec<Affinity>| affinities.into_iter().filter(|it| it.required).collect();
        let (near, apart): (Vec<Affinity>, Vec<Affinity>) = (binding(near), binding(apart));
        (spec.node_labels.clone(), require, near, apart, resources)
    };
    one.runs_as(other) && binds(one) == binds(other)
}
