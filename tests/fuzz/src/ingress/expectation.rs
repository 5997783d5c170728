//! What must become of a request, by the slow and obvious way.

use super::head::Head;

/// The routes of the ingress under test: host, path, and the allocation of the service there.
pub(super) const ROUTES: [(Option<&str>, &str, u64); 7] = [
    (None, "/", 1),
    (None, "/shop", 2),
    (Some("shop.example"), "/", 3),
    (Some("shop.example"), "/shop", 4),
    (Some("shop.example"), "/shop/cart", 5),
    (Some("[::1]"), "/api", 6),
    (Some("127.0.0.1"), "/", 7),
];

/// What must become of a request.
pub(super) enum Expected<'a> {
    /// It is odd enough that a lenient reader may read it in its own way.
    Unknown,
    /// It must not reach the worker.
    Refused(&'static str),
    /// It must reach the worker like this.
    Reaches { allocation: String, method: &'a [u8], target: &'a [u8], host: &'a [u8] },
}

/// Returns what must become of `bytes` as a request.
pub(super) fn expected(bytes: &[u8]) -> Expected<'_> {
    let Some(head) = Head::strict(bytes) else { return Expected::Unknown };
    // What follows on the same connection is a request of its own; if it is broken, the connection may be cut before
    // the first one is answered.
    if bytes.windows(4).position(|four| four == b"\r\n\r\n") != bytes.len().checked_sub(4) {
        return Expected::Unknown;
    }
    // Beyond some number of headers the ingress may refuse a request; beyond the default limit it need not.
    if !head.is_http11 || head.headers.len() > 90 {
        return Expected::Unknown;
    }
    if let Some(why) = ambiguous(&head) {
        return Expected::Refused(why);
    }
    let Some(host) = head.only("host") else { return Expected::Refused("no host, or several") };
    if !is_host(host) {
        return Expected::Refused("no name of a host");
    }
    // A body that is not there yet is waited for; whether the worker hears of it before is not said.
    if head.values("content-length").count() + head.values("transfer-encoding").count() > 0 {
        return Expected::Unknown;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let path = text(head.target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default());
    // A fragment is no part of a request; who sends one is read by some as if it were not there.
    if head.target.contains(&b'#') {
        return Expected::Unknown;
    }
    let allocation = format!("a{}", choose(&normal(&text(host)), &path));
    Expected::Reaches { allocation, method: head.method, target: head.target, host }
}

fn ambiguous(head: &Head<'_>) -> Option<&'static str> {
    if head.method == b"CONNECT" {
        return Some("a tunnel");
    }
    if head.values("upgrade").any(|value| !value.eq_ignore_ascii_case(b"h2c")) {
        return Some("another protocol");
    }
    if !head.target.starts_with(b"/") {
        return Some("a target which is no path");
    }
    // Chunks go before a length, as RFC 9112 has it, whatever the length says.
    if head.values("transfer-encoding").next().is_some() {
        return None;
    }
    let lengths: Vec<&[u8]> = head.values("content-length").collect();
    if lengths.windows(2).any(|two| two[0] != two[1]) {
        return Some("two lengths");
    }
    if lengths.iter().any(|length| length.is_empty() || !length.iter().all(u8::is_ascii_digit)) {
        return Some("a length that is no number");
    }
    None
}

fn is_host(host: &[u8]) -> bool {
    let is_of_host = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    !host.is_empty() && host.iter().all(is_of_host)
}

/// The host alone, in lower case.
fn normal(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(host.clone(), |(address, _)| format!("[{address}]")),
        None => host.split(':').next().unwrap_or_default().to_owned(),
    };
    name.strip_suffix('.').map_or(name.clone(), str::to_owned)
}

/// Tries every route and keeps the best.
fn choose(host: &str, path: &str) -> u64 {
    let matches = |prefix: &str| {
        let prefix = prefix.trim_end_matches('/');
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let best = |wanted: Option<&str>| {
        let found = ROUTES.iter().filter(|(of, prefix, _)| *of == wanted && matches(prefix));
        found.max_by_key(|(_, prefix, _)| prefix.trim_end_matches('/').len())
    };
    best(Some(host)).or_else(|| best(None)).map_or(0, |(_, _, allocation)| *allocation)
}
