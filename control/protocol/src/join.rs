//! How a node becomes a member: one request and one reply on a connection of its own.
//!
//! The agent has no certificate yet. It has proven the coordinator by the hash of the fleet's authority, which its
//! token carries, before it sends the token's secret.

use std::fmt;

use dunlin_model::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

/// The code of a refusal that says: the token is good, and an operator must approve the machine; ask again later.
pub const APPROVAL_PENDING: &str = "approval_pending";

/// What a node that wants to join says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl fmt::Debug for JoinRequest {
    /// Leaves out the secret, so that no log can hold it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("token_id", &self.token_id)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// What the coordinator answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
        #[serde(default)]
        message: String,
    },
}
