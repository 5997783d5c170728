//! Agent and worker, over a Unix socket which the worker inherits. Both ends are always the same program.
//!
//! Only control goes this way: requests reach the worker as HTTP on its data socket.

use std::fmt;
use std::net::SocketAddr;
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

/// What an agent sends over the channel for descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PassedToWorker {
    /// With a client's connection, of which nothing has been read: its first request is for this namespace.
    Connection {
        /// Who the client is.
        client: SocketAddr,
    },
    /// With the connection that was asked for, if it could be made.
    Connected {
        /// As in [`PassedToAgent::Connect`].
        request: u64,
        /// Where it leads, or why there is none.
        result: Result<SocketAddr, ConnectError>,
    },
}

/// What a worker sends over the channel for descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PassedToAgent {
    /// With a client's connection: the request that has begun on it is not for this worker.
    GiveBack {
        /// Who the client is.
        client: SocketAddr,
        /// What was read from it and belongs to that request or comes after it.
        #[serde(with = "serde_bytes")]
        read: Vec<u8>,
    },
    /// Asks for an outbound connection on behalf of a guest.
    Connect {
        /// Returns in the answer.
        request: u64,
        /// Whose guest.
        allocation: AllocationId,
        /// Which capability it uses.
        using: Outbound,
        /// A host name or an address.
        host: String,
        /// The port.
        port: u16,
    },
}

/// The capabilities for which connections are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outbound {
    /// `outbound_http`, by `http`.
    Http,
    /// `outbound_http`, by `https`.
    Https,
    /// `sockets`.
    Tcp,
}

/// Why a guest gets no connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectError {
    /// It is not allowed; the text names the rule.
    Denied(String),
    /// The name has no address.
    NotResolved(String),
    /// Nobody answers there, or not in time.
    NotConnected(String),
    /// A limit on connections was hit.
    LimitHit(dunlin_model::LimitHit),
}
