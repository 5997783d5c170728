//! The route table: which allocations answer which requests, and where the nodes find each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use dunlin_model::{
    AllocationId, Digest, Endpoint, NodeId, Percent, Revision, Route, RouteTable, Timestamp, WorkloadKind,
    WorkloadName, WorkloadSpec,
};

use crate::called::Called;
use crate::durable::Durable;
use crate::planted::{Bug, planted};
use crate::{AllocationRecord, AllocationState, Cluster, NodeRecord};

/// Returns the routing of the whole fleet, in which nothing leads to nodes that are `silent`.
pub(crate) fn route_table(durable: &Durable, silent: &BTreeSet<NodeId>) -> RouteTable {
    let mut table = RouteTable::default();
    let called = Called::restore(durable);
    for (workload, spec) in durable.specs() {
        table.routes.extend(own_routes(workload, spec));
        if is_everywhere(spec, called.contains(workload)) {
            table.everywhere.insert(workload.clone());
        }
        if let Some((_, Some(share))) = canaries(durable, workload) {
            table.shares.insert(workload.clone(), share);
        }
        if let Some(concurrency) = narrow(spec) {
            table.narrow.insert(workload.clone(), concurrency);
        }
        if let Some(endpoints) = endpoints(durable, silent, &called, workload) {
            table.endpoints.insert(workload.clone(), endpoints);
        }
    }
    table.routes.sort();
    table.revoked = revoked(durable);
    table.peers = durable.nodes().values().filter_map(|node| Some((node.id.clone(), peer(node)?))).collect();
    table
}

/// Returns the keys that are not accepted any more.
fn revoked(durable: &Durable) -> BTreeSet<Digest> {
    durable.nodes().values().flat_map(revoked_keys).collect()
}

fn revoked_keys(node: &NodeRecord) -> impl Iterator<Item = Digest> {
    node.revoked_keys.iter().map(|key| Digest::from_sha256(*key))
}

/// Returns the routes by workload.
pub(crate) fn routes_of(durable: &Durable) -> BTreeMap<WorkloadName, Vec<Route>> {
    let all = durable.specs().iter().map(|(workload, spec)| (workload, own_routes(workload, spec).collect()));
    all.filter(|(_, routes): &(_, Vec<Route>)| !routes.is_empty())
        .map(|(workload, routes)| (workload.clone(), routes))
        .collect()
}

/// Tells whether every node is to answer requests to a workload itself.
fn is_everywhere(spec: &WorkloadSpec, is_called: bool) -> bool {
    match &spec.kind {
        WorkloadKind::Service(service) => service.everywhere && (is_called || !service.routes.is_empty()),
        WorkloadKind::Job(_) => false,
    }
}

/// Returns how many requests an allocation of a service takes at the same time, if those are few.
fn narrow(spec: &WorkloadSpec) -> Option<u32> {
    let few = spec.limits.concurrency < RouteTable::NARROW;
    matches!(&spec.kind, WorkloadKind::Service(_)).then_some(spec.limits.concurrency).filter(|_| few)
}

/// Returns where the ingress of a node is reached, unless that is lost.
fn peer(node: &NodeRecord) -> Option<SocketAddr> {
    node.info.as_ref().filter(|_| node.lost.is_none()).map(|info| info.peer)
}

/// Returns which requests go to a workload.
fn own_routes(workload: &WorkloadName, spec: &WorkloadSpec) -> impl Iterator<Item = Route> {
    let routes = match &spec.kind {
        WorkloadKind::Service(service) => service.routes.as_slice(),
        WorkloadKind::Job(_) => &[],
    };
    routes.iter().map(|route| Route { spec: route.clone(), workload: workload.clone() })
}

