//! Agent and worker, over a Unix socket which the worker inherits. Both ends are always the same program.
//!
//! Only control goes this way. Connections, on which requests come and guests ask others, are passed over a second
//! socket, of which each message may carry one descriptor: [`PassedToWorker`] and [`PassedToAgent`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use dunlin_model::{
    AllocationId, AssignedAllocation, Bytes, Fuel, FuelRate, HostCalls, InstanceId, ItemRange, ItemRecord,
    LogRecord, Name, NamespaceRoutes, NodeId, SecretName, SecretValue, TrapRecord, WorkloadName,
};
use serde::{Deserialize, Serialize};

use crate::WallSetup;

/// What an agent tells a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToWorker {
    /// The first message.
    Setup(Box<WorkerSetup>),
    /// Load this allocation's component and be ready to serve it or to run its items.
    Start {
        /// What to run.
        allocation: Box<AssignedAllocation>,
        /// The file with its component's compiled code.
        compiled: PathBuf,
        /// The secrets that it is granted.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        secrets: BTreeMap<SecretName, SecretValue>,
    },
    /// From now on these are the secrets of this allocation, which was started before.
    Secrets {
        /// Which.
        allocation: AllocationId,
        /// All of them.
        secrets: BTreeMap<SecretName, SecretValue>,
    },
    /// Stop: take no new request, end what runs after a short while, forget it.
    Stop {
        /// Which.
        allocation: AllocationId,
        /// Whether what runs is given no while.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        at_once: bool,
    },
    /// Run items that have no input, each in a fresh instance with its number as argument, as many at a time as the
    /// allocation may have instances.
    RunItems {
        /// Of which allocation.
        allocation: AllocationId,
        /// Which items.
        range: ItemRange,
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
    /// Run the first item in a fresh instance, with the standard streams that are passed for its allocation.
    RunAttached {
        /// Of which allocation.
        allocation: AllocationId,
        /// The guest's arguments after its own name.
        arguments: Vec<String>,
    },
    /// The agent is about to be started again: when it has gone, end with the last of the connections that were handed
    /// off, and not before. They serve what is under way on them.
    Outlive,
    /// From now on these routes decide on requests that come on connections which were handed off, and on calls of guests.
    Routes {
        /// Whose.
        namespace: Name,
        /// Higher for each later one of the same namespace.
        version: u64,
        /// All of them.
        routes: NamespaceRoutes,
    },
}

/// What a worker must know before anything else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSetup {
    /// The namespace whose guests it runs; absent if it runs those of all.
    pub namespace: Option<Name>,
    /// The node it is on.
    pub node: NodeId,
    /// The key that authenticates compiled code; no worker of another namespace has it.
    pub code_key: [u8; 32],
    /// The platform for which that code was compiled.
    pub platform: [u8; 32],
    /// Folders which the node's operator offers to its guests.
    pub folders: BTreeMap<Name, OfferedFolder>,
    /// Where it makes scratch folders; absent if there is no place for them.
    pub scratch: Option<PathBuf>,
    /// Certificates in PEM of authorities whose servers guests may believe, beside those of the public.
    #[serde(with = "serde_bytes")]
    pub authorities: Vec<u8>,
    /// How many instances each namespace may have at the same time.
    pub namespace_concurrency: u32,
    /// The most bytes of a core dump.
    pub coredump_size: Bytes,
    /// What one processor of the node burns in a second: by it the time of guests counts that are metered by time.
    pub processor_rate: FuelRate,
    /// What the process gives up before anything else.
    pub wall: WallSetup,
}

/// A folder which the node's operator offers to guests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedFolder {
    /// Where it is.
    pub path: PathBuf,
    /// How much it may hold if guests may write to it; absent if they may not.
    pub writable: Option<Bytes>,
}

impl fmt::Debug for WorkerSetup {
    /// Leaves out the key, so that no log can hold it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerSetup")
            .field("namespace", &self.namespace)
            .field("node", &self.node)
            .field("wall", &self.wall)
            .finish_non_exhaustive()
    }
}

