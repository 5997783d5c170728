//! The simulated store: what was committed, and the rules which every commit must keep.
//!
//! The rules are checked on the records alone, so they hold whatever the cluster believes of itself.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_model::{
    AllocationId, AppName, ItemRecord, Name, NamespaceSpec, NodeId, Overcommit, Resources, Revision, RunId,
    Timestamp, WorkloadName,
};
use dunlin_scheduler::{
    AllocationRecord, AppRecord, Change, Counters, NamespaceRecord, NodeRecord, RevisionRecord, RunRecord,
    RunState, ScheduleRecord, TokenRecord,
};

/// Everything that survives a coordinator.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) apps: BTreeMap<AppName, AppRecord>,
    revisions: BTreeMap<AppName, BTreeMap<Revision, Arc<RevisionRecord>>>,
    pub(crate) nodes: BTreeMap<NodeId, NodeRecord>,
    pub(crate) allocations: BTreeMap<AllocationId, AllocationRecord>,
    pub(crate) runs: BTreeMap<RunId, RunRecord>,
    pub(crate) items: BTreeMap<(RunId, u32), ItemRecord>,
    pub(crate) namespaces: BTreeMap<Name, NamespaceSpec>,
    schedules: BTreeMap<WorkloadName, ScheduleRecord>,
    /// The moments for which each scheduled job was run.
    due: BTreeSet<(WorkloadName, Timestamp)>,
    tokens: BTreeMap<String, TokenRecord>,
    counters: Counters,
    /// What each allocation id has ever stood for.
    identities: BTreeMap<AllocationId, (WorkloadName, NodeId)>,
    ended: BTreeSet<AllocationId>,
}

impl Store {
    /// Makes the changes of one step durable.
    pub(crate) fn commit(&mut self, changes: &[Change]) -> Result<(), String> {
        let placed = changes.iter().filter_map(|change| match change {
            Change::Allocation(record) if !self.identities.contains_key(&record.id) => Some(record.id),
            _ => None,
        });
        let placed: BTreeSet<AllocationId> = placed.collect();
        for change in changes {
            self.write(change.clone())?;
        }
        self.check_placed(&placed)?;
        let touched = changes.iter().filter_map(|change| match change {
            Change::Run(record) => Some(record.id),
            Change::Item { run, .. } => Some(*run),
            _ => None,
        });
        for run in touched.collect::<BTreeSet<_>>() {
            self.check_run(run)?;
        }
        self.check_capacity()
    }

