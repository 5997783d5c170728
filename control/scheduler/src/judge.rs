//! How a rollout goes: whether the new revision is well, and what follows from that.
//!
//! It is well when as many allocations serve it as should and none of an earlier one is left. It has failed when its
//! allocations are refused, unwell or started again too often, when its requests fail or burn more than those of the
//! revision before by more than the manifest allows, or when it is not well in time.
//!
//! Not here: who is started and ended meanwhile (`rollout`).

use dunlin_model::{
    AppName, DurationMs, Fuel, Name, ObservedState, Percent, Promote, RolloutSpec, Timestamp, WorkloadKind,
    WorkloadName,
};

use crate::durable::Durable;
use crate::reconcile::desired;
use crate::revisions::Origin;
use crate::rollout::Phase;
use crate::validate::check_routes;
use crate::{AllocationRecord, AllocationState, AppRecord, Change, Cluster, RolloutRecord, Step};

/// So many requests of each revision tell how they do.
const MIN_REQUESTS: u64 = 100;
/// Smaller shares of requests that fail are not told apart, in ten thousandths.
const LEAST_ERRORS: u64 = 100;

/// What the allocations of one revision of a service have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Doings {
    requests: u64,
    failed: u64,
    fuel: Fuel,
}

impl Doings {
    /// Returns which share of the requests failed, in ten thousandths.
    fn errors(&self) -> u64 {
        self.failed.saturating_mul(10_000) / self.requests.max(1)
    }

    /// Returns what a request burned.
    fn fuel_per_request(&self) -> u64 {
        self.fuel.0 / self.requests.max(1)
    }
}

/// How a rollout goes.
#[derive(Debug)]
enum Verdict {
    /// All that should be is well.
    Good,
    /// It is on its way; this is missing.
    NotYet(String),
    /// It has failed, for this reason.
    Bad(String),
}

/// Returns who may be started and ended for a service.
pub(crate) fn phase(cluster: &Cluster, app: &AppRecord, workload: &Name) -> Phase {
    let Some(rollout) = &app.rollout else { return Phase::Rolling };
    if rollout.from.is_none() || !rollout.services.contains(workload) {
        return Phase::Rolling;
    }
    if rollout.failed.is_some() {
        return Phase::Halted;
    }
    let canary = app.rollout_spec(workload).and_then(|(spec, _)| spec.canary);
    match canary.filter(|_| !rollout.promoted) {
        // A service which is new has nothing to be compared with.
        Some(canary) if cluster.spec_before(&app.name.workload(workload)).is_some() => {
            let desired = desired(cluster, &app.name.workload(workload));
            Phase::Canary(canary.of_up(desired).clamp(1, desired.max(1)))
        }
        Some(_) | None => Phase::Rolling,
    }
}

impl Cluster {
    /// Takes note that an allocation of an app has said something, of which a rollout may depend.
    pub(crate) fn look_at_rollout(&mut self, app: &AppName, is_urgent: bool, now: Timestamp) {
        if self.durable.apps().get(app).is_some_and(|app| app.rollout.is_some()) {
            let at = if is_urgent { now } else { now.plus(self.config.heartbeat) };
            self.volatile.rollouts.set_at_latest(app, at);
        }
    }

    /// Looks how the rollouts go that are due, and does what follows.
    pub(crate) fn advance_rollouts(&mut self, step: &mut Step, now: Timestamp) {
        while let Some(app) = self.volatile.rollouts.take_due(now) {
            self.advance_rollout(step, &app, now);
        }
    }

    fn advance_rollout(&mut self, step: &mut Step, app: &AppName, now: Timestamp) {
        let Some(record) = self.durable.apps().get(app).cloned() else { return };
        let Some(rollout) = record.rollout.clone().filter(|rollout| rollout.failed.is_none()) else { return };
        self.remember_before(&record, &rollout);
        let deadline = rollout.started.plus(longest(&record, &rollout, |spec| spec.deadline));
        match self.judge(&record, &rollout) {
            Verdict::Bad(reason) => self.fail_rollout(step, record, &rollout, reason, now),
            Verdict::NotYet(missing) if now >= deadline => {
                let time = longest(&record, &rollout, |spec| spec.deadline);
                let waiting = self.what_waits(&record, &rollout).map(|reason| format!("; {reason}"));
                let reason = format!("not well within {time}: {missing}{}", waiting.unwrap_or_default());
                self.fail_rollout(step, record, &rollout, reason, now);
            }
            Verdict::NotYet(_) => {
                self.set_good_since(step, record, None, now);
                self.volatile.rollouts.set_at_latest(app, deadline);
            }
            Verdict::Good => {
                let since = rollout.good_since.unwrap_or(now);
                let baked = since.plus(longest(&record, &rollout, |spec| spec.bake));
                if now < baked {
                    self.set_good_since(step, record, Some(since), now);
                    self.volatile.rollouts.set_at_latest(app, baked);
                } else if rollout.promoted {
                    self.end_rollout(step, record, now);
                } else if promotes_itself(&record, &rollout) {
                    self.set_promoted(step, record, now);
                } else {
                    self.set_good_since(step, record, Some(since), now);
                }
            }
        }
    }

