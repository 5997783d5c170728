//! The rules of a spec: those of the model, and that no two services answer the same requests.

use std::collections::BTreeMap;

use dunlin_model::{AppSpec, RouteSpec, SpecError, WorkloadKind, WorkloadName};

use crate::Rejection;
use crate::durable::Durable;
use crate::reconcile::services;

/// Refuses a spec that breaks a rule of the model, and tells the first: whoever sends specs should have checked them.
pub(crate) fn check_spec(spec: &AppSpec) -> Result<(), Rejection> {
    match spec.check().into_iter().next() {
        None => Ok(()),
        Some(SpecError { field, message, hit: _ }) => {
            Err(Rejection::InvalidSpec { app: spec.name.clone(), field, reason: message })
        }
    }
}

/// Refuses a route that leads to another service of this app or of another.
pub(crate) fn check_routes(durable: &Durable, spec: &AppSpec) -> Result<(), Rejection> {
    let others = services(durable).filter(|(app, ..)| app.name != spec.name);
    let others = others.map(|(app, name, workload, _)| (app.name.workload(name), workload));
    let own = spec.workloads.iter().map(|(name, workload)| (spec.name.workload(name), workload));
    let mut taken: BTreeMap<&RouteSpec, WorkloadName> = BTreeMap::new();
    for (name, workload) in others.chain(own) {
        let WorkloadKind::Service(service) = &workload.kind else { continue };
        for route in &service.routes {
            if let Some(workload) = taken.insert(route, name.clone()) {
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
