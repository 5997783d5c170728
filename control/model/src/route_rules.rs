//! What is done with the requests of one route before a service has them: which of them go by it at all, how many a client
//! may send, how large and how slow one may be, which are answered without the service, and which go to the same allocation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::{Broken, at_most, between};
use crate::{Bytes, DurationMs};

/// What is done with the requests of one route before a service has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct RouteRules {
    // First, so that routes are ordered by which requests they take.
    /// Only requests with all of these headers go by this route; `*` is any value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// How many requests a client may send; further ones are refused with 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// The most bytes of a request's body; larger ones are refused with 413.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_limit: Option<Bytes>,
    /// How long the service may take until it begins to answer, all tries together; then the client gets 504.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationMs>,
    /// Where clients are sent in place of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// What they are answered without the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respond: Option<Respond>,
    /// By what it is known which requests go to the same allocation as long as it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
}

/// By what it is known which requests go to the same allocation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Sticky {
    /// A cookie of this name, which clients are given with the first answer.
    Cookie(String),
    /// A header of this name, in lower case; requests without it go anywhere.
    Header(String),
}

/// How many requests a client may send to a node, as a bucket that fills up evenly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RateLimit {
    /// How many in each time.
    pub requests: u32,
    /// In which time.
    pub per: DurationMs,
    /// How many at once, after a pause.
    pub burst: u32,
    /// The header that tells clients apart, in lower case; those that do not send it, and all if absent, are told apart by
    /// their addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Where clients are sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Redirect {
    /// A path, or a URL of `http` or `https`. What the request has after the path of the route is added.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "Redirect::permanent")]
    #[cfg_attr(feature = "openapi", schema(minimum = 301, maximum = 308))]
    pub status: u16,
}

/// An answer that is always the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Respond {
    /// 200 to 599.
    #[serde(default = "Respond::ok")]
    #[cfg_attr(feature = "openapi", schema(minimum = 200, maximum = 599))]
    pub status: u16,
    /// Its body.
    #[serde(default)]
    pub body: String,
    /// What the body is.
    #[serde(default = "Respond::plain")]
    pub content_type: String,
}

impl Redirect {
    /// The status where none is given: the method stays, and clients may remember it.
    pub const STATUS: u16 = 308;

    fn permanent() -> u16 {
        Self::STATUS
    }
}

impl Respond {
    /// The status where none is given.
    pub const STATUS: u16 = 200;
    /// What a body is where nothing else is said.
    pub const CONTENT_TYPE: &str = "text/plain; charset=utf-8";

    fn ok() -> u16 {
        Self::STATUS
    }

    fn plain() -> String {
        Self::CONTENT_TYPE.to_owned()
    }
}

/// The most requests of a rate and of a burst.
const MAX_REQUESTS: u32 = 1_000_000;
/// The longest time of a rate.
const MAX_PER: DurationMs = DurationMs(24 * 60 * 60 * 1000);
/// The longest time that a route may give a service.
const MAX_TIMEOUT: DurationMs = DurationMs(10 * 60 * 1000);
/// The largest body that a route may answer with.
const MAX_RESPOND: usize = 1 << 10;
/// The longest place to which clients are sent, and the longest type of a body.
const MAX_TEXT: usize = 256;
/// The longest name of a header.
const MAX_NAME: usize = 64;
/// Headers that say by whom a request was sent on, which clients may write as they like, and those of connections.
const NOT_OF_CLIENTS: [&str; 6] =
    ["forwarded", "connection", "keep-alive", "te", "upgrade", "content-length"];
/// The most headers by which a route takes requests.
const MAX_HEADERS: usize = 8;

