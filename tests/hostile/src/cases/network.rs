//! Group 4, outbound: connections that were not granted, and answers that are none.

use super::{asked, rust};
use crate::case::{Case, How, Special};
use crate::expected::COMPLETED;

const REFUSED: &[&str] = &["refused"];
const DENIED: &[&str] = &["denied"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let addresses = [
        "tcp 169.254.169.254:80",
        "tcp [fd00:ec2::254]:80",
        "tcp 127.0.0.1:22",
        "tcp [::1]:22",
        "tcp 0.0.0.0:22",
        "tcp 10.0.0.1:80",
        "tcp 192.168.0.1:80",
        "tcp 172.16.0.1:80",
        "tcp 100.64.0.1:80",
        "tcp [fe80::1]:80",
        "tcp 224.0.0.1:80",
        "tcp 93.184.215.14:80",
    ];
    cases.extend(addresses.map(|case| rust(37, case, COMPLETED, REFUSED)));
    let spellings = [
        "tcp [::ffff:127.0.0.1]:22",
        "tcp [::127.0.0.1]:22",
        "tcp [64:ff9b::7f00:1]:22",
        "tcp [2002:7f00:1::]:22",
        "tcp localhost:22",
        "tcp localhost.:22",
        "tcp 127.0.0.1:0",
    ];
    cases.extend(spellings.map(|case| rust(38, case, COMPLETED, REFUSED)));
    let paths = [
        "/hostile/connect-169.254.169.254",
        "/hostile/connect-[::1]:22",
        "/hostile/connect-[::ffff:127.0.0.1]:22",
        "/hostile/connect-2130706433",
        "/hostile/connect-0x7f.1",
        "/hostile/connect-0177.0.0.1",
        "/hostile/connect-localhost.",
        "/hostile/connect-user@localhost",
        "/hostile/connect-localhost:0",
        "/hostile/connect-canary.test",
    ];
    cases.extend(paths.map(|path| asked(38, path, &[200], DENIED)));
    cases.extend(
        ["name localhost", "name metadata.google.internal"].map(|case| rust(39, case, COMPLETED, REFUSED)),
    );
    cases.extend(
        [
            "udp 127.0.0.1:53",
            "udp 169.254.169.254:53",
            "udp 224.0.0.1:53",
            "listen 127.0.0.1:0",
            "listen 0.0.0.0:80",
        ]
        .map(|case| rust(43, case, COMPLETED, REFUSED)),
    );
    cases.push(Case {
        row: 40,
        name: "more names than may be looked up".to_owned(),
        how: How::Special(Special::Names),
    });
    cases.push(Case {
        row: 41,
        name: "redirects to where nobody may go, for two tenants".to_owned(),
        how: How::Special(Special::Redirects),
    });
    let loops = ["/loop/itself", "/loop/there"];
    cases.extend(loops.map(|path| asked(45, path, &[508], &["loop_detected"])));
    cases.extend(responses());
    cases
}

fn responses() -> Vec<Case> {
    const TOLD: &[u16] = &[200];
    // Refused by the host, so that the guest can say so; or by us, instead of the guest's answer.
    const EITHER: &[u16] = &[200, 502];
    let mut cases = vec![
        asked(46, "/hostile/status-0", EITHER, &["refused", "guest_trapped"]),
        asked(46, "/hostile/status-99", EITHER, &["refused", "guest_trapped"]),
        asked(46, "/hostile/status-1000", EITHER, &["refused", "guest_trapped"]),
        asked(46, "/hostile/status-65535", EITHER, &["refused", "guest_trapped"]),
        asked(46, "/hostile/status-101", &[101, 200, 502], &[]),
        asked(46, "/hostile/status-204", &[204], &[]),
        asked(46, "/hostile/line-break", TOLD, &["refused"]),
        asked(46, "/hostile/nul", TOLD, &["refused"]),
        asked(46, "/hostile/bad-name", TOLD, &["refused"]),
        asked(46, "/hostile/connection", TOLD, &["refused"]),
        asked(46, "/hostile/transfer-encoding", TOLD, &["refused"]),
        asked(46, "/hostile/many-headers", EITHER, &["refused", "limit_exceeded"]),
        asked(46, "/hostile/large-header", EITHER, &["refused", "limit_exceeded"]),
        asked(46, "/hostile/failure", EITHER, &[]),
        asked(46, "/hostile/fuel", EITHER, &[]),
        asked(46, "/hostile/two-lengths", EITHER, &[]),
        asked(46, "/hostile/no-number", EITHER, &[]),
        asked(46, "/hostile/trailers", TOLD, &[]),
        asked(46, "/hostile/no-answer", &[502], &[]),
        asked(47, "/hostile/keep-outparam", &[502], &[]),
    ];
    let broken = [
        (46, "/hostile/short-of-length"),
        (46, "/hostile/beyond-length"),
        (47, "/hostile/stall"),
        (47, "/hostile/half-and-trap"),
        (47, "/hostile/half-and-spin"),
        (47, "/hostile/endless"),
    ];
    cases.extend(broken.map(|(row, path)| Case {
        row,
        name: format!("GET {path}"),
        how: How::BreaksOff(path),
    }));
    cases
}
