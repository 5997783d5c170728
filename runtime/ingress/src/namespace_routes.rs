//! What the worker of a namespace may know of the route table: its own routes and services, and of others only the bare
//! patterns without which it would take requests that are not its own. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{
    LocalService, Name, NamespaceRoute, NamespaceRoutes, NodeId, Route, RouteTable, WorkloadName,
};

use crate::router::{normal_host, parents};

/// A namespace with more routes than this is served without hand-off, and its guests' calls go by the agent: its worker
/// would have to be told too much.
const MAX_ROUTES: usize = 4096;

/// Returns the routes of each namespace that has an allocation on `node`.
pub(crate) fn namespace_routes(node: &NodeId, routes: &RouteTable) -> BTreeMap<Name, NamespaceRoutes> {
    let mut services: BTreeMap<&WorkloadName, LocalService> = BTreeMap::new();
    let mut namespaces = BTreeSet::new();
    for (workload, endpoints) in &routes.endpoints {
        let here = endpoints.iter().filter(|endpoint| endpoint.node == *node);
        let allocations: Vec<_> = here.map(|endpoint| endpoint.allocation).collect();
        if !allocations.is_empty() {
            namespaces.insert(&workload.namespace);
        }
        let is_elsewhere = allocations.len() < endpoints.len();
        services.insert(workload, LocalService { allocations, is_elsewhere });
    }
    let of_ingress = OfIngress::new(routes);
    let known = |namespace: &Name| {
        let own = Own::new(routes.routes.iter().filter(|route| route.workload.namespace == *namespace));
        let of_route = |route: &Route| {
            if route.workload.namespace == *namespace {
                if of_ingress.contains(route) {
                    return Some(NamespaceRoute { spec: route.spec.pattern_alone(), service: None });
                }
                let service = services.get(&route.workload).cloned();
                let none = LocalService { allocations: Vec::new(), is_elsewhere: false };
                return Some(NamespaceRoute {
                    spec: route.spec.clone(),
                    service: Some(service.unwrap_or(none)),
                });
            }
            own.is_shadowed_by(route)
                .then(|| NamespaceRoute { spec: route.spec.pattern_alone(), service: None })
        };
        let here = services
            .iter()
            .filter(|(name, service)| name.namespace == *namespace && !service.allocations.is_empty())
            .filter(|(name, _)| !routes.has_canaries(name));
        NamespaceRoutes {
            routes: routes.routes.iter().filter_map(of_route).collect(),
            services: here.map(|(name, service)| ((*name).clone(), service.clone())).collect(),
        }
    };
    let all = namespaces.into_iter().map(|namespace| (namespace.clone(), known(namespace)));
    all.filter(|(_, known)| known.routes.len() <= MAX_ROUTES).collect()
}

/// The routes whose requests only an ingress may answer: what their rules say, which headers they ask for and which share
/// canaries have is its work.
struct OfIngress<'a> {
    routes: &'a RouteTable,
    /// Where a request's headers matter.
    by_headers: BTreeSet<(Option<Cow<'a, str>>, &'a str)>,
}

impl<'a> OfIngress<'a> {
    fn new(routes: &'a RouteTable) -> Self {
        let by_headers = routes.routes.iter().filter(|route| !route.spec.headers().is_empty());
        Self { routes, by_headers: by_headers.map(place).collect() }
    }

    fn contains(&self, route: &'a Route) -> bool {
        route.spec.rules.is_some()
            || self.routes.has_canaries(&route.workload)
            || !self.by_headers.is_empty() && self.by_headers.contains(&place(route))
    }
}

/// Returns at which place a route takes requests, however it is written.
fn place(route: &Route) -> (Option<Cow<'_, str>>, &str) {
    (route.spec.host.as_deref().map(normal_host), prefix(&route.spec.path))
}

/// The paths of a namespace's own routes, without a slash at the end.
#[derive(Default)]
struct Own<'a> {
    hosts: BTreeMap<String, BTreeSet<&'a str>>,
    /// Those of all names below one.
    below: BTreeMap<String, BTreeSet<&'a str>>,
    any_host: BTreeSet<&'a str>,
}

