//! Requests through a real ingress, over a real socket, to a worker which only writes down what it gets.
//!
//! The second reader here is small and strict. Where it is sure of what a request means, the ingress must see the
//! same host, the same path and the same service; where it is sure that a request is ambiguous, nothing may reach the
//! worker. And whatever was sent: what does reach the worker is unambiguous and carries no header that is ours.

mod expectation;
mod front;
mod head;

use arbitrary::{Arbitrary, Unstructured};

use expectation::{Expected, expected};
use front::exchange;
use head::Head;

pub(crate) fn run(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let request = if first % 2 == 0 { rest.to_vec() } else { composed(rest).unwrap_or_default() };
    // A head that is too large is refused; nothing else is to be learned from it.
    if request.len() > 16 << 10 || request.starts_with(b"PRI") {
        return;
    }
    let expected = expected(&request);
    let (answer, reached) = exchange(&request, !matches!(expected, Expected::Unknown));
    for one in &reached {
        check_reached(one);
    }
    check_answer(&answer);
    match expected {
        Expected::Unknown => {}
        Expected::Refused(why) => {
            assert!(reached.is_empty(), "{why}, and it reached the worker: {}", shown(&request));
        }
        Expected::Reaches { allocation, method, target, host } => {
            let why = || format!("{}\nanswer {}", shown(&request), shown(&answer));
            assert!(!reached.is_empty(), "did not reach the worker: {}", why());
            let head = Head::clear(&reached[0]).expect("checked before");
            assert_eq!(head.only("dunlin-allocation"), Some(allocation.as_bytes()), "{}", why());
            assert_eq!((head.method, head.target), (method, target), "{}", why());
            assert_eq!(head.only("host"), Some(host), "{}", why());
        }
    }
}

/// What the worker gets must have one meaning only.
fn check_reached(bytes: &[u8]) {
    const ABSENT: [&str; 8] = [
        "connection",
        "keep-alive",
        "trailer",
        "upgrade",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "expect",
    ];
    let head = Head::clear(bytes).unwrap_or_else(|| panic!("no clear head: {}", shown(bytes)));
    for name in ABSENT {
        assert_eq!(head.values(name).count(), 0, "`{name}` reached the worker: {}", shown(bytes));
    }
    // That trailers are welcome is passed on, since what was burned may be told in one; nothing else of it is.
    let codings: Vec<&[u8]> = head.values("te").collect();
    assert!(matches!(codings.as_slice(), [] | [b"trailers"]), "`te` reached the worker: {}", shown(bytes));
    let ours = head.headers.iter().filter(|(name, _)| name.starts_with("dunlin-"));
    assert_eq!(ours.count(), 1, "only the allocation is told: {}", shown(bytes));
    let length = head.values("content-length").count();
    let chunked = head.values("transfer-encoding").count();
    assert!(length + chunked <= 1, "two ways to find its end: {}", shown(bytes));
    assert_eq!(head.values("host").count(), 1, "one host: {}", shown(bytes));
    assert!(head.target.starts_with(b"/"), "a path as target: {}", shown(bytes));
}

fn check_answer(answer: &[u8]) {
    if answer.is_empty() {
        return;
    }
    assert!(answer.starts_with(b"HTTP/1."), "no HTTP: {}", shown(answer));
    assert!(answer.get(9..12) != Some(b"500"), "a 500 is our fault: {}", shown(answer));
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

const METHODS: [&str; 8] = ["GET", "POST", "HEAD", "OPTIONS", "CONNECT", "get", "PATCH", "X-ODD"];
const TARGETS: [&str; 16] = [
    "/",
    "/shop",
    "/shop/",
    "/shop/cart",
    "/shopping",
    "//shop",
    "/shop//x",
    "/shop/../api",
    "/%73hop",
    "/api?x=/shop",
    "/shop#x",
    "*",
    "http://shop.example/shop",
    "shop.example:80",
    "/api/v1/x;y",
    "/shop?",
];
const HOSTS: [&str; 14] = [
    "shop.example",
    "SHOP.example:80",
    "shop.example.",
    "other.example",
    "[::1]:80",
    "[::1",
    "user@shop.example",
    "shop.example/x",
    "shop.example, other.example",
    "",
    "127.0.0.1",
    "0x7f.1",
    "shop.example:80:81",
    "xn--shp-5qa.example",
];
const HEADERS: [&str; 20] = [
    "dunlin-allocation: a9",
    "Dunlin-Forwarded: n9",
    "dunlin-anything: x",
    "connection: close, host, x-a",
    "connection: dunlin-allocation",
    "content-length: 3",
    "content-length: 3, 3",
    "content-length: +3",
    "transfer-encoding: chunked",
    "transfer-encoding: identity",
    "transfer-encoding : chunked",
    "upgrade: websocket",
    "upgrade: h2c",
    "expect: 100-continue",
    "te: trailers",
    "cookie: a=1",
    "x-a: b\t c",
    " folded: yes",
    "host\t: other.example",
    "proxy-connection: keep-alive",
];

/// Returns a request made of pieces that mean something.
fn composed(bytes: &[u8]) -> arbitrary::Result<Vec<u8>> {
    let mut input = Unstructured::new(bytes);
    let end = if input.ratio(1_u8, 16)? { "\n" } else { "\r\n" };
    let mut request = Vec::new();
    for _ in 0..input.int_in_range(1..=2_u8)? {
        let method = *input.choose(&METHODS)?;
        let target =
            if input.ratio(1_u8, 8)? { <&str>::arbitrary(&mut input)? } else { *input.choose(&TARGETS)? };
        let version = *input.choose(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2"])?;
        request.extend(format!("{method} {target} {version}{end}").into_bytes());
        for _ in 0..*input.choose(&[1, 1, 1, 1, 0, 2_u8])? {
            request.extend(format!("Host: {}{end}", input.choose(&HOSTS)?).into_bytes());
        }
        for _ in 0..input.int_in_range(0..=4_u8)? {
            let line = if input.ratio(1_u8, 8)? {
                <&str>::arbitrary(&mut input)?
            } else {
                *input.choose(&HEADERS)?
            };
            request.extend(format!("{line}{end}").into_bytes());
        }
        request.extend(end.as_bytes());
        if bool::arbitrary(&mut input)? {
            request.extend_from_slice(input.choose(&[
                &b"abc"[..],
                b"3\r\nabc\r\n0\r\n\r\n",
                b"0\r\n\r\n",
            ])?);
        }
    }
    Ok(request)
}
