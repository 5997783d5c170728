//! The rules of a spec: those of the model, and that no two services answer the same requests.

use std::collections::BTreeMap;

use dunlin_model::{
    AppSpec, DurationMs, OnPartition, Route, RouteSpec, SpecError, WorkloadKind, WorkloadName,
};

use crate::{Config, Rejection};

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
    let mut taken: BTreeMap<_, WorkloadName> = BTreeMap::new();
    for (name, workload) in &spec.workloads {
        let WorkloadKind::Service(service) = &workload.kind else { continue };
        for route in &service.routes {
            let pattern = route.pattern();
            let first = routes.partition_point(|known| known.spec.pattern() < pattern);
            let same = routes[first..].iter().take_while(|known| known.spec.pattern() == pattern);
            let mut others = same.filter(|known| known.workload.app_name() != spec.name);
            let other = others.next().map(|known| known.workload.clone());
            if let Some(workload) = other.or_else(|| taken.insert(pattern, spec.name.workload(name))) {
                return Err(Rejection::RouteTaken { route: shown(route), workload });
            }
        }
    }
    Ok(())
}

/// Returns a route as people write it.
fn shown(route: &RouteSpec) -> String {
    format!("{}{}", route.host.as_deref().unwrap_or("*"), route.path)
}