/// What a worker tells its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromWorker {
    /// Set up.
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
    /// Items were run. What their guests have logged was sent before.
    ItemsEnded {
        /// Of which allocation.
        allocation: AllocationId,
        /// The items in the order of their ends, each with what became of it. A bounded number.
        #[serde(with = "crate::packed")]
        items: Vec<(u32, ItemRecord)>,
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
        /// The rest of it, for metrics.
        account: Account,
    },
    /// A service was asked whether it is well, as its spec says.
    Checked {
        /// Which.
        allocation: AllocationId,
        /// What was wrong with its answer; absent if it is well.
        problem: Option<String>,
    },
    /// What guests printed, and what the host says of them.
    Logs {
        /// In the order of their coming.
        records: Vec<LogRecord>,
    },
    /// An instance ended badly. Only so many are told of one allocation in a second.
    Trap(Box<TrapRecord>),
    /// Connections that were handed off have ended; those given back are not counted here.
    ConnectionsEnded {
        /// How many since the last such message.
        connections: u32,
    },
}

/// What the instances of one allocation have used and how they ended, counted since it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// How long they took together, in milliseconds.
    pub wall_ms: u64,
    /// How many failed: they ended badly, or answered with a status of 500 and above.
    #[serde(default)]
    pub failed: u64,
    /// What they asked of the host.
    pub host: HostCalls,
    /// How many ended with each outcome, by its name.
    pub outcomes: BTreeMap<String, u64>,
    /// How often each limit was hit, by its name.
    pub limit_hits: BTreeMap<String, u64>,
    /// Bytes of log that were dropped.
    pub log_dropped: Bytes,
}

/// What an agent sends over the channel for descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PassedToWorker {
    /// With a client's connection, of which nothing has been read: its first request is for this namespace.
    Connection {
        /// Who the client is.
        client: SocketAddr,
        /// The namespace for which its first request is.
        namespace: Name,
        /// The version of the routes by which that was decided; these may still be on their way.
        routes: u64,
    },
    /// With one end of a pair of sockets. At the other end the agent speaks HTTP/1.1, with the allocation in a
    /// header of each request.
    Proxied,
    /// With one of the standard streams for [`ToWorker::RunAttached`], which may come before it or after it.
    Stream {
        /// Whose.
        allocation: AllocationId,
        /// Which.
        stream: StandardStream,
    },
    /// The agent ends: answer what is under way on connections that were handed off, and close them.
    Drain,
    /// Give back all connections that were handed off, then answer with [`PassedToAgent::Left`].
    Leave,
    /// With the connection that was asked for, if it could be made.
    Connected {
        /// As in [`PassedToAgent::Connect`].
        request: u64,
        /// Where it leads, or why there is none.
        result: Result<SocketAddr, ConnectError>,
    },
    /// With one end of a pair of sockets, if the service is known: at the other end the agent takes one request in
    /// HTTP/1.1 for it.
    Called {
        /// As in [`PassedToAgent::Call`].
        request: u64,
        /// Why there is none.
        result: Result<(), ConnectError>,
    },
    /// The answer to [`PassedToAgent::Resolve`].
    Resolved {
        /// As there.
        request: u64,
        /// The addresses to which guests may connect, a bounded number; never none.
        result: Result<Vec<IpAddr>, ConnectError>,
    },
}

/// One of the standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StandardStream {
    /// What a guest reads: anything that can be read.
    Input,
    /// Where its output goes: the writing end of a pipe.
    Output,
    /// Where its complaints go: the writing end of a pipe.
    Error,
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
    /// The answer to [`PassedToWorker::Leave`]: no connection is left here.
    Left,
    /// With the core dump of an instance: a file in memory. Its trap is told after it.
    CoreDump {
        /// Whose.
        instance: InstanceId,
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
        /// Which of the host's addresses it must be; any, if absent.
        #[serde(default)]
        address: Option<IpAddr>,
    },
    /// Asks for a way to send one request to a service of the guest's namespace, wherever that runs.
    Call {
        /// Returns in the answer.
        request: u64,
        /// Whose guest.
        allocation: AllocationId,
        /// Which service.
        service: WorkloadName,
    },
    /// Asks for the addresses of a name on behalf of a guest that may open sockets to it.
    Resolve {
        /// Returns in the answer.
        request: u64,
        /// Whose guest.
        allocation: AllocationId,
        /// A host name.
        name: String,
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
    /// Nobody takes connections there.
    NotConnected(String),
    /// No way leads there.
    Unreachable(String),
    /// Nobody answered in time.
    TimedOut,
    /// A limit on connections was hit.
    LimitHit(dunlin_model::LimitHit),
}
