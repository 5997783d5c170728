//! Apps: deploy, see, stop, delete.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use dunlin_admission::{World, admit_within};
use dunlin_api::{
    AllocationState as Shown, AllocationStatus, AppList, AppStatus, DeployQuery, Deployed, Problem,
    ScheduleStatus, ServiceOrJob, WorkloadStatus, code,
};
use dunlin_model::{
    AppName, AppSpec, Capabilities, Feature, Name, Object, Schedule, WorkloadKind, WorkloadName,
};
use dunlin_scheduler::{AllocationState, AllocationView, Answer, AppView, Command, Done, View, WorkloadView};
use http::StatusCode;

use super::Api;
use super::jobs::count_inputs;
use super::problem::{Refused, internal, not_found};
use super::rollouts::rollout_status;

/// Namespace and app, from the path.
pub(super) type AppPath = Result<Path<(Name, Name)>, PathRejection>;

pub(super) fn name((namespace, app): (Name, Name)) -> AppName {
    AppName { namespace, app }
}

/// Lists all apps and how they stand.
#[utoipa::path(get, path = dunlin_api::paths::APPS, tag = "apps", responses((status = 200, body = AppList)))]
pub(crate) async fn list(State(api): State<Api>) -> Json<AppList> {
    let view = api.driver.view();
    Json(AppList { apps: view.apps.values().map(|app| app_status(&view, app)).collect() })
}

