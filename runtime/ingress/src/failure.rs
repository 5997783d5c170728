//! Failures of the data path, in the one shape that clients see: problem+json (RFC 9457).
//!
//! Whoever cannot answer a request (ingress or worker) builds a [`Failure`] and answers with it, so that status,
//! code, limit and hint always stand in the same place. The code is also a response header,
//! [`FAILURE_HEADER`], by which an ingress tells "this allocation is not here" from a guest's own 503.
//!
//! Not here: which failure fits when; that is decided where it is noticed.

use bytes::Bytes;
use dunlin_model::{InstanceId, LimitHit};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

/// The response header that carries the code of a [`Failure`].
pub const FAILURE_HEADER: HeaderName = HeaderName::from_static("dunlin-failure");

/// The media type of a failure's body.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request was not answered as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    status: StatusCode,
    code: &'static str,
    /// Kept apart so that a `Result` with a failure stays small: most requests do not fail.
    more: Box<More>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct More {
    detail: String,
    limit: Option<LimitHit>,
    hint: Option<String>,
    request_id: Option<String>,
    instance: Option<InstanceId>,
    retry_after: Option<u32>,
}

impl Failure {
    /// The code with which a node says that it does not have, or no longer has, the allocation asked for.
    pub const NO_ALLOCATION: &'static str = "no_allocation";

    /// The code with which a node says that its agent is being started again, and will have it in a moment.
    pub const STARTING_AGAIN: &'static str = "starting_again";

    /// Returns a failure with this status, a `code` in snake case for programs and a `detail` for people.
    pub fn new(status: StatusCode, code: &'static str, detail: String) -> Self {
        let more =
            More { detail, limit: None, hint: None, request_id: None, instance: None, retry_after: None };
        Self { status, code, more: Box::new(more) }
    }

    /// Returns why, for people.
    pub fn detail(&self) -> &str {
        &self.more.detail
    }

    /// Adds which limit was hit.
    #[must_use]
    pub fn limit(mut self, limit: LimitHit) -> Self {
        self.more.limit = Some(limit);
        self
    }

    /// Adds what would help.
    #[must_use]
    pub fn hint(mut self, hint: String) -> Self {
        self.more.hint = Some(hint);
        self
    }

    /// Adds by which name the request is found in the logs.
    #[must_use]
    pub fn request_id(mut self, request_id: String) -> Self {
        self.more.request_id = Some(request_id);
        self
    }

    /// Adds in which instance it happened.
    #[must_use]
    pub fn instance(mut self, instance: InstanceId) -> Self {
        self.more.instance = Some(instance);
        self
    }

    /// Returns in which instance it happened, if that is known.
    pub fn of_instance(&self) -> Option<InstanceId> {
        self.more.instance
    }

    /// Adds after how many seconds it makes sense to ask again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.more.retry_after = Some(seconds);
        self
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Returns the response that tells it to the client.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let problem = Problem {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Unknown"),
            status: self.status.as_u16(),
            detail: &self.more.detail,
            code: self.code,
            limit: self.more.limit.as_ref().map(|hit| hit.limit.as_str()),
            value: self.more.limit.as_ref().map(|hit| hit.value.as_str()),
            observed: self.more.limit.as_ref().map(|hit| hit.observed.as_str()),
            request_id: self.more.request_id.as_deref(),
            instance: self.more.instance.map(|instance| instance.to_string()),
            hint: self.more.hint.as_deref(),
        };
        let body = serde_json::to_vec(&problem).expect("texts and a number always become JSON");
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(FAILURE_HEADER, HeaderValue::from_static(self.code));
        if let Some(seconds) = self.more.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The body of a failure, as RFC 9457 names its fields.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use dunlin_model::{AllocationId, Bytes as Size};
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_failure_says_everything_it_knows() {
        let response = Failure::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "no room".to_owned())
            .limit(LimitHit::new("memory", Size(64 << 20), Size(65 << 20)))
            .hint("raise `memory`".to_owned())
            .retry_after(1)
            .instance(InstanceId { allocation: AllocationId::new(12), number: 3 })
            .into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(response.headers()[FAILURE_HEADER], "overloaded");
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "no room",
            "code": "overloaded",
            "limit": "memory",
            "value": "64MiB",
            "observed": "65MiB",
            "instance": "a12.3",
            "hint": "raise `memory`",
        });
        assert_eq!(problem, expected);
    }
}
