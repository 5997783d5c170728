//! How everything that can go wrong becomes one shape: problem+json.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use dunlin_api::{CONTENT_TYPE_PROBLEM, Problem, code};
use dunlin_scheduler::Rejection;
use dunlin_store::ComponentsError;
use http::header::{CONTENT_TYPE, RETRY_AFTER};

use crate::driver::Refusal;

/// A request that was refused.
pub(crate) struct Refused(Box<Problem>);

impl Refused {
    pub(crate) fn new(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status =
            http::StatusCode::from_u16(self.0.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).expect("a problem has only string keys");
        let mut response = (status, [(CONTENT_TYPE, CONTENT_TYPE_PROBLEM)], body).into_response();
        if matches!(self.0.status, 429 | 503) {
            response.headers_mut().insert(RETRY_AFTER, http::HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::new(problem)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        Self::new(match refusal {
            Refusal::Rejected(rejection) => return rejection.into(),
            Refusal::Overloaded => Problem::new(503, code::BUSY, "the coordinator is busy", detail),
            Refusal::StorageFull => storage_full(detail),
            Refusal::Unknown => {
                Problem::new(502, code::UNAVAILABLE, "the coordinator stopped before it had answered", detail)
                    .with_hint("it may have happened or not: look, and ask again")
            }
            Refusal::Stopping => Problem::new(503, code::UNAVAILABLE, "the coordinator is stopping", detail),
        })
    }
}

impl From<ComponentsError> for Refused {
    fn from(error: ComponentsError) -> Self {
        Self::new(match error {
            ComponentsError::WrongDigest { .. } => {
                let title = "the bytes are not the ones announced";
                Problem::new(422, code::DIGEST_MISMATCH, title, error.to_string())
                    .with_hint("upload them again; nothing was kept")
            }
            ComponentsError::StorageFull { .. } => storage_full(error.to_string()),
            ComponentsError::Shared(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the object store cannot be had");
                let title = "what all coordinators share cannot be had";
                Problem::new(503, code::UNAVAILABLE, title, "the coordinator's log has the cause").with_hint(
                    "nothing was changed, and services go on; ask again when the object store is there",
                )
            }
            other => return internal(&other),
        })
    }
}

/// Returns the problem that this coordinator is not in charge, and nothing was done.
pub(crate) fn not_in_charge(why: &str) -> Refused {
    let title = "no coordinator is in charge at the moment";
    let problem = Problem::new(503, code::NOT_IN_CHARGE, title, why);
    Refused::new(problem.with_hint("nothing was done; ask again in a few seconds"))
}

/// Returns the problem of a full disk.
pub(crate) fn storage_full(detail: String) -> Problem {
    Problem::new(503, "storage_full", "nothing can be stored", detail)
        .with_hint("free disk space on the coordinator's machine; nothing was changed, and services go on")
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        let status = match &rejection {
            Rejection::UnknownApp(_)
            | Rejection::UnknownRevision { .. }
            | Rejection::UnknownWorkload(_)
            | Rejection::UnknownRun(_)
            | Rejection::UnknownNode(_)
            | Rejection::UnknownSecret(_)
            | Rejection::NotPending(_) => 404,
            Rejection::RouteTaken { .. }
            | Rejection::NothingToRestore(_)
            | Rejection::NothingToPromote(_)
            | Rejection::NameTaken(_)
            | Rejection::TokenTaken(_)
            | Rejection::NothingToRecover
            | Rejection::NodeInUse(_)
            | Rejection::NoUpgrade(_)
            | Rejection::NotAccepted { .. }
            | Rejection::SecretInUse { .. }
            | Rejection::TooManySecrets { .. }
            | Rejection::TooManyPending { .. }
            | Rejection::QuotaExceeded { .. } => 409,
            Rejection::Recovering { .. } => 503,
            Rejection::NodeRevoked(_)
            | Rejection::TokenUnknown
            | Rejection::TokenUsed
            | Rejection::TokenExpired => 403,
            Rejection::NotAJob(_)
            | Rejection::TooManyItems(_)
            | Rejection::NoItems
            | Rejection::NothingToWorkOn(_)
            | Rejection::InvalidRun { .. }
            | Rejection::InvalidSpec { .. }
            | Rejection::MissingSecret { .. }
            | Rejection::Unsigned { .. }
            | Rejection::InvalidUpgrade { .. }
            | Rejection::InvalidNamespace { .. } => 422,
        };
        let mut problem =
            Problem::new(status, rejection.code(), "the wish was refused", rejection.to_string());
        if let Rejection::TooManyItems(hit)
        | Rejection::QuotaExceeded { hit, .. }
        | Rejection::TooManySecrets { hit, .. } = rejection.clone()
        {
            problem.limit = Some(hit.limit);
            problem.value = Some(hit.value);
            problem.observed = Some(hit.observed);
        }
        problem.hint = help(&rejection);
        Self::new(problem)
    }
}

/// Returns what to do about it, where that is not plain.
fn help(rejection: &Rejection) -> Option<String> {
    let help = match rejection {
        Rejection::Recovering { .. } => {
            "`dunlin recover` says what that means, and `dunlin recover --confirm` goes on".to_owned()
        }
        Rejection::NodeInUse(node) => format!(
            "stop its agent and wait until it is lost, or cut it off at once: `dunlin node revoke {node}`"
        ),
        Rejection::MissingSecret { secret, .. } => format!("set it first: `dunlin secret set {secret}`"),
        Rejection::Unsigned { why, .. } => why.help().to_owned(),
        Rejection::NotAccepted { .. } => {
            "look whether it should: `dunlin plan` shows all of it, of an artifact after `dunlin pull`; then deploy or install it \
             with `--accept`, or `?accept=true`"
                .to_owned()
        }
        Rejection::SecretInUse { .. } => {
            "deploy it without the secret, and delete that once the rollout is over; another value takes its place at \
             once: `dunlin secret set`"
                .to_owned()
        }
        Rejection::NothingToWorkOn(_) => {
            "say `--items 10`, or `--input 'texts/*.md'` for one item per file".to_owned()
        }
        _ => return None,
    };
    Some(help)
}

/// Returns the problem of a request that cannot be read; `detail` says why.
pub(crate) fn invalid(status: http::StatusCode, detail: String) -> Refused {
    let code = match status.as_u16() {
        413 => code::LIMIT_EXCEEDED,
        415 => code::UNSUPPORTED_MEDIA_TYPE,
        _ => code::INVALID_REQUEST,
    };
    Refused::new(Problem::new(status.as_u16(), code, "the request is not what the API describes", detail))
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        invalid(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        invalid(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for Refused {
    fn from(rejection: PathRejection) -> Self {
        invalid(rejection.status(), rejection.body_text())
    }
}

/// Returns the problem of something that is not there.
pub(crate) fn not_found(what: impl std::fmt::Display) -> Refused {
    Refused::new(Problem::new(404, code::NOT_FOUND, "there is no such thing", format!("there is no {what}")))
}

/// Returns the problem of our own failure; the cause is logged, not told.
pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Refused {
    tracing::error!(error, "a request failed by our fault");
    let detail = "the coordinator's log has the cause";
    Refused::new(Problem::new(500, code::INTERNAL, "the coordinator failed", detail))
}