/// Returns what answers for a service that has routes or is called by its name.
///
/// An allocation is in it from the moment its node says that it runs until it drains, or its node is lost or silent.
fn endpoints(
    durable: &Durable,
    silent: &BTreeSet<NodeId>,
    called: &Called,
    workload: &WorkloadName,
) -> Option<Vec<Endpoint>> {
    match &durable.specs().get(workload)?.kind {
        WorkloadKind::Service(service) if !service.routes.is_empty() || called.contains(workload) => {}
        WorkloadKind::Service(_) | WorkloadKind::Job(_) => return None,
    }
    let serving = durable.of_workload(workload);
    let answers = serving.filter(|record| record.serves() && answers(silent, record));
    let canaries = canaries(durable, workload);
    Some(answers.map(|record| endpoint(record, canaries)).collect())
}

fn endpoint(record: &AllocationRecord, canaries: Option<(Revision, Option<Percent>)>) -> Endpoint {
    let canary = canaries.is_some_and(|(revision, _)| record.revision == revision);
    Endpoint { canary, ..Endpoint::new(record.id, record.node.clone()) }
}

/// Returns the revision of which a service has canaries, as long as they are not promoted, and the share of the requests that
/// they are to have, if the service says.
///
/// Where a rollout has failed and stopped, they keep it.
fn canaries(durable: &Durable, workload: &WorkloadName) -> Option<(Revision, Option<Percent>)> {
    let app = durable.apps().get(&workload.app_name())?;
    let rollout = app.rollout.as_ref().filter(|rollout| !rollout.promoted)?;
    if !rollout.services.contains(&workload.workload) {
        return None;
    }
    let (spec, _) = app.rollout_spec(&workload.workload)?;
    spec.canary.map(|_| (app.revision, spec.canary_share))
}

/// Tells whether requests go to an allocation of a service.
fn answers(silent: &BTreeSet<NodeId>, record: &AllocationRecord) -> bool {
    record.state == AllocationState::Running && !silent.contains(&record.node)
        || planted(Bug::RouteBeforeRunning) && record.state == AllocationState::Placed
}

/// Lets `workload` have this value, or none; tells whether that is new.
fn put<T: Copy + PartialEq>(
    values: &mut BTreeMap<WorkloadName, T>,
    workload: &WorkloadName,
    value: Option<T>,
) -> bool {
    let before = match value {
        Some(value) => values.insert(workload.clone(), value),
        None => values.remove(workload),
    };
    before != value
}

impl Cluster {
    /// Takes note that a node is heard: requests go to it again, if none did, and for some time to come.
    pub(crate) fn route_to(&mut self, node: &NodeId, now: Timestamp) {
        if let Some(routed) = self.config.routed {
            self.volatile.routed.set(node, now.plus(routed));
            if self.volatile.silent.remove(node) {
                self.look_at_upgrade_of(node);
                self.reroute(node, now);
            }
        }
    }

    /// Lets no requests go to nodes any more that have been silent for a while, though they are believed.
    pub(crate) fn leave_silent(&mut self, now: Timestamp) {
        while let Some(node) = self.volatile.routed.take_due(now) {
            if self.volatile.silent.insert(node.clone()) {
                self.reroute(&node, now);
            }
        }
    }

    fn reroute(&mut self, node: &NodeId, now: Timestamp) {
        let serving = self.durable.on_node(node).filter(|record| record.serves());
        let endpoints = serving.map(|record| (record.id, record.workload.clone()));
        self.volatile.dirty.endpoints.extend(endpoints);
        self.volatile.dirty_since = now;
    }

