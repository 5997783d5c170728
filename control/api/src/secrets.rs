//! Secrets: set and deleted here, read by guests alone.

use dunlin_model::{SecretId, SecretValue, SecretVersion, Timestamp, WorkloadName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A wish that a secret has this value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSecret {
    /// The value: text of 1 to 65536 bytes.
    pub value: SecretValue,
}

/// The secrets of a namespace, without their values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretList {
    /// In order of name.
    pub secrets: Vec<SecretStatus>,
}

/// A secret without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretStatus {
    /// Which.
    pub secret: SecretId,
    /// Which of its values it has; another one each time it is set.
    pub version: SecretVersion,
    /// When it was set first, in milliseconds since the Unix epoch.
    pub created_ms: Timestamp,
    /// When it was set to this value.
    pub updated_ms: Timestamp,
    /// The workloads that read it, in their newest revision.
    pub readers: Vec<WorkloadName>,
}
