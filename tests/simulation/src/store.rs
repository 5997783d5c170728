//! The simulated store: what was committed.
//!
//! Not here: the rules which every commit must keep beyond that nothing goes back (`rules`).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_model::{
    AllocationId, AppName, ItemRecord, Name, NamespaceSpec, NodeId, Revision, RunId, SecretId, Timestamp,
    WorkloadName,
};
use dunlin_scheduler::{
    AllocationRecord, AppRecord, Change, Counters, NamespaceRecord, NodeRecord, PendingRecord,
    RevisionRecord, RunRecord, RunState, ScheduleRecord, SecretRecord, TokenRecord, UpgradeRecord,
};

use crate::rules::{Commit, Facts};

/// Everything that survives a coordinator.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) apps: BTreeMap<AppName, AppRecord>,
    revisions: BTreeMap<AppName, BTreeMap<Revision, Arc<RevisionRecord>>>,
    pub(crate) nodes: BTreeMap<NodeId, NodeRecord>,
    pub(crate) allocations: BTreeMap<AllocationId, Arc<AllocationRecord>>,
    pub(crate) runs: BTreeMap<RunId, RunRecord>,
    pub(crate) items: BTreeMap<(RunId, u32), ItemRecord>,
    pub(crate) namespaces: BTreeMap<Name, NamespaceSpec>,
    schedules: BTreeMap<WorkloadName, ScheduleRecord>,
    /// The moments for which each scheduled job was run.
    due: BTreeSet<(WorkloadName, Timestamp)>,
    pub(crate) secrets: BTreeMap<SecretId, Arc<SecretRecord>>,
    pub(crate) upgrade: Option<UpgradeRecord>,
    tokens: BTreeMap<String, TokenRecord>,
    pending: BTreeMap<NodeId, PendingRecord>,
    counters: Counters,
    /// What each allocation id has ever stood for.
    identities: BTreeMap<AllocationId, (WorkloadName, NodeId)>,
    ended: BTreeSet<AllocationId>,
}

/// What was there before a commit of what it has changed.
#[derive(Debug, Default)]
pub(crate) struct Before {
    pub(crate) apps: BTreeMap<AppName, AppRecord>,
    pub(crate) nodes: BTreeMap<NodeId, NodeRecord>,
    pub(crate) allocations: BTreeMap<AllocationId, Arc<AllocationRecord>>,
    pub(crate) runs: BTreeMap<RunId, RunRecord>,
}

/// What a commit was about, as far as others want to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    /// How many nodes it made lost.
    pub(crate) lost: u64,
    /// How many allocations it told to make way.
    pub(crate) preempted: u64,
    /// How many nodes it released.
    pub(crate) released: usize,
}

impl Store {
    /// Makes the changes of one step durable, if they keep the rules.
    pub(crate) fn commit(&mut self, changes: &[Change], facts: &Facts<'_>) -> Result<Committed, String> {
        let mut before = Before::default();
        for change in changes {
            self.remember(&mut before, change);
        }
        let placed = changes.iter().filter_map(|change| match change {
            Change::Allocation(record) if !self.identities.contains_key(&record.id) => Some(record.id),
            _ => None,
        });
        let placed: BTreeSet<AllocationId> = placed.collect();
        for change in changes {
            self.write(change.clone())?;
        }
        let commit = Commit { changes, before: &before, after: self, placed: &placed, facts };
        commit.check()?;
        Ok(Committed {
            lost: commit.newly_lost(),
            preempted: commit.newly_preempted(),
            released: commit.newly_released().len(),
        })
    }

    fn remember(&self, before: &mut Before, change: &Change) {
        match change {
            Change::App(AppRecord { name, .. }) | Change::AppDeleted(name) => {
                before.apps.extend(self.apps.get(name).map(|it| (name.clone(), it.clone())));
            }
            Change::Node(record) => {
                before.nodes.extend(self.nodes.get(&record.id).map(|it| (it.id.clone(), it.clone())));
            }
            Change::Allocation(record) => {
                before.allocations.extend(self.allocations.get(&record.id).map(|it| (it.id, Arc::clone(it))));
            }
            Change::AllocationDeleted(id) => {
                before.allocations.extend(self.allocations.get(id).map(|it| (it.id, Arc::clone(it))));
            }
            Change::Run(record) => {
                before.runs.extend(self.runs.get(&record.id).map(|it| (it.id, it.clone())));
            }
            Change::Namespace(_)
            | Change::Revision(_)
            | Change::RevisionDeleted(..)
            | Change::RunDeleted(_)
            | Change::Item { .. }
            | Change::Schedule(_)
            | Change::ScheduleDeleted(_)
            | Change::Secret(_)
            | Change::Upgrade(_)
            | Change::SecretDeleted(_)
            | Change::Token(_)
            | Change::TokenDeleted(_)
            | Change::Pending(_)
            | Change::PendingDeleted(_)
            | Change::Counters(_)
            | Change::Recovery(_) => {}
        }
    }

    /// Returns what a coordinator finds when it starts. The records of items are not among it.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let mut changes = vec![Change::Counters(self.counters)];
        changes.extend(self.apps.values().cloned().map(Change::App));
        let revisions = self.revisions.values().flat_map(BTreeMap::values);
        changes.extend(revisions.cloned().map(Change::Revision));
        let namespaces = self.namespaces.iter();
        changes.extend(namespaces.map(|(name, spec)| {
            Change::Namespace(NamespaceRecord { name: name.clone(), spec: spec.clone() })
        }));
        changes.extend(self.nodes.values().cloned().map(Change::Node));
        changes.extend(self.allocations.values().cloned().map(Change::Allocation));
        changes.extend(self.runs.values().cloned().map(Change::Run));
        changes.extend(self.schedules.values().cloned().map(Change::Schedule));
        changes.extend(self.secrets.values().cloned().map(Change::Secret));
        changes.extend(self.upgrade.clone().map(Change::Upgrade));
        changes.extend(self.tokens.values().cloned().map(Change::Token));
        changes.extend(self.pending.values().cloned().map(Change::Pending));
        changes
    }

    /// Returns an earlier revision of an app, if it is kept.
    pub(crate) fn revision(&self, app: &AppName, revision: Revision) -> Option<&RevisionRecord> {
        self.revisions.get(app)?.get(&revision).map(|record| &**record)
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
            Change::App(record) => self.write_app(record)?,
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
                self.allocations.insert(record.id, record);
            }
            Change::AllocationDeleted(id) => {
                self.ended.insert(id);
                self.allocations.remove(&id);
            }
            Change::Recovery(_) => return Err("the coordinator takes its store for an old one".to_owned()),
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
            Change::Upgrade(record) => {
                if self.upgrade.as_ref().is_some_and(|before| before.number > record.number) {
                    return Err(format!("upgrade {} has a number that was before", record.number));
                }
                self.upgrade = Some(record);
            }
            Change::Secret(record) => drop(self.secrets.insert(record.id.clone(), record)),
            Change::SecretDeleted(id) => drop(self.secrets.remove(&id)),
            Change::Token(record) => drop(self.tokens.insert(record.id.clone(), record)),
            Change::TokenDeleted(id) => drop(self.tokens.remove(&id)),
            Change::Pending(record) => drop(self.pending.insert(record.node.clone(), record)),
            Change::PendingDeleted(node) => drop(self.pending.remove(&node)),
            Change::Counters(counters) => self.counters = counters,
        }
        Ok(())
    }

    /// An app goes on to later revisions only.
    fn write_app(&mut self, record: AppRecord) -> Result<(), String> {
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
}
