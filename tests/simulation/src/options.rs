//! What a simulation leaves out: its own shells broken on purpose, kinds of faults, and the size of the fleet.
//!
//! A seed alone is a whole history. With options it is another one, in which less goes wrong: so a failure is shrunk.

use std::fmt;
use std::str::FromStr;

/// How a simulation differs from what its seed says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How the world's own shells are broken.
    pub sabotage: Sabotage,
    /// Which kinds of faults do not happen.
    pub without: Vec<Kind>,
    /// How many nodes there are at most.
    pub most_nodes: Option<u64>,
}

impl Options {
    /// Tells whether faults of this kind may happen.
    pub(crate) fn allows(&self, kind: Kind) -> bool {
        !self.without.contains(&kind)
    }
}

impl From<Sabotage> for Options {
    fn from(sabotage: Sabotage) -> Self {
        Self { sabotage, ..Self::default() }
    }
}

/// Options as they are typed, after `--`.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.without.is_empty() {
            let names: Vec<String> = self.without.iter().map(ToString::to_string).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        match self.most_nodes {
            Some(most) => write!(f, " --nodes {most}"),
            None => Ok(()),
        }
    }
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Messages are lost.
    Loss,
    /// Messages come twice.
    Doubles,
    /// Messages come late, and so after others.
    Lateness,
    /// Components cannot be fetched.
    Fetches,
    /// Allocations cannot be started.
    Starts,
    /// Inputs of items cannot be had.
    Inputs,
    /// Health checks fail of what is well.
    Checks,
    /// Clocks go too fast or too slow.
    Clocks,
    /// Nodes are cut off, in one direction or both.
    Partitions,
    /// Nodes are cut off again and again.
    Flapping,
    /// Whole zones are cut off or without power.
    Outages,
    /// Agents crash with all their workers, at any time or right after they have saved an assignment.
    Agents,
    /// Workers die.
    Workers,
    /// Nodes never come back.
    Machines,
    /// The coordinator crashes: at any time, before a commit, or after one and before anybody heard of it.
    Coordinator,
}

impl Kind {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Loss,
        Self::Doubles,
        Self::Lateness,
        Self::Fetches,
        Self::Starts,
        Self::Inputs,
        Self::Checks,
        Self::Clocks,
        Self::Partitions,
        Self::Flapping,
        Self::Outages,
        Self::Agents,
        Self::Workers,
        Self::Machines,
        Self::Coordinator,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{self:?}").to_lowercase())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|kind| kind.to_string() == text);
        known.copied().ok_or_else(|| {
            let all: Vec<String> = Self::ALL.iter().map(ToString::to_string).collect();
            format!("`{text}` is no kind of fault; there are {}", all.join(", "))
        })
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
    /// The coordinator's shell carries out what it has decided before that is durable.
    ActTooEarly,
    /// The store loses some of the commits that it has confirmed.
    DropCommits,
    /// After a restart the coordinator's shell takes its former term again.
    ReuseTerm,
    /// The agent's shell does not stop what it is told to stop.
    IgnoreStops,
    /// The agent's shell tells of leases that nobody has given.
    OwnLeases,
    /// The agents' clocks go at half their pace.
    SlowClocks,
    /// The agent's shell takes any answer for one to what it has just sent.
    NewAnswers,
}

impl Sabotage {
    /// All ways.
    pub const ALL: &[Self] = &[
        Self::SkipTermCheck,
        Self::ForgetSavedAssignment,
        Self::RecordTooEarly,
        Self::ActTooEarly,
        Self::DropCommits,
        Self::ReuseTerm,
        Self::IgnoreStops,
        Self::OwnLeases,
        Self::SlowClocks,
        Self::NewAnswers,
    ];
}
