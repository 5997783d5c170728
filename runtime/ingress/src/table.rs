//! The route table made ready for requests: what `set_routes` computes once, so that no request has to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dunlin_model::{
    AllocationId, Digest, Endpoint, Name, NamespaceRoutes, NodeId, Percent, Route, RouteTable, WorkloadName,
};
use http::{HeaderMap, HeaderValue};

use crate::choice::{self, Allocations, Group, Home, Wish};
use crate::load::{Busy, Load, RetryBudget};
use crate::namespace_routes::namespace_routes;
use crate::owners::Owners;
use crate::router::Router;
use crate::rules::Rules;
use crate::spelling;
use crate::suspects::Suspects;
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

/// A service as it is found by a route, or by its name.
pub(crate) struct Target {
    pub(crate) service: Arc<Service>,
    /// The rules of the route by which it was found.
    pub(crate) rules: Option<Arc<Rules>>,
}

/// A service and where it runs.
pub(crate) struct Service {
    pub(crate) workload: WorkloadName,
    pub(crate) places: Vec<Arc<Place>>,
    home: Home,
    /// Those that have a share of the requests of their own, and which; as much as their number says if that is not known.
    canaries: Group,
    share: Option<Percent>,
    /// All others.
    group: Group,
    /// Counts its requests. As what is counted below it goes on from table to table.
    turn: Arc<AtomicUsize>,
    /// The connections that were handed to its worker.
    pub(crate) handed: Load,
    pub(crate) retries: Arc<RetryBudget>,
}

impl Service {
    /// Returns a service that runs nowhere.
    fn new(workload: WorkloadName, last: Option<&Self>) -> Self {
        Self {
            workload,
            places: Vec::new(),
            home: Home::of(None),
            canaries: Group::default(),
            share: None,
            group: Group::default(),
            turn: last.map(|last| Arc::clone(&last.turn)).unwrap_or_default(),
            handed: last.map(|last| last.handed.clone()).unwrap_or_default(),
            retries: last.map(|last| Arc::clone(&last.retries)).unwrap_or_default(),
        }
    }

    /// Adds an allocation that answers for it.
    fn add(&mut self, place: Arc<Place>, is_canary: bool) {
        let group = if is_canary { &mut self.canaries } else { &mut self.group };
        let list = if matches!(place.way, Way::Local(_)) { &mut group.here } else { &mut group.elsewhere };
        list.push(self.places.len());
        self.places.push(place);
    }

    /// Returns the number that the next request will have.
    pub(crate) fn next_turn(&self) -> usize {
        self.turn.load(Ordering::Relaxed)
    }

    /// Gives a request its number.
    pub(crate) fn take_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns how much the allocation at `index` has to do, as far as is known here. Whose worker has connections of its own
    /// is asked by about as many clients.
    fn load(&self, index: usize) -> usize {
        let place = &self.places[index];
        let handed = match place.way {
            Way::Local(_) => self.handed.now() / (self.group.here.len() + self.canaries.here.len()).max(1),
            Way::Peer(_) => 0,
        };
        place.load.now() + handed + place.busy.now()
    }
}

/// A service with what is known of its allocations at this moment.
pub(crate) struct Seen<'a> {
    pub(crate) service: &'a Service,
    pub(crate) suspects: &'a Suspects,
}

impl Allocations for Seen<'_> {
    fn number(&self, index: usize) -> u64 {
        self.service.places[index].allocation.number()
    }

    fn is_suspect(&self, index: usize) -> bool {
        self.suspects.contain(&self.service.places[index])
    }

    fn load(&self, index: usize) -> usize {
        self.service.load(index)
    }
}

