//! Agent and coordinator.
//!
//! The agent dials. Each stream begins with one [`StreamRequest`] from the side that opened it.
//! `Control` is opened once per connection by the agent: it then sends [`ToCoordinator`] and receives [`ToAgent`].
//! The others answer with one [`StreamReply`] and then, if that is `Ok`, with bytes or records until the end.

use std::collections::BTreeMap;

use dunlin_model::{
    AllocationId, Assignment, ClusterId, Digest, DurationMs, InstanceId, Name, NodeId, Report, RunId,
    SecretId, SecretVersion, Term, Timestamp, TrapRecord, WorkloadName,
};
use serde::{Deserialize, Serialize};

use crate::{ChunkPlace, Version};

/// What a stream is for: its first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamRequest {
    /// From an agent: heartbeats one way, assignments the other.
    Control(Hello),
    /// From an agent: the bytes of a component that is assigned to it.
    Component {
        /// Which.
        digest: Digest,
    },
    /// From an agent: of which chunks a component that is assigned to it consists, as one frame of
    /// [`ChunkList`](crate::ChunkList).
    ChunkList {
        /// Which component.
        digest: Digest,
    },
    /// From an agent to the coordinator, or to another agent that has the component or fetches it too: a chunk of it, as one
    /// frame of [`PackedChunk`](crate::PackedChunk), when it is there.
    Chunk {
        /// Of which component.
        digest: Digest,
        /// Where it is in there.
        place: ChunkPlace,
    },
    /// From an agent: the bytes of the program that it is to become.
    Program {
        /// Which.
        digest: Digest,
    },
    /// From an agent: the input of an item that is assigned to it.
    Input {
        /// Of which run.
        run: RunId,
        /// Which item; the number of items asks for the outputs of all, which the combining instance reads.
        item: u32,
    },
    /// From an agent: the value of a secret that an allocation which is assigned to it is granted, as bytes.
    Secret {
        /// Which.
        secret: SecretId,
        /// Which of its values; there is none but the latest.
        version: SecretVersion,
    },
    /// From an agent: a new certificate for the key that it has, as bytes (DER).
    Renew {
        /// A certificate signing request (PKCS#10, DER) for that key.
        #[serde(with = "serde_bytes")]
        signing_request: Vec<u8>,
    },
    /// From an agent: packets for nodes that it cannot reach itself, and from those that cannot reach it, as
    /// [`Relayed`](crate::Relayed) both ways until the connection ends.
    Relay,
    /// From the coordinator: what allocations on this node printed, as frames of `LogRecord`.
    Logs(LogQuery),
    /// From the coordinator: what is known of instances that ended badly on this node, as frames of `TrapRecord`.
    Traps(TrapQuery),
    /// From the coordinator: the core dump of an instance that trapped on this node, as bytes.
    CoreDump {
        /// Of which.
        instance: InstanceId,
    },
}

/// Which lines are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    /// Of which allocations.
    pub allocations: Vec<AllocationId>,
    /// How many of the latest lines of each.
    #[serde(default)]
    pub tail: u32,
    /// Whether to go on with new lines as they come.
    #[serde(default)]
    pub follow: bool,
}

/// Which records of traps are wanted; every absent field widens the choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrapQuery {
    /// Of this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// Of this app.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<Name>,
    /// Of this workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<Name>,
    /// Of this allocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation: Option<AllocationId>,
    /// Of the instance with this number in its allocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<u64>,
    /// How many of the latest.
    pub tail: u32,
}

impl TrapQuery {
    /// Tells whether there may be something of this workload among what is wanted.
    pub fn is_of(&self, name: &WorkloadName) -> bool {
        let fits = |wanted: &Option<Name>, name: &Name| wanted.as_ref().is_none_or(|wanted| wanted == name);
        fits(&self.namespace, &name.namespace)
            && fits(&self.app, &name.app)
            && fits(&self.workload, &name.workload)
    }

    /// Tells whether this record is wanted.
    pub fn wants(&self, trap: &TrapRecord) -> bool {
        self.is_of(&trap.workload)
            && self.allocation.is_none_or(|wanted| wanted == trap.instance.allocation)
            && self.instance.is_none_or(|wanted| wanted == trap.instance.number)
    }
}

/// The answer to a stream request other than `Control`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamReply {
    /// What was asked for follows.
    Ok {
        /// How many bytes, where that is known.
        #[serde(default)]
        length: Option<u64>,
        /// What the input is called, where it has a name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// It cannot be had.
    Error {
        /// Why.
        #[serde(default)]
        message: String,
    },
}

/// Who an agent is and what it speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest protocol version it speaks.
    pub min_version: Version,
    /// The newest protocol version it speaks.
    pub max_version: Version,
    /// Its node, which must be the one of its certificate.
    pub node: NodeId,
    /// The fleet it believes to belong to.
    pub cluster: ClusterId,
    /// The highest term it has stored; a coordinator of a lower one must not order it about.
    pub term: Term,
    /// The version of its program, for people.
    #[serde(default)]
    pub software: String,
}

/// What a coordinator tells an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToAgent {
    /// The first answer, if the agent is accepted.
    Welcome {
        /// The version both sides speak from here on.
        version: Version,
        /// The fleet.
        cluster: ClusterId,
        /// The coordinator's term.
        term: Term,
        /// How often the agent is to report, in milliseconds.
        heartbeat_ms: u64,
    },
    /// The first answer, if it is not. The agent keeps what it runs and tries again later.
    Refused {
        /// Why, for programs.
        code: RefusalCode,
        /// Why, for people.
        #[serde(default)]
        message: String,
    },
    /// Everything the node must run.
    Assign(Box<Assignment>),
    /// These items have a durable record; the agent may forget them.
    Recorded {
        /// The fleet.
        cluster: ClusterId,
        /// The coordinator's term.
        term: Term,
        /// The allocation and the item. They travel as ranges, since there may be thousands.
        #[serde(with = "crate::packed::ranges")]
        items: Vec<(AllocationId, u32)>,
    },
    /// A report was heard. Said of each report of a node that has something which asks for it: see
    /// [`OnPartition`](dunlin_model::OnPartition).
    Heard {
        /// The fleet.
        cluster: ClusterId,
        /// The coordinator's term.
        term: Term,
        /// When the report was sent, as it said.
        sent: Timestamp,
        /// Which singletons of the node may run, and for how long after the report was sent, in milliseconds.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        leases: BTreeMap<AllocationId, DurationMs>,
    },
}

/// Why an agent was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCode {
    /// No common protocol version.
    VersionUnsupported,
    /// It belongs to another fleet.
    WrongCluster,
    /// Its certificate names another node, or one that is not known.
    UnknownNode,
    /// It has obeyed a later coordinator than this one.
    Fenced,
    /// Another coordinator of the fleet is in charge, or none is at the moment.
    NotInCharge,
    /// A code of a later version.
    #[serde(other)]
    Other,
}

/// What an agent tells the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToCoordinator {
    /// The heartbeat: all that the agent knows of its node.
    Report(Report),
}
