//! Revisions of an app, and the passage from one to the next.

use dunlin_model::{AppName, Revision, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The passage of an app to its newest revision, as long as it goes on or has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutStatus {
    /// The revision that is restored if this one fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Revision>,
    /// Since when the deadline runs.
    pub started: Timestamp,
    /// Whether only canaries run yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canaries: bool,
    /// Whether a person is to promote the canaries.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_hand: bool,
    /// Since when all that should be is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good_since: Option<Timestamp>,
    /// Why it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// The revisions of an app that are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevisionList {
    /// The app.
    pub app: AppName,
    /// The newest first.
    pub revisions: Vec<RevisionStatus>,
}

/// One revision of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevisionStatus {
    /// Which.
    pub revision: Revision,
    /// When it was deployed.
    pub deployed: Timestamp,
    /// What became of it.
    pub state: RevisionState,
    /// Why, if it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The revision which it restored, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<Revision>,
}

/// What became of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RevisionState {
    /// It is the newest, and it is well.
    Current,
    /// It is the newest, and it is not yet known to be well.
    RollingOut,
    /// It is the newest or was, and it failed.
    Failed,
    /// It was well until another took its place.
    Completed,
    /// Another took its place before it was known to be well.
    Superseded,
    /// The app was stopped with it.
    Stopped,
    /// A state of a later version.
    #[serde(other)]
    Unknown,
}

impl RolloutStatus {
    /// Tells whether its canaries are well and wait for a person.
    pub fn waits_for_a_person(&self) -> bool {
        self.canaries && self.by_hand && self.good_since.is_some() && self.failed.is_none()
    }
}

impl RevisionState {
    /// Returns the name alone, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::RollingOut => "rolling-out",
            Self::Failed => "failed",
            Self::Completed => "completed",
            Self::Superseded => "superseded",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }
}

/// Which revision is to be restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Which; the last that was well if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
}