impl Seen<'_> {
    /// Returns the order in which the allocations of the service are tried.
    pub(crate) fn order(&self, wish: Wish) -> impl Iterator<Item = usize> {
        let Service { group, canaries, share, home, places, .. } = self.service;
        let share = match share {
            Some(share) => (share.0.into(), 100),
            None => (canaries.len() as u64, (canaries.len() + group.len()) as u64),
        };
        let (group, turn) = match choice::canary_turn(wish, share) {
            _ if canaries.len() == 0 => (group, wish.turn),
            (true, turn) => (canaries, turn),
            (false, turn) if group.len() > 0 => (group, turn),
            (false, turn) => (canaries, turn),
        };
        let by_key = wish.key.map(|key| choice::by_key(group, places.len(), key, self));
        let in_turn = wish.key.is_none().then(|| choice::in_turn(group, *home, places.len(), turn, self));
        by_key.into_iter().flatten().chain(in_turn.into_iter().flatten())
    }
}

/// One endpoint and the way there.
pub(crate) struct Place {
    pub(crate) allocation: AllocationId,
    pub(crate) node: NodeId,
    pub(crate) way: Way,
    /// The allocation as it is told to the other side.
    pub(crate) header: HeaderValue,
    /// The requests that are under way there by way of this ingress.
    pub(crate) load: Load,
    pub(crate) busy: Busy,
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
            let known = last.targets.get(workload).map(|target| &*target.service);
            let mut service = Service::new(workload.clone(), known);
            service.home = if routes.everywhere.contains(workload) {
                Home::Only
            } else {
                Home::of(routes.narrow.get(workload).copied())
            };
            service.share = routes.shares.get(workload).copied();
            for endpoint in endpoints {
                if let Some(place) = table.place(node, workload, endpoint, &routes.peers, last) {
                    service.add(place, endpoint.canary);
                }
            }
            let target = Arc::new(Target { service: Arc::new(service), rules: None });
            table.targets.insert(workload.clone(), target);
        }
        for route in &routes.routes {
            let target = table.targets.entry(route.workload.clone()).or_insert_with(|| {
                let service = Arc::new(Service::new(route.workload.clone(), None));
                Arc::new(Target { service, rules: None })
            });
            let mut target = Arc::clone(target);
            let known = last.rules.get(route).cloned();
            if let Some(rules) = known.or_else(|| Rules::of(&route.spec).map(Arc::new)) {
                let service = Arc::clone(&target.service);
                target = Arc::new(Target { service, rules: Some(Arc::clone(&rules)) });
                table.rules.insert(route.clone(), rules);
            }
            table.router.insert(&route.spec, target);
        }
        table
    }

    /// Tells whether `path` is one that many programs take for another path, on which the service of `found` has rules that are
    /// not those of `path`: it would get around them.
    pub(crate) fn is_misspelled(
        &self,
        authority: &str,
        path: &str,
        headers: &HeaderMap,
        found: &Target,
    ) -> bool {
        if self.rules.is_empty() {
            return false;
        }
        let meant = spelling::meant(path).and_then(|path| self.router.find(authority, &path, headers));
        let Some(meant) = meant else { return false };
        let same = |one: &Arc<Rules>| found.rules.as_ref().is_some_and(|other| Arc::ptr_eq(one, other));
        meant.service.workload == found.service.workload
            && meant.rules.as_ref().is_some_and(|rules| !same(rules))
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

    fn place_of(&self, workload: &WorkloadName, allocation: AllocationId) -> Option<&Place> {
        let places = &self.targets.get(workload)?.service.places;
        // They are in this order wherever routes come from a coordinator; else what is counted begins anew.
        let place = places.binary_search_by_key(&allocation, |place| place.allocation).ok()?;
        Some(&places[place])
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
        let known = last.place_of(workload, allocation);
        let load = known.map(|place| place.load.clone()).unwrap_or_default();
        let busy = known.map(|place| place.busy.clone()).unwrap_or_default();
        let place = Arc::new(Place { allocation, node: endpoint.node.clone(), way, header, load, busy });
        if let Way::Local(_) = place.way {
            self.local.insert(allocation, Arc::clone(&place));
        }
        Some(place)
    }
}