    fn set_good_since(
        &mut self,
        step: &mut Step,
        mut record: AppRecord,
        at: Option<Timestamp>,
        now: Timestamp,
    ) {
        if let Some(rollout) = record.rollout.as_mut().filter(|rollout| rollout.good_since != at) {
            rollout.good_since = at;
            self.change(step, Change::App(record), now);
        }
    }

    fn end_rollout(&mut self, step: &mut Step, mut record: AppRecord, now: Timestamp) {
        record.rollout = None;
        self.volatile.before.remove(&record.name);
        self.change(step, Change::App(record), now);
    }

    /// Restores the revision before if that is wanted and possible; else nothing more is replaced.
    fn fail_rollout(
        &mut self,
        step: &mut Step,
        mut record: AppRecord,
        rollout: &RolloutRecord,
        reason: String,
        now: Timestamp,
    ) {
        let wanted = specs(&record, rollout).any(|(_, spec)| spec.rollback);
        let kept = rollout.from.filter(|_| wanted).and_then(|from| self.durable.revision(&record.name, from));
        let kept = kept.filter(|kept| check_routes(&self.volatile.routes.routes, &kept.spec).is_ok());
        let reason = match kept.map(|kept| (kept, self.check_signed(&kept.spec, now))) {
            Some((kept, Ok(()))) => {
                let (to, spec) = (kept.revision, kept.spec.clone());
                self.revise(step, spec, Origin::Rollback { to, because: Some(reason) }, now);
                return;
            }
            Some((kept, Err(why))) => format!("{reason}; revision {} is not restored: {why}", kept.revision),
            None => reason,
        };
        record.rollout = Some(RolloutRecord { failed: Some(reason), good_since: None, ..rollout.clone() });
        self.change(step, Change::App(record), now);
    }

    /// Keeps in mind what the revision before has done: when its last allocation ends nobody can tell any more.
    fn remember_before(&mut self, app: &AppRecord, rollout: &RolloutRecord) {
        for name in &rollout.services {
            let earlier = self.durable.of_workload(&app.name.workload(name));
            let earlier = earlier.filter(|record| record.serves() && record.revision != app.revision);
            let doings = self.doings(earlier);
            let known = self.volatile.before.entry(app.name.clone()).or_default().entry(name.clone());
            let known = known.or_default();
            if doings.requests >= known.requests {
                *known = doings;
            }
        }
    }

    /// Says that the canaries of a service are well and wait for a person, if that is so.
    pub(crate) fn why_canaries_wait(&self, workload: &WorkloadName) -> Option<String> {
        let app = self.durable.apps().get(&workload.app_name())?;
        let is_well = app.rollout.as_ref()?.good_since.is_some();
        let waits = matches!(phase(self, app, &workload.workload), Phase::Canary(_))
            && app.rollout_spec(&workload.workload)?.0.promote == Promote::ByHand;
        (is_well && waits)
            .then(|| format!("its canaries are well, and wait for `dunlin promote {}`", app.name))
    }

