//! Nodes, and the fleet in one line.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use dunlin_api::{FleetStatus, NodeList, NodeState, NodeStatus};
use dunlin_model::{NodeId, Timestamp};
use dunlin_scheduler::{NodeStatus as Seen, NodeView};

use super::Api;

/// Lists all nodes and how they stand.
#[utoipa::path(get, path = dunlin_api::paths::NODES, tag = "nodes", responses((status = 200, body = NodeList)))]
pub(crate) async fn list(State(api): State<Api>) -> Json<NodeList> {
    let (view, now) = (api.driver.view(), api.clock.now());
    let mut held: BTreeMap<&NodeId, u32> = BTreeMap::new();
    for allocation in view.allocations.values() {
        *held.entry(&allocation.record.node).or_default() += 1;
    }
    let nodes =
        view.nodes.iter().map(|(id, node)| node_status(node, held.get(id).copied().unwrap_or(0), now));
    Json(NodeList { nodes: nodes.collect() })
}

/// Shows the fleet in one line.
#[utoipa::path(get, path = dunlin_api::paths::STATUS, tag = "nodes", responses((status = 200, body = FleetStatus)))]
pub(crate) async fn fleet(State(api): State<Api>) -> Json<FleetStatus> {
    let view = api.driver.view();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Json(FleetStatus {
        cluster: api.cluster,
        term: api.term,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        nodes_alive: count(view.nodes.values().filter(|node| node.status == Seen::Alive).count()),
        nodes: count(view.nodes.len()),
        apps: count(view.apps.len()),
    })
}

fn node_status(node: &NodeView, allocations: u32, now: Timestamp) -> NodeStatus {
    let info = node.record.info.as_ref();
    NodeStatus {
        node: node.record.id.clone(),
        state: match node.status {
            Seen::Alive => NodeState::Alive,
            Seen::Lost => NodeState::Lost,
            Seen::NeverSeen => NodeState::NeverSeen,
        },
        labels: info.map(|info| info.labels.clone()).unwrap_or_default(),
        capacity: node.capacity.unwrap_or_default(),
        reserved: node.reserved,
        ingress: info.map(|info| info.ingress),
        peer: info.map(|info| info.peer),
        version: info.map(|info| info.version.clone()).unwrap_or_default(),
        last_seen_ms_ago: node.last_seen.map(|seen| now.since(seen).0),
        allocations,
    }
}
