//! Agent and worker, over a Unix socket which the worker inherits. Both ends are always the same program.
//!
//! Only control goes this way: requests reach the worker as HTTP on its data socket.

use std::fmt;
use std::path::PathBuf;

use dunlin_model::{AllocationId, AssignedAllocation, Bytes, Fuel, LogRecord, Name, NodeId, Outcome};
use serde::{Deserialize, Serialize};

/// What an agent tells a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToWorker {
    /// The first message.
    Setup(WorkerSetup),
    /// Load this allocation's component and be ready to serve it or to run its items.
    Start {
        /// What to run.
        allocation: Box<AssignedAllocation>,
        /// The component's file; its digest was checked.
        component: PathBuf,
    },
    /// Stop: take no new request, end what runs after a short while, forget it.
    Stop {
        /// Which.
        allocation: AllocationId,
    },
    /// Run one item in a fresh instance.
    RunItem {
        /// Of which allocation.
        allocation: AllocationId,
        /// Which item.
        item: u32,
        /// The guest's arguments after its own name.
        arguments: Vec<String>,
        /// The file that becomes its standard input; empty if absent.
        input: Option<PathBuf>,
    },
}

/// What a worker must know before anything else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSetup {
    /// The namespace whose guests it runs.
    pub namespace: Name,
    /// The node it is on.
    pub node: NodeId,
    /// Where it keeps compiled code; no other namespace uses it.
    pub cache: PathBuf,
    /// The key with which it authenticates what it keeps there; no other namespace has it.
    pub cache_key: [u8; 32],
    /// Where it listens for HTTP/1.1 (a Unix socket which it makes).
    pub data_socket: PathBuf,
}

impl fmt::Debug for WorkerSetup {
    /// Leaves out the key, so that no log can hold it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerSetup")
            .field("namespace", &self.namespace)
            .field("node", &self.node)
            .field("cache", &self.cache)
            .field("data_socket", &self.data_socket)
            .finish_non_exhaustive()
    }
}

/// What a worker tells its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromWorker {
    /// Set up; the data socket accepts connections.
    Ready,
    /// The allocation is loaded: it serves, or takes items.
    Started {
        /// Which.
        allocation: AllocationId,
    },
    /// The allocation cannot be loaded.
    NotStarted {
        /// Which.
        allocation: AllocationId,
        /// Why.
        reason: String,
        /// Whether trying again is in vain: the component itself is at fault.
        refused: bool,
    },
    /// The allocation is gone.
    Stopped {
        /// Which.
        allocation: AllocationId,
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
        /// How long it took, in milliseconds.
        wall_ms: u64,
        /// What it wrote to standard output, bounded by `MAX_ITEM_OUTPUT`.
        output: String,
        /// Whether it wrote more.
        output_cut: bool,
    },
    /// What an allocation has used since it was started here; sent about once a second when it changed.
    Usage {
        /// Which.
        allocation: AllocationId,
        /// Fuel burned.
        fuel: Fuel,
        /// The most memory one instance held.
        memory: Bytes,
        /// Requests answered or items run.
        instances: u64,
    },
    /// What guests printed, and what the host says of them.
    Logs {
        /// In the order of their coming.
        records: Vec<LogRecord>,
    },
}