    /// Returns what a coordinator finds when it starts. The records of items are not among it.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let mut changes = vec![Change::Counters(self.counters)];
        changes.extend(self.apps.values().cloned().map(Change::App));
        let revisions = self.revisions.values().flat_map(BTreeMap::values);
        changes.extend(revisions.cloned().map(Change::Revision));
        let namespaces = self.namespaces.iter();
        changes.extend(
            namespaces
                .map(|(name, spec)| Change::Namespace(NamespaceRecord { name: name.clone(), spec: *spec })),
        );
        changes.extend(self.nodes.values().cloned().map(Change::Node));
        changes.extend(self.allocations.values().cloned().map(Arc::new).map(Change::Allocation));
        changes.extend(self.runs.values().cloned().map(Change::Run));
        changes.extend(self.schedules.values().cloned().map(Change::Schedule));
        changes.extend(self.tokens.values().cloned().map(Change::Token));
        changes
    }

    /// Tells whether an agent may forget what it knows of an item.
    pub(crate) fn may_be_forgotten(&self, allocation: AllocationId, item: u32) -> bool {
        let Some(record) = self.allocations.get(&allocation) else { return true };
        let dunlin_model::Work::Items { run, .. } = record.work else { return false };
        let is_over = self.runs.get(&run).is_none_or(|run| !run.is_running());
        is_over || record.returned.contains(item) || self.items.contains_key(&(run, item))
    }

    fn write(&mut self, change: Change) -> Result<(), String> {
        match change {
            Change::App(record) => {
                let before = self.apps.get(&record.name);
                let is_back = |before: &AppRecord| match before.revision.cmp(&record.revision) {
                    Ordering::Less => false,
                    // How its rollout goes may change, but not what it is.
                    Ordering::Equal => before.spec != record.spec,
                    Ordering::Greater => true,
                };
                if before.is_some_and(is_back) {
                    return Err(format!("{} goes back to revision {}", record.name, record.revision));
                }
                self.apps.insert(record.name.clone(), record);
            }
            Change::AppDeleted(name) => drop(self.apps.remove(&name)),
            Change::Revision(record) => {
                let revisions = self.revisions.entry(record.app.clone()).or_default();
                if revisions.insert(record.revision, record.clone()).is_some_and(|before| before != record) {
                    return Err(format!("{} has two revisions {}", record.app, record.revision));
                }
            }
            Change::RevisionDeleted(app, revision) => {
                if let Some(revisions) = self.revisions.get_mut(&app) {
                    revisions.remove(&revision);
                }
            }
            Change::Namespace(record) => drop(self.namespaces.insert(record.name, record.spec)),
            Change::Node(record) => drop(self.nodes.insert(record.id.clone(), record)),
            Change::Allocation(record) => {
                let identity = (record.workload.clone(), record.node.clone());
                let before = self.identities.entry(record.id).or_insert_with(|| identity.clone());
                if *before != identity || self.ended.contains(&record.id) {
                    return Err(format!("the id {} is used again", record.id));
                }
                self.allocations.insert(record.id, AllocationRecord::clone(&record));
            }
            Change::AllocationDeleted(id) => {
                self.ended.insert(id);
                self.allocations.remove(&id);
            }
            Change::Run(record) => self.write_run(record)?,
            Change::RunDeleted(id) => {
                self.runs.remove(&id);
                self.items.retain(|(run, _), _| *run != id);
            }
            Change::Item { run, item, record } => {
                if self.items.insert((run, item), record).is_some() {
                    return Err(format!("item {item} of {run} is recorded twice"));
                }
            }
            Change::Schedule(record) => {
                let before = self.schedules.get(&record.job);
                if before.is_some_and(|before| before.followed > record.followed) {
                    return Err(format!("the schedule of {} is followed again", record.job));
                }
                self.schedules.insert(record.job.clone(), record);
            }
            Change::ScheduleDeleted(job) => drop(self.schedules.remove(&job)),
            Change::Token(record) => drop(self.tokens.insert(record.id.clone(), record)),
            Change::TokenDeleted(id) => drop(self.tokens.remove(&id)),
            Change::Counters(counters) => self.counters = counters,
        }
        Ok(())
    }

    /// A run is started once for each moment of a schedule, and goes on only when all that it comes after has completed.
    fn write_run(&mut self, record: RunRecord) -> Result<(), String> {
        let (id, before) = (record.id, self.runs.get(&record.id));
        if let Some(due) = record.due.filter(|_| before.is_none())
            && !self.due.insert((record.workload.clone(), due))
        {
            return Err(format!("{id} is a second run of {} for the same moment", record.workload));
        }
        if before.is_some_and(|before| !before.is_open() && *before != record) {
            return Err(format!("{id} has ended and is changed"));
        }
        if record.is_running() || record.state == RunState::Completed {
            let has_completed = |run: &&RunRecord| run.state == RunState::Completed;
            let mut earlier = record.after.iter().filter_map(|run| self.runs.get(run));
            if let Some(earlier) = earlier.find(|run| !has_completed(run)) {
                return Err(format!(
                    "{id} goes on, and {}, which it comes after, has not completed",
                    earlier.id
                ));
            }
        }
        self.runs.insert(id, record);
        Ok(())
    }

    /// What a run says of its items must be what is recorded.
    fn check_run(&self, id: RunId) -> Result<(), String> {
        let Some(run) = self.runs.get(&id) else { return Ok(()) };
        let recorded = self.items.range((id, 0)..=(id, u32::MAX));
        let mut count = 0;
        for ((_, item), _) in recorded {
            count += 1;
            if !run.recorded.contains(*item) {
                return Err(format!("item {item} of {id} has a record of which the run does not know"));
            }
        }
        if run.recorded.len() != count {
            return Err(format!("{id} believes in {} records, there are {count}", run.recorded.len()));
        }
        Ok(())
    }

    /// What is committed to a node must fit on it.
    fn check_capacity(&self) -> Result<(), String> {
        let mut on_nodes: BTreeMap<&NodeId, Vec<&AllocationRecord>> = BTreeMap::new();
        for record in self.allocations.values().filter(|record| record.is_assigned()) {
            on_nodes.entry(&record.node).or_default().push(record);
        }
        for (node, records) in on_nodes {
            let info = self.nodes.get(node).and_then(|node| node.info.as_ref());
            let info = info.ok_or_else(|| format!("{node} runs something and has never reported"))?;
            let sum =
                records.iter().map(|record| record.resources()).fold(Resources::default(), Resources::plus);
            let has_batch = records.iter().any(|record| !record.serves());
            let overcommit = if has_batch { info.batch_overcommit } else { Overcommit::NONE };
            let capacity = overcommit.of(info.capacity);
            if !capacity.holds(&sum) {
                return Err(format!("{node} has {capacity:?}, and {sum:?} of it is reserved"));
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
        }
        Ok(())
    }

    /// What is placed is placed where it may be: within its namespace's quota, on no node that is to be left alone, and
    /// where its conditions hold.
    fn check_placed(&self, placed: &BTreeSet<AllocationId>) -> Result<(), String> {
        let placed = placed.iter().filter_map(|id| self.allocations.get(id));
        for record in placed.filter(|record| record.is_assigned()) {
            let (id, node) = (record.id, &self.nodes[&record.node]);
            if node.cordon.is_some() || node.lost.is_some() {
                return Err(format!("{id} is placed on {}, which is cordoned or lost", node.id));
            }
            let labels = node.info.as_ref().map(|info| info.labels.clone()).unwrap_or_default();
            if let Some(broken) = record.spec.placement.require.iter().find(|it| !it.matches(&labels)) {
                return Err(format!("{id} is placed on {}, where `{broken}` does not hold", node.id));
            }
            let namespace = &record.workload.namespace;
            let quota = self.namespaces.get(namespace).map(|spec| spec.quota).unwrap_or_default();
            let own = self.allocations.values().filter(|it| it.workload.namespace == *namespace);
            let own: Vec<_> = own.filter(|record| record.is_assigned()).collect();
            let memory: u64 = own.iter().map(|record| record.resources().memory.0).sum();
            let is_within = quota.memory.is_none_or(|most| memory <= most.0)
                && quota.allocations.is_none_or(|most| own.len() <= most as usize);
            if !is_within {
                return Err(format!(
                    "{namespace} has {} allocations and {memory} bytes of {quota:?}",
                    own.len()
                ));
            }
        }
        Ok(())
    }
}
