//! The route table made ready for requests: what `set_routes` computes once, so that no request has to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use dunlin_model::{
    AllocationId, Digest, Endpoint, Name, NamespaceRoutes, NodeId, Route, RouteTable, WorkloadName,
};
use http::HeaderValue;

use crate::choice;
use crate::namespace_routes::namespace_routes;
use crate::owners::Owners;
use crate::router::Router;
use crate::rules::Rules;
use crate::spelling;
use crate::upstream::Pool;

/// The route table made ready for requests.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) router: Router<Arc<Target>>,
    pub(crate) owners: Owners,
    /// What the workers of this node may know, and the version of each, for the namespaces that have a worker.
    pub(crate) namespaces: BTreeMap<Name, (u64, NamespaceRoutes)>,
    version: u64,
    /// The allocations on this node: the only ones that requests from other nodes may reach.
    pub(crate) local: HashMap<AllocationId, Arc<Place>>,
    /// All services, also those without routes, which guests of their namespace may call.
    pub(crate) targets: BTreeMap<WorkloadName, Arc<Target>>,
    pools: BTreeMap<Name, Arc<Pool>>,
    /// The rules of routes that have some. What they count goes on from table to table.
    rules: BTreeMap<Route, Arc<Rules>>,
    /// The keys of machines whose requests are not taken.
    pub(crate) revoked: BTreeSet<Digest>,
}

/// A service and where it runs.
pub(crate) struct Target {
    pub(crate) workload: WorkloadName,
    pub(crate) places: Vec<Arc<Place>>,
    /// Those of them that are tried first.
    first: Vec<usize>,
    /// Counts its requests. It goes on from table to table, so that the turn does not begin again at each.
    pub(crate) turn: Arc<AtomicUsize>,
    /// The rules of the route by which it was found.
    pub(crate) rules: Option<Arc<Rules>>,
}

impl Target {
    /// Returns the same, as it is found by a route with these rules.
    fn by(&self, rules: &Arc<Rules>) -> Self {
        Self {
            workload: self.workload.clone(),
            places: self.places.clone(),
            first: self.first.clone(),
            turn: Arc::clone(&self.turn),
            rules: Some(Arc::clone(rules)),
        }
    }

    /// Returns the order in which its places are tried by the request with this `turn`.
    pub(crate) fn order(
        &self,
        turn: usize,
        is_suspect: impl Fn(usize) -> bool + Copy,
    ) -> impl Iterator<Item = usize> {
        choice::order(turn, self.places.len(), &self.first, is_suspect)
    }
}

/// Returns which places are on this node.
fn local(places: &[Arc<Place>]) -> Vec<usize> {
    let places = places.iter().enumerate();
    places.filter(|(_, place)| matches!(place.way, Way::Local(_))).map(|(index, _)| index).collect()
}

/// One endpoint and the way there.
pub(crate) struct Place {
    pub(crate) allocation: AllocationId,
    pub(crate) node: NodeId,
    pub(crate) way: Way,
    /// The allocation as it is told to the other side.
    pub(crate) header: HeaderValue,
}

/// The way to an endpoint.
pub(crate) enum Way {
    /// To a worker on this node.
    Local(Arc<Pool>),
    /// To the ingress of another node.
    Peer(SocketAddr),
}

impl Table {
    /// Returns `routes` as `node` sees them. What outlives a change of routes is taken over from `last`.
    pub(crate) fn new(node: &NodeId, routes: &RouteTable, last: &Self) -> Self {
        let mut table = Self {
            owners: Owners::new(routes),
            version: last.version + 1,
            revoked: routes.revoked.clone(),
            ..Self::default()
        };
        for (namespace, routes) in namespace_routes(node, routes) {
            let version = match last.namespaces.get(&namespace) {
                Some((version, known)) if *known == routes => *version,
                _ => table.version,
            };
            table.namespaces.insert(namespace, (version, routes));
        }
        for (workload, endpoints) in &routes.endpoints {
            let places: Vec<Arc<Place>> = endpoints
                .iter()
                .filter_map(|endpoint| table.place(node, workload, endpoint, &routes.peers, last))
                .collect();
            let turn = last.targets.get(workload).map(|target| Arc::clone(&target.turn)).unwrap_or_default();
            let first = if routes.everywhere.contains(workload) { local(&places) } else { Vec::new() };
            let target = Arc::new(Target { workload: workload.clone(), places, first, turn, rules: None });
            table.targets.insert(workload.clone(), target);
        }
        for route in &routes.routes {
            let target = table.targets.entry(route.workload.clone()).or_insert_with(|| {
                let workload = route.workload.clone();
                let turn = Arc::default();
                Arc::new(Target { workload, places: Vec::new(), first: Vec::new(), turn, rules: None })
            });
            let mut target = Arc::clone(target);
            let known = last.rules.get(route).cloned();
            if let Some(rules) = known.or_else(|| Rules::of(&route.spec).map(Arc::new)) {
                target = Arc::new(target.by(&rules));
                table.rules.insert(route.clone(), rules);
            }
            table.router.insert(&route.spec, target);
        }
        table
    }

    /// Tells whether `path` is one that many programs take for another path, on which the service of `found` has rules that are
    /// not those of `path`: it would get around them.
    pub(crate) fn is_misspelled(&self, authority: &str, path: &str, found: &Target) -> bool {
        if self.rules.is_empty() {
            return false;
        }
        let Some(meant) = spelling::meant(path).and_then(|path| self.router.find(authority, &path)) else {
            return false;
        };
        let same = |one: &Arc<Rules>| found.rules.as_ref().is_some_and(|other| Arc::ptr_eq(one, other));
        meant.workload == found.workload && meant.rules.as_ref().is_some_and(|rules| !same(rules))
    }

    /// Returns the routes that are not the same in `last`.
    pub(crate) fn news<'a>(
        &'a self,
        last: &'a Self,
    ) -> impl Iterator<Item = (&'a Name, u64, &'a NamespaceRoutes)> {
        let told = |namespace: &Name| last.namespaces.get(namespace).map(|(version, _)| *version);
        let all = self.namespaces.iter();
        all.filter(move |(namespace, (version, _))| told(namespace) != Some(*version))
            .map(|(namespace, (version, routes))| (namespace, *version, routes))
    }

    /// Returns the way to `endpoint`, or nothing if its node has no known address.
    fn place(
        &mut self,
        node: &NodeId,
        workload: &WorkloadName,
        endpoint: &Endpoint,
        peers: &BTreeMap<NodeId, SocketAddr>,
        last: &Self,
    ) -> Option<Arc<Place>> {
        let allocation = endpoint.allocation;
        let way = if endpoint.node == *node {
            let namespace = &workload.namespace;
            let pool = self.pools.entry(namespace.clone()).or_insert_with(|| {
                let known = last.pools.get(namespace).cloned();
                known.unwrap_or_else(|| Arc::new(Pool::new(namespace.clone())))
            });
            Way::Local(Arc::clone(pool))
        } else {
            Way::Peer(*peers.get(&endpoint.node)?)
        };
        let header = HeaderValue::try_from(allocation.to_string())
            .expect("an id is a letter and digits, which any header can hold");
        let place = Arc::new(Place { allocation, node: endpoint.node.clone(), way, header });
        if let Way::Local(_) = place.way {
            self.local.insert(allocation, Arc::clone(&place));
        }
        Some(place)
    }
}
