//! The rules of a route, applied to a request before a service has it: what is refused, what is answered here, and what stays
//! with its allocation. Pure but for what [`Rate`] counts, and for the names that clients are given.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dunlin_model::{Bytes as Size, LimitHit, RateLimit, Redirect, Respond, RouteRules, RouteSpec, Sticky};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;

use crate::Failure;
use crate::body::Answer;
use crate::rate::{Client, Rate};

/// The rules of one route.
#[derive(Debug)]
pub(crate) struct Rules {
    rules: RouteRules,
    /// The route's path, without a slash at the end.
    path: String,
    rate: Option<Rate>,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The service has it.
    Forward,
    /// It is answered here.
    Answer(Response<Answer>),
    /// It is refused.
    Refuse(Failure),
}

/// What holds the requests of one client together.
#[derive(Debug, Default)]
pub(crate) struct Stay {
    /// What they have in common, if they have.
    pub(crate) key: Option<u64>,
    /// What the client is to send from now on.
    pub(crate) cookie: Option<HeaderValue>,
}

impl Rules {
    /// Returns the rules of a route; nothing if it has none.
    pub(crate) fn of(spec: &RouteSpec) -> Option<Self> {
        let rules = RouteRules::clone(spec.rules.as_ref()?);
        let rate = rules.rate_limit.as_ref().map(Rate::new);
        Some(Self { rules, path: spec.path.trim_end_matches('/').to_owned(), rate })
    }

    /// Decides on a request that comes from `address`, as far as that is known.
    pub(crate) fn judge<B>(&self, request: &Request<B>, address: IpAddr, now: Instant) -> Verdict {
        if let (Some(rate), Some(limit)) = (&self.rate, &self.rules.rate_limit) {
            let values = limit.by.iter().flat_map(|name| request.headers().get_all(name.as_str()));
            let values = values.map(|value| value.as_bytes().to_vec()).collect();
            if let Err(missing) = rate.take(&Client { address, values }, now) {
                return Verdict::Refuse(too_often(limit, missing));
            }
        }
        match (&self.rules.redirect, &self.rules.respond) {
            (Some(redirect), _) => redirected(redirect, &self.path, request.uri()),
            (None, Some(respond)) => Verdict::Answer(responded(respond, request.method())),
            (None, None) => Verdict::Forward,
        }
    }

    /// Returns to what a request with these headers stays.
    pub(crate) fn stay(&self, headers: &HeaderMap, is_tls: bool) -> Stay {
        match &self.rules.sticky {
            None => Stay::default(),
            Some(Sticky::Header(name)) => {
                Stay { key: headers.get(name.as_str()).map(|value| key(value.as_bytes())), cookie: None }
            }
            Some(Sticky::Cookie(name)) => match cookie(headers, name) {
                Some(value) => Stay { key: Some(key(value)), cookie: None },
                None => {
                    let value = format!("{:016x}", RandomState::new().build_hasher().finish());
                    let secure = if is_tls { "; Secure" } else { "" };
                    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}");
                    Stay { key: Some(key(value.as_bytes())), cookie: HeaderValue::try_from(cookie).ok() }
                }
            },
        }
    }

    /// Returns the most bytes of a request's body.
    pub(crate) fn body_limit(&self) -> Option<Size> {
        self.rules.body_limit
    }

    /// Returns how long the service may take until it answers.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.rules.timeout.map(|time| Duration::from_millis(time.0))
    }
}

