//! What is kept: one record per app, node, allocation, run and token.
//!
//! A record holds all that a coordinator which starts again must know. What agents say again at their next
//! heartbeat is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_model::{
    AllocationId, AppName, AppSpec, Architecture, AssignedAllocation, Digest, DurationMs, Fuel, ItemRange,
    JobSpec, Name, NamespaceSpec, NodeId, NodeInfo, Program, Resources, Revision, RolloutSpec, RunId,
    SecretId, SecretVersion, Timestamp, UpgradePlan, Work, WorkloadKind, WorkloadName, WorkloadSpec,
};
use serde::{Deserialize, Serialize};

use crate::{Abandoned, RangeSet};

/// How many revisions of an app are kept beside the newest.
pub(crate) const KEPT_REVISIONS: usize = 10;

/// An app and its newest revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// Its full name.
    pub name: AppName,
    /// Its newest revision.
    pub revision: Revision,
    /// What the user asked for in this revision.
    pub spec: AppSpec,
    /// When this revision was deployed.
    pub deployed: Timestamp,
    /// The revision which this one restores, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<Revision>,
    /// How it goes with the passage to this revision; absent when that is over, and for a first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutRecord>,
    /// Whether this revision is that the app is stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
}

impl AppRecord {
    /// Returns what a service of the newest revision has said of its rollouts, if the workload is a service.
    pub(crate) fn rollout_spec(&self, workload: &Name) -> Option<(&RolloutSpec, u32)> {
        match &self.spec.workloads.get(workload)?.kind {
            WorkloadKind::Service(service) => Some((&service.rollout, service.allocations)),
            WorkloadKind::Job(_) => None,
        }
    }
}

/// The passage of an app from one revision to the newest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// The revision that was the last to be well: it is restored if this one fails. Absent if this one restores
    /// another itself.
    pub from: Option<Revision>,
    /// The services that are others in the newest revision.
    pub services: BTreeSet<Name>,
    /// Since when the deadline runs.
    pub started: Timestamp,
    /// Whether all allocations may follow the canaries.
    pub promoted: bool,
    /// Since when all that should be is well.
    pub good_since: Option<Timestamp>,
    /// Why it has failed and nothing more is replaced.
    pub failed: Option<String>,
}

/// An earlier revision of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRecord {
    /// The app.
    pub app: AppName,
    /// Which.
    pub revision: Revision,
    /// What the user asked for.
    pub spec: AppSpec,
    /// When it was deployed.
    pub deployed: Timestamp,
    /// The revision which it restored, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<Revision>,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fate {
    /// It was well until another took its place.
    Completed,
    /// Another took its place before it was known to be well.
    Superseded,
    /// The app was stopped with it.
    Stopped,
    /// It failed.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A member of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name.
    pub id: NodeId,
    /// The SHA-256 of its public key.
    pub key_fingerprint: [u8; 32],
    /// When it joined.
    pub joined: Timestamp,
    /// What it last said it is and has; absent until it has reported.
    pub info: Option<NodeInfo>,
    /// Since when its lease is over; absent while it is believed.
    pub lost: Option<Timestamp>,
    /// Whether what it ran when it was lost may be replaced.
    #[serde(default)]
    pub released: bool,
    /// When it was lost the last few times, oldest first.
    #[serde(default)]
    pub losses: Vec<Timestamp>,
    /// What an operator has said of it, if anything.
    #[serde(default)]
    pub cordon: Option<Cordon>,
    /// Whether its key is not accepted any more. It is lost then, and stays so until a machine joins under its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
    /// Whether an operator has taken it off the list. It is revoked then, until a machine joins under its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// The SHA-256 of the public keys that were revoked under this name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub revoked_keys: BTreeSet<[u8; 32]>,
    /// Allocations of singletons that were ended and that it may still run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub leaving: BTreeMap<AllocationId, Leaving>,
    /// What it was last told to become.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<NodeUpgrade>,
}

/// That a node was told to become another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUpgrade {
    /// By which upgrade.
    pub number: u64,
    /// When.
    pub told: Timestamp,
    /// How many of its allocations should have served then and did not.
    pub unwell: u32,
    /// Whether it has said what came of it. What it said before may come after.
    #[serde(default)]
    pub ended: bool,
}

/// What an operator has said of a node: nothing new goes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cordon {
    /// Since when.
    pub since: Timestamp,
    /// If what it runs is to leave it, until when it may take its time; then it is ended.
    pub drain: Option<Timestamp>,
}

/// Losses within so long of each other, and
const FLAPPING_TIME: DurationMs = DurationMs(600_000);
/// so many of them make a node one that is set aside.
const FLAPPING_LOSSES: usize = 3;

/// A singleton's allocation that was ended and that its node may still run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Of what.
    pub workload: WorkloadName,
    /// Its lease.
    pub lease: DurationMs,
    /// When it has ended at the latest, if the coordinator was not started again since.
    pub until: Timestamp,
}

