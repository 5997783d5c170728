//! Nodes: what each is and how it stands.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use dunlin_model::{Digest, DurationMs, NodeId, Resources};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// All nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// In order of name.
    pub nodes: Vec<NodeStatus>,
}

/// How one node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// Which.
    pub node: NodeId,
    /// Whether it is heard of.
    pub state: NodeState,
    /// Whether its key is not accepted any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
    /// The SHA-256 of its public key while it waits for approval, to be compared with what its agent says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<Digest>,
    /// What operators say about it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What guests may use on it.
    pub capacity: Resources,
    /// What its allocations reserve.
    pub reserved: Resources,
    /// Where its ingress listens for HTTP; absent if it never reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ingress: Option<SocketAddr>,
    /// Where other nodes reach it over QUIC; absent if it never reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub peer: Option<SocketAddr>,
    /// The version of its agent, empty if it never reported.
    #[serde(default)]
    pub version: String,
    /// How long ago it was last heard of, in milliseconds; absent if never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_ms_ago: Option<u64>,
    /// How many allocations are bound to it.
    pub allocations: u32,
    /// How many it has of each countable resource.
    #[serde(default)]
    pub resources: BTreeMap<String, u32>,
    /// How much of its capacity batch work may reserve, in per cent; absent if it never reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_overcommit: Option<u32>,
    /// Whether its clock is not set: it shows a time before the node's own certificate was made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clock_unset: bool,
    /// How long a packet takes to it and back, as the coordinator sees it, in microseconds; absent if it is not connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<u64>,
    /// Whether it is connected by TCP, since its network lets no UDP through.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_tcp: bool,
    /// With which nodes it has exchanged packets through the coordinator within the last seconds: those that it does not
    /// reach directly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relayed_with: Vec<NodeId>,
    /// For how long nothing new goes to it, as an operator said so, in milliseconds; absent if nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordoned_ms_ago: Option<u64>,
    /// When what has not left it by then is ended, in milliseconds from now; absent if nothing has to leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_ends_in_ms: Option<u64>,
    /// For how much longer nothing new goes to it, as it was lost again and again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside_ends_in_ms: Option<u64>,
}

/// How a node is to be cordoned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CordonNode {
    /// How long what runs on the node may take to leave it, in milliseconds; then it is ended. What runs stays if
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_ms: Option<DurationMs>,
}

/// Whether a node is heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Its lease runs.
    Alive,
    /// It was silent for longer than its lease.
    Lost,
    /// It has joined and never reported.
    NeverSeen,
    /// It has a good join token and waits for an operator's approval.
    Pending,
    /// A state of a later version.
    #[serde(other)]
    Unknown,
}

impl NodeState {
    /// Returns the name alone, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Lost => "lost",
            Self::NeverSeen => "never-seen",
            Self::Pending => "pending",
            Self::Unknown => "unknown",
        }
    }
}
