//! The heads of requests and responses: what is refused, what is removed and what is added on the way through.

use dunlin_model::NodeId;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, Request, StatusCode, Version};

use crate::Failure;

/// The request header by which the ingress tells the worker which allocation is meant. Removed from outside.
pub const ALLOCATION_HEADER: HeaderName = HeaderName::from_static("dunlin-allocation");
/// The request header by which an ingress says that it sent the request on, and who it is. Removed from outside.
pub const FORWARDED_HEADER: HeaderName = HeaderName::from_static("dunlin-forwarded");

/// The response header that says what a request burned, and the trailer where the body is sent before that is known.
pub const FUEL_HEADER: HeaderName = HeaderName::from_static("dunlin-fuel");

/// The request header by which an ingress asks who answers and what that burns, and the response header or trailer that says
/// so: `a12.3 4711`. Removed from outside, in both directions. The request says whether its client [reads
/// trailers](CLIENT_READS_TRAILERS) as well.
pub const ACCOUNT_HEADER: HeaderName = HeaderName::from_static("dunlin-account");

/// What is in [`ACCOUNT_HEADER`] of a request whose client reads trailers, as its ingress does anyhow.
pub const CLIENT_READS_TRAILERS: HeaderValue = HeaderValue::from_static("client-reads-trailers");

/// What a client sends in `TE` that reads trailers.
pub(crate) const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
/// All our own headers begin so.
const OWN_PREFIX: &str = "dunlin-";
/// What follows a body of which we say something.
const OWN_TRAILERS: [HeaderName; 2] = [FUEL_HEADER, ACCOUNT_HEADER];
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Headers that speak of one connection and never go further.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
];

/// Returns the host that a request is for, with its port, or why the request cannot be taken.
pub(crate) fn authority<B>(request: &Request<B>) -> Result<&str, Failure> {
    if *request.method() == Method::CONNECT {
        let detail = "this server is no proxy: it does not answer `CONNECT`".to_owned();
        return Err(Failure::new(StatusCode::NOT_IMPLEMENTED, "connect_unsupported", detail));
    }
    let headers = request.headers();
    // A client may only ask for HTTP/2 in this way, and may be answered in HTTP/1.1 as if it had not.
    if headers.get_all(UPGRADE).iter().any(|protocol| !protocol.as_bytes().eq_ignore_ascii_case(b"h2c")) {
        let detail = "connections cannot change their protocol here, so there are no web sockets".to_owned();
        return Err(Failure::new(StatusCode::NOT_IMPLEMENTED, "upgrade_unsupported", detail));
    }
    if !request.uri().path().starts_with('/') {
        let detail = "the target of a request must be a path that begins with `/`".to_owned();
        return Err(Failure::new(StatusCode::BAD_REQUEST, "bad_target", detail));
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().map(HeaderValue::to_str).transpose().map_err(|_| bad_host())?;
    if hosts.next().is_some() {
        return Err(bad_host());
    }
    let target = request.uri().authority().map(http::uri::Authority::as_str);
    let authority = match (request.version(), target, host) {
        (Version::HTTP_2, Some(target), None) => target,
        (Version::HTTP_2, Some(target), Some(host)) if target.eq_ignore_ascii_case(host) => target,
        (Version::HTTP_2, None, Some(host)) => host,
        (Version::HTTP_2, _, _) => return Err(bad_host()),
        (_, Some(_), _) => {
            let detail =
                "a whole URL as target is for proxies; send the path, and the host in `Host`".to_owned();
            return Err(Failure::new(StatusCode::BAD_REQUEST, "bad_target", detail));
        }
        (_, None, Some(host)) => host,
        (_, None, None) => return Err(bad_host()),
    };
    if authority.is_empty() || !authority.bytes().all(is_of_host) {
        return Err(bad_host());
    }
    Ok(authority)
}

/// Tells whether a byte may stand in a host name, an address or a port.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
}

fn bad_host() -> Failure {
    let detail = "a request must name its host once: a name or an address, perhaps a port".to_owned();
    Failure::new(StatusCode::BAD_REQUEST, "bad_host", detail)
}

/// Removes what a client must not tell a worker: our own headers, and those of its connection. That it reads trailers is
/// told, for then it can be sent one.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    let reads_trailers = reads_trailers(headers);
    // That a request came through other services is believed whoever says it: who lies makes his own be refused.
    let is_ours = |name: &HeaderName| {
        name.as_str().starts_with(OWN_PREFIX) && name.as_str() != dunlin_model::HOPS_HEADER
    };
    if headers.keys().any(is_ours) {
        let ours: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
        for name in ours {
            headers.remove(name);
        }
    }
    remove_hop_by_hop(headers);
    if reads_trailers {
        headers.insert(TE, TRAILERS);
    }
    // Whoever reads the body has already said `100 Continue`.
    headers.remove(EXPECT);
}

pub(crate) fn reads_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Removes what speaks of one connection alone. That trailers of our own follow is passed on: they are asked for only by who
/// reads them.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    if !headers.contains_key(TRAILER) {
        return remove_hop_by_hop(headers);
    }
    let are_told = OWN_TRAILERS.map(|own| headers.get_all(TRAILER).iter().any(|name| name == own.as_str()));
    remove_hop_by_hop(headers);
    for (name, _) in OWN_TRAILERS.into_iter().zip(are_told).filter(|(_, is_told)| *is_told) {
        headers.append(TRAILER, name.into());
    }
}

