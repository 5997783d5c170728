//! Group 4, inbound: what a client sends to the ingress.

use crate::case::{Case, How};

const REFUSED: &[&str] = &["HTTP/1.1 400", "HTTP/1.1 501", "HTTP/1.1 404", "HTTP/1.1 431", "HTTP/1.1 414"];
/// Taken as one clear request, or refused.
const EITHER: &[&str] = &["HTTP/1.1 2", "HTTP/1.1 4", "HTTP/1.1 5"];

fn sent(row: u8, name: &str, text: &str, answers: &'static [&'static str]) -> Case {
    // The last request of a connection, so that what comes after it is seen to be the end.
    let bytes = text.replace('\n', "\r\n").into_bytes();
    Case { row, name: name.to_owned(), how: How::Sent(bytes, answers) }
}

#[expect(clippy::too_many_lines, reason = "a table of cases reads best in one piece")]
pub(super) fn cases() -> Vec<Case> {
    let end = "Connection: close\n\n";
    let path = "/hostile/fine";
    let long = "a".repeat(70_000);
    let many: String = (0..400).map(|number| format!("x-{number}: v\n")).collect();
    let large = format!("x: {}\n", "v".repeat(70_000));
    vec![
        sent(
            42,
            "absolute target",
            &format!("GET http://canary.test/ HTTP/1.1\nHost: hostile.test\n{end}"),
            REFUSED,
        ),
        sent(
            42,
            "CONNECT",
            &format!("CONNECT canary.test:80 HTTP/1.1\nHost: canary.test:80\n{end}"),
            REFUSED,
        ),
        sent(
            42,
            "CONNECT to the metadata service",
            &format!("CONNECT 169.254.169.254:80 HTTP/1.1\nHost: 169.254.169.254:80\n{end}"),
            REFUSED,
        ),
        sent(
            42,
            "upgrade to a web socket",
            &format!("GET {path} HTTP/1.1\nHost: a\nConnection: upgrade\nUpgrade: websocket\n\n"),
            REFUSED,
        ),
        sent(42, "two hosts", &format!("GET {path} HTTP/1.1\nHost: a\nHost: b\n{end}"), REFUSED),
        sent(42, "no host", &format!("GET {path} HTTP/1.1\n{end}"), REFUSED),
        sent(42, "a user before the host", &format!("GET {path} HTTP/1.1\nHost: user@a\n{end}"), REFUSED),
        sent(42, "a target without a slash", &format!("GET hostile HTTP/1.1\nHost: a\n{end}"), REFUSED),
        sent(
            42,
            "two lengths",
            &format!("POST {path} HTTP/1.1\nHost: a\nContent-Length: 3\nContent-Length: 4\n{end}abcd"),
            REFUSED,
        ),
        sent(
            42,
            "a length and chunks",
            &format!(
                "POST {path} HTTP/1.1\nHost: a\nContent-Length: 3\nTransfer-Encoding: chunked\n{end}0\n\n"
            ),
            EITHER,
        ),
        sent(
            42,
            "chunks that are not last",
            &format!("POST {path} HTTP/1.1\nHost: a\nTransfer-Encoding: chunked, identity\n{end}0\n\n"),
            REFUSED,
        ),
        sent(
            42,
            "a chunk of 2^64 bytes",
            &format!("POST {path} HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n{end}fffffffffffffffff\n"),
            &["HTTP/1.1 ", ""],
        ),
        sent(42, "a space before the colon", &format!("GET {path} HTTP/1.1\nHost : a\n{end}"), REFUSED),
        sent(42, "a folded header", &format!("GET {path} HTTP/1.1\nHost: a\nx: b\n c\n{end}"), REFUSED),
        sent(42, "a NUL in a header", &format!("GET {path} HTTP/1.1\nHost: a\nx: b\0c\n{end}"), REFUSED),
        sent(
            42,
            "headers of the platform",
            &format!("GET {path} HTTP/1.1\nHost: a\nDunlin-Allocation: a1\nDunlin-Forwarded: node-9\n{end}"),
            &["HTTP/1.1 200"],
        ),
        sent(
            42,
            "a connection header that names the host",
            &format!("GET {path} HTTP/1.1\nHost: a\nConnection: close, host, dunlin-allocation\n\n"),
            &["HTTP/1.1 200"],
        ),
        sent(44, "a path of 70,000 bytes", &format!("GET /{long} HTTP/1.1\nHost: a\n{end}"), REFUSED),
        sent(44, "400 headers", &format!("GET {path} HTTP/1.1\nHost: a\n{many}{end}"), REFUSED),
        sent(44, "a header of 70,000 bytes", &format!("GET {path} HTTP/1.1\nHost: a\n{large}{end}"), REFUSED),
        sent(44, "no HTTP at all", "\0\x01\x02 hello\n\n\n", &["HTTP/1.1 400", ""]),
        sent(44, "a hello of TLS", "\x16\x03\x01\0\x05\x01\0\0\x01\0", &["HTTP/1.1 400", ""]),
        sent(
            44,
            "an HTTP/2 preface and then nonsense",
            "PRI * HTTP/2.0\n\nSM\n\nnonsense follows here and is no frame at all",
            &["", "\0"],
        ),
    ]
}
