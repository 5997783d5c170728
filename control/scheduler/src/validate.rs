//! The rules of a spec: those of the model, and that no two services answer the same requests.

use std::collections::BTreeMap;

use dunlin_model::{
    AppSpec, Bytes, DurationMs, OnPartition, Route, RouteSpec, SpecError, WorkloadKind, WorkloadName,
};

use crate::{Config, Rejection};

/// The most bytes of the rules of all routes in a fleet.
const MAX_RULES: usize = 512 << 10;

/// So many heartbeats a node must be silent at least before a service may stop for it.
const HEARTBEATS: u64 = 3;

/// Refuses a spec that breaks a rule of the model, and tells the first: whoever sends specs should have checked them.
pub(crate) fn check_spec(spec: &AppSpec) -> Result<(), Rejection> {
    match spec.check().into_iter().next() {
        None => Ok(()),
        Some(SpecError { field, message, hit: _ }) => {
            Err(Rejection::InvalidSpec { app: spec.name.clone(), field, reason: message })
        }
    }
}

/// Refuses a service that stops sooner than its node would know that it is heard.
pub(crate) fn check_patience(spec: &AppSpec, config: &Config) -> Result<(), Rejection> {
    let least = DurationMs(config.heartbeat.0.saturating_mul(HEARTBEATS));
    for (name, workload) in &spec.workloads {
        match workload.on_partition() {
            OnPartition::StopAfter(time) if time < least => {
                let reason = format!(
                    "limit `stop_after` is at least {least} here, observed {time}: nodes of this fleet report every {}",
                    config.heartbeat
                );
                let field = format!("workloads.{name}.on_partition");
                return Err(Rejection::InvalidSpec { app: spec.name.clone(), field, reason });
            }
            OnPartition::StopAfter(_) | OnPartition::Keep | OnPartition::Singleton => {}
        }
    }
    Ok(())
}

/// Refuses a route that leads to another service of this app or of another. `routes` are all there are, in order.
pub(crate) fn check_routes(routes: &[Route], spec: &AppSpec) -> Result<(), Rejection> {
    check_weight(routes, spec)?;
    let mut taken: BTreeMap<_, WorkloadName> = BTreeMap::new();
    for (name, workload) in &spec.workloads {
        let WorkloadKind::Service(service) = &workload.kind else { continue };
        for route in &service.routes {
            // Headers are for shares of one's own requests, and not of those of others.
            let is_in_the_way = |known: &Route| {
                let other = known.workload.app_name();
                other != spec.name
                    && (other.namespace != spec.name.namespace || known.spec.headers() == route.headers())
            };
            let mut others = at_place_of(routes, route).filter(|known| is_in_the_way(known));
            let other = others.next().map(|known| known.workload.clone());
            let pattern = (route.host.as_deref(), trimmed(route), route.headers());
            if let Some(workload) = other.or_else(|| taken.insert(pattern, spec.name.workload(name))) {
                return Err(Rejection::RouteTaken { route: shown(route), workload });
            }
        }
    }
    Ok(())
}

/// Returns the routes that take requests where this one does. A slash at the end of a path means nothing.
fn at_place_of<'a>(routes: &'a [Route], route: &'a RouteSpec) -> impl Iterator<Item = &'a Route> {
    let path = trimmed(route);
    let spellings = [path.to_owned(), format!("{path}/")];
    spellings.into_iter().flat_map(move |path| {
        let host = route.host.as_deref();
        let first = routes.partition_point(|known| known.spec.place() < (host, path.as_str()));
        routes[first..].iter().take_while(move |known| known.spec.place() == (host, path.as_str()))
    })
}

fn trimmed(route: &RouteSpec) -> &str {
    route.path.trim_end_matches('/')
}

/// Refuses rules with which those of all routes would take too much of what is told to each node.
fn check_weight(routes: &[Route], spec: &AppSpec) -> Result<(), Rejection> {
    let weight = |route: &RouteSpec| route.rules.as_ref().map_or(0, |rules| rules.weight());
    let services = spec.workloads.values().filter_map(|workload| match &workload.kind {
        WorkloadKind::Service(service) => Some(service),
        WorkloadKind::Job(_) => None,
    });
    let own: usize = services.flat_map(|service| &service.routes).map(weight).sum();
    if own == 0 {
        return Ok(());
    }
    let others = routes.iter().filter(|route| route.workload.app_name() != spec.name);
    let all = own + others.map(|route| weight(&route.spec)).sum::<usize>();
    if all <= MAX_RULES {
        return Ok(());
    }
    let reason = format!(
        "limit `rules of all routes` is {}, observed {}: each node is told all of them",
        Bytes(MAX_RULES as u64),
        Bytes(all as u64)
    );
    Err(Rejection::InvalidSpec { app: spec.name.clone(), field: "routes".to_owned(), reason })
}

/// Returns a route as people write it.
fn shown(route: &RouteSpec) -> String {
    format!("{}{}", route.host.as_deref().unwrap_or("*"), route.path)
}