    fn doings<'a>(&self, records: impl Iterator<Item = &'a AllocationRecord>) -> Doings {
        let observed = records.filter_map(|record| self.volatile.observed(record));
        observed.fold(Doings::default(), |all, report| Doings {
            requests: all.requests.saturating_add(report.instances),
            failed: all.failed.saturating_add(report.failed),
            fuel: all.fuel.plus(report.fuel),
        })
    }

    fn judge(&self, app: &AppRecord, rollout: &RolloutRecord) -> Verdict {
        let mut verdict = Verdict::Good;
        for (name, spec) in specs(app, rollout) {
            match self.judge_service(app, name, spec) {
                Verdict::Good => {}
                Verdict::NotYet(missing) => verdict = Verdict::NotYet(missing),
                Verdict::Bad(reason) => return Verdict::Bad(reason),
            }
        }
        verdict
    }

    fn judge_service(&self, app: &AppRecord, name: &Name, spec: &RolloutSpec) -> Verdict {
        let workload = app.name.workload(name);
        for record in newest(&self.durable, app, name) {
            if let Some(reason) = self.what_is_bad(record, spec) {
                return Verdict::Bad(format!("`{name}`: {} on {} {reason}", record.id, record.node));
            }
        }
        let doings = self.doings(newest(&self.durable, app, name));
        let before = self.volatile.before.get(&app.name).and_then(|before| before.get(name));
        if let Some(reason) = before.and_then(|before| worse(&doings, before, spec)) {
            return Verdict::Bad(format!("`{name}`: {reason}"));
        }
        let serving = newest(&self.durable, app, name)
            .filter(|record| record.state == AllocationState::Running)
            .count();
        let serving = u32::try_from(serving).unwrap_or(u32::MAX);
        let phase = phase(self, app, name);
        let wanted = match phase {
            Phase::Canary(canaries) => canaries,
            Phase::Rolling | Phase::Halted => desired(self, &workload),
        };
        if serving < wanted {
            let waiting = newest(&self.durable, app, name).find_map(|record| self.what_it_waits_for(record));
            let waiting = waiting.map(|state| format!("; {state}")).unwrap_or_default();
            return Verdict::NotYet(format!(
                "{serving} of {wanted} allocations of `{name}` serve it{waiting}"
            ));
        }
        if let Some(record) = self.durable.lost_of(&workload).next().filter(|_| serving == 0) {
            // One that runs everywhere has no other place meanwhile, and so has shown nothing.
            return Verdict::NotYet(format!(
                "`{name}` serves nowhere yet, and {} on {} is lost",
                record.id, record.node
            ));
        }
        let mut live = self.durable.of_workload(&workload).filter(|record| record.is_live());
        if phase == Phase::Rolling && live.any(|record| record.revision != app.revision) {
            return Verdict::NotYet(format!("some allocations of `{name}` are of an earlier revision"));
        }
        Verdict::Good
    }

    /// Returns why nothing more of a service is placed, if one waits.
    fn what_waits(&self, app: &AppRecord, rollout: &RolloutRecord) -> Option<String> {
        let workloads = rollout.services.iter().map(|name| app.name.workload(name));
        let waiting = workloads.filter(|workload| self.volatile.waiting_services.contains(workload));
        let spec = |workload| Some((self.durable.specs().get(&workload)?, workload));
        waiting.filter_map(spec).next().map(|(spec, workload)| self.why_service_waits(&workload, spec))
    }

    /// Returns what an allocation that does not serve last said.
    fn what_it_waits_for(&self, record: &AllocationRecord) -> Option<String> {
        let report = self.volatile.observed(record)?;
        let is_other = report.state != ObservedState::Running;
        is_other.then(|| format!("{} on {} is {}", record.id, record.node, report.state))
    }

    /// Returns what speaks against an allocation of the new revision.
    fn what_is_bad(&self, record: &AllocationRecord, spec: &RolloutSpec) -> Option<String> {
        let report = self.volatile.observed(record)?;
        match &report.state {
            ObservedState::Refused { reason } => return Some(format!("is refused: {reason}")),
            ObservedState::Unhealthy { reason } => return Some(format!("fails its health check: {reason}")),
            _ => {}
        }
        let (restarts, most) = (report.restarts, spec.max_restarts);
        (restarts > most).then(|| {
            let reason = match &report.state {
                ObservedState::BackingOff { reason } => format!(": {reason}"),
                _ => String::new(),
            };
            format!("was started again: limit `max_restarts` is {most}, observed {restarts}{reason}")
        })
    }
}

/// Returns in what a revision does worse than the one before, by more than is allowed.
fn worse(now: &Doings, before: &Doings, spec: &RolloutSpec) -> Option<String> {
    if now.requests < MIN_REQUESTS || before.requests < MIN_REQUESTS {
        return None;
    }
    let is_more = |now: u64, before: u64, most: Percent| {
        u128::from(now) * 100 > u128::from(before) * u128::from(most.0)
    };
    let shown = |share: u64| format!("{}.{:02}%", share / 100, share % 100);
    if is_more(now.errors(), before.errors().max(LEAST_ERRORS), spec.max_errors) {
        return Some(format!(
            "{} of {} requests failed, before {}: limit `max_errors` is {} of that",
            shown(now.errors()),
            now.requests,
            shown(before.errors()),
            spec.max_errors
        ));
    }
    let most = spec.max_fuel?;
    is_more(now.fuel_per_request(), before.fuel_per_request(), most).then(|| {
        format!(
            "a request burns {} fuel, before {}: limit `max_fuel` is {most} of that",
            now.fuel_per_request(),
            before.fuel_per_request()
        )
    })
}

/// Returns the allocations of a service which are of the newest revision.
fn newest<'a>(
    durable: &'a Durable,
    app: &'a AppRecord,
    name: &Name,
) -> impl Iterator<Item = &'a AllocationRecord> + use<'a> {
    let live =
        durable.of_workload(&app.name.workload(name)).filter(|record| record.serves() && record.is_live());
    live.filter(|record| record.revision == app.revision)
}

/// Returns what the services of a rollout say of it.
fn specs<'a>(
    app: &'a AppRecord,
    rollout: &'a RolloutRecord,
) -> impl Iterator<Item = (&'a Name, &'a RolloutSpec)> {
    rollout.services.iter().filter_map(|name| match &app.spec.workloads.get(name)?.kind {
        WorkloadKind::Service(service) => Some((name, &service.rollout)),
        WorkloadKind::Job(_) => None,
    })
}

fn longest(
    app: &AppRecord,
    rollout: &RolloutRecord,
    time: impl Fn(&RolloutSpec) -> DurationMs,
) -> DurationMs {
    specs(app, rollout).map(|(_, spec)| time(spec)).max().unwrap_or(DurationMs(0))
}

/// Tells whether canaries that are well are promoted without a word from anybody.
fn promotes_itself(app: &AppRecord, rollout: &RolloutRecord) -> bool {
    let mut canaries = specs(app, rollout).filter(|(_, spec)| spec.canary.is_some());
    canaries.all(|(_, spec)| spec.promote == Promote::Auto)
}
