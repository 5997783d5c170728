//! What the brain can be told, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_model::{
    AppName, AppSpec, Architecture, DurationMs, Name, NamespaceSpec, NodeId, Program, Report, Revision,
    RunId, SecretId, SecretVersion, Term, UpgradePlan, Want, WorkloadName,
};
use serde::{Deserialize, Serialize};

use crate::{RunWish, TokenRecord};

/// A user's wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make this the newest revision of an app.
    Deploy {
        /// This.
        spec: AppSpec,
        /// Whether what it newly wants is accepted, where its namespace asks.
        accept: bool,
    },
    /// Make an earlier revision of an app the newest again.
    Rollback {
        /// Which app.
        app: AppName,
        /// Which revision; the last that was well if absent.
        to: Option<Revision>,
    },
    /// Let all allocations of an app follow its canaries.
    Promote(AppName),
    /// Let no service of an app run, and cancel its runs. The app keeps its name and its routes.
    Stop(AppName),
    /// End all that an app runs and forget it.
    Delete(AppName),
    /// Start a run of a job.
    StartRun {
        /// Which job.
        workload: WorkloadName,
        /// What on and with what.
        wish: RunWish,
    },
    /// End a run before all of its items are recorded.
    CancelRun(RunId),
    /// Let a namespace have this much.
    SetNamespace {
        /// Which.
        namespace: Name,
        /// How much.
        spec: NamespaceSpec,
    },
    /// Let a secret have this value.
    SetSecret {
        /// Which.
        id: SecretId,
        /// What tells this value from all others.
        version: SecretVersion,
        /// The value, sealed.
        sealed: Arc<[u8]>,
    },
    /// Forget a secret that nothing reads.
    DeleteSecret(SecretId),
    /// Let agents become these programs, one node after the other.
    StartUpgrade {
        /// One for each architecture.
        programs: BTreeMap<Architecture, Program>,
        /// How.
        plan: UpgradePlan,
    },
    /// Tell no further node.
    StopUpgrade,
    /// Go on with an upgrade that was stopped, and have nodes try again that could not.
    ResumeUpgrade,
    /// Let all agents become what they were before the last upgrade.
    RevertUpgrade,
    /// Let nothing new go to a node.
    Cordon {
        /// Which.
        node: NodeId,
        /// If what it runs is to leave it, how long that may take; then it is ended.
        drain: Option<DurationMs>,
    },
    /// Let a node be used as any other.
    Uncordon(NodeId),
    /// Accept the key of a node no more, and replace what it runs.
    Revoke(NodeId),
    /// Take a node off the list that is there no more, and accept its key no more; or a machine that waits to become one.
    Remove(NodeId),
    /// Let a machine become a node that waits for it.
    Approve(NodeId),
    /// Let what lost nodes ran be replaced at once, though many were lost together.
    ReleaseBrake,
    /// Go on from what the store holds, though it is older than what the fleet obeys.
    Recover,
    /// Let nodes join with this token.
    CreateToken(TokenRecord),
    /// A node wants to become a member.
    Join {
        /// The public part of its token.
        token_id: String,
        /// The SHA-256 of the secret part.
        secret_hash: [u8; 32],
        /// The name it wants.
        node: NodeId,
        /// The SHA-256 of its public key.
        key_fingerprint: [u8; 32],
    },
}

/// What became of a wish that was not refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The app has this revision now.
    Deployed {
        /// Which.
        revision: Revision,
        /// Whether it is a new one; an identical spec is not.
        changed: bool,
        /// What it wants that the one before had not.
        wants: Vec<Want>,
    },
    /// All allocations follow the canaries.
    Promoted,
    /// The app is stopped.
    Stopped {
        /// Its revision, in which every service has zero allocations.
        revision: Revision,
        /// Whether it is a new one; an app that was stopped already keeps its revision.
        changed: bool,
    },
    /// The app is gone.
    Deleted,
    /// The run goes on under this id.
    RunStarted(RunId),
    /// The run has ended, now or before.
    Cancelled,
    /// The namespace may have that.
    NamespaceSet,
    /// The upgrade with this number is as it was wished to be.
    Upgrade(u64),
    /// The secret has that value.
    SecretSet,
    /// The secret is forgotten.
    SecretDeleted,
    /// Nothing new goes to the node.
    Cordoned,
    /// The node is used as any other.
    Uncordoned,
    /// The node is cut off.
    Revoked,
    /// What lost nodes ran is replaced.
    BrakeReleased,
    /// The coordinator starts again, and goes on.
    Recovered,
    /// The token can be used.
    TokenCreated,
    /// The node is a member.
    Joined,
    /// The machine waits for an operator.
    Pending,
    /// The machine is a node as soon as it asks again.
    Approved,
    /// It is not on the list any more.
    Removed,
}

/// What happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly every observation is a report")]
pub enum Observation {
    /// An agent said how its node is.
    Report {
        /// Which node, as its certificate says.
        node: NodeId,
        /// What it said.
        report: Report,
    },
    /// An agent does not obey, as it has obeyed a later term.
    Fenced {
        /// Which node's.
        node: NodeId,
        /// The highest term that it says to have obeyed.
        term: Term,
    },
    /// An agent can be spoken to.
    Connected {
        /// Which node's.
        node: NodeId,
    },
    /// An agent cannot be spoken to any more. It is believed until its lease ends.
    Disconnected {
        /// Which node's.
        node: NodeId,
    },
}