    /// Makes new in the table what is not as before; tells whether there was any.
    pub(crate) fn refresh_routes(&mut self) -> bool {
        // The code that nodes are to keep is told to all, as routes are.
        let mut is_new = self.volatile.baking.take_new();
        for node in std::mem::take(&mut self.volatile.dirty.peers) {
            let record = self.durable.nodes().get(&node);
            let peer = record.and_then(peer);
            // Keys are revoked for good, so their number only grows.
            for key in record.into_iter().flat_map(revoked_keys) {
                is_new |= self.volatile.routes.revoked.insert(key);
            }
            let peers = &mut self.volatile.routes.peers;
            is_new |= peers.get(&node).copied() != peer;
            match peer {
                Some(peer) => drop(peers.insert(node, peer)),
                None => drop(peers.remove(&node)),
            }
        }
        for workload in self.take_routed() {
            is_new |= self.refresh_routing(&workload);
            let now = endpoints(&self.durable, &self.volatile.silent, &self.volatile.called, &workload);
            let endpoints = &mut self.volatile.routes.endpoints;
            if now.as_ref() != endpoints.get(&workload) {
                is_new = true;
                match now {
                    Some(now) => drop(endpoints.insert(workload, now)),
                    None => drop(endpoints.remove(&workload)),
                }
            }
        }
        for (id, workload) in std::mem::take(&mut self.volatile.dirty.endpoints) {
            is_new |= self.refresh_endpoint(&workload, id);
        }
        self.volatile.routes_version += u64::from(is_new);
        is_new
    }

    /// Takes the services of which something has changed, and those that others may call by now, or no longer.
    fn take_routed(&mut self) -> BTreeSet<WorkloadName> {
        let mut services = std::mem::take(&mut self.volatile.dirty.services);
        let mut namespaces = BTreeSet::new();
        for workload in &services {
            if self.volatile.called.refresh(&self.durable, workload) {
                namespaces.insert(workload.namespace.clone());
            }
        }
        for namespace in namespaces {
            services.extend(self.durable.of_namespace(&namespace).cloned());
        }
        services
    }

    /// Lets the requests go to a service that are its own now; tells whether these are others.
    fn refresh_routing(&mut self, workload: &WorkloadName) -> bool {
        let spec = self.durable.specs().get(workload);
        let everywhere = &mut self.volatile.routes.everywhere;
        let is_called = self.volatile.called.contains(workload);
        let is_changed = if spec.is_some_and(|spec| is_everywhere(spec, is_called)) {
            everywhere.insert(workload.clone())
        } else {
            everywhere.remove(workload)
        };
        let RouteTable { shares, narrow: narrows, .. } = &mut self.volatile.routes;
        let share = canaries(&self.durable, workload).and_then(|(_, share)| share);
        let is_changed = is_changed
            | put(shares, workload, share)
            | put(narrows, workload, spec.and_then(|spec| narrow(spec)));
        let now: Vec<Route> = spec.into_iter().flat_map(|spec| own_routes(workload, spec)).collect();
        let before = self.volatile.routes_of.get(workload).map_or(&[][..], Vec::as_slice);
        if now == before {
            return is_changed;
        }
        let routes = &mut self.volatile.routes.routes;
        for route in before {
            if let Ok(place) = routes.binary_search(route) {
                routes.remove(place);
            }
        }
        for route in &now {
            let place = routes.binary_search(route).unwrap_or_else(|place| place);
            routes.insert(place, route.clone());
        }
        if now.is_empty() {
            self.volatile.routes_of.remove(workload);
        } else {
            self.volatile.routes_of.insert(workload.clone(), now);
        }
        true
    }

    /// Lets an allocation answer requests, or no longer; tells whether that is new.
    fn refresh_endpoint(&mut self, workload: &WorkloadName, id: AllocationId) -> bool {
        let Some(endpoints) = self.volatile.routes.endpoints.get_mut(workload) else { return false };
        let record = self.durable.allocations().get(&id);
        let record = record.filter(|record| answers(&self.volatile.silent, record));
        match (endpoints.binary_search_by_key(&id, |endpoint| endpoint.allocation), record) {
            (Ok(place), None) => drop(endpoints.remove(place)),
            (Err(place), Some(record)) => {
                endpoints.insert(place, endpoint(record, canaries(&self.durable, workload)));
            }
            (Ok(_), Some(_)) | (Err(_), None) => return false,
        }
        true
    }
}