impl RouteRules {
    /// Returns about how many bytes they take where all routes are told to all nodes.
    pub fn weight(&self) -> usize {
        let by = self.rate_limit.as_ref().and_then(|limit| limit.by.as_ref()).map_or(0, String::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        let sticky = match &self.sticky {
            Some(Sticky::Cookie(name) | Sticky::Header(name)) => name.len(),
            None => 0,
        };
        let redirect = self.redirect.as_ref().map_or(0, |redirect| redirect.to.len());
        let respond = self.respond.as_ref().map_or(0, |it| it.body.len() + it.content_type.len());
        64 + headers + by + redirect + respond + sticky
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Calls `note` with each rule that is broken or kept, and the field that it is about.
    pub(crate) fn check(&self, note: &mut dyn FnMut(&'static str, Result<(), Broken>)) {
        let Self { headers, rate_limit, body_limit: _, timeout, redirect, respond, sticky } = self;
        note("headers", at_most("headers", MAX_HEADERS, headers.len()));
        for (name, value) in headers {
            note("headers", header_name(name).and(header_value("headers", value)));
        }
        if let Some(RateLimit { requests, per, burst, by }) = rate_limit {
            note("rate_limit.requests", between("requests", MAX_REQUESTS, *requests));
            note("rate_limit.burst", between("burst", MAX_REQUESTS, *burst));
            note("rate_limit.per", time("per", *per, MAX_PER));
            if let Some(by) = by {
                note("rate_limit.by", header_name(by).and(not_told(by)));
            }
        }
        if let Some(timeout) = timeout {
            note("timeout", time("timeout", *timeout, MAX_TIMEOUT));
        }
        if let Some(Redirect { to, status }) = redirect {
            note("redirect.to", place(to));
            note("redirect.status", redirects(*status));
            if respond.is_some() {
                note("respond", Err(Broken::new("a route has either `redirect` or `respond`, not both")));
            }
        }
        if let Some(Respond { status, body, content_type }) = respond {
            note("respond.status", responds(*status));
            note("respond.body", at_most("respond.body", MAX_RESPOND, body.len()));
            if matches!(status, 204 | 205 | 304) && !body.is_empty() {
                note("respond.body", Err(Broken::new(format!("an answer with {status} has no body"))));
            }
            note("respond.content_type", header_value("content_type", content_type));
        }
        match sticky {
            None => {}
            Some(Sticky::Cookie(name)) => note("sticky.cookie", cookie_name(name)),
            Some(Sticky::Header(name)) => note("sticky.header", header_name(name).and(not_told(name))),
        }
        if sticky.is_some() && (redirect.is_some() || respond.is_some()) {
            let message = "a route whose requests no allocation has is not `sticky`; leave this out";
            note("sticky", Err(Broken::new(message)));
        }
    }
}

fn time(name: &str, time: DurationMs, most: DurationMs) -> Result<(), Broken> {
    if time.0 == 0 {
        Err(Broken::limit(name, format!("more than 0s and at most {most}"), time))
    } else {
        at_most(name, most, time)
    }
}

fn redirects(status: u16) -> Result<(), Broken> {
    match status {
        301 | 302 | 303 | 307 | 308 => Ok(()),
        _ => Err(Broken::limit("redirect.status", "301, 302, 303, 307 or 308", status)),
    }
}

fn responds(status: u16) -> Result<(), Broken> {
    match status {
        200..=599 => Ok(()),
        _ => Err(Broken::limit("respond.status", "200 to 599", status)),
    }
}

/// A path that begins with one slash, since two would make the rest a host; or a URL.
fn place(to: &str) -> Result<(), Broken> {
    header_value("redirect.to", to)?;
    let is_path = to.starts_with('/') && !to.starts_with("//");
    let is_url = ["http://", "https://"]
        .iter()
        .any(|scheme| to.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')));
    if to.contains(['?', '#']) || to.contains(' ') {
        return Err(Broken::new(
            "a redirect leads to a path, and has no query, fragment or space of its own",
        ));
    }
    if is_path || is_url {
        Ok(())
    } else {
        Err(Broken::new(
            "a redirect leads to a path like \"/new\", or to a URL like \"https://shop.example/new\"",
        ))
    }
}

fn header_name(name: &str) -> Result<(), Broken> {
    let is_of_name =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_of_name) {
        return Err(Broken::new("write the name of a header in lower case, like \"x-api-key\""));
    }
    if name.starts_with("dunlin-") {
        return Err(Broken::new(format!("`{name}` is taken off each request before anybody looks at it")));
    }
    Ok(())
}

/// Refuses headers that say nothing of who a client is.
fn not_told(name: &str) -> Result<(), Broken> {
    let prefixes = ["x-forwarded-", "x-real-", "proxy-"];
    if NOT_OF_CLIENTS.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(Broken::new(format!("`{name}` tells no clients apart; use one that your clients send")));
    }
    Ok(())
}

/// A token of RFC 6265.
fn cookie_name(name: &str) -> Result<(), Broken> {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_of_name) {
        return Err(Broken::new(
            "write the name of a cookie in letters, digits, `-`, `_` and `.`, like \"shop\"",
        ));
    }
    Ok(())
}

fn header_value(name: &str, value: &str) -> Result<(), Broken> {
    at_most(name, MAX_TEXT, value.len())?;
    if value.is_empty() || !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(Broken::new(format!("`{name}` is sent as a header: use visible ASCII")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(json: &str) -> Vec<&'static str> {
        let rules: RouteRules = serde_json::from_str(json).unwrap();
        let mut broken = Vec::new();
        rules.check(&mut |field, result| {
            if result.is_err() {
                broken.push(field);
            }
        });
        broken
    }

    #[test]
    fn what_can_be_kept_is_taken_and_nothing_else() {
        for (json, expected) in [
            ("{}", &[][..]),
            (
                r#"{"rate_limit":{"requests":20,"per":1000,"burst":40,"by":"x-api-key"},"timeout":5000,"body_limit":0}"#,
                &[],
            ),
            (r#"{"redirect":{"to":"/new"}}"#, &[]),
            (r#"{"redirect":{"to":"https://shop.example/new","status":301}}"#, &[]),
            (r#"{"respond":{}}"#, &[]),
            (r#"{"respond":{"status":503,"body":"gone fishing","content_type":"text/html"}}"#, &[]),
            (
                r#"{"rate_limit":{"requests":0,"per":0,"burst":0,"by":"X"}}"#,
                &["rate_limit.requests", "rate_limit.burst", "rate_limit.per", "rate_limit.by"],
            ),
            (
                r#"{"rate_limit":{"requests":1000001,"per":86400001,"burst":1}}"#,
                &["rate_limit.requests", "rate_limit.per"],
            ),
            (r#"{"timeout":600001}"#, &["timeout"]),
            (r#"{"redirect":{"to":"//evil.example"}}"#, &["redirect.to"]),
            (r#"{"redirect":{"to":"https://"}}"#, &["redirect.to"]),
            (r#"{"redirect":{"to":"/a?b"}}"#, &["redirect.to"]),
            (r#"{"redirect":{"to":"/a\r\nset-cookie: x"}}"#, &["redirect.to"]),
            (r#"{"redirect":{"to":"javascript:x","status":200}}"#, &["redirect.to", "redirect.status"]),
            (r#"{"redirect":{"to":"/a"},"respond":{}}"#, &["respond"]),
            (r#"{"respond":{"status":204,"body":"x"}}"#, &["respond.body"]),
            (r#"{"rate_limit":{"requests":1,"per":1,"burst":1,"by":"x-forwarded-for"}}"#, &["rate_limit.by"]),
            (r#"{"headers":{"x-canary":"yes","x-any":"*"},"sticky":{"cookie":"shop"}}"#, &[]),
            (r#"{"headers":{"X":"yes"}}"#, &["headers"]),
            (r#"{"headers":{"x":""}}"#, &["headers"]),
            (r#"{"headers":{"dunlin-hops":"*"}}"#, &["headers"]),
            (r#"{"sticky":{"cookie":"a;b"}}"#, &["sticky.cookie"]),
            (r#"{"sticky":{"header":"forwarded"},"respond":{}}"#, &["sticky.header", "sticky"]),
            (r#"{"respond":{"status":199,"content_type":""}}"#, &["respond.status", "respond.content_type"]),
        ] {
            assert_eq!(broken(json), expected, "{json}");
        }
        let long = format!(r#"{{"respond":{{"body":"{}"}}}}"#, "x".repeat(MAX_RESPOND + 1));
        assert_eq!(broken(&long), ["respond.body"]);
    }

    #[test]
    fn no_rules_are_nothing_in_json() {
        assert!(RouteRules::default().is_empty());
        assert_eq!(serde_json::to_string(&RouteRules::default()).unwrap(), "{}");
    }
}