impl NodeRecord {
    /// Returns that of a machine which has just become a node, and of which nothing is known yet.
    pub fn joined(id: NodeId, key_fingerprint: [u8; 32], joined: Timestamp) -> Self {
        Self {
            id,
            key_fingerprint,
            joined,
            info: None,
            lost: None,
            released: false,
            losses: Vec::new(),
            cordon: None,
            revoked: false,
            removed: false,
            revoked_keys: BTreeSet::new(),
            leaving: BTreeMap::new(),
            upgrade: None,
        }
    }

    /// Takes note that its lease is over.
    pub(crate) fn lose(&mut self, now: Timestamp) {
        self.lost = Some(now);
        self.released = false;
        self.losses.push(now);
        let surplus = self.losses.len().saturating_sub(FLAPPING_LOSSES);
        self.losses.drain(..surplus);
    }

    /// Returns until when it is set aside, as it was lost again and again.
    pub(crate) fn set_aside_until(&self) -> Option<Timestamp> {
        let (first, last) = (self.losses.first()?, self.losses.last()?);
        let is_flapping = self.losses.len() == FLAPPING_LOSSES && last.since(*first) <= FLAPPING_TIME;
        is_flapping.then(|| last.plus(FLAPPING_TIME))
    }

    /// Tells whether what it runs is to leave it.
    pub(crate) fn is_draining(&self) -> bool {
        self.cordon.is_some_and(|cordon| cordon.drain.is_some())
    }
}

/// A namespace of which an operator has said something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRecord {
    /// Its name.
    pub name: Name,
    /// What it may have.
    pub spec: NamespaceSpec,
}

/// Where an allocation stands, as far as it must survive the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum AllocationState {
    /// Its node is to run it.
    Placed,
    /// A service that its node has said to be running: requests go to it.
    Running,
    /// It runs on for requests under way, but leaves the routes; then it is ended.
    Draining {
        /// When it is ended.
        until: Timestamp,
    },
    /// The lease of its node is over. It is replaced when there is room elsewhere, or goes on if the node is back
    /// before that.
    Lost,
}

/// That an allocation of batch work takes no new items, finishes what it has, and is ended then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakesWay {
    /// When it is ended at the latest.
    pub until: Timestamp,
    /// For which workload.
    pub workload: WorkloadName,
    /// For which run of it, if it is a job.
    pub run: Option<RunId>,
}

/// One copy of a workload's revision on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationRecord {
    /// Which. Never used again.
    pub id: AllocationId,
    /// Of what.
    pub workload: WorkloadName,
    /// Of which revision.
    pub revision: Revision,
    /// On which node.
    pub node: NodeId,
    /// How it is run. Kept here so that an allocation outlives its revision and its app while it drains.
    pub spec: Arc<WorkloadSpec>,
    /// What for.
    pub work: Work,
    /// Items of it which were tried in vain and are queued again: they are not its concern any more.
    #[serde(default)]
    pub returned: RangeSet,
    /// Whether it makes way for what is more urgent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub makes_way: Option<Box<MakesWay>>,
    /// For how long after its node was heard it may run, if it is one of a singleton.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<DurationMs>,
    /// Where it stands.
    pub state: AllocationState,
    /// When it was placed.
    pub created: Timestamp,
}

impl AllocationRecord {
    /// Returns what it reserves on its node.
    pub fn resources(&self) -> Resources {
        need(&self.spec)
    }

    /// Returns it as its node is told of it.
    pub fn assigned(&self) -> AssignedAllocation {
        AssignedAllocation {
            id: self.id,
            workload: self.workload.clone(),
            revision: self.revision,
            spec: self.spec.clone(),
            work: self.work.clone(),
        }
    }

    /// Tells whether it answers requests, rather than running items.
    pub fn serves(&self) -> bool {
        match self.work {
            Work::Serve => true,
            Work::Items { .. } => false,
        }
    }

    /// Tells whether it counts toward what is desired: neither on its way out nor lost.
    pub fn is_live(&self) -> bool {
        match self.state {
            AllocationState::Placed | AllocationState::Running => true,
            AllocationState::Draining { .. } | AllocationState::Lost => false,
        }
    }

    /// Tells whether its node is to have it, and so whether it reserves something there.
    pub fn is_assigned(&self) -> bool {
        self.state != AllocationState::Lost
    }
}

