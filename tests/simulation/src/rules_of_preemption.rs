//! The rules of preemption: batch work makes way, for what is more urgent, and no more of it than must.

use std::collections::BTreeMap;

use dunlin_model::{NodeId, Resources, Semantics, WorkloadKind, WorkloadSpec};
use dunlin_scheduler::{AllocationRecord, Change, MakesWay};

use crate::rules::Commit;

impl Commit<'_> {
    /// Tells what is wrong with those who are to make way from now on.
    pub(crate) fn check_preemption(&self) -> Result<(), String> {
        let mut told: BTreeMap<&NodeId, Vec<&AllocationRecord>> = BTreeMap::new();
        for change in self.changes {
            let Change::Allocation(record) = change else { continue };
            let before =
                self.before.allocations.get(&record.id).and_then(|before| before.makes_way.as_deref());
            if record.makes_way.is_some() && before.is_none() {
                told.entry(&record.node).or_default().push(record);
            }
            if record.makes_way.is_none() && before.is_some() {
                return Err(format!("{} was to make way, and is not any more", record.id));
            }
        }
        let mut all = self.after.allocations.values();
        let late = all.find(|it| it.makes_way.as_deref().is_some_and(|way| way.until <= self.facts.now));
        if let Some(record) = late {
            return Err(format!("{} was to make way, and is still there", record.id));
        }
        told.iter().try_for_each(|(node, records)| self.check_victims(node, records))
    }

    fn check_victims(&self, node: &NodeId, records: &[&AllocationRecord]) -> Result<(), String> {
        let makes_way = records[0].makes_way.as_deref().ok_or("it was just seen")?;
        for record in records {
            let id = record.id;
            if record.makes_way.as_deref() != Some(makes_way) {
                return Err(format!("{id} on {node} makes way for another than those beside it"));
            }
            if record.serves() {
                return Err(format!("the service {id} is to make way"));
            }
            if matches!(&record.spec.kind, WorkloadKind::Job(job) if job.semantics == Semantics::AtMostOnce) {
                return Err(format!("{id} is to make way, and what it has begun may not be begun again"));
            }
        }
        // While a revision is in doubt it may be for the one before it.
        let specs = self.wanted_specs(makes_way);
        let mut all = specs.into_iter().map(|spec| self.check_need(node, records, spec));
        let first = all.next().ok_or_else(|| format!("{makes_way:?} is for nobody"))?;
        if first.is_err() && all.any(|it| it.is_ok()) { Ok(()) } else { first }
    }

    /// What is wanted is more urgent than all that goes for it, fits then, and would not if less went.
    fn check_need(
        &self,
        node: &NodeId,
        records: &[&AllocationRecord],
        spec: &WorkloadSpec,
    ) -> Result<(), String> {
        if let Some(record) = records.iter().find(|record| record.spec.priority >= spec.priority) {
            return Err(format!("{} is to make way for what is not more urgent", record.id));
        }
        if !self.would_fit(node, spec, records) {
            return Err(format!("batch work on {node} makes way, and that is not enough"));
        }
        for left_out in records {
            let others: Vec<_> = records.iter().copied().filter(|it| it.id != left_out.id).collect();
            if self.would_fit(node, spec, &others) {
                return Err(format!("{} makes way without need", left_out.id));
            }
        }
        Ok(())
    }

    /// Returns the specs of which one is that of what others make way for.
    fn wanted_specs(&self, makes_way: &MakesWay) -> Vec<&WorkloadSpec> {
        match makes_way.run {
            Some(run) => self.after.runs.get(&run).map(|run| &*run.spec).into_iter().collect(),
            None => self
                .spec(&makes_way.workload)
                .into_iter()
                .chain(self.spec_before(&makes_way.workload))
                .collect(),
        }
    }

    /// Tells whether a workload would fit on a node without some of what is there.
    fn would_fit(&self, node: &NodeId, spec: &WorkloadSpec, without: &[&AllocationRecord]) -> bool {
        let Some(info) = self.after.nodes[node].info.as_ref() else { return false };
        let there = self.after.allocations.values().filter(|it| it.node == *node && it.is_assigned());
        let there: Vec<_> = there.filter(|it| without.iter().all(|out| out.id != it.id)).collect();
        let reserved = there.iter().map(|it| it.resources()).fold(Resources::default(), Resources::plus);
        let is_batch = matches!(spec.kind, WorkloadKind::Job(_));
        let capacity = if is_batch { info.batch_overcommit.of(info.capacity) } else { info.capacity };
        let need = Resources { memory: spec.limits.memory, fuel_rate: spec.limits.fuel_rate };
        let is_counted = spec.placement.resources.iter().all(|(name, count)| {
            let taken = there.iter().filter_map(|it| it.spec.placement.resources.get(name));
            info.resources.get(name).copied().unwrap_or_default() >= taken.sum::<u32>() + count
        });
        capacity.minus(reserved).holds(&need) && is_counted
    }
}
