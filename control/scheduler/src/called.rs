//! Which services guests may call by their names: those that a workload of the same namespace is granted, as it is deployed
//! or as it was before a rollout that is not over.
//!
//! Every node is told where these run, so a service that nobody calls is not among them.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{HostPattern, HttpPattern, Name, WorkloadName, WorkloadSpec};

use crate::durable::Durable;
use crate::revisions::before_rollout;

/// What the workloads of each namespace may call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Called {
    /// How many workloads are granted each of these hosts.
    grants: BTreeMap<Name, BTreeMap<HostPattern, u32>>,
    /// The hosts of each workload that is granted any.
    of_workload: BTreeMap<WorkloadName, BTreeSet<HostPattern>>,
}

impl Called {
    /// Returns what all workloads may call.
    pub(crate) fn restore(durable: &Durable) -> Self {
        let mut called = Self::default();
        for app in durable.apps().values() {
            let before = app.rollout.as_ref().and_then(|rollout| durable.revision(&app.name, rollout.from?));
            let names = app.spec.workloads.keys();
            for name in names.chain(before.iter().flat_map(|before| before.spec.workloads.keys())) {
                called.refresh(durable, &app.name.workload(name));
            }
        }
        called
    }

    /// Takes note of what a workload may call by now; tells whether its namespace may call something else than before.
    pub(crate) fn refresh(&mut self, durable: &Durable, workload: &WorkloadName) -> bool {
        let spec = durable.specs().get(workload).map(|spec| &**spec);
        let before = before_rollout(durable, workload).map(|(_, spec)| spec);
        let now: BTreeSet<HostPattern> = spec.into_iter().chain(before).flat_map(hosts).collect();
        let known = self.of_workload.remove(workload).unwrap_or_default();
        let counts = self.grants.entry(workload.namespace.clone()).or_default();
        let mut is_new = false;
        for host in known.difference(&now) {
            if let Some(count) = counts.get_mut(host) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(host);
                    is_new = true;
                }
            }
        }
        for host in now.difference(&known) {
            let count = counts.entry(host.clone()).or_default();
            is_new |= *count == 0;
            *count += 1;
        }
        if counts.is_empty() {
            self.grants.remove(&workload.namespace);
        }
        if !now.is_empty() {
            self.of_workload.insert(workload.clone(), now);
        }
        is_new
    }

    /// Tells whether somebody may call this service.
    pub(crate) fn contains(&self, service: &WorkloadName) -> bool {
        let Some(grants) = self.grants.get(&service.namespace) else { return false };
        service.granted_by().iter().any(|pattern| grants.contains_key(pattern))
    }
}

/// Returns the hosts among which a workload may be granted services.
fn hosts(spec: &WorkloadSpec) -> impl Iterator<Item = HostPattern> {
    let patterns = spec.capabilities.outbound_http.iter();
    let patterns = patterns.filter_map(|grant| grant.parse::<HttpPattern>().ok());
    patterns.filter(HttpPattern::may_be_service).map(|pattern| pattern.host)
}
