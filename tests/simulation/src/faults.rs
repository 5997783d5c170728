//! How badly the world behaves, drawn once per seed, so that some seeds are calm and some are wild.

use crate::options::{Kind, Options};
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
    /// What is well does not answer a health check.
    pub(crate) check_fails: u64,
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
        check_fails: 0,
        crash_after_save: 0,
        crash_before_commit: 0,
        crash_after_commit: 0,
        pause: 1_000_000,
    };

    /// Draws how badly a world behaves, as far as the options allow it.
    pub(crate) fn draw(random: &mut Random, options: &Options) -> Self {
        let mut rarely = |kind, most| {
            let drawn = if random.chance(400) { 0 } else { random.between(1, most) };
            if options.allows(kind) { drawn } else { 0 }
        };
        Self {
            loss: rarely(Kind::Loss, 200),
            duplicate: rarely(Kind::Doubles, 200),
            late: rarely(Kind::Lateness, 200),
            lateness: 1 + rarely(Kind::Lateness, 30_000),
            fetch_fails: rarely(Kind::Fetches, 300),
            start_fails: rarely(Kind::Starts, 300),
            input_fails: rarely(Kind::Inputs, 200),
            check_fails: rarely(Kind::Checks, 400),
            crash_after_save: rarely(Kind::Agents, 30),
            crash_before_commit: rarely(Kind::Coordinator, 10),
            crash_after_commit: rarely(Kind::Coordinator, 20),
            pause: 3_000 + if random.chance(400) { 0 } else { random.between(1, 60_000) },
        }
    }
}

/// How often what happened, to see that a simulation is not all calm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nodes.
    pub nodes: u64,
    /// Commands of users that were committed.
    pub commands: u64,
    /// Commands of users that were refused.
    pub refusals: u64,
    /// Messages that were lost on their way, those of partitions left out.
    pub lost_messages: u64,
    /// Nodes that were cut off for a while.
    pub partitions: u64,
    /// Zones that were cut off or without power.
    pub outages: u64,
    /// Agents that crashed, with all their workers.
    pub agent_crashes: u64,
    /// Reports of items that agents kept on disk.
    pub kept_items: u64,
    /// Programs that agents became.
    pub programs_taken: u64,
    /// Programs that they gave up again.
    pub programs_returned: u64,
    /// Nodes that never came back.
    pub nodes_gone: u64,
    /// Nodes that the coordinator took for lost.
    pub nodes_lost: u64,
    /// Allocations that were told to make way for what is more urgent.
    pub preempted: u64,
    /// Workers that died.
    pub worker_deaths: u64,
    /// Crashes of the coordinator.
    pub coordinator_crashes: u64,
    /// Assignments that agents refused as too old.
    pub refused_assignments: u64,
    /// Commits, after each of which the rules were checked.
    pub commits: u64,
}

impl Counts {
    /// Returns the sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            nodes: self.nodes + other.nodes,
            commands: self.commands + other.commands,
            refusals: self.refusals + other.refusals,
            lost_messages: self.lost_messages + other.lost_messages,
            partitions: self.partitions + other.partitions,
            outages: self.outages + other.outages,
            agent_crashes: self.agent_crashes + other.agent_crashes,
            kept_items: self.kept_items + other.kept_items,
            programs_taken: self.programs_taken + other.programs_taken,
            programs_returned: self.programs_returned + other.programs_returned,
            nodes_gone: self.nodes_gone + other.nodes_gone,
            nodes_lost: self.nodes_lost + other.nodes_lost,
            preempted: self.preempted + other.preempted,
            worker_deaths: self.worker_deaths + other.worker_deaths,
            coordinator_crashes: self.coordinator_crashes + other.coordinator_crashes,
            refused_assignments: self.refused_assignments + other.refused_assignments,
            commits: self.commits + other.commits,
        }
    }
}