/// Takes out of a response what only its ingress is told, and returns it.
pub(crate) fn take_account(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let are_told = headers.get_all(TRAILER).iter().any(|name| name == ACCOUNT_HEADER.as_str());
    if are_told {
        let tells_fuel = headers.get_all(TRAILER).iter().any(|name| name == FUEL_HEADER.as_str());
        headers.remove(TRAILER);
        if tells_fuel {
            headers.insert(TRAILER, FUEL_HEADER.into());
        }
    }
    headers.remove(ACCOUNT_HEADER)
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            // These belong to the request, whatever the client says.
            .filter(|name: &HeaderName| {
                *name != HOST && *name != CONTENT_LENGTH && name.as_str() != dunlin_model::HOPS_HEADER
            })
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    // Most heads have none of the others, and to look over their few names is sooner done than to look for each of these.
    if headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        for name in HOP_BY_HOP {
            headers.remove(name);
        }
    }
}

/// Makes the head of an HTTP/2 request one of HTTP/1.1.
pub(crate) fn make_http1(parts: &mut http::request::Parts) {
    if let Some(authority) = parts.uri.authority() {
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            parts.headers.insert(HOST, host);
        }
        let path = parts.uri.path_and_query().cloned();
        parts.uri = path.map(Into::into).unwrap_or_default();
    }
    // HTTP/2 may split cookies for better compression; HTTP/1.1 allows one line only.
    let mut cookies = parts.headers.get_all(COOKIE).iter();
    if let (Some(first), Some(_)) = (cookies.next(), cookies.next()) {
        let mut joined = first.as_bytes().to_vec();
        for cookie in parts.headers.get_all(COOKIE).iter().skip(1) {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(cookie.as_bytes());
        }
        if let Ok(cookie) = HeaderValue::from_bytes(&joined) {
            parts.headers.insert(COOKIE, cookie);
        }
    }
}

/// Returns the value of [`FORWARDED_HEADER`] that `node` sends.
pub(crate) fn forwarded_by(node: &NodeId) -> HeaderValue {
    HeaderValue::from_str(node.0.as_str())
        .expect("a name has letters, digits and `-`, which any header can hold")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn what_is_ours_or_of_the_connection_is_removed() {
        let mut map = headers(&[
            ("host", "a"),
            ("dunlin-allocation", "a1"),
            ("dunlin-forwarded", "n1"),
            ("dunlin-anything", "x"),
            ("dunlin-hops", "7"),
            ("connection", "close, x-private, host, dunlin-hops"),
            ("x-private", "1"),
            ("x-public", "2"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("proxy-connection", "keep-alive"),
            ("expect", "100-continue"),
        ]);
        clean_request(&mut map);
        assert_eq!(map, headers(&[("host", "a"), ("dunlin-hops", "7"), ("x-public", "2")]));
    }

    #[test]
    fn who_reads_trailers_is_sent_ours_and_no_others_are_declared() {
        for (te, expected) in
            [("gzip, Trailers", Some("trailers")), ("trailers", Some("trailers")), ("gzip", None)]
        {
            let mut map = headers(&[("connection", "te"), ("te", te), ("trailer", "x")]);
            clean_request(&mut map);
            assert_eq!(map.get(TE).map(|value| value.to_str().unwrap()), expected, "{te}");
            assert!(!map.contains_key(TRAILER));
        }
        for (trailer, stays) in [("dunlin-fuel", true), ("x-other", false), ("x-other, dunlin-fuel", false)] {
            let mut map = headers(&[("trailer", trailer)]);
            clean_response(&mut map);
            assert_eq!(map.contains_key(TRAILER), stays, "{trailer}");
        }
        let mut map = headers(&[("trailer", "dunlin-fuel"), ("dunlin-account", "a1.2 3")]);
        map.append(TRAILER, HeaderValue::from_static("dunlin-account"));
        clean_response(&mut map);
        assert_eq!(map.get_all(TRAILER).iter().count(), 2);
        assert_eq!(take_account(&mut map).unwrap(), "a1.2 3");
        assert_eq!(map, headers(&[("trailer", "dunlin-fuel")]));
    }

    #[test]
    fn requests_without_one_clear_host_are_refused() {
        for (target, hosts, code) in [
            ("/", &["a.example"][..], None),
            ("/", &["a.example:80"], None),
            ("/", &[], Some("bad_host")),
            ("/", &[""], Some("bad_host")),
            ("/", &["a", "b"], Some("bad_host")),
            ("/", &["a", "a"], Some("bad_host")),
            ("/", &["user@a"], Some("bad_host")),
            ("/", &["a/b"], Some("bad_host")),
            ("http://a/", &["a"], Some("bad_target")),
            ("*", &["a"], Some("bad_target")),
        ] {
            let mut request = Request::builder().uri(target);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            let refused = authority(&request.body(()).unwrap()).err().map(|failure| failure.code());
            assert_eq!(refused, code, "{target} {hosts:?}");
        }
    }

    #[test]
    fn http2_cookies_are_joined_and_the_authority_becomes_the_host() {
        let request = Request::builder()
            .uri("http://a.example/x?y")
            .header(COOKIE, "a=1")
            .header(COOKIE, "b=2")
            .body(())
            .unwrap();
        let (mut parts, ()) = request.into_parts();
        make_http1(&mut parts);
        assert_eq!(parts.uri, "/x?y");
        assert_eq!(parts.headers, headers(&[("cookie", "a=1; b=2"), ("host", "a.example")]));
    }
}
