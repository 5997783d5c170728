//! Traps: what is known of instances that ended badly, from all nodes that have some.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use dunlin_api::{Problem, TrapList, TrapsQuery};
use dunlin_protocol::TrapQuery;

use super::Api;
use super::problem::Refused;
use crate::traps::gather;

/// How many of the latest are told if nobody says otherwise.
const DEFAULT_TAIL: u32 = 50;
/// How many of the latest are told at most.
const MAX_TAIL: u32 = 500;

/// Lists what is known of instances that ended badly, the oldest first. It is kept by the nodes, also when the instance,
/// its allocation and its app are gone.
#[utoipa::path(get, path = dunlin_api::paths::TRAPS, tag = "logs", params(TrapsQuery),
    responses((status = 200, body = TrapList),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(api): State<Api>,
    query: Result<Query<TrapsQuery>, QueryRejection>,
) -> Result<Json<TrapList>, Refused> {
    let Query(TrapsQuery { namespace, app, workload, allocation, instance, tail }) = query?;
    let nodes = api.driver.view().nodes.keys().cloned().collect();
    let tail = tail.unwrap_or(DEFAULT_TAIL).min(MAX_TAIL);
    let query = TrapQuery { namespace, app, workload, allocation, instance, tail };
    Ok(Json(gather(&api.fleet, nodes, query).await))
}
