//! What guests print: one stream of JSON lines, merged from all nodes that have some.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use dunlin_api::{LogLine, LogsQuery, Problem};
use dunlin_model::{AllocationId, Name, NodeId};
use dunlin_protocol::LogQuery;
use http::header::CONTENT_TYPE;
use tokio::sync::mpsc;

use super::Api;
use super::problem::{Refused, not_found};
use crate::logs::{Wanted, follow, tell};

/// How many lines wait for a slow reader; then the nodes wait, and drop lines beyond their own bounds (N6).
const MAX_WAITING: usize = 256;
/// How many of the latest lines are told if nobody says otherwise.
const DEFAULT_TAIL: u32 = 100;
/// How many of the latest lines are told at most.
const MAX_TAIL: u32 = 10_000;

/// Streams what guests print, one JSON object a line.
#[utoipa::path(get, path = dunlin_api::paths::LOGS, tag = "logs", params(LogsQuery),
    responses((status = 200, body = LogLine, content_type = "application/x-ndjson"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn stream(
    State(api): State<Api>,
    query: Result<Query<LogsQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(query) = query?;
    if !is_known(&api, &query) {
        return Err(not_found("such app or workload"));
    }
    let (lines, mut receiver) = mpsc::channel::<LogLine>(MAX_WAITING);
    let tail = query.tail.unwrap_or(DEFAULT_TAIL).min(MAX_TAIL);
    if query.follow.unwrap_or(false) {
        let fleet = Arc::clone(&api.fleet);
        tokio::spawn(follow(fleet, move || wanted(&api, &query), tail, lines));
    } else {
        for Wanted { node, allocations } in wanted(&api, &query) {
            let Some(connection) = api.fleet.connection(&node) else { continue };
            tokio::spawn(tell(
                connection,
                node,
                LogQuery { allocations, tail, follow: false },
                lines.clone(),
            ));
        }
    }
    let stream = futures_util::stream::poll_fn(move |context| {
        receiver.poll_recv(context).map(|line| line.map(encode))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response())
}

fn encode(line: LogLine) -> Result<Bytes, std::convert::Infallible> {
    let mut bytes = serde_json::to_vec(&line).expect("a log line has only string keys");
    bytes.push(b'\n');
    Ok(bytes.into())
}

/// Tells whether there is what the query names, even if nothing of it runs at this moment.
fn is_known(api: &Api, query: &LogsQuery) -> bool {
    let view = api.driver.view();
    let fits = |wanted: &Option<Name>, name: &Name| wanted.as_ref().is_none_or(|wanted| wanted == name);
    let names_none = query.app.is_none() && query.workload.is_none();
    names_none
        || view.apps.values().filter(|app| fits(&query.namespace, &app.name.namespace)).any(|app| {
            fits(&query.app, &app.name.app) && app.workloads.keys().any(|name| fits(&query.workload, name))
        })
}

/// Returns which allocations are wanted, by node.
fn wanted(api: &Api, query: &LogsQuery) -> Vec<Wanted> {
    let view = api.driver.view();
    let mut by_node: BTreeMap<NodeId, Vec<AllocationId>> = BTreeMap::new();
    for held in view.allocations.values() {
        let name = &held.record.workload;
        let fits = query.namespace.as_ref().is_none_or(|wanted| *wanted == name.namespace)
            && query.app.as_ref().is_none_or(|wanted| *wanted == name.app)
            && query.workload.as_ref().is_none_or(|wanted| *wanted == name.workload)
            && query.allocation.is_none_or(|wanted| wanted == held.record.id);
        if fits {
            by_node.entry(held.record.node.clone()).or_default().push(held.record.id);
        }
    }
    if let (Some(id), true) = (query.allocation, by_node.is_empty()) {
        // It has ended, but the node it was on may still have its lines; only the nodes know.
        by_node.extend(view.nodes.keys().map(|node| (node.clone(), vec![id])));
    }
    by_node.into_iter().map(|(node, allocations)| Wanted { node, allocations }).collect()
}