impl<'a> Own<'a> {
    fn new(routes: impl Iterator<Item = &'a Route>) -> Self {
        let mut own = Self::default();
        for route in routes {
            let paths = match &route.spec.host {
                Some(host) => match host.strip_prefix("*.") {
                    Some(parent) => own.below.entry(normal_host(parent).into_owned()).or_default(),
                    None => own.hosts.entry(normal_host(host).into_owned()).or_default(),
                },
                None => &mut own.any_host,
            };
            paths.insert(prefix(&route.spec.path));
        }
        own
    }

    /// Tells whether there is a request that one of these routes matches and that goes to the other `route`.
    fn is_shadowed_by(&self, route: &Route) -> bool {
        let path = prefix(&route.spec.path);
        match &route.spec.host {
            None => has_prefix_of(&self.any_host, path),
            Some(host) => {
                let (same_host, name) = match host.strip_prefix("*.") {
                    Some(parent) => (self.below.get(parent), parent),
                    None => (self.hosts.get(&*normal_host(host)), host.as_str()),
                };
                let name = normal_host(name);
                // Those come first that say more of the host, whatever their paths.
                let mut wider = parents(&name).filter_map(|parent| self.below.get(parent));
                let meets = |paths: &BTreeSet<&str>| has_prefix_of(paths, path) || has_within(paths, path);
                same_host.is_some_and(|paths| has_prefix_of(paths, path))
                    || wider.any(meets)
                    || meets(&self.any_host)
            }
        }
    }
}

fn prefix(path: &str) -> &str {
    path.trim_end_matches('/')
}

/// Tells whether one of `paths` takes all that `path` takes.
fn has_prefix_of(paths: &BTreeSet<&str>, path: &str) -> bool {
    let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
    ends.into_iter().any(|end| paths.contains(&path[..end]))
}

/// Tells whether one of `paths` takes a part of what `path` takes.
fn has_within(paths: &BTreeSet<&str>, path: &str) -> bool {
    let from = paths.range(path..);
    // Right after the path itself come those that begin with its bytes; only a `/` begins a new segment.
    let mut beginning = from.take_while(|other| other.starts_with(path));
    beginning.any(|other| other.len() == path.len() || other.as_bytes()[path.len()] == b'/')
}

#[cfg(test)]
mod tests {
    use dunlin_model::{AllocationId, Endpoint, RouteSpec};

    use super::*;

    fn table(routes: &[(&str, Option<&str>, &str)]) -> RouteTable {
        let route = |(workload, host, path): &(&str, Option<&str>, &str)| Route {
            spec: RouteSpec::new(*host, path),
            workload: workload.parse().unwrap(),
        };
        let mut table = RouteTable { routes: routes.iter().map(route).collect(), ..RouteTable::default() };
        for (number, route) in (1..).zip(&table.routes) {
            let endpoint = Endpoint::new(AllocationId::new(number), "n1".parse().unwrap());
            table.endpoints.entry(route.workload.clone()).or_default().push(endpoint);
        }
        table
    }

    /// Asserts which patterns of `other` the worker of `mine` is told.
    fn check(own: &[(Option<&str>, &str)], others: &[(Option<&str>, &str)], told: &[usize]) {
        let mine = own.iter().map(|(host, path)| ("mine/app/web", *host, *path));
        let theirs = others.iter().map(|(host, path)| ("theirs/app/web", *host, *path));
        let routes: Vec<_> = mine.chain(theirs).collect();
        let known = namespace_routes(&"n1".parse().unwrap(), &table(&routes));
        let known = &known[&"mine".parse::<Name>().unwrap()].routes;
        let expected: Vec<_> = told.iter().map(|index| others[*index]).collect();
        let foreign = known.iter().filter(|route| route.service.is_none());
        let seen: Vec<_> =
            foreign.map(|route| (route.spec.host.as_deref(), route.spec.path.as_str())).collect();
        assert_eq!(seen, expected, "own routes {own:?}");
        assert_eq!(known.len(), own.len() + expected.len());
    }

