//! The world: one clock, one queue of what is going to happen, and everything it happens to.
//!
//! All is done in one thread, and all chance comes from one seed, so a seed is a whole history.
//!
//! Not here: what happens at a node (`node_side`), at the coordinator (`coordinator_side`), between them (`network`),
//! what users do (`user`), and what must be true at the end (`liveness`).

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{
    AllocationId, Assignment, Bytes, ClusterId, DurationMs, FuelRate, Generation, Name, NodeId, NodeInfo,
    Overcommit, Report, Resources, RunId, Term, Timestamp,
};
use dunlin_supervisor::Event;

use crate::agent::Agent;
use crate::coordinator::Coordinator;
use crate::faults::{Counts, Faults, Sabotage};
use crate::network::Blocked;
use crate::random::Random;
use crate::trace::Trace;
use crate::user::User;

/// Everything there is.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) sabotage: Sabotage,
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
    /// Every assignment the coordinator ever sent.
    pub(crate) sent: BTreeMap<(NodeId, Term, Generation), Assignment>,
    /// Every item that ever began.
    pub(crate) begun: BTreeSet<(RunId, u32)>,
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
    /// A worker process dies.
    WorkerDies { node: NodeId, life: u64, worker: (Name, u64) },
    /// The coordinator starts again.
    CoordinatorBoots,
    /// The coordinator's deadline has come.
    CoordinatorTick { life: u64 },
    /// Something large goes wrong.
    Fault,
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
}

/// How long a connection is believed in after the last sign of life.
const SILENCE: DurationMs = DurationMs(6_000);

impl World {
    /// Returns the world of a seed, in which nothing has happened yet.
    pub(crate) fn new(seed: u64, sabotage: Sabotage) -> Self {
        let mut random = Random::new(seed);
        let faults = Faults::draw(&mut random);
        let cluster: ClusterId = "simulated".parse().expect("it is a name");
        let count = random.between(3, 8);
        let agents = (0..count).map(|number| {
            let node: NodeId = format!("node-{number}").parse().expect("it is a name");
            (node.clone(), Agent::new(node, info(number, &mut random)))
        });
        let agents: BTreeMap<NodeId, Agent> = agents.collect();
        let now = Timestamp(1_000_000);
        let mut world = Self {
            seed,
            faults,
            sabotage,
            is_calm: false,
            now,
            trace: Trace::new(),
            counts: Counts::default(),
            coordinator: Coordinator::new(),
            user: User::new(),
            blocked: BTreeMap::new(),
            connections: 0,
            loads: 0,
            sent: BTreeMap::new(),
            begun: BTreeSet::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            random,
            cluster,
            agents,
        };
        world.plan(DurationMs(0), Happening::CoordinatorBoots);
        for node in world.agents.keys().cloned().collect::<Vec<_>>() {
            let wait = world.draw(1, 5_000);
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
        self.queue.retain(|_, happening| !matches!(happening, Happening::Fault | Happening::User));
        self.plan(DurationMs(1_000), Happening::OperatorHeals);
    }

    /// Adds a line to the trace.
    pub(crate) fn note(&mut self, line: std::fmt::Arguments<'_>) {
        self.trace.add(self.now.0, line);
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::AgentBoots { node } => self.agent_boots(&node),
            Happening::AgentTick { node, life } => self.agent_tick(&node, life),
            Happening::Heartbeat { node, life } => {
                self.heartbeat(&node, life);
                Ok(())
            }
            Happening::Dial { node, life } => self.dial(&node, life),
            Happening::ToAgent { node, message } => self.agent_receives(&node, message),
            Happening::ToCoordinator { node, report } => self.coordinator_receives(&node, *report),
            Happening::Silence { node, connection } => self.silence(&node, connection),
            Happening::ConnectionLost { node, connection } => self.connection_lost(&node, connection),
            Happening::OnNode { node, life, load, event } => self.on_node(&node, life, load, event),
            Happening::WorkerDies { node, life, worker } => self.worker_dies(&node, life, &worker),
            Happening::CoordinatorBoots => self.coordinator_boots(),
            Happening::CoordinatorTick { life } => self.coordinator_tick(life),
            Happening::Fault => self.fault(),
            Happening::PartitionHeals { node } => {
                self.note(format_args!("{node} is no longer partitioned"));
                self.blocked.remove(&node);
                Ok(())
            }
            Happening::User => self.user_acts(),
            Happening::OperatorHeals => self.operator_heals(),
        }
    }

    /// Lets one large thing go wrong, and plans the next.
    fn fault(&mut self) -> Result<(), String> {
        let wait = self.draw(500, self.faults.pause);
        self.plan(wait, Happening::Fault);
        let nodes: Vec<NodeId> = self.agents.keys().cloned().collect();
        let node = self.random.choose(&nodes).clone();
        match self.random.between(0, 99) {
            0..30 => self.partition(&node),
            30..55 => {
                self.agent_crashes(&node);
                Ok(())
            }
            55..75 => self.any_worker_dies(&node),
            75..95 => {
                self.coordinator_crashes("by chance");
                Ok(())
            }
            _ => {
                self.power_is_lost(&node);
                Ok(())
            }
        }
    }

    fn partition(&mut self, node: &NodeId) -> Result<(), String> {
        let blocked = match self.random.between(0, 3) {
            0 => Blocked { to_agent: true, to_coordinator: false },
            1 => Blocked { to_agent: false, to_coordinator: true },
            _ => Blocked { to_agent: true, to_coordinator: true },
        };
        self.note(format_args!("{node} is partitioned: {blocked:?}"));
        self.counts.partitions += 1;
        self.blocked.insert(node.clone(), blocked);
        if let Some(connection) = self.agents[node].connection {
            self.plan(SILENCE, Happening::Silence { node: node.clone(), connection });
        }
        let wait = if self.random.chance(300) { self.draw(30_000, 90_000) } else { self.draw(1_000, 20_000) };
        self.plan(wait, Happening::PartitionHeals { node: node.clone() });
        Ok(())
    }
}

/// Returns what a node tells of itself: tiny, so that there is often no room.
fn info(number: u64, random: &mut Random) -> NodeInfo {
    let zone = if random.chance(500) { "a" } else { "b" };
    let port = u16::try_from(8_000 + number).expect("there are few nodes");
    NodeInfo {
        capacity: Resources {
            memory: Bytes(random.between(4, 12) * (64 << 20)),
            fuel_rate: FuelRate(random.between(4, 12) * 50_000_000),
        },
        labels: [("zone".to_owned(), zone.to_owned())].into(),
        ingress: ([10, 0, 0, 1], port).into(),
        peer: ([10, 0, 0, 2], port).into(),
        version: "simulated".to_owned(),
        resources: if random.chance(500) {
            [("gpu".to_owned(), random.small(1, 2))].into()
        } else {
            BTreeMap::new()
        },
        batch_overcommit: if random.chance(300) {
            Overcommit::new(150).expect("it is one")
        } else {
            Overcommit::NONE
        },
    }
}
