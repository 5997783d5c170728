//! Nodes and what operators say of them, and the fleet in one line.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use dunlin_api::{
    BrakeReleased, CordonNode, FleetStatus, HeldZone, NodeList, NodeState, NodeStatus, Problem, Recovery,
};
use dunlin_model::{Digest, NodeId, Object, Resources, Timestamp};
use dunlin_scheduler::{Command, NodeStatus as Seen, NodeView, PendingRecord, View};

use dunlin_transport::Connection;
use http::StatusCode;

use super::Api;
use super::problem::{Refused, not_found};

/// Lists all nodes and how they stand.
#[utoipa::path(get, path = dunlin_api::paths::NODES, tag = "nodes", responses((status = 200, body = NodeList)))]
pub(crate) async fn list(State(api): State<Api>) -> Json<NodeList> {
    let (view, now) = (api.driver.view(), api.clock.now());
    let mut held: BTreeMap<&NodeId, u32> = BTreeMap::new();
    for allocation in view.allocations.values() {
        *held.entry(&allocation.record.node).or_default() += 1;
    }
    let nodes =
        view.nodes.iter().map(|(id, node)| node_status(&api, node, held.get(id).copied().unwrap_or(0), now));
    let mut nodes: Vec<NodeStatus> = nodes.collect();
    // A machine may wait for the name of a node that is lost; both are told then.
    nodes.extend(view.pending.values().map(pending_status));
    nodes.sort_by(|one, other| one.node.cmp(&other.node));
    Json(NodeList { nodes })
}

