//! Why things are as they are: answered by the brain itself, since it keeps no reasons and judges again.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use dunlin_api::Problem;
use dunlin_model::{AllocationExplanation, AllocationId, Explanation, Name, WorkloadName};

use super::Api;
use super::problem::{Refused, not_found};

/// Says of a workload where its allocations are and why there, what it waits for and what would help, and why those
/// ended that have ended since the coordinator was started.
#[utoipa::path(get, path = dunlin_api::paths::WORKLOAD_EXPLANATION, tag = "explanations",
    params(("namespace" = Name, Path), ("app" = Name, Path), ("workload" = Name, Path)),
    responses((status = 200, body = Explanation),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn workload(
    State(api): State<Api>,
    path: Result<Path<(Name, Name, Name)>, PathRejection>,
) -> Result<Json<Explanation>, Refused> {
    let Path((namespace, app, workload)) = path?;
    let name = WorkloadName { namespace, app, workload };
    let asked = name.clone();
    let explanation = api.driver.ask(move |cluster, _| cluster.explain(&asked)).await?;
    explanation.map(Json).ok_or_else(|| not_found(format!("workload `{name}`, and none has ended lately")))
}

/// Says of an allocation why it is where it is, or why it ended if the coordinator remembers that.
#[utoipa::path(get, path = dunlin_api::paths::ALLOCATION_EXPLANATION, tag = "explanations",
    params(("allocation" = AllocationId, Path, description = "as in `a12`")),
    responses((status = 200, body = AllocationExplanation),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn allocation(
    State(api): State<Api>,
    path: Result<Path<AllocationId>, PathRejection>,
) -> Result<Json<AllocationExplanation>, Refused> {
    let Path(id) = path?;
    let explanation = api.driver.ask(move |cluster, _| cluster.explain_allocation(id)).await?;
    explanation.map(Json).ok_or_else(|| {
        not_found(format!(
            "allocation {id}; of those that ended, the last few of each workload are remembered, until the coordinator starts again"
        ))
    })
}
