//! What the supervisor wants done, and what it is told: the words between it and the agent.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{
    AllocationId, AssignedAllocation, Assignment, Begun, Bytes, Digest, DurationMs, Fuel, HostCalls,
    ItemRange, ItemReport, Name, Outcome, ProgramOrder, RouteTable, RunId, SecretId, SecretVersion, Term,
    Timestamp,
};

/// What the agent is to do. Actions are carried out in the order in which they were returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Keep this assignment on disk. It must be durable before any following action is carried out.
    Save(Box<Assignment>),
    /// Keep these reports of items on disk, beside those that are there or in their place: nobody has recorded them yet.
    KeepItems {
        /// Which.
        reports: Vec<ItemReport>,
        /// Whether they take the place of those that are there.
        in_place: bool,
    },
    /// Keep on disk how far all allocations have come with their items, for the agent that comes right after this one, and
    /// for no later one.
    KeepBegun(Vec<Begun>),
    /// Give this table to the ingress.
    SetRoutes(RouteTable),
    /// Keep the compiled code of these components on the node, and of no others that nothing runs. What is to stop goes
    /// after it.
    KeepCode {
        /// Which.
        components: BTreeSet<Digest>,
    },
    /// Bring this component to the node, unless it is there; answered by `Fetched` or `FetchFailed`.
    Fetch {
        /// Which.
        digest: Digest,
    },
    /// Keep these secrets on the node, and wipe all others.
    KeepSecrets {
        /// Which.
        secrets: BTreeSet<SecretId>,
    },
    /// Bring this value of a secret to the node, unless it is there; answered by `SecretFetched` or `SecretNotFetched`.
    FetchSecret {
        /// Of which secret.
        secret: SecretId,
        /// Which value.
        version: SecretVersion,
    },
    /// Give an allocation that was started the values which its secrets have now.
    GiveSecrets {
        /// Which.
        allocation: Box<AssignedAllocation>,
    },
    /// Become this program; answered by `NotTaken` if that cannot be, and else by the end of this one.
    TakeProgram {
        /// Which.
        order: Box<ProgramOrder>,
    },
    /// Keep on disk that an upgrade was tried, and what came of it: the agent is what it was to become, or why not. It is
    /// on trial no more.
    KeepTried {
        /// Which upgrade.
        number: u64,
        /// Why the agent is not what it was to become.
        failed: Option<String>,
    },
    /// Become again what the agent was before the last upgrade; answered by `NotTaken` if that cannot be now.
    ReturnProgram {
        /// Which upgrade.
        number: u64,
        /// Why.
        reason: String,
    },
    /// Start it in its namespace's worker; answered by `Started` or `NotStarted`.
    Start {
        /// What to run.
        allocation: Box<AssignedAllocation>,
    },
    /// Stop it and forget it; answered by `Stopped`, for which the supervisor waits only where the next start of the
    /// same must not overlap.
    Stop {
        /// Which.
        allocation: AllocationId,
        /// In whose worker it is.
        namespace: Name,
        /// Whether what it is at is broken off: it must have ended in a moment, whatever that costs others in its worker.
        at_once: bool,
    },
    /// Run items, each in a fresh instance; each is answered by `ItemEnded` or `ItemNotRun`. Without inputs there may be
    /// more of them than can run at a time: the worker takes the next as soon as it has room.
    RunItems {
        /// Of which allocation.
        allocation: AllocationId,
        /// In whose worker it is.
        namespace: Name,
        /// Of which run.
        run: RunId,
        /// Which items.
        range: ItemRange,
        /// Whether this is the instance that combines the outputs of all items.
        combine: bool,
        /// Whether there is something to be brought for each to read.
        inputs: bool,
    },
}

/// What happened on the node, or what the coordinator said of items.
///
/// Events of allocations, items and components that the supervisor does not wait for are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A component is on the node and its digest was checked.
    Fetched {
        /// Which.
        digest: Digest,
    },
    /// A component could not be brought to the node. It is tried again after a while.
    FetchFailed {
        /// Which.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// A value of a secret is on the node.
    SecretFetched {
        /// Of which secret.
        secret: SecretId,
        /// Which value.
        version: SecretVersion,
    },
    /// A value of a secret could not be brought to the node. It is tried again after a while.
    SecretNotFetched {
        /// Of which secret.
        secret: SecretId,
        /// Which value.
        version: SecretVersion,
        /// Which other value is there.
        present: Option<SecretVersion>,
        /// Whether there was no coordinator to ask.
        is_alone: bool,
        /// Why.
        reason: String,
    },
    /// The agent did not become what it was to become.
    NotTaken {
        /// By which upgrade.
        number: u64,
        /// Why.
        reason: String,
        /// Whether it may be tried again.
        again: bool,
    },
    /// An allocation is loaded: it serves, or takes items.
    Started {
        /// Which.
        allocation: AllocationId,
    },
    /// An allocation that was told to stop has ended, with all that it was at.
    Stopped {
        /// Which.
        allocation: AllocationId,
    },
    /// An allocation could not be loaded.
    NotStarted {
        /// Which.
        allocation: AllocationId,
        /// Why.
        reason: String,
        /// Whether trying again is in vain: the component itself is at fault.
        refused: bool,
    },
    /// An item was run.
    ItemEnded {
        /// Of which allocation.
        allocation: AllocationId,
        /// Which item.
        item: u32,
        /// How it ended.
        outcome: Outcome,
        /// What it burned.
        fuel: Fuel,
        /// The most memory it held.
        memory: Bytes,
        /// How long it took.
        wall: DurationMs,
        /// What it asked of the host.
        host: HostCalls,
        /// What it wrote to standard output.
        output: String,
        /// Whether it wrote more than was kept.
        output_cut: bool,
    },
    /// An item could not be run, since its input could not be had. It is tried again after a while.
    ItemNotRun {
        /// Of which allocation.
        allocation: AllocationId,
        /// Which item.
        item: u32,
        /// Why.
        reason: String,
    },
    /// The coordinator says that these items have a durable record.
    Recorded {
        /// The coordinator's term.
        term: Term,
        /// The allocation and the item.
        items: Vec<(AllocationId, u32)>,
    },
    /// The coordinator has heard a report.
    Heard {
        /// The coordinator's term.
        term: Term,
        /// When the report was sent, by the clock whose time the supervisor is told.
        sent: Timestamp,
        /// Which singletons may run, and for how long from then on.
        leases: BTreeMap<AllocationId, DurationMs>,
    },
    /// What an allocation has used since its worker started.
    Usage {
        /// Which.
        allocation: AllocationId,
        /// Fuel burned.
        fuel: Fuel,
        /// The most memory one instance held.
        memory: Bytes,
        /// Requests answered or items run.
        instances: u64,
        /// How many of these failed.
        failed: u64,
    },
    /// A service was asked whether it is well.
    Checked {
        /// Which allocation.
        allocation: AllocationId,
        /// What was wrong with its answer; absent if it is well.
        problem: Option<String>,
    },
    /// A worker process is gone, and all its allocations with it.
    WorkerDied {
        /// The namespace whose guests it ran.
        namespace: Name,
    },
}