/// Returns the number of a client, the same on every node (FNV-1a).
fn key(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |key, byte| (key ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Returns the value of a cookie.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let all = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    all.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn too_often(limit: &RateLimit, missing: Duration) -> Failure {
    let RateLimit { requests, per, burst, by } = limit;
    let value = format!("{requests} in {per}, {burst} at once");
    let who = by.as_ref().map_or_else(|| "address".to_owned(), |name| format!("`{name}`"));
    let detail = format!("this route takes {value}, from each client by its {who}");
    let seconds = missing.as_secs() + u64::from(missing.subsec_nanos() > 0);
    Failure::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
        .limit(LimitHit::new("rate_limit", value, "one more"))
        .retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
}

/// Returns the failure of a request whose body has more bytes than its route takes.
pub(crate) fn too_large(limit: Size, observed: Option<u64>) -> Failure {
    let observed = observed.map_or_else(|| "more".to_owned(), |bytes| Size(bytes).to_string());
    let detail = format!("this route takes bodies of at most {limit}");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail).limit(LimitHit::new(
        "body_limit",
        limit,
        observed,
    ))
}

/// Returns the failure of a request that a service has not begun to answer in its route's time.
pub(crate) fn too_slow(limit: Duration) -> Failure {
    let value = dunlin_model::DurationMs(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    let detail = format!(
        "the service did not begin to answer within {value}, which its route gives it; the request may have been \
         carried out"
    );
    Failure::new(StatusCode::GATEWAY_TIMEOUT, "route_timeout", detail).limit(LimitHit::new(
        "timeout",
        value,
        "no answer",
    ))
}

/// Adds what the request has after the route's path to where the route leads.
fn redirected(Redirect { to, status }: &Redirect, path: &str, target: &Uri) -> Verdict {
    let rest = target.path().strip_prefix(path).unwrap_or_default();
    let query = target.query().map(|query| format!("?{query}")).unwrap_or_default();
    let place = match (to.strip_suffix('/'), rest) {
        (Some(start), rest) if rest.starts_with('/') => format!("{start}{rest}{query}"),
        _ => format!("{to}{rest}{query}"),
    };
    // Two slashes would make a host of what the client has written, and browsers take a backslash for one.
    let place =
        if to.starts_with('/') { format!("/{}", place.trim_start_matches(['/', '\\'])) } else { place };
    let (Ok(place), Ok(status)) = (HeaderValue::try_from(place), StatusCode::from_u16(*status)) else {
        let detail = "the target of the request cannot stand in a header".to_owned();
        return Verdict::Refuse(Failure::new(StatusCode::BAD_REQUEST, "bad_target", detail));
    };
    let mut response = Response::new(Answer::Whole(Full::default()));
    *response.status_mut() = status;
    response.headers_mut().insert(LOCATION, place);
    Verdict::Answer(response)
}

fn responded(respond: &Respond, method: &Method) -> Response<Answer> {
    let Respond { status, body, content_type } = respond;
    // Who asks for the head alone is told how long the body is.
    let sent = if *method == Method::HEAD { String::new() } else { body.clone() };
    let mut response = Response::new(Answer::Whole(Full::from(sent)));
    if !body.is_empty() {
        response.headers_mut().insert(CONTENT_LENGTH, body.len().into());
    }
    // Both were checked when the app was deployed.
    *response.status_mut() = StatusCode::from_u16(*status).unwrap_or_default();
    if let Ok(content_type) = HeaderValue::try_from(content_type) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, json: &str) -> Rules {
        let spec =
            RouteSpec { rules: Some(serde_json::from_str(json).unwrap()), ..RouteSpec::new(None, path) };
        Rules::of(&spec).unwrap()
    }

    fn judge(rules: &Rules, target: &str, headers: &[(&str, &str)]) -> Verdict {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        rules.judge(&request.body(()).unwrap(), "192.0.2.7".parse().unwrap(), Instant::now())
    }

    #[test]
    fn a_redirect_keeps_what_follows_the_route_and_makes_no_host_of_it() {
        for (path, to, target, place) in [
            ("/old", "/new", "/old", "/new"),
            ("/old", "/new", "/old/x/y?z=1", "/new/x/y?z=1"),
            ("/old/", "/new/", "/old/x", "/new/x"),
            ("/old", "/", "/old", "/"),
            ("/old", "/", "/old/x", "/x"),
            ("/old", "/", "/old//evil.example", "/evil.example"),
            ("/old", "/", "/old/\\\\evil.example", "/evil.example"),
            ("/", "https://shop.example", "/x?y", "https://shop.example/x?y"),
            ("/", "https://shop.example/", "//evil.example", "https://shop.example//evil.example"),
            ("/old", "https://shop.example/new", "/old/x", "https://shop.example/new/x"),
        ] {
            let rules = rules(path, &format!(r#"{{"redirect":{{"to":"{to}"}}}}"#));
            let Verdict::Answer(response) = judge(&rules, target, &[]) else { panic!("{target}") };
            assert_eq!(response.headers()[LOCATION], place, "{path} {to} {target}");
            assert_eq!(response.status(), StatusCode::PERMANENT_REDIRECT);
        }
    }

    #[test]
    fn an_answer_is_given_as_it_stands() {
        let rules = rules("/", r#"{"respond":{"status":503,"body":"gone fishing"}}"#);
        let Verdict::Answer(response) = judge(&rules, "/x", &[]) else { panic!("it has an answer") };
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
    }

    #[test]
    fn clients_are_told_apart_by_the_header_or_by_their_address() {
        let limit = r#"{"rate_limit":{"requests":1,"per":60000,"burst":1,"by":"x-api-key"}}"#;
        let rules = rules("/", limit);
        let mut refused = Vec::new();
        for headers in [&[("x-api-key", "a")][..], &[("x-api-key", "b")], &[("x-api-key", "a")], &[], &[]] {
            refused.push(match judge(&rules, "/", headers) {
                Verdict::Refuse(failure) => Some(failure.code()),
                _ => None,
            });
        }
        assert_eq!(refused, [None, None, Some("rate_limited"), None, Some("rate_limited")]);
    }

    #[test]
    fn a_client_keeps_its_key_by_its_cookie_or_by_a_header() {
        let stay = |json: &str, headers: &[(&'static str, &'static str)], is_tls| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            let Stay { key, cookie } = rules("/", json).stay(&map, is_tls);
            (key, cookie.map(|cookie| cookie.to_str().unwrap().to_owned()))
        };
        let by_cookie = r#"{"sticky":{"cookie":"shop"}}"#;
        let (given, cookie) = stay(by_cookie, &[("cookie", "shopping=1; other=shop=2")], true);
        let cookie = cookie.unwrap();
        let value = cookie.strip_prefix("shop=").unwrap().split_once(';').unwrap();
        assert_eq!((value.0.len(), value.1), (16, " Path=/; HttpOnly; SameSite=Lax; Secure"));
        assert_ne!(stay(by_cookie, &[], false).0, given);
        let (kept, again) = stay(by_cookie, &[("cookie", "a=b"), ("cookie", "c=d;  shop=7f")], false);
        assert_eq!((kept, again), (Some(key(b"7f")), None));
        let by_header = r#"{"sticky":{"header":"x-user"}}"#;
        assert_eq!(stay(by_header, &[("x-user", "7f")], false), (kept, None));
        assert_eq!(stay(by_header, &[], false), (None, None));
        assert_eq!(stay("{}", &[("x-user", "7f")], false), (None, None));
    }
}
