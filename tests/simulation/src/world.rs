//! The world: one clock, one queue of what is going to happen, and everything it happens to.
//!
//! All is done in one thread, and all chance comes from one seed, so a seed is a whole history.
//!
//! Not here: what happens at a node (`node_side`), at the coordinator (`coordinator`), between them (`network`), what
//! goes wrong at large (`disasters`), what users do (`user`), and what must be true at the end (`liveness`).

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{
    AllocationId, Assignment, ClusterId, DurationMs, Generation, Name, NodeId, ProgramOrder, Report,
    RouteTable, RunId, Term, Timestamp,
};
use dunlin_supervisor::Event;

use crate::agent::Agent;
use crate::coordinator::Coordinator;
use crate::faults::{Counts, Faults};
use crate::fleet;
use crate::network::Blocked;
use crate::options::{Options, Sabotage};
use crate::random::Random;
use crate::trace::Trace;
use crate::user::User;

/// Everything there is.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) options: Options,
    /// Whether the time of faults is over.
    pub(crate) is_calm: bool,
    pub(crate) now: Timestamp,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
    pub(crate) cluster: ClusterId,
    pub(crate) agents: BTreeMap<NodeId, Agent>,
    pub(crate) coordinator: Coordinator,
    pub(crate) user: User,
    pub(crate) blocked: BTreeMap<NodeId, Blocked>,
    pub(crate) connections: u64,
    pub(crate) loads: u64,
    /// How many values secrets have had.
    pub(crate) secret_values: u64,
    /// Every assignment the coordinator ever sent.
    pub(crate) sent: BTreeMap<(NodeId, Term, Generation), Assignment>,
    /// Every item that ever began.
    pub(crate) begun: BTreeSet<(RunId, u32)>,
    /// The routes that were last found to be right, and the commit after which they were.
    pub(crate) routes: (u64, RouteTable),
    queue: BTreeMap<(Timestamp, u64), Happening>,
    sequence: u64,
}

/// Something that is going to happen.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// A machine starts its agent.
    AgentBoots { node: NodeId },
    /// An agent's deadline has come.
    AgentTick { node: NodeId, life: u64 },
    /// An agent reports.
    Heartbeat { node: NodeId, life: u64 },
    /// An agent tries to reach the coordinator.
    Dial { node: NodeId, life: u64 },
    /// A message reaches an agent.
    ToAgent { node: NodeId, message: ToAgent },
    /// A heartbeat reaches the coordinator.
    ToCoordinator { node: NodeId, report: Box<Report> },
    /// Both sides see that nothing came for too long.
    Silence { node: NodeId, connection: u64 },
    /// The coordinator sees that a connection is gone.
    ConnectionLost { node: NodeId, connection: u64 },
    /// Something that the agent waits for has happened on its node.
    OnNode { node: NodeId, life: u64, load: Option<u64>, event: Event },
    /// An agent becomes another program.
    Becomes { node: NodeId, life: u64, order: ProgramOrder },
    /// A worker process dies of an item, if that still runs then.
    WorkerDies { node: NodeId, life: u64, worker: (Name, u64), load: u64, item: u32 },
    /// The coordinator starts again.
    CoordinatorBoots,
    /// The coordinator's deadline has come.
    CoordinatorTick { life: u64 },
    /// Something large goes wrong.
    Fault,
    /// A partition begins.
    CutOff { node: NodeId, blocked: Blocked, time: DurationMs },
    /// A partition ends.
    PartitionHeals { node: NodeId },
    /// A user wants something.
    User,
    /// After the faults an operator takes back what was said of nodes and namespaces.
    OperatorHeals,
}

/// What the coordinator tells an agent.
#[derive(Clone, Debug)]
pub(crate) enum ToAgent {
    /// What to run.
    Assign(Box<Assignment>),
    /// What has a durable record.
    Recorded { term: Term, items: Vec<(AllocationId, u32)> },
    /// A report was heard.
    Heard { term: Term, sent: Timestamp, leases: BTreeMap<AllocationId, DurationMs> },
}

