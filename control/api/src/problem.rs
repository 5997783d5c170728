//! How a refusal looks: RFC 9457 (`application/problem+json`), with a code for programs and a hint for people.

use std::fmt;

use dunlin_model::LimitHit;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The media type of every error answer.
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";

/// What `code` a problem may have; programs decide by it, so none is ever renamed.
pub mod code {
    /// There is no token, or it is not known.
    pub const UNAUTHORIZED: &str = "unauthorized";
    /// There is nothing with that name.
    pub const NOT_FOUND: &str = "not_found";
    /// The path exists, but not with this method.
    pub const METHOD_NOT_ALLOWED: &str = "method_not_allowed";
    /// The request is not what the API describes.
    pub const INVALID_REQUEST: &str = "invalid_request";
    /// The body has another type than the one described.
    pub const UNSUPPORTED_MEDIA_TYPE: &str = "unsupported_media_type";
    /// A limit was hit: `limit`, `value` and `observed` say which.
    pub const LIMIT_EXCEEDED: &str = "limit_exceeded";
    /// The bytes have another digest than the path says.
    pub const DIGEST_MISMATCH: &str = "digest_mismatch";
    /// The coordinator does not have the program.
    pub const UNKNOWN_PROGRAM: &str = "unknown_program";
    /// The component is not one that Dunlin runs.
    pub const COMPONENT_REFUSED: &str = "component_refused";
    /// A workload names a component which was not uploaded.
    pub const COMPONENT_MISSING: &str = "component_missing";
    /// A run names an input which was not uploaded.
    pub const INPUT_MISSING: &str = "input_missing";
    /// The wish contradicts what is there, for instance a route which another app has.
    pub const CONFLICT: &str = "conflict";
    /// There are too many requests at this moment.
    pub const BUSY: &str = "busy";
    /// The request was not complete in time.
    pub const TIMEOUT: &str = "timeout";
    /// The coordinator stops, or is not in charge.
    pub const UNAVAILABLE: &str = "unavailable";
    /// No coordinator is in charge at the moment: nothing was done, and it can be asked again soon.
    pub const NOT_IN_CHARGE: &str = "not_in_charge";
    /// The coordinator is at fault.
    pub const INTERNAL: &str = "internal";
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URN made from `code`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// What could not be done, the same for each problem with this code.
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 100, maximum = 599)]
    pub status: u16,
    /// Why, in this case.
    #[serde(default)]
    pub detail: String,
    /// What programs decide by.
    #[serde(default)]
    pub code: String,
    /// The limit that was hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Its value, with unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What was asked for or seen, with unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<String>,
    /// What would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// Returns the problem with this HTTP status, one of the [codes](code), what could not be done, and why.
    pub fn new(status: u16, code: &str, title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:dunlin:problem:{code}"),
            title: title.into(),
            status,
            detail: detail.into(),
            code: code.to_owned(),
            limit: None,
            value: None,
            observed: None,
            hint: None,
        }
    }

    /// Returns the problem of a limit that was hit.
    pub fn limit(status: u16, title: impl Into<String>, hit: &LimitHit) -> Self {
        let mut problem = Self::new(status, code::LIMIT_EXCEEDED, title, hit.to_string());
        problem.limit = Some(hit.limit.clone());
        problem.value = Some(hit.value.clone());
        problem.observed = Some(hit.observed.clone());
        problem
    }

    /// Returns the same problem with a hint: what would help.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_looks_as_the_standard_says() {
        let hit = LimitHit::new("memory", "1GiB", "2GiB");
        let problem = Problem::limit(422, "the app was refused", &hit).with_hint("ask for less");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "urn:dunlin:problem:limit_exceeded");
        assert_eq!(json["status"], 422);
        assert_eq!(json["limit"], "memory");
        assert_eq!(json["observed"], "2GiB");
        assert_eq!(serde_json::from_value::<Problem>(json).unwrap(), problem);
    }

    #[test]
    fn a_problem_of_another_server_is_understood() {
        let problem: Problem = serde_json::from_str(r#"{"title":"Bad Gateway","status":502}"#).unwrap();
        assert_eq!(problem.to_string(), "Bad Gateway");
    }
}
