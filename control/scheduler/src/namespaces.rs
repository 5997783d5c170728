//! What namespaces may have, and what they have.

use dunlin_model::{LimitHit, Name, NamespaceSpec, SpecError, Timestamp, WorkloadSpec};

use crate::planted::{Bug, planted};
use crate::record::need;
use crate::{Answer, Change, Cluster, NamespaceRecord, Rejection, Step, Usage};

impl Cluster {
    /// Lets a namespace have this much. What it has more is not taken away; nothing is added to it.
    pub(crate) fn set_namespace(
        &mut self,
        step: &mut Step,
        namespace: Name,
        spec: NamespaceSpec,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        if let Some(SpecError { field, message, hit: _ }) = spec.check().into_iter().next() {
            return Err(Rejection::InvalidNamespace { namespace, field, reason: message });
        }
        if self.durable.namespaces().get(&namespace) != Some(&spec) {
            self.change(step, Change::Namespace(NamespaceRecord { name: namespace, spec }), now);
        }
        Ok(Answer::NamespaceSet)
    }

    /// Returns the quota that one more allocation of `spec` would exceed, if there is one.
    pub(crate) fn quota_hit(&self, namespace: &Name, spec: &WorkloadSpec) -> Option<LimitHit> {
        let quota = self.durable.namespaces().get(namespace)?.quota;
        let usage = self.durable.usage(namespace);
        let after = usage.reserved.plus(need(spec));
        let memory = quota.memory.filter(|most| after.memory > *most);
        let fuel_rate = quota.fuel_rate.filter(|most| after.fuel_rate > *most);
        let allocations =
            quota.allocations.filter(|most| usage.allocations + u32::from(!planted(Bug::OverQuota)) > *most);
        memory
            .map(|most| LimitHit::new("quota.memory", most, after.memory))
            .or_else(|| fuel_rate.map(|most| LimitHit::new("quota.fuel_rate", most, after.fuel_rate)))
            .or_else(|| {
                allocations.map(|most| LimitHit::new("quota.allocations", most, usage.allocations + 1))
            })
    }

    /// Tells whether a namespace has more than it may.
    pub(crate) fn is_over_quota(&self, namespace: &Name) -> bool {
        let Some(NamespaceSpec { quota, .. }) = self.durable.namespaces().get(namespace) else {
            return false;
        };
        let Usage { reserved, allocations } = self.durable.usage(namespace);
        quota.memory.is_some_and(|most| reserved.memory > most)
            || quota.fuel_rate.is_some_and(|most| reserved.fuel_rate > most)
            || quota.allocations.is_some_and(|most| allocations > most)
    }

    /// Returns the quota that `items` more open items would exceed, if there is one.
    pub(crate) fn items_hit(&self, namespace: &Name, items: u32) -> Option<LimitHit> {
        let most = self.durable.namespaces().get(namespace)?.quota.items?;
        let runs = self.durable.runs().values();
        let open = runs.filter(|run| run.is_open() && run.workload.namespace == *namespace);
        let open: u64 = open.map(|run| u64::from(run.items.saturating_sub(run.recorded.len()))).sum();
        let open = if planted(Bug::ForgetOpenItems) { 0 } else { open };
        let after = open.saturating_add(items.into());
        (after > u64::from(most)).then(|| LimitHit::new("quota.items", most, after))
    }
}
