//! The route table: which allocations answer which requests, and where the nodes find each other.

use dunlin_model::{Endpoint, Route, RouteTable, WorkloadKind, WorkloadName};

use crate::durable::Durable;
use crate::{AllocationState, Cluster};

/// Returns the routing of the whole fleet.
pub(crate) fn route_table(durable: &Durable) -> RouteTable {
    let mut table = RouteTable::default();
    set_routing(&mut table, durable);
    for workload in durable.specs().keys() {
        if let Some(endpoints) = endpoints(durable, workload) {
            table.endpoints.insert(workload.clone(), endpoints);
        }
    }
    table
}

/// Sets which requests go to which service, and where the nodes find each other.
fn set_routing(table: &mut RouteTable, durable: &Durable) {
    table.routes.clear();
    for (workload, spec) in durable.specs() {
        if let WorkloadKind::Service(service) = &spec.kind {
            let routes = service.routes.iter();
            table
                .routes
                .extend(routes.map(|route| Route { spec: route.clone(), workload: workload.clone() }));
        }
    }
    table.routes.sort();
    let peers = durable.nodes().values().filter(|node| node.lost.is_none());
    table.peers = peers.filter_map(|node| Some((node.id.clone(), node.info.as_ref()?.peer))).collect();
}

/// Returns what answers for a service that has routes.
///
/// An allocation is in it from the moment its node says that it runs until it drains or its node is lost.
fn endpoints(durable: &Durable, workload: &WorkloadName) -> Option<Vec<Endpoint>> {
    match &durable.specs().get(workload)?.kind {
        WorkloadKind::Service(service) if !service.routes.is_empty() => {}
        WorkloadKind::Service(_) | WorkloadKind::Job(_) => return None,
    }
    let serving = durable.of_workload(workload);
    let answers = serving.filter(|record| record.serves() && record.state == AllocationState::Running);
    Some(answers.map(|record| Endpoint { allocation: record.id, node: record.node.clone() }).collect())
}

impl Cluster {
    /// Makes new in the table what is not as before; tells whether there was any.
    pub(crate) fn refresh_routes(&mut self) -> bool {
        let routes = &mut self.volatile.routes;
        let mut is_new = false;
        if std::mem::take(&mut self.volatile.dirty.routing) {
            let mut table = RouteTable::default();
            set_routing(&mut table, &self.durable);
            is_new = table.routes != routes.routes || table.peers != routes.peers;
            (routes.routes, routes.peers) = (table.routes, table.peers);
        }
        for workload in std::mem::take(&mut self.volatile.dirty.services) {
            let now = endpoints(&self.durable, &workload);
            if now.as_ref() != routes.endpoints.get(&workload) {
                is_new = true;
                match now {
                    Some(endpoints) => drop(routes.endpoints.insert(workload, endpoints)),
                    None => drop(routes.endpoints.remove(&workload)),
                }
            }
        }
        for (workload, id) in std::mem::take(&mut self.volatile.dirty.endpoints) {
            let Some(endpoints) = routes.endpoints.get_mut(&workload) else { continue };
            let record = self.durable.allocations().get(&id);
            let record = record.filter(|record| record.state == AllocationState::Running);
            match (endpoints.binary_search_by_key(&id, |endpoint| endpoint.allocation), record) {
                (Ok(place), None) => drop(endpoints.remove(place)),
                (Err(place), Some(record)) => {
                    endpoints.insert(place, Endpoint { allocation: id, node: record.node.clone() });
                }
                (Ok(_), Some(_)) | (Err(_), None) => continue,
            }
            is_new = true;
        }
        self.volatile.routes_version += u64::from(is_new);
        is_new
    }
}
