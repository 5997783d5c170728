//! Why a wish is refused. Nothing has changed then.

use dunlin_model::{
    AppName, LimitHit, Name, NodeId, Revision, RunId, SecretId, SignatureError, Want, WorkloadName,
};

/// Why a wish is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such app.
    #[error("there is no app `{0}`")]
    UnknownApp(AppName),
    /// This revision of the app is not kept.
    #[error(
        "`{app}` has no earlier revision {revision} that is kept; there are {kept}: see `dunlin history {app}`"
    )]
    UnknownRevision {
        /// Whose.
        app: AppName,
        /// Which.
        revision: Revision,
        /// Those that are kept, as people read them.
        kept: String,
    },
    /// The app has no earlier revision that could be restored.
    #[error("`{0}` has no earlier revision that was well; see `dunlin history {0}`")]
    NothingToRestore(AppName),
    /// No canaries of the app wait to be promoted.
    #[error("`{0}` has no canaries that wait to be promoted")]
    NothingToPromote(AppName),
    /// The app has no such workload.
    #[error("there is no workload `{0}`")]
    UnknownWorkload(WorkloadName),
    /// Only jobs can be run.
    #[error("`{0}` is a service; only a job can be run")]
    NotAJob(WorkloadName),
    /// There is no such run.
    #[error("there is no run {0}")]
    UnknownRun(RunId),
    /// There is no such node.
    #[error("there is no node `{0}`")]
    UnknownNode(NodeId),
    /// A run may not have so many items.
    #[error("the run has too many items: {0}")]
    TooManyItems(LimitHit),
    /// A run without items would never do anything.
    #[error("a run needs at least one item")]
    NoItems,
    /// Neither the wish nor the spec says what a run works on.
    #[error("nothing says what a run of `{0}` works on")]
    NothingToWorkOn(WorkloadName),
    /// What a run is to have beside its spec breaks a rule.
    #[error("a run of `{job}`: `{field}`: {reason}")]
    InvalidRun {
        /// Of which job.
        job: WorkloadName,
        /// Which field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The spec breaks a rule.
    #[error("`{app}`: `{field}`: {reason}")]
    InvalidSpec {
        /// Whose spec.
        app: AppName,
        /// Which field of it, as a dotted path.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What a namespace should have breaks a rule.
    #[error("namespace `{namespace}`: `{field}`: {reason}")]
    InvalidNamespace {
        /// Which.
        namespace: Name,
        /// Which field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The namespace has as many open items as it may.
    #[error("namespace `{namespace}`: {hit}")]
    QuotaExceeded {
        /// Which.
        namespace: Name,
        /// What it would have.
        hit: LimitHit,
    },
    /// Another service already answers these requests.
    #[error("the route `{route}` already leads to `{workload}`")]
    RouteTaken {
        /// Host and path.
        route: String,
        /// Where it leads.
        workload: WorkloadName,
    },
    /// No such token, or a wrong secret.
    #[error("the join token is not known")]
    TokenUnknown,
    /// It has been used as often as it may be.
    #[error("the join token has been used up")]
    TokenUsed,
    /// It is too old.
    #[error("the join token has expired")]
    TokenExpired,
    /// There is a token with this id.
    #[error("there is a join token `{0}` already")]
    TokenTaken(String),
    /// This very key is not accepted any more.
    #[error("the key of node `{0}` was revoked; a machine joins with a fresh state folder")]
    NodeRevoked(NodeId),
    /// Nothing is decided.
    #[error("the coordinator is in recovery: {reason}")]
    Recovering {
        /// Why.
        reason: String,
    },
    /// It is not in recovery.
    #[error("the coordinator is not in recovery")]
    NothingToRecover,
    /// Another machine has this name.
    #[error("the name `{0}` belongs to another node")]
    NameTaken(NodeId),
    /// No machine of this name waits.
    #[error("no machine waits to become node `{0}`")]
    NotPending(NodeId),
    /// Too many machines wait.
    #[error("limit `machines that wait for approval` is {limit}, all of them taken")]
    TooManyPending {
        /// How many may.
        limit: usize,
    },
    /// There is no such secret.
    #[error("there is no secret `{0}`")]
    UnknownSecret(SecretId),
    /// A workload is granted a secret that is not set.
    #[error("`{workload}` reads the secret `{secret}`, which is not set")]
    MissingSecret {
        /// Which workload.
        workload: WorkloadName,
        /// Which secret.
        secret: Box<SecretId>,
    },
    /// The namespace takes signed components alone, and this one is not signed as it should be.
    #[error("namespace `{}` runs only components that are signed, and that of `{workload}` may not run there: {why}", workload.namespace)]
    Unsigned {
        /// Which workload.
        workload: WorkloadName,
        /// What is wrong.
        why: Box<SignatureError>,
    },
    /// The namespace wants to be asked about what is new, and nobody has said that this is accepted.
    #[error("namespace `{}` asks before an app may do or have more, and `{app}` newly wants {}", app.namespace, told(wants))]
    NotAccepted {
        /// Which app.
        app: AppName,
        /// What it wants.
        wants: Vec<Want>,
    },
    /// Something reads it.
    #[error("`{workload}` reads the secret `{secret}`")]
    SecretInUse {
        /// Which secret.
        secret: Box<SecretId>,
        /// What reads it, or one of them.
        workload: WorkloadName,
    },
    /// The namespace has as many secrets as it may.
    #[error("namespace `{namespace}`: {hit}")]
    TooManySecrets {
        /// Which.
        namespace: Name,
        /// How many it would have.
        hit: LimitHit,
    },
    /// An upgrade cannot be so.
    #[error("{reason}")]
    InvalidUpgrade {
        /// Why.
        reason: String,
    },
    /// There is none that could be stopped, go on, or be taken back.
    #[error("{0}")]
    NoUpgrade(&'static str),
    /// It is there.
    #[error("node `{0}` is in use: it reported lately, and is not revoked")]
    NodeInUse(NodeId),
}

impl Rejection {
    /// Returns a name for programs, which never changes.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownApp(_) => "unknown_app",
            Self::UnknownRevision { .. } => "unknown_revision",
            Self::NothingToRestore(_) => "nothing_to_restore",
            Self::NothingToPromote(_) => "nothing_to_promote",
            Self::UnknownWorkload(_) => "unknown_workload",
            Self::NotAJob(_) => "not_a_job",
            Self::UnknownRun(_) => "unknown_run",
            Self::UnknownNode(_) => "unknown_node",
            Self::TooManyItems(_) => "too_many_items",
            Self::NoItems => "no_items",
            Self::NothingToWorkOn(_) => "nothing_to_work_on",
            Self::InvalidRun { .. } => "invalid_run",
            Self::InvalidSpec { .. } => "invalid_spec",
            Self::InvalidNamespace { .. } => "invalid_namespace",
            Self::QuotaExceeded { .. } => "quota_exceeded",
            Self::RouteTaken { .. } => "route_taken",
            Self::TokenUnknown => "token_unknown",
            Self::TokenUsed => "token_used",
            Self::TokenExpired => "token_expired",
            Self::TokenTaken(_) => "token_taken",
            Self::NameTaken(_) => "name_taken",
            Self::NotPending(_) => "not_pending",
            Self::TooManyPending { .. } => "too_many_pending",
            Self::UnknownSecret(_) => "unknown_secret",
            Self::MissingSecret { .. } => "missing_secret",
            Self::Unsigned { why, .. } => match **why {
                SignatureError::Absent => "signature_required",
                _ => "signature_invalid",
            },
            Self::NotAccepted { .. } => "acceptance_required",
            Self::SecretInUse { .. } => "secret_in_use",
            Self::TooManySecrets { .. } => "too_many_secrets",
            Self::InvalidUpgrade { .. } => "invalid_upgrade",
            Self::NoUpgrade(_) => "no_upgrade",
            Self::NodeInUse(_) => "node_in_use",
            Self::NodeRevoked(_) => "node_revoked",
            Self::Recovering { .. } => "recovering",
            Self::NothingToRecover => "nothing_to_recover",
        }
    }
}

/// How many wants an error names.
const TOLD: usize = 20;

fn told(wants: &[Want]) -> String {
    let mut all: Vec<String> = wants.iter().take(TOLD).map(|want| format!("`{want}`")).collect();
    if wants.len() > TOLD {
        all.push(format!("{} more", wants.len() - TOLD));
    }
    all.join(", ")
}
