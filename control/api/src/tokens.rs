//! Join tokens: what a new machine needs to become a node.

use dunlin_model::{DurationMs, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A wish for a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateJoinToken {
    /// How long it may be used, in milliseconds; one hour if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_ms: Option<DurationMs>,
    /// How many nodes may join with it; one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Whether an operator must approve each node that joins with it; no if absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approval: bool,
}

/// A new token. It is shown once and kept nowhere in this form.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenCreated {
    /// The token: a secret.
    pub token: String,
    /// Until when it may be used, in milliseconds since the Unix epoch.
    pub expires_ms: Timestamp,
}

impl std::fmt::Debug for JoinTokenCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinTokenCreated").field("expires_ms", &self.expires_ms).finish_non_exhaustive()
    }
}