    #[test]
    fn a_worker_is_told_of_no_route_that_takes_nothing_from_its_own() {
        let api = [(None, "/api")];
        check(&api, &[(None, "/api/v2"), (None, "/"), (None, "/apis"), (None, "/web")], &[0]);
        check(&api, &[(Some("a"), "/"), (Some("b"), "/web"), (Some("c"), "/api/x")], &[0, 2]);
        let host = [(Some("shop.example"), "/cart")];
        check(&host, &[(None, "/cart/x"), (Some("other"), "/cart"), (Some("SHOP.example"), "/cart/x")], &[2]);
        check(&host, &[(Some("shop.example"), "/"), (Some("shop.example"), "/cart/")], &[1]);
        check(&host, &[(Some("*.example"), "/cart/x"), (Some("*.shop.example"), "/cart")], &[]);
        let wild = [(Some("*.example"), "/cart")];
        let others = [
            (Some("shop.example"), "/cart/x"),
            (Some("*.shop.example"), "/"),
            (Some("*.example"), "/cart/x"),
            (Some("*.example"), "/"),
            (Some("shop.example"), "/web"),
            (Some("example"), "/cart/x"),
            (None, "/cart/x"),
        ];
        check(&wild, &others, &[0, 1, 2]);
    }

    #[test]
    fn a_worker_is_told_of_its_allocations_here_and_whether_there_are_others() {
        let mut table = table(&[("mine/app/web", None, "/"), ("mine/app/api", None, "/api")]);
        let web = table.endpoints.get_mut(&"mine/app/web".parse().unwrap()).unwrap();
        web.push(Endpoint::new(AllocationId::new(7), "n2".parse().unwrap()));
        let known = namespace_routes(&"n1".parse().unwrap(), &table);
        let mine = &known[&"mine".parse::<Name>().unwrap()];
        let services: Vec<_> = mine
            .routes
            .iter()
            .map(|route| {
                let service = route.service.as_ref().unwrap();
                (service.allocations.clone(), service.is_elsewhere)
            })
            .collect();
        let expected = [(vec![AllocationId::new(1)], true), (vec![AllocationId::new(2)], false)];
        assert_eq!(services, expected);
        // By name it is told of its own alone, and of what has no route as well.
        table.routes.clear();
        let unrouted = namespace_routes(&"n1".parse().unwrap(), &table);
        assert_eq!(unrouted.keys().map(Name::as_str).collect::<Vec<_>>(), ["mine"]);
        let by_name = &unrouted[&"mine".parse::<Name>().unwrap()].services;
        assert_eq!(by_name, &mine.services);
        let web = &by_name[&"mine/app/web".parse().unwrap()];
        assert_eq!((web.allocations.as_slice(), web.is_elsewhere), (&[AllocationId::new(1)][..], true));
        assert_eq!(by_name.len(), 2);
        assert!(namespace_routes(&"n3".parse().unwrap(), &table).is_empty());
    }

    #[test]
    fn what_only_an_ingress_can_decide_is_not_for_the_worker() {
        let mut table = table(&[
            ("mine/app/web", Some("shop.example"), "/cart/"),
            ("mine/app/new", Some("shop.example"), "/cart"),
            ("mine/app/web", Some("shop.example"), "/more"),
            ("mine/app/web", None, "/cart"),
            ("mine/app/rolled", None, "/rolled"),
        ]);
        table.routes[1].spec.rules = Some(serde_json::from_str(r#"{"headers":{"x-new":"yes"}}"#).unwrap());
        table.endpoints.get_mut(&"mine/app/rolled".parse().unwrap()).unwrap()[0].canary = true;
        let known = namespace_routes(&"n1".parse().unwrap(), &table);
        let NamespaceRoutes { routes, services } = &known[&"mine".parse::<Name>().unwrap()];
        let answered: Vec<bool> = routes.iter().map(|route| route.service.is_some()).collect();
        assert_eq!(answered, [false, false, true, true, false]);
        let services: Vec<String> = services.keys().map(ToString::to_string).collect();
        assert_eq!(services, ["mine/app/new", "mine/app/web"]);
    }
}
