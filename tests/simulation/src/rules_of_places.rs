//! The rules of where allocations are: they fit, nothing forbids the place, and the namespace may have them.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{Affinity, Name, NodeId, Placement, Resources};
use dunlin_scheduler::{AllocationRecord, Change};

use crate::rules::Commit;

impl Commit<'_> {
    /// What is placed is placed where it may be.
    pub(crate) fn check_placed(&self) -> Result<(), String> {
        let placed: Vec<&AllocationRecord> =
            self.placed.iter().filter_map(|id| self.after.allocations.get(id)).map(|it| &**it).collect();
        for record in &placed {
            self.check_node(record)?;
            self.check_has_not_failed(record)?;
            let Placement { near, apart, .. } = &record.spec.placement;
            near.iter().try_for_each(|affinity| self.check_affinity(record, affinity, true))?;
            apart.iter().try_for_each(|affinity| self.check_affinity(record, affinity, false))?;
        }
        let namespaces: BTreeSet<&Name> = placed.iter().map(|record| &record.workload.namespace).collect();
        namespaces.into_iter().try_for_each(|namespace| self.check_quota(namespace))
    }

    /// Of a revision whose rollout has failed nothing more is started, unless there is none to return to.
    fn check_has_not_failed(&self, record: &AllocationRecord) -> Result<(), String> {
        let (id, workload) = (record.id, &record.workload);
        let Some(app) = self.after.apps.get(&workload.app_name()) else { return Ok(()) };
        let failed =
            app.rollout.as_ref().filter(|rollout| rollout.failed.is_some() && rollout.from.is_some());
        let is_watched = failed.is_some_and(|rollout| rollout.services.contains(&workload.workload));
        if record.serves() && is_watched && record.revision == app.revision {
            return Err(format!("{id} of {workload} is placed, and the rollout of its revision has failed"));
        }
        Ok(())
    }

    /// Nothing new goes to a node that is cordoned, lost, set aside, silent or not connected, or not such as is asked for.
    fn check_node(&self, record: &AllocationRecord) -> Result<(), String> {
        let (id, node) = (record.id, &self.after.nodes[&record.node]);
        let refuse = |why: &str| Err(format!("{id} is placed on {}, {why}", node.id));
        if node.cordon.is_some() {
            return refuse("which is cordoned");
        }
        if node.lost.is_some() {
            return refuse("which is lost");
        }
        if Self::set_aside_until(node).is_some_and(|until| until > self.facts.now) {
            return refuse("which was lost again and again");
        }
        if !self.facts.connected.contains_key(&node.id) || !self.facts.heard.contains_key(&node.id) {
            return refuse("which is not there");
        }
        let labels = node.info.as_ref().map(|info| info.labels.clone()).unwrap_or_default();
        let mut equal = record.spec.node_labels.iter();
        if let Some((key, value)) = equal.find(|(key, value)| labels.get(*key) != Some(*value)) {
            return refuse(&format!("which has not {key}={value}"));
        }
        match record.spec.placement.require.iter().find(|condition| !condition.matches(&labels)) {
            Some(condition) => refuse(&format!("where `{condition}` does not hold")),
            None => Ok(()),
        }
    }

    /// What is to be near others is, and what is to be apart from them is.
    fn check_affinity(
        &self,
        record: &AllocationRecord,
        affinity: &Affinity,
        is_near: bool,
    ) -> Result<(), String> {
        let Affinity { workload, over, required } = affinity;
        let is_own = *workload == record.workload;
        let place = |node: &NodeId| {
            if over == Placement::EACH_NODE {
                return Some(node.0.as_str().to_owned());
            }
            self.after.nodes[node].info.as_ref()?.labels.get(over).cloned()
        };
        let others = self.after.allocations.values().filter(|other| {
            // Of those that are placed in the same step who has the lower id was first.
            let was_first = other.id < record.id || !self.placed.contains(&other.id);
            other.id != record.id && other.workload == *workload && other.is_live() && was_first
        });
        let places: BTreeSet<Option<String>> = others.map(|other| place(&other.node)).collect();
        let own = place(&record.node);
        let is_shared = own.is_some() && places.contains(&own);
        let is_first = is_near && is_own && places.is_empty();
        // What ends in the same step may have been there when it was placed.
        let was_near = is_near
            && self.before.allocations.values().any(|other| {
                other.workload == *workload && other.is_live() && place(&other.node) == own && own.is_some()
            });
        if *required && is_shared != is_near && !is_first && !was_near {
            let how = if is_near { "near" } else { "apart from" };
            return Err(format!("{} on {} is not {how} {workload} over {over}", record.id, record.node));
        }
        Ok(())
    }

    /// Nothing is placed for a namespace that has more than its quota with it.
    fn check_quota(&self, namespace: &Name) -> Result<(), String> {
        let quota = self.after.namespaces.get(namespace).map(|spec| spec.quota).unwrap_or_default();
        let own = self.after.allocations.values().filter(|it| it.workload.namespace == *namespace);
        // What is lost counts as long as nothing may take its place.
        let own: Vec<_> = own.filter(|record| record.is_assigned() || self.is_held(record)).collect();
        let sum = own.iter().map(|it| it.resources()).fold(Resources::default(), Resources::plus);
        let is_within = quota.memory.is_none_or(|most| sum.memory <= most)
            && quota.fuel_rate.is_none_or(|most| sum.fuel_rate <= most)
            && quota.allocations.is_none_or(|most| own.len() <= most as usize);
        if is_within {
            return Ok(());
        }
        Err(format!("{namespace} has {} allocations with {sum:?} of {quota:?}", own.len()))
    }

    /// What is committed to a node fits on it.
    pub(crate) fn check_capacity(&self) -> Result<(), String> {
        let touched = self.changes.iter().filter_map(|change| match change {
            Change::Allocation(record) => Some(&record.node),
            Change::Node(record) => Some(&record.id),
            _ => None,
        });
        let mut on_nodes: BTreeMap<&NodeId, Vec<&AllocationRecord>> =
            touched.map(|node| (node, Vec::new())).collect();
        for record in self.after.allocations.values().filter(|record| record.is_assigned()) {
            if let Some(records) = on_nodes.get_mut(&record.node) {
                records.push(record);
            }
        }
        on_nodes.iter().filter(|(_, records)| !records.is_empty()).try_for_each(|(node, records)| {
            let info = self.after.nodes.get(*node).and_then(|node| node.info.as_ref());
            let info = info.ok_or_else(|| format!("{node} runs something and has never reported"))?;
            let sum = |records: &mut dyn Iterator<Item = &&AllocationRecord>| {
                records.map(|record| record.resources()).fold(Resources::default(), Resources::plus)
            };
            let (all, services) =
                (sum(&mut records.iter()), sum(&mut records.iter().filter(|it| it.serves())));
            let over = info.batch_overcommit.of(info.capacity);
            // Services never get more than there is, whatever batch work may have.
            if !info.capacity.holds(&services) || !over.holds(&all) {
                return Err(format!(
                    "{node} has {:?}, reserved is {all:?}, {services:?} of it by services",
                    over
                ));
            }
            let mut counted: BTreeMap<&str, u32> = BTreeMap::new();
            for (name, count) in records.iter().flat_map(|record| &record.spec.placement.resources) {
                *counted.entry(name).or_default() += count;
            }
            for (name, count) in counted {
                let has = info.resources.get(name).copied().unwrap_or_default();
                if count > has {
                    return Err(format!("{node} has {has} of {name}, and {count} are taken"));
                }
            }
            Ok(())
        })
    }
}
