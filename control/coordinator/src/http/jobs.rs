//! Jobs: start a run, watch it, read what its items gave.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use dunlin_api::{
    ItemPage, ItemStatus, ItemsQuery, MAX_INPUT_TEXT, MAX_ITEM_PAGE, Problem, RunList, RunStarted, RunState,
    RunStatus, RunsQuery, StartRun, code,
};
use dunlin_model::{Bytes, Digest, ItemInput, LimitHit, MAX_ITEMS, Name, Object, RunId, WorkloadName};
use dunlin_scheduler::{Answer, Command, RunState as Recorded, RunView, RunWish};
use http::StatusCode;

use super::Api;
use super::components::store;
use super::problem::{Refused, internal, not_found};
use crate::inputs::InputListError;
use crate::records;

/// How many runs are listed at most.
const MAX_RUNS: usize = 1000;

/// Starts a run of a job, together with runs of all jobs that it comes after: over so many items, over uploaded inputs, over
/// one input that is given here, or over what its manifest says.
#[utoipa::path(post, path = dunlin_api::paths::JOB_RUNS, tag = "jobs",
    params(("namespace" = Name, Path), ("app" = Name, Path), ("job" = Name, Path)), request_body = StartRun,
    responses((status = 200, body = RunStarted),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn start(
    State(api): State<Api>,
    path: Result<Path<(Name, Name, Name)>, PathRejection>,
    body: Result<Json<Object<StartRun>>, JsonRejection>,
) -> Result<Json<RunStarted>, Refused> {
    let Path((namespace, app, workload)) = path?;
    let Json(Object(StartRun { items, inputs, input, environment })) = body?;
    let (items, inputs) = match (items, inputs, input) {
        (items, None, None) => (items, None),
        (None, Some(list), None) => {
            let api = api.clone();
            let counted = tokio::task::spawn_blocking(move || count_inputs(&api, list));
            (Some(counted.await.map_err(|error| internal(&error))??), Some(list))
        }
        (None, None, Some(input)) => {
            let api = api.clone();
            let kept = tokio::task::spawn_blocking(move || keep_input(&api, &input));
            (Some(1), Some(kept.await.map_err(|error| internal(&error))??))
        }
        _ => {
            let detail = "give one of `items`, `inputs` and `input`, or none for what the manifest says";
            return Err(
                Problem::new(422, code::INVALID_REQUEST, "it is not clear what to work on", detail).into()
            );
        }
    };
    let workload = WorkloadName { namespace, app, workload };
    let wish = RunWish { items, inputs, environment };
    match api.driver.submit(Command::StartRun { workload, wish }).await? {
        Answer::RunStarted(run) => {
            let view = api.driver.view();
            let after = view.runs.get(&run).map(|run| run.record.after.clone()).unwrap_or_default();
            Ok(Json(RunStarted { run, after }))
        }
        other => unreachable!("the brain answers a start with {other:?}"),
    }
}

/// Keeps the input of a single item, and returns the list of it alone.
fn keep_input(api: &Api, input: &str) -> Result<Digest, Refused> {
    let size = Bytes(input.len() as u64);
    if size > MAX_INPUT_TEXT {
        let hit = LimitHit::new("input", MAX_INPUT_TEXT, size);
        let problem = Problem::limit(422, "the input is too large to come with the wish", &hit);
        let hint = "upload it, and a list of it: PUT /v1/inputs/{digest}; then give the digest of the list in `inputs`";
        return Err(problem.with_hint(hint).into());
    }
    let digest = Digest::of(input.as_bytes());
    store(api.inputs.blobs(), input.as_bytes(), digest)?;
    let list = serde_json::to_vec(&[ItemInput { name: "input".to_owned(), digest }]);
    let list = list.map_err(|error| internal(&error))?;
    let digest = Digest::of(&list);
    store(api.inputs.blobs(), &list, digest)?;
    Ok(digest)
}

/// Returns how many inputs a list has, all of which must be there.
pub(crate) fn count_inputs(api: &Api, list: Digest) -> Result<u32, Refused> {
    let missing = |digest: &Digest| {
        let detail = format!("input {digest} was not uploaded");
        Refused::new(
            Problem::new(422, code::INPUT_MISSING, "an input is missing", detail)
                .with_hint("upload it first: PUT /v1/inputs/{digest}"),
        )
    };
    if !api.inputs.blobs().contains(&list)? {
        return Err(missing(&list));
    }
    let inputs = api.inputs.list(list).map_err(|error| match error {
        InputListError::Malformed { source, .. } => {
            let title = "the list of inputs is not a JSON array of names and digests";
            Refused::new(Problem::new(422, code::INVALID_REQUEST, title, source.to_string()))
        }
        InputListError::Read { source, .. } => source.into(),
    })?;
    if let Some(digest) = api.inputs.blobs().first_missing(inputs.iter().map(|input| &input.digest))? {
        return Err(missing(digest));
    }
    u32::try_from(inputs.len()).map_err(|_| {
        let hit = LimitHit::new("items", MAX_ITEMS, inputs.len());
        Refused::new(Problem::limit(422, "the run has too many items", &hit))
    })
}

/// Lists runs, the latest first.
#[utoipa::path(get, path = dunlin_api::paths::RUNS, tag = "jobs", params(RunsQuery),
    responses((status = 200, body = RunList)))]