/// Lets nothing new go to a node. With `drain_ms` what it runs leaves it too, and is ended if that takes longer.
#[utoipa::path(post, path = dunlin_api::paths::NODE_CORDON, tag = "nodes", params(("node" = NodeId, Path)),
    request_body = Option<CordonNode>,
    responses((status = 200, body = NodeStatus),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn cordon(
    State(api): State<Api>,
    path: Result<Path<NodeId>, PathRejection>,
    body: Result<Option<Json<Option<Object<CordonNode>>>>, JsonRejection>,
) -> Result<Json<NodeStatus>, Refused> {
    let (Path(node), body) = (path?, body?);
    let CordonNode { drain_ms } =
        body.and_then(|Json(wish)| wish).map(|Object(wish)| wish).unwrap_or_default();
    api.driver.submit(Command::Cordon { node: node.clone(), drain: drain_ms }).await?;
    one(&api, &node)
}

/// Lets a node be used as any other; it ends a drain too.
#[utoipa::path(post, path = dunlin_api::paths::NODE_UNCORDON, tag = "nodes", params(("node" = NodeId, Path)),
    responses((status = 200, body = NodeStatus),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn uncordon(
    State(api): State<Api>,
    path: Result<Path<NodeId>, PathRejection>,
) -> Result<Json<NodeStatus>, Refused> {
    let Path(node) = path?;
    api.driver.submit(Command::Uncordon(node.clone())).await?;
    one(&api, &node)
}

/// Accepts the key of a node no more: it is cut off at once, and what it runs is replaced. This is for good; a machine can
/// join under the name with another key.
#[utoipa::path(post, path = dunlin_api::paths::NODE_REVOKE, tag = "nodes", params(("node" = NodeId, Path)),
    responses((status = 200, body = NodeStatus),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn revoke(
    State(api): State<Api>,
    path: Result<Path<NodeId>, PathRejection>,
) -> Result<Json<NodeStatus>, Refused> {
    let Path(node) = path?;
    api.driver.submit(Command::Revoke(node.clone())).await?;
    one(&api, &node)
}

/// Lets a machine become a node that waits for it, having joined with a token that wants approval.
#[utoipa::path(post, path = dunlin_api::paths::NODE_APPROVE, tag = "nodes", params(("node" = NodeId, Path)),
    responses((status = 204),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn approve(
    State(api): State<Api>,
    path: Result<Path<NodeId>, PathRejection>,
) -> Result<StatusCode, Refused> {
    let Path(node) = path?;
    api.driver.submit(Command::Approve(node)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a node off the list: one that is lost, was revoked or has never reported. Its key is accepted no more; a machine
/// can join under the name with another one. A machine that waits for approval is sent away.
#[utoipa::path(delete, path = dunlin_api::paths::NODE, tag = "nodes", params(("node" = NodeId, Path)),
    responses((status = 204),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn remove(
    State(api): State<Api>,
    path: Result<Path<NodeId>, PathRejection>,
) -> Result<StatusCode, Refused> {
    let Path(node) = path?;
    api.driver.submit(Command::Remove(node)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets what lost nodes ran be replaced at once, though many were lost together.
#[utoipa::path(post, path = dunlin_api::paths::BRAKE_RELEASE, tag = "nodes",
    responses((status = 200, body = BrakeReleased)))]
pub(crate) async fn release_brake(State(api): State<Api>) -> Result<Json<BrakeReleased>, Refused> {
    let view = api.driver.view();
    api.driver.submit(Command::ReleaseBrake).await?;
    let waits = |node: &&NodeView| node.record.lost.is_some() && !node.record.released;
    Ok(Json(BrakeReleased {
        held_zones: held_zones(&view),
        nodes: count(view.nodes.values().filter(waits).count()),
    }))
}

/// Shows the fleet in one line.
#[utoipa::path(get, path = dunlin_api::paths::STATUS, tag = "nodes", responses((status = 200, body = FleetStatus)))]
pub(crate) async fn fleet(State(api): State<Api>) -> Json<FleetStatus> {
    let view = api.driver.view();
    Json(FleetStatus {
        cluster: api.cluster,
        term: api.term,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        in_charge: api.in_charge,
        nodes_alive: count(view.nodes.values().filter(|node| node.status == Seen::Alive).count()),
        nodes: count(view.nodes.len()),
        apps: count(view.apps.len()),
        held_zones: held_zones(&view),
        recovery: view.recovery.as_ref().map(|record| Recovery {
            since_ms: record.since,
            reason: record.reason.to_string(),
            highest_term: record.highest_term,
        }),
    })
}

/// Lets a coordinator that is in recovery go on: what its store holds is to be from now on, and nodes stop what is not in
/// it. It starts again for that.
#[utoipa::path(post, path = dunlin_api::paths::RECOVERY_CONFIRM, tag = "backup",
    responses((status = 204),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn recover(State(api): State<Api>) -> Result<StatusCode, Refused> {
    api.driver.submit(Command::Recover).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows one node as the last view has it.
fn one(api: &Api, node: &NodeId) -> Result<Json<NodeStatus>, Refused> {
    let view = api.driver.view();
    let found = view.nodes.get(node).ok_or_else(|| not_found(format!("node `{node}`")))?;
    let held = view.allocations.values().filter(|held| held.record.node == *node).count();
    Ok(Json(node_status(api, found, count(held), api.clock.now())))
}

fn pending_status(pending: &PendingRecord) -> NodeStatus {
    NodeStatus {
        node: pending.node.clone(),
        state: NodeState::Pending,
        revoked: false,
        key: Some(Digest::from_sha256(pending.key_fingerprint)),
        labels: BTreeMap::new(),
        capacity: Resources::default(),
        reserved: Resources::default(),
        ingress: None,
        peer: None,
        version: String::new(),
        last_seen_ms_ago: None,
        allocations: 0,
        resources: BTreeMap::new(),
        batch_overcommit: None,
        clock_unset: false,
        round_trip_us: None,
        over_tcp: false,
        relayed_with: Vec::new(),
        cordoned_ms_ago: None,
        drain_ends_in_ms: None,
        set_aside_ends_in_ms: None,
    }
}

fn held_zones(view: &View) -> Vec<HeldZone> {
    let zones = view.held_zones.iter().map(|(zone, held)| HeldZone {
        zone: zone.clone(),
        lost: count(held.lost),
        nodes: count(held.nodes),
    });
    zones.collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn node_status(api: &Api, node: &NodeView, allocations: u32, now: Timestamp) -> NodeStatus {
    let connection = api.fleet.connection(&node.record.id);
    let round_trip = connection.as_ref().map(Connection::round_trip);
    let (info, cordon) = (node.record.info.as_ref(), node.record.cordon);
    NodeStatus {
        node: node.record.id.clone(),
        state: match node.status {
            Seen::Alive => NodeState::Alive,
            Seen::Lost => NodeState::Lost,
            Seen::NeverSeen => NodeState::NeverSeen,
        },
        revoked: node.record.revoked,
        key: None,
        labels: info.map(|info| info.labels.clone()).unwrap_or_default(),
        capacity: node.capacity.unwrap_or_default(),
        reserved: node.reserved,
        ingress: info.map(|info| info.ingress),
        peer: info.map(|info| info.peer),
        version: info.map(|info| info.version.clone()).unwrap_or_default(),
        last_seen_ms_ago: node.last_seen.map(|seen| now.since(seen).0),
        allocations,
        resources: info.map(|info| info.resources.clone()).unwrap_or_default(),
        batch_overcommit: info.map(|info| info.batch_overcommit.into()),
        clock_unset: info.is_some_and(|info| info.clock_unset),
        round_trip_us: round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        over_tcp: connection.is_some_and(|connection| connection.is_over_tcp()),
        relayed_with: api.relay.heard_by(&node.record.id),
        cordoned_ms_ago: cordon.map(|cordon| now.since(cordon.since).0),
        drain_ends_in_ms: cordon.and_then(|cordon| cordon.drain).map(|end| end.since(now).0),
        set_aside_ends_in_ms: node.set_aside_until.filter(|end| *end > now).map(|end| end.since(now).0),
    }
}