/// Makes this the newest revision of an app. Its components must have been uploaded.
#[utoipa::path(put, path = dunlin_api::paths::APP, tag = "apps",
    params(("namespace" = Name, Path), ("app" = Name, Path), DeployQuery), request_body = AppSpec,
    responses((status = 200, body = Deployed),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn deploy(
    State(api): State<Api>,
    path: AppPath,
    query: Result<Query<DeployQuery>, QueryRejection>,
    body: Result<Json<Object<AppSpec>>, JsonRejection>,
) -> Result<Json<Deployed>, Refused> {
    let named = name(path?.0);
    let Query(DeployQuery { accept }) = query?;
    let Json(Object(spec)) = body?;
    if spec.name != named {
        let detail = format!("the path says `{named}`, the body says `{}`", spec.name);
        return Err(Problem::new(422, code::INVALID_REQUEST, "the app has two names", detail).into());
    }
    if let Some(problem) = broken_rules(&spec) {
        return Err(problem.into());
    }
    let driver = api.driver.clone();
    let judged = tokio::task::spawn_blocking(move || {
        check_components(&api, &spec)?;
        check_inputs(&api, &spec)?;
        with_components(&api, spec)
    });
    let spec = judged.await.map_err(|error| internal(&error))??;
    match driver.submit(Command::Deploy { spec, accept }).await? {
        Answer::Deployed { revision, changed, wants } => Ok(Json(Deployed { revision, changed, wants })),
        other => unreachable!("the brain answers a deploy with {other:?}"),
    }
}

/// Refuses an app whose components are not there.
fn check_components(api: &Api, spec: &AppSpec) -> Result<(), Refused> {
    for (workload, spec) in &spec.workloads {
        if !api.components.contains(&spec.component)? {
            let detail = format!("`{workload}` needs component {}, which was not uploaded", spec.component);
            let problem = Problem::new(422, code::COMPONENT_MISSING, "a component is missing", detail);
            return Err(problem.with_hint("upload it first: PUT /v1/components/{digest}").into());
        }
    }
    Ok(())
}

/// Refuses a job whose inputs are not there, or are another number than it says.
fn check_inputs(api: &Api, spec: &AppSpec) -> Result<(), Refused> {
    for (name, workload) in &spec.workloads {
        let WorkloadKind::Job(job) = &workload.kind else { continue };
        let (Some(items), Some(list)) = (job.items, job.inputs) else { continue };
        let found = count_inputs(api, list)?;
        if found != items {
            let detail = format!("`{name}` has {items} items, and its list of inputs has {found}");
            let title = "a job has another number of inputs";
            return Err(Problem::new(422, code::INVALID_REQUEST, title, detail).into());
        }
    }
    Ok(())
}

/// Looks at a spec as a deploy does, but for components that are not there: of those is believed what the caller says.
pub(super) fn looked_at(api: &Api, mut spec: AppSpec) -> Result<AppSpec, Refused> {
    if let Some(problem) = broken_rules(&spec) {
        return Err(problem.into());
    }
    let (mut known, mut unknown) = (BTreeMap::new(), BTreeMap::new());
    for (name, workload) in spec.workloads {
        let is_known = api.components.contains(&workload.component)?;
        if is_known { &mut known } else { &mut unknown }.insert(name, workload);
    }
    let known = with_components(api, AppSpec { name: spec.name.clone(), workloads: known })?;
    spec.workloads = unknown;
    spec.workloads.extend(known.workloads);
    Ok(spec)
}

/// Refuses a service whose component answers no requests, and a job whose component cannot be run; else returns the spec
/// with what its components were found to need. What the caller says that they need counts for nothing.
fn with_components(api: &Api, mut spec: AppSpec) -> Result<AppSpec, Refused> {
    for (name, workload) in &mut spec.workloads {
        let (world, code, wanted, help) = match workload.kind {
            WorkloadKind::Service(_) => (
                World::Service,
                "not_a_service",
                "`wasi:http/incoming-handler`",
                format!("build an HTTP handler, or make it a job: `[job.{name}]`"),
            ),
            WorkloadKind::Job(_) => (
                World::Command,
                "not_a_job",
                "`wasi:cli/run`",
                format!("build a program with a `main`, or make it a service: `[service.{name}]`"),
            ),
        };
        let bytes = api.components.read(&workload.component)?;
        // What was admitted once and is not now was admitted by another version; the engine refuses it with reasons.
        let admitted = admit_within(&bytes, &api.limits).ok();
        if admitted.as_ref().is_some_and(|admitted| !admitted.is(world)) {
            let detail = format!("the component of `{name}` does not export {wanted}");
            return Err(Problem::new(422, code, "a component does not fit its workload", detail)
                .with_hint(help)
                .into());
        }
        let features = admitted.map(|admitted| admitted.features).unwrap_or_default();
        Feature::set_labels(&mut workload.node_labels, features);
        let needs_wasi_03 = workload.needs(Feature::Wasi03);
        if needs_wasi_03 && has_files(&workload.capabilities) {
            let detail = format!("`{name}` is granted folders or scratch, and its component is of WASI 0.3");
            let title = "a component of WASI 0.3 has no files";
            let hint = "build it for WASI 0.2, or take `folders` and `scratch` out of its `capabilities`";
            return Err(Problem::new(422, "no_files", title, detail).with_hint(hint).into());
        }
        if needs_wasi_03 && !workload.capabilities.sockets.is_empty() {
            let detail = format!("`{name}` is granted sockets, and its component is of WASI 0.3");
            let title = "a component of WASI 0.3 has no sockets";
            let hint = "build it for WASI 0.2, or take `sockets` out of its `capabilities`";
            return Err(Problem::new(422, "no_sockets", title, detail).with_hint(hint).into());
        }
    }
    Ok(spec)
}

fn has_files(capabilities: &Capabilities) -> bool {
    !capabilities.folders.is_empty() || capabilities.scratch.is_some()
}

/// Returns all rules that a spec breaks as one problem.
fn broken_rules(spec: &AppSpec) -> Option<Problem> {
    let errors = spec.check();
    let first = errors.first()?;
    let detail = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let mut problem = Problem::new(422, "invalid_spec", "the app's spec breaks the rules", detail);
    if let Some(hit) = errors.iter().find_map(|error| error.hit.as_ref()) {
        problem.limit = Some(hit.limit.clone());
        problem.value = Some(hit.value.clone());
        problem.observed = Some(hit.observed.clone());
    }
    Some(problem.with_hint(format!("mend `{}` and send it again; nothing was changed", first.field)))
}

/// Shows how one app stands.
#[utoipa::path(get, path = dunlin_api::paths::APP, tag = "apps",
    params(("namespace" = Name, Path), ("app" = Name, Path)),
    responses((status = 200, body = AppStatus),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn status(State(api): State<Api>, path: AppPath) -> Result<Json<AppStatus>, Refused> {
    let named = name(path?.0);
    let view = api.driver.view();
    let app = view.apps.get(&named).ok_or_else(|| not_found(format!("app `{named}`")))?;
    Ok(Json(app_status(&view, app)))
}

/// Stops an app: no service of it runs, its runs are cancelled. It stays known.
#[utoipa::path(post, path = dunlin_api::paths::APP_STOP, tag = "apps",
    params(("namespace" = Name, Path), ("app" = Name, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn stop(State(api): State<Api>, path: AppPath) -> Result<StatusCode, Refused> {
    api.driver.submit(Command::Stop(name(path?.0))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes an app, its runs and their results.
#[utoipa::path(delete, path = dunlin_api::paths::APP, tag = "apps",
    params(("namespace" = Name, Path), ("app" = Name, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn delete(State(api): State<Api>, path: AppPath) -> Result<StatusCode, Refused> {
    api.driver.submit(Command::Delete(name(path?.0))).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn app_status(view: &View, app: &AppView) -> AppStatus {
    let workloads = app.workloads.iter().map(|(name, workload)| workload_status(view, name, workload));
    AppStatus {
        name: app.name.clone(),
        revision: app.revision,
        restores: app.restores,
        rollout: rollout_status(app),
        workloads: workloads.collect(),
    }
}

fn workload_status(view: &View, name: &Name, workload: &WorkloadView) -> WorkloadStatus {
    let (kind, routes, after, schedule) = match &workload.spec.kind {
        WorkloadKind::Service(service) => (ServiceOrJob::Service, service.routes.clone(), Vec::new(), None),
        WorkloadKind::Job(job) => {
            let after = job.after.iter().cloned().collect();
            (ServiceOrJob::Job, Vec::new(), after, job.schedule.clone())
        }
    };
    WorkloadStatus {
        name: name.clone(),
        kind,
        desired: workload.desired,
        running: workload.running,
        waiting: workload.waiting.clone(),
        routes,
        limits: workload.spec.limits,
        component: workload.spec.component,
        allocations: allocations(view, &workload.name).collect(),
        after,
        schedule: schedule.map(|schedule| schedule_status(workload, schedule)),
    }
}

fn schedule_status(workload: &WorkloadView, schedule: Schedule) -> ScheduleStatus {
    let last = workload.last_due.as_ref();
    let (run, skipped) = match last.map(|due| &due.done) {
        Some(Done::Started { run }) => (Some(*run), None),
        Some(Done::Skipped { why }) => (None, Some(why.clone())),
        None => (None, None),
    };
    ScheduleStatus { schedule, next: workload.next_run, last: last.map(|due| due.at), run, skipped }
}

fn allocations(view: &View, workload: &WorkloadName) -> impl Iterator<Item = AllocationStatus> {
    view.allocations.values().filter(move |held| held.record.workload == *workload).map(allocation_status)
}

fn allocation_status(held: &AllocationView) -> AllocationStatus {
    let observed = held.observed.as_ref();
    let state = match held.record.state {
        AllocationState::Lost => Shown::Lost,
        AllocationState::Draining { .. } => Shown::Stopping,
        AllocationState::Placed | AllocationState::Running => {
            observed.map_or(Shown::Placed, |report| Shown::from(&report.state))
        }
    };
    AllocationStatus {
        id: held.record.id,
        node: held.record.node.clone(),
        revision: held.record.revision,
        state,
        reason: held.reason.clone(),
        restarts: observed.map_or(0, |report| report.restarts),
        memory: observed.map(|report| report.memory).unwrap_or_default(),
        fuel: observed.map(|report| report.fuel).unwrap_or_default(),
        instances: observed.map_or(0, |report| report.instances),
    }
}