pub(crate) async fn list(
    State(api): State<Api>,
    query: Result<Query<RunsQuery>, QueryRejection>,
) -> Result<Json<RunList>, Refused> {
    let Query(query) = query?;
    let view = api.driver.view();
    let fits = |run: &&RunView| query.app.as_ref().is_none_or(|app| run.record.workload.app_name() == *app);
    let runs = view.runs.values().rev().filter(fits).take(MAX_RUNS).map(run_status);
    Ok(Json(RunList { runs: runs.collect() }))
}

/// Shows how one run stands.
#[utoipa::path(get, path = dunlin_api::paths::RUN, tag = "jobs", params(("run" = RunId, Path)),
    responses((status = 200, body = RunStatus),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn status(
    State(api): State<Api>,
    path: Result<Path<RunId>, PathRejection>,
) -> Result<Json<RunStatus>, Refused> {
    let Path(run) = path?;
    let view = api.driver.view();
    let found = view.runs.get(&run).ok_or_else(|| not_found(format!("run {run}")))?;
    let mut status = run_status(found);
    if found.record.recorded.contains(found.record.items) {
        let items = found.record.items;
        let total = tokio::task::spawn_blocking(move || records::items(&*api.store, run, items, 1));
        let total = total.await.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
        status.total_output = total.into_iter().next().map(|(_, record)| record.output);
    }
    Ok(Json(status))
}

/// Lists the recorded items of a run, page by page.
#[utoipa::path(get, path = dunlin_api::paths::RUN_ITEMS, tag = "jobs", params(("run" = RunId, Path), ItemsQuery),
    responses((status = 200, body = ItemPage),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn items(
    State(api): State<Api>,
    path: Result<Path<RunId>, PathRejection>,
    query: Result<Query<ItemsQuery>, QueryRejection>,
) -> Result<Json<ItemPage>, Refused> {
    let (Path(run), Query(query)) = (path?, query?);
    let view = api.driver.view();
    let found = view.runs.get(&run).ok_or_else(|| not_found(format!("run {run}")))?;
    let limit = query.limit.unwrap_or(MAX_ITEM_PAGE).clamp(1, MAX_ITEM_PAGE) as usize;
    let (items, inputs) = (found.record.items, found.record.inputs);
    let from = query.after.map_or(0, |after| after.saturating_add(1));
    let page = tokio::task::spawn_blocking(move || {
        let page = records::items(&*api.store, run, from, limit).map_err(|error| internal(&error))?;
        // Without their names the records are worth showing too.
        let inputs = inputs.and_then(|list| api.inputs.list(list).ok());
        let name = |item: u32| Some(inputs.as_ref()?.get(item as usize)?.name.clone());
        let next = if page.len() == limit { page.last().map(|(item, _)| *item) } else { None };
        let own = page.into_iter().filter(|(item, _)| *item < items);
        let items = own.map(|(item, record)| ItemStatus { item, name: name(item), record });
        Ok::<_, Refused>(ItemPage { items: items.collect(), next })
    });
    Ok(Json(page.await.map_err(|error| internal(&error))??))
}

/// Cancels a run. Items that are recorded stay recorded.
#[utoipa::path(post, path = dunlin_api::paths::RUN_CANCEL, tag = "jobs", params(("run" = RunId, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn cancel(
    State(api): State<Api>,
    path: Result<Path<RunId>, PathRejection>,
) -> Result<StatusCode, Refused> {
    let Path(run) = path?;
    let ended = api.driver.view().runs.get(&run).map(run_status).filter(|status| status.state.is_ended());
    if let Some(status) = ended {
        let detail = format!("run {run} is {} already", status.state.name());
        let problem = Problem::new(409, "run_ended", "the run cannot be cancelled", detail);
        return Err(problem.with_hint(format!("`dunlin job result {run}` shows what it gave")).into());
    }
    api.driver.submit(Command::CancelRun(run)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn run_status(run: &RunView) -> RunStatus {
    let record = &run.record;
    // The combining instance has a record too, but is none of the items.
    let combined = u32::from(record.recorded.contains(record.items));
    let combined_well = if record.state == Recorded::Completed { combined } else { 0 };
    RunStatus {
        run: record.id,
        workload: record.workload.clone(),
        state: match record.state {
            Recorded::Waiting => RunState::Waiting,
            Recorded::Running => RunState::Running,
            Recorded::Completed => RunState::Completed,
            Recorded::Failed { .. } | Recorded::Abandoned { .. } => RunState::Failed,
            Recorded::Cancelled => RunState::Cancelled,
        },
        items: record.items,
        recorded: record.recorded.len() - combined,
        succeeded: record.succeeded - combined_well,
        failed: record.failed,
        fuel: record.fuel,
        created: record.created,
        ended: record.ended,
        waiting: run.waiting.clone(),
        after: record.after.clone(),
        due: record.due,
        began: record.began,
        reason: match record.state {
            Recorded::Abandoned { why } => Some(why.to_string()),
            Recorded::Waiting
            | Recorded::Running
            | Recorded::Completed
            | Recorded::Failed { .. }
            | Recorded::Cancelled => None,
        },
        total_output: None,
    }
}
