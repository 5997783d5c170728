//! The shell of one simulated agent: it carries out what the real supervisor says, on a node that fails.
//!
//! What survives a crash is `disk`; what survives nothing is a node without power. Workers are kept as lists of what
//! they have loaded, so that it can be seen what really runs, whatever the two brains believe.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dunlin_model::{
    AllocationId, AssignedAllocation, Assignment, Begun, ClusterId, Digest, Generation, ItemReport, Name,
    NodeId, NodeInfo, Report, RouteTable, RunId, SecretId, SecretVersion, Term, Timestamp,
};
use dunlin_supervisor::{Config, KeptProgram, Supervisor};

use crate::clock::Clock;

/// One node and the agent on it.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Its name.
    pub(crate) node: NodeId,
    /// What it tells of itself.
    pub(crate) info: NodeInfo,
    /// Its own clock, of which all it says and hears is.
    pub(crate) clock: Clock,
    /// Counts its starts; what was meant for an earlier one is void.
    pub(crate) life: u64,
    /// Its brain, while it is up.
    pub(crate) supervisor: Option<Supervisor>,
    /// Whether its power is gone for good.
    pub(crate) gone: bool,
    /// The reports of items that it keeps on disk.
    pub(crate) kept_items: Vec<ItemReport>,
    /// How far items had come, if it was to be started again.
    pub(crate) begun_items: Vec<Begun>,
    /// The last assignment that it saved.
    pub(crate) disk: Option<Assignment>,
    /// The secrets on its disk, each with the value that is there.
    pub(crate) secrets: BTreeMap<SecretId, SecretVersion>,
    /// What is on its disk of its program.
    pub(crate) program: KeptProgram,
    /// What it was before that.
    pub(crate) former: Option<Digest>,
    /// How often that was started, if it is on trial.
    pub(crate) starts: u32,
    /// Those that it may have.
    pub(crate) granted: BTreeSet<SecretId>,
    /// What its workers hold.
    pub(crate) loaded: BTreeMap<AllocationId, Loaded>,
    /// What they were told to stop at once and still hold.
    pub(crate) ending: BTreeMap<AllocationId, Loaded>,
    /// When this life began, by its own clock.
    pub(crate) began: Timestamp,
    /// Since when it has had no word from the coordinator, by what it was told and has told, by its own clock.
    pub(crate) heard: Timestamp,
    /// Counts the workers of each namespace; what was meant for an earlier one is void.
    pub(crate) worker_lives: BTreeMap<Name, u64>,
    /// What its ingress works from.
    pub(crate) routes: RouteTable,
    /// The connection it believes in.
    pub(crate) connection: Option<u64>,
    /// When it will be ticked next.
    pub(crate) wake: Option<Timestamp>,
}

/// One allocation in a worker.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Which start this is: what comes of an earlier one of the same allocation is void.
    pub(crate) load: u64,
    /// What was started.
    pub(crate) assigned: AssignedAllocation,
    /// The values of secrets that it sees.
    pub(crate) secrets: BTreeMap<SecretId, SecretVersion>,
    /// Whether it has come up.
    pub(crate) started: bool,
    /// The items which it is running.
    pub(crate) running: BTreeSet<u32>,
    /// The items which it will run when it has room, with their run.
    pub(crate) waiting: VecDeque<(RunId, u32)>,
}

impl Loaded {
    /// Returns how many items it may run at a time.
    pub(crate) fn room(&self) -> usize {
        usize::try_from(self.assigned.spec.limits.concurrency).unwrap_or(usize::MAX)
    }
}

impl Agent {
    /// Returns a node on which no agent runs yet.
    pub(crate) fn new(node: NodeId, info: NodeInfo, clock: Clock) -> Self {
        Self {
            node,
            info,
            clock,
            began: Timestamp::default(),
            life: 0,
            supervisor: None,
            gone: false,
            disk: None,
            kept_items: Vec::new(),
            begun_items: Vec::new(),
            secrets: BTreeMap::new(),
            program: KeptProgram::default(),
            former: None,
            starts: 0,
            granted: BTreeSet::new(),
            loaded: BTreeMap::new(),
            ending: BTreeMap::new(),
            heard: Timestamp::default(),
            worker_lives: BTreeMap::new(),
            routes: RouteTable::default(),
            connection: None,
            wake: None,
        }
    }

    /// Starts the agent on an empty machine; what it finds on disk is left to the caller.
    pub(crate) fn start(&mut self, cluster: &ClusterId) {
        self.life += 1;
        self.supervisor = Some(Supervisor::new(cluster.clone(), self.node.clone(), Config::default()));
    }

    /// Kills the agent and all its workers; what is not on disk is lost.
    pub(crate) fn crash(&mut self) {
        self.life += 1;
        self.supervisor = None;
        self.loaded.clear();
        self.ending.clear();
        self.granted.clear();
        self.routes = RouteTable::default();
        self.connection = None;
        self.wake = None;
    }

    /// Returns its heartbeat, if it is up.
    pub(crate) fn report(&mut self, cluster: &ClusterId, sent: Timestamp) -> Option<Report> {
        let supervisor = self.supervisor.as_mut()?;
        let (term, generation, allocations, items) = supervisor.report();
        let items = items.to_vec();
        let info = NodeInfo { program: supervisor.program(), ..self.info.clone() };
        let cluster = cluster.clone();
        Some(Report { cluster, term, generation, info, sent, allocations, items })
    }

    /// Returns which life the worker of a namespace is in.
    pub(crate) fn worker_life(&self, namespace: &Name) -> u64 {
        self.worker_lives.get(namespace).copied().unwrap_or_default()
    }

    /// Returns the (term, generation) on disk.
    pub(crate) fn saved(&self) -> (Term, Generation) {
        self.disk.as_ref().map(|saved| (saved.term, saved.generation)).unwrap_or_default()
    }

    /// Tells what is wrong with it, if anything is: it must act on what it has saved, and on nothing older.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Some(supervisor) = &self.supervisor else { return Ok(()) };
        let (term, generation) = supervisor.stored();
        if (term, generation) != self.saved() {
            let (saved_term, saved_generation) = self.saved();
            return Err(format!(
                "{} acts on {term}.{generation} but has saved {saved_term}.{saved_generation}",
                self.node
            ));
        }
        self.check_secrets()?;
        let assigned = self.disk.iter().flat_map(|saved| &saved.allocations);
        let assigned: BTreeMap<AllocationId, &AssignedAllocation> = assigned.map(|it| (it.id, it)).collect();
        for (id, loaded) in &self.loaded {
            // A revision may change around a guest that stays the same.
            let is_the_same = |saved: &&AssignedAllocation| {
                let (own, saved) = (&loaded.assigned, *saved);
                let guest = |it: &AssignedAllocation| (it.spec.component, it.spec.limits);
                own.workload == saved.workload && own.work == saved.work && guest(own) == guest(saved)
            };
            if !assigned.get(id).is_some_and(is_the_same) {
                return Err(format!("{} runs {id}, which is not in its saved assignment", self.node));
            }
        }
        Ok(())
    }
}
