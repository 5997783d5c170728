//! Traps: what is known of instances that ended badly, gathered from the nodes that ran them.

use dunlin_model::{AllocationId, Name, NodeId, TrapOnNode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which records are wanted; every absent field widens the choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TrapsQuery {
    /// Of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// Of this app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<Name>,
    /// Of this workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Name>,
    /// Of this allocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<AllocationId>,
    /// Of the instance with this number in its allocation: of `a12.3` it is 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<u64>,
    /// How many of the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
}

/// Records of instances that ended badly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrapList {
    /// The oldest first.
    pub traps: Vec<TrapOnNode>,
    /// Nodes that may have more, and could not be asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unheard: Vec<NodeId>,
}
