//! Which services guests may call by their names: those that a workload of the same namespace is granted.
//!
//! Every node is told where these run, so a service that nobody calls is not among them.

use std::collections::BTreeMap;

use dunlin_model::{HttpPattern, Name, WorkloadName, WorkloadSpec};

use crate::durable::Durable;

/// What the workloads of each namespace may call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Called {
    /// How many workloads have each grant, as it is written.
    grants: BTreeMap<Name, BTreeMap<String, u32>>,
    /// The same of each workload that has any.
    of_workload: BTreeMap<WorkloadName, Vec<String>>,
}

impl Called {
    /// Returns what all workloads may call.
    pub(crate) fn restore(durable: &Durable) -> Self {
        let mut called = Self::default();
        for (workload, spec) in durable.specs() {
            called.set(workload, Some(spec));
        }
        called
    }

    /// Takes note of what a workload may call by now; tells whether its namespace may call something else than before.
    pub(crate) fn set(&mut self, workload: &WorkloadName, spec: Option<&WorkloadSpec>) -> bool {
        let now: Vec<String> = spec.into_iter().flat_map(grants).cloned().collect();
        let before = self.of_workload.get(workload).map_or(&[][..], Vec::as_slice);
        if now == before {
            return false;
        }
        let counts = self.grants.entry(workload.namespace.clone()).or_default();
        let mut is_new = false;
        for grant in before {
            if let Some(count) = counts.get_mut(grant) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(grant);
                    is_new = true;
                }
            }
        }
        for grant in &now {
            let count = counts.entry(grant.clone()).or_default();
            is_new |= *count == 0;
            *count += 1;
        }
        if counts.is_empty() {
            self.grants.remove(&workload.namespace);
        }
        if now.is_empty() {
            self.of_workload.remove(workload);
        } else {
            self.of_workload.insert(workload.clone(), now);
        }
        is_new
    }

    /// Tells whether somebody may call this service.
    pub(crate) fn contains(&self, service: &WorkloadName) -> bool {
        let Some(grants) = self.grants.get(&service.namespace) else { return false };
        let host = service.host();
        let patterns = grants.keys().filter_map(|grant| grant.parse::<HttpPattern>().ok());
        patterns.into_iter().any(|pattern| pattern.matches(false, &host, WorkloadName::PORT))
    }
}

/// Returns the grants of a workload that may be of services.
fn grants(spec: &WorkloadSpec) -> impl Iterator<Item = &String> {
    let patterns = spec.capabilities.outbound_http.iter();
    patterns.filter(|grant| grant.parse::<HttpPattern>().is_ok_and(|pattern| pattern.may_be_service()))
}
