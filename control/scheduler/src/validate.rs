//! The rules of a spec that do not stand in its types.

use std::collections::BTreeMap;
use std::fmt::Display;

use dunlin_model::{AppSpec, LimitHit, Limits, RouteSpec, WorkloadKind, WorkloadName, WorkloadSpec};

use crate::Rejection;
use crate::durable::Durable;
use crate::reconcile::services;

/// The most allocations one service may have, and the most a run may work with at the same time.
pub const MAX_ALLOCATIONS: u32 = 10_000;
/// The most attempts an item may have.
const MAX_ATTEMPTS: u32 = 100;

/// Refuses a spec that cannot be run.
pub(crate) fn check_spec(spec: &AppSpec) -> Result<(), Rejection> {
    if spec.workloads.is_empty() {
        return Err(Rejection::InvalidSpec {
            workload: spec.name.to_string(),
            field: "workloads",
            reason: "must name at least one service or job".to_owned(),
        });
    }
    spec.workloads.iter().try_for_each(|(name, workload)| check_workload(&spec.name.workload(name), workload))
}

fn check_workload(name: &WorkloadName, spec: &WorkloadSpec) -> Result<(), Rejection> {
    let invalid = |field, reason| Rejection::InvalidSpec { workload: name.to_string(), field, reason };
    let between = |field: &'static str,
                   value: u64,
                   most: u64,
                   shown: &dyn Display,
                   most_shown: &dyn Display| {
        if value == 0 {
            return Err(invalid(field, "must not be zero".to_owned()));
        }
        if value > most {
            return Err(invalid(field, format!("is too much: {}", LimitHit::new(field, most_shown, shown))));
        }
        Ok(())
    };
    let (own, most) = (&spec.limits, &Limits::MAXIMUM);
    between("limits.memory", own.memory.0, most.memory.0, &own.memory, &most.memory)?;
    between("limits.fuel", own.fuel.0, most.fuel.0, &own.fuel, &most.fuel)?;
    between("limits.fuel_rate", own.fuel_rate.0, most.fuel_rate.0, &own.fuel_rate, &most.fuel_rate)?;
    between("limits.deadline", own.deadline.0, most.deadline.0, &own.deadline, &most.deadline)?;
    let count = |field, value: u32, most: u32| between(field, value.into(), most.into(), &value, &most);
    count("limits.concurrency", own.concurrency, most.concurrency)?;
    match &spec.kind {
        WorkloadKind::Service(service) => {
            count("allocations", service.allocations.max(1), MAX_ALLOCATIONS)?;
            for route in &service.routes {
                let host_is_fine = route.host.as_ref().is_none_or(|host| {
                    !host.is_empty() && !host.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b'/')
                });
                if !route.path.starts_with('/') || !host_is_fine {
                    let reason = format!(
                        "has `{}`; a route is a host name in lower case and a path that begins with `/`",
                        shown(route)
                    );
                    return Err(invalid("routes", reason));
                }
            }
        }
        WorkloadKind::Job(job) => {
            count("parallelism", job.parallelism, MAX_ALLOCATIONS)?;
            count("attempts", job.attempts, MAX_ATTEMPTS)?;
        }
    }
    Ok(())
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
