//! How a node becomes a member: one request and one reply on a connection of its own.
//!
//! The agent has no certificate yet. It has proven the coordinator by the hash of the fleet's authority, which its
//! token carries, before it sends the token's secret.

use dunlin_model::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

/// What a node that wants to join says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The public part of the token.
    pub token_id: String,
    /// The secret part of the token.
    #[serde(with = "serde_bytes")]
    pub secret: Vec<u8>,
    /// The name it wants.
    pub node: NodeId,
    /// A certificate signing request (PKCS#10, DER) for a key that never leaves the node.
    #[serde(with = "serde_bytes")]
    pub signing_request: Vec<u8>,
}

/// What the coordinator answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum JoinReply {
    /// It is a member now.
    Joined {
        /// The fleet.
        cluster: ClusterId,
        /// Its certificate, DER.
        #[serde(with = "serde_bytes")]
        certificate: Vec<u8>,
        /// The certificate of the fleet's authority, DER.
        #[serde(with = "serde_bytes")]
        authority: Vec<u8>,
    },
    /// It is not.
    Refused {
        /// Why, for programs: `token_unknown`, `token_used`, `token_expired`, `name_taken`, ...
        code: String,
        /// Why, for people.
        message: String,
    },
}
