//! How badly the world behaves, drawn once per seed, so that some seeds are calm and some are wild.

use crate::random::Random;

/// How often things go wrong: times of a thousand, unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// A message is lost.
    pub(crate) loss: u64,
    /// A message comes twice.
    pub(crate) duplicate: u64,
    /// A message comes up to `lateness` later than it should, and so after others.
    pub(crate) late: u64,
    /// How late, in milliseconds.
    pub(crate) lateness: u64,
    /// A component cannot be fetched.
    pub(crate) fetch_fails: u64,
    /// An allocation cannot be started, but could be later.
    pub(crate) start_fails: u64,
    /// An item's input cannot be had.
    pub(crate) input_fails: u64,
    /// An agent crashes right after it has saved an assignment, before it acts on it.
    pub(crate) crash_after_save: u64,
    /// The coordinator crashes after it has decided and before that is durable.
    pub(crate) crash_before_commit: u64,
    /// The coordinator crashes after a decision is durable and before anybody has heard of it.
    pub(crate) crash_after_commit: u64,
    /// The longest time between two larger faults, in milliseconds.
    pub(crate) pause: u64,
}

impl Faults {
    /// A world in which nothing goes wrong.
    pub(crate) const NONE: Self = Self {
        loss: 0,
        duplicate: 0,
        late: 0,
        lateness: 1,
        fetch_fails: 0,
        start_fails: 0,
        input_fails: 0,
        crash_after_save: 0,
        crash_before_commit: 0,
        crash_after_commit: 0,
        pause: 1_000_000,
    };

    /// Draws how badly a world behaves.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut rarely = |most| if random.chance(400) { 0 } else { random.between(1, most) };
        Self {
            loss: rarely(200),
            duplicate: rarely(200),
            late: rarely(200),
            lateness: 1 + rarely(30_000),
            fetch_fails: rarely(300),
            start_fails: rarely(300),
            input_fails: rarely(200),
            crash_after_save: rarely(30),
            crash_before_commit: rarely(10),
            crash_after_commit: rarely(20),
            pause: 3_000 + rarely(60_000),
        }
    }
}

/// A way to break the world's own shells, to see whether the checks find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing is broken.
    #[default]
    None,
    /// The agent's shell gives old assignments a fresh (term, generation), as if nobody compared them.
    SkipTermCheck,
    /// The agent's shell does not keep on disk what it was told to save.
    ForgetSavedAssignment,
    /// The coordinator's shell says that items are recorded which are not.
    RecordTooEarly,
    /// The store loses some of the commits that it has confirmed.
    DropCommits,
    /// After a restart the coordinator's shell takes its former term again.
    ReuseTerm,
    /// The agent's shell does not stop what it is told to stop.
    IgnoreStops,
}

/// How often what happened, to see that a simulation is not all calm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Commands of users that were committed.
    pub commands: u64,
    /// Messages that were lost on their way, those of partitions left out.
    pub lost_messages: u64,
    /// Nodes that were cut off for a while.
    pub partitions: u64,
    /// Agents that crashed, with all their workers.
    pub agent_crashes: u64,
    /// Nodes that never came back.
    pub nodes_gone: u64,
    /// Workers that died.
    pub worker_deaths: u64,
    /// Crashes of the coordinator.
    pub coordinator_crashes: u64,
    /// Assignments that agents refused as too old.
    pub refused_assignments: u64,
}

impl Counts {
    /// Returns the sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            commands: self.commands + other.commands,
            lost_messages: self.lost_messages + other.lost_messages,
            partitions: self.partitions + other.partitions,
            agent_crashes: self.agent_crashes + other.agent_crashes,
            nodes_gone: self.nodes_gone + other.nodes_gone,
            worker_deaths: self.worker_deaths + other.worker_deaths,
            coordinator_crashes: self.coordinator_crashes + other.coordinator_crashes,
            refused_assignments: self.refused_assignments + other.refused_assignments,
        }
    }
}
