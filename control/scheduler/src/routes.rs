//! The route table: which allocations answer which requests, and where the nodes find each other.

use dunlin_model::{Endpoint, Route, RouteTable, WorkloadKind};

use crate::durable::Durable;
use crate::reconcile::services;
use crate::{AllocationState, Cluster};

/// Returns the routing of the whole fleet.
///
/// An allocation is in it from the moment its node says that it runs until it drains or its node is lost.
pub(crate) fn route_table(durable: &Durable) -> RouteTable {
    let mut table = RouteTable::default();
    for (app, name, spec, _) in services(durable) {
        let WorkloadKind::Service(service) = &spec.kind else { continue };
        if service.routes.is_empty() {
            continue;
        }
        let workload = app.name.workload(name);
        let routes = service.routes.iter();
        table.routes.extend(routes.map(|route| Route { spec: route.clone(), workload: workload.clone() }));
        let serving = durable.of_workload(&workload);
        let endpoints = serving
            .filter(|record| record.serves() && record.state == AllocationState::Running)
            .map(|record| Endpoint { allocation: record.id, node: record.node.clone() })
            .collect();
        table.endpoints.insert(workload, endpoints);
    }
    table.routes.sort();
    for node in durable.nodes().values().filter(|node| node.lost.is_none()) {
        if let Some(info) = &node.info {
            table.peers.insert(node.id.clone(), info.peer);
        }
    }
    table
}

impl Cluster {
    /// Makes the table new if it is not as before.
    pub(crate) fn refresh_routes(&mut self) {
        let table = route_table(&self.durable);
        if table != self.volatile.routes {
            self.volatile.routes = table;
            self.volatile.routes_version += 1;
        }
    }
}