/// Returns what one allocation of `spec` reserves.
pub(crate) fn need(spec: &WorkloadSpec) -> Resources {
    Resources { memory: spec.limits.memory, fuel_rate: spec.limits.fuel_rate }
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum RunState {
    /// It begins when all runs that it comes after have completed.
    Waiting,
    /// Items are to be run.
    Running,
    /// Every item, and the combining instance if there is one, did what it was started for.
    Completed,
    /// Every item has a record, and not all are good ones.
    Failed {
        /// How many are not.
        failed: u32,
    },
    /// It was ended by a user.
    Cancelled,
    /// It was ended before each of its items had a record.
    Abandoned {
        /// Why.
        why: Abandoned,
    },
}

/// One execution of a job over its items.
///
/// It is all that the brain keeps of them: the record of each item goes to the store and is never read back here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Which.
    pub id: RunId,
    /// Of which job.
    pub workload: WorkloadName,
    /// Of which revision: a later one does not disturb it.
    pub revision: Revision,
    /// The spec of that revision.
    pub spec: Arc<WorkloadSpec>,
    /// How many items it has.
    pub items: u32,
    /// Where their inputs are listed.
    pub inputs: Option<Digest>,
    /// How it stands.
    pub state: RunState,
    /// The items that have a record; the number of items stands for the combining instance.
    pub recorded: RangeSet,
    /// How many records say `Completed`.
    pub succeeded: u32,
    /// How many do not.
    pub failed: u32,
    /// Items without a record by the number of their attempts that have failed; those with none are left out.
    pub tried: BTreeMap<u32, RangeSet>,
    /// What all attempts burned of which an agent told.
    pub fuel: Fuel,
    /// When it was started.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The runs that must have completed before it begins.
    #[serde(default)]
    pub after: Vec<RunId>,
    /// Whether what these have given is the input of each of its items.
    #[serde(default)]
    pub reads_outputs: bool,
    /// When it began, if that is known.
    #[serde(default)]
    pub began: Option<Timestamp>,
    /// The moment for which a schedule wanted it.
    #[serde(default)]
    pub due: Option<Timestamp>,
}

impl RunRecord {
    /// Returns what only a job has.
    pub(crate) fn job(&self) -> &JobSpec {
        match &self.spec.kind {
            WorkloadKind::Job(job) => job,
            WorkloadKind::Service(_) => unreachable!("a run is only started of a job, and keeps its spec"),
        }
    }

    /// Returns all items, without the combining instance.
    pub(crate) const fn all_items(&self) -> ItemRange {
        ItemRange { start: 0, end: self.items }
    }

    /// Tells whether it is still to be worked on.
    pub fn is_running(&self) -> bool {
        self.state == RunState::Running
    }

    /// Tells whether it has not ended.
    pub fn is_open(&self) -> bool {
        matches!(self.state, RunState::Waiting | RunState::Running)
    }

    /// Returns when it must have ended, if it goes on and may not take for ever.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let limit = self.job().deadline.filter(|_| self.is_running())?;
        Some(self.began.unwrap_or(self.created).plus(limit))
    }
}

/// What lets nodes join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The public part.
    pub id: String,
    /// The SHA-256 of the secret part.
    pub secret_hash: [u8; 32],
    /// Until when it can be used.
    pub expires: Timestamp,
    /// How many more nodes may join with it.
    pub uses_left: u32,
    /// When it was made.
    pub created: Timestamp,
    /// The keys that have joined with it: a lost answer can be asked for again.
    #[serde(default)]
    pub used_by: Vec<[u8; 32]>,
    /// Whether an operator must approve who joins with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approval: bool,
}

/// A secret, as only who has the key can read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRecord {
    /// Which.
    pub id: SecretId,
    /// Which of its values this is.
    pub version: SecretVersion,
    /// The value, sealed.
    #[serde(with = "sealed")]
    pub sealed: Arc<[u8]>,
    /// When it was set first.
    pub created: Timestamp,
    /// When it was set to this value.
    pub updated: Timestamp,
}

/// Sealed values are written as hexadecimal digits: the store's records are JSON.
mod sealed {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(sealed: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(sealed))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map(Arc::from).map_err(de::Error::custom)
    }
}

/// A machine that wants to be a node, had a good token, and waits for an operator. It has no certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRecord {
    /// The name it wants.
    pub node: NodeId,
    /// The SHA-256 of its public key.
    pub key_fingerprint: [u8; 32],
    /// When it asked first.
    pub since: Timestamp,
}

/// What the fleet's agents are to become, and how far that has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeRecord {
    /// Counts the upgrades of the fleet.
    pub number: u64,
    /// The programs, one for each architecture.
    pub programs: BTreeMap<Architecture, Program>,
    /// Whether nodes for which there is none become what is installed on them; else they are left alone.
    pub or_installed: bool,
    /// The programs that all had before it. Nodes for which there is none had what is installed on them.
    pub former: BTreeMap<Architecture, Program>,
    /// How it goes over the fleet.
    pub plan: UpgradePlan,
    /// When it began.
    pub started: Timestamp,
    /// At which of the plan's rings it is.
    pub ring: usize,
    /// Since when.
    pub ring_since: Timestamp,
    /// Since when all of the ring have it.
    pub whole_since: Option<Timestamp>,
    /// How it stands.
    pub state: UpgradeState,
}

/// How an upgrade stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum UpgradeState {
    /// It goes over the fleet.
    Running,
    /// No further node is told.
    Stopped {
        /// Why.
        reason: String,
    },
    /// All nodes have it that were there. Who comes is told.
    Done,
}

/// The last numbers that were given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The number of the last allocation.
    pub allocation: u64,
    /// The number of the last run.
    pub run: u64,
}