impl World {
    /// Returns the world of a seed, in which nothing has happened yet.
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let mut random = Random::new(seed);
        let faults = Faults::draw(&mut random, options);
        let cluster: ClusterId = "simulated".parse().expect("it is a name");
        let agents = fleet::nodes(&mut random, options);
        let now = Timestamp(1_000_000);
        let mut world = Self {
            seed,
            faults,
            options: options.clone(),
            is_calm: false,
            now,
            trace: Trace::new(),
            counts: Counts { nodes: agents.len() as u64, ..Counts::default() },
            coordinator: Coordinator::new(),
            user: User::default(),
            blocked: BTreeMap::new(),
            connections: 0,
            loads: 0,
            secret_values: 0,
            sent: BTreeMap::new(),
            begun: BTreeSet::new(),
            routes: Default::default(),
            queue: BTreeMap::new(),
            sequence: 0,
            random,
            cluster,
            agents,
        };
        world.plan(DurationMs(0), Happening::CoordinatorBoots);
        for node in world.agents.keys().cloned().collect::<Vec<_>>() {
            // Some join when there is much going on already.
            let wait =
                if world.random.chance(150) { world.draw(5_000, 90_000) } else { world.draw(1, 5_000) };
            world.plan(wait, Happening::AgentBoots { node });
        }
        world.plan(DurationMs(6_000), Happening::User);
        let wait = world.draw(10_000, 10_000 + faults.pause);
        world.plan(wait, Happening::Fault);
        world
    }

    /// Lets something happen after a while.
    pub(crate) fn plan(&mut self, wait: DurationMs, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now.plus(wait), self.sequence), happening);
    }

    /// Returns a length of time in `low..=high` milliseconds.
    pub(crate) fn draw(&mut self, low: u64, high: u64) -> DurationMs {
        DurationMs(self.random.between(low, high))
    }

    /// Lets everything happen that is planned until `end`.
    pub(crate) fn run_until(&mut self, end: Timestamp) -> Result<(), String> {
        while let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= end) {
            let ((at, _), happening) = next.remove_entry();
            self.now = at;
            self.happen(happening)?;
        }
        self.now = end;
        Ok(())
    }

    /// Ends all faults: whoever can come back does, and nothing more goes wrong.
    pub(crate) fn heal(&mut self) {
        self.note(format_args!("the faults end"));
        self.is_calm = true;
        self.faults = Faults::NONE;
        self.blocked.clear();
        self.queue.retain(|_, happening| {
            !matches!(happening, Happening::Fault | Happening::User | Happening::CutOff { .. })
        });
        self.plan(DurationMs(1_000), Happening::OperatorHeals);
    }

    /// Tells whether the shells are broken in this way.
    pub(crate) fn is_broken(&self, sabotage: Sabotage) -> bool {
        self.options.sabotage == sabotage
    }

    /// Adds a line to the trace.
    pub(crate) fn note(&mut self, line: std::fmt::Arguments<'_>) {
        self.trace.add(self.now.0, line);
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::AgentBoots { node } => self.agent_boots(&node),
            Happening::AgentTick { node, life } => self.agent_tick(&node, life),
            Happening::Heartbeat { node, life } => self.heartbeat(&node, life),
            Happening::Dial { node, life } => self.dial(&node, life),
            Happening::ToAgent { node, message } => self.agent_receives(&node, message),
            Happening::ToCoordinator { node, report } => self.coordinator_receives(&node, *report),
            Happening::Silence { node, connection } => self.silence(&node, connection),
            Happening::ConnectionLost { node, connection } => self.connection_lost(&node, connection),
            Happening::OnNode { node, life, load, event } => self.on_node(&node, life, load, event),
            Happening::Becomes { node, life, order } => self.becomes(&node, life, order),
            Happening::WorkerDies { node, life, worker, load, item } => {
                let mut loaded = self.agents[&node].loaded.values();
                if !loaded.any(|loaded| loaded.load == load && loaded.running.contains(&item)) {
                    return Ok(());
                }
                self.worker_dies(&node, life, &worker)
            }
            Happening::CoordinatorBoots => self.coordinator_boots(),
            Happening::CoordinatorTick { life } => self.coordinator_tick(life),
            Happening::Fault => self.fault(),
            Happening::CutOff { node, blocked, time } => {
                self.cut_off(&node, blocked, time);
                Ok(())
            }
            Happening::PartitionHeals { node } => {
                self.note(format_args!("{node} is no longer partitioned"));
                self.blocked.remove(&node);
                Ok(())
            }
            Happening::User => self.user_acts(),
            Happening::OperatorHeals => self.operator_heals(),
        }
    }
}
