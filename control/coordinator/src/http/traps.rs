//! Traps: what is known of instances that ended badly, from all nodes that have some.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use dunlin_api::{Problem, TrapList, TrapsQuery, code};
use dunlin_model::{IdError, InstanceId, NodeId};
use dunlin_protocol::TrapQuery;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::Api;
use super::problem::{Refused, not_found};
use crate::traps::{NoDump, gather, open_dump};

/// How many of the latest are told if nobody says otherwise.
const DEFAULT_TAIL: u32 = 50;
/// How many of the latest are told at most.
const MAX_TAIL: u32 = 500;

/// Lists what is known of instances that ended badly, the oldest first. It is kept by the nodes, also when the instance,
/// its allocation and its app are gone.
#[utoipa::path(get, path = dunlin_api::paths::TRAPS, tag = "traps", params(TrapsQuery),
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

/// Returns the core dump of an instance that trapped on a node: a module of WebAssembly with what the guest held. It may
/// have gone since: nodes keep the latest.
#[utoipa::path(get, path = dunlin_api::paths::COREDUMP, tag = "traps",
    params(("node" = NodeId, Path), ("instance" = String, Path, description = "as in `a12.3`", pattern = "^a[0-9]{1,18}\\.[0-9]{1,18}$")),
    responses((status = 200, body = Vec<u8>, content_type = "application/wasm"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn coredump(
    State(api): State<Api>,
    path: Result<Path<(NodeId, String)>, PathRejection>,
) -> Result<Response, Refused> {
    let Path((node, instance)) = path?;
    let instance: InstanceId = instance.parse().map_err(|error: IdError| {
        Refused::new(Problem::new(400, code::INVALID_REQUEST, "this is no instance", error.to_string()))
    })?;
    if !api.driver.view().nodes.contains_key(&node) {
        return Err(not_found("such node"));
    }
    let (stream, length) = open_dump(&api.fleet, &node, instance).await.map_err(|error| match error {
        NoDump::Missing => not_found("such core dump any more"),
        NoDump::Unheard(why) => {
            let title = format!("node {node} cannot be asked");
            Refused::new(Problem::new(503, code::UNAVAILABLE, title, why))
        }
    })?;
    let headers = [(CONTENT_TYPE, "application/wasm".to_owned()), (CONTENT_LENGTH, length.to_string())];
    // A node that sends less than it has announced is seen: the body is then shorter than its head says.
    Ok((headers, Body::from_stream(ReaderStream::new(stream.take(length)))).into_response())
}
