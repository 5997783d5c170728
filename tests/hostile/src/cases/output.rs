//! Group 3: output, files and what is not the guest's to know.

use super::{asked, item, refused, rust};
use crate::case::{Case, Component, How, Special};
use crate::expected::{BUSY_OR_TRAPPED, COMPLETED, COMPLETED_OR_TRAPPED, TRAPPED};
use crate::wat::logging;

const REFUSED: &[&str] = &["refused"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        rust(25, "flood", &[("Completed", None), ("OutOfFuel", None), ("DeadlineExceeded", None)], &[]),
        rust(25, "one-line", &[("Completed", None), ("OutOfFuel", None), ("DeadlineExceeded", None)], &[]),
        asked(25, "/hostile/flood", &[200, 502, 504], &[]),
        rust(26, "controls", COMPLETED, &["came back"]),
        item(26, "a log line that is no UTF-8", logging((0, 4), (4, 4)), TRAPPED),
        item(26, "a log line with control characters", logging((4, 4), (8, 5)), COMPLETED),
        rust(27, "stdin", COMPLETED, &["Ok(true)"]),
        rust(27, "terminal", COMPLETED, &["terminal: false"]),
        rust(28, "environment", COMPLETED, &["CASE=environment"]),
        asked(28, "/hostile/environment", &[200], &["DUNLIN_"]),
        rust(29, "open /run/secrets/canary", COMPLETED, REFUSED),
        rust(29, "open /proc/self/environ", COMPLETED, REFUSED),
        rust(30, "preopens", COMPLETED, &["folders: 0"]),
    ];
    let forms = [
        "open /etc/passwd",
        "open ../../../../etc/passwd",
        "open a/../../b",
        "open //etc//passwd",
        "open /etc/passwd/",
        "open .",
        "open /",
        "open ",
        "open NUL",
        "open LONG",
        "open WIDE",
        "open ~/.ssh/id_rsa",
        "open /dev/mem",
        "open /proc/1/mem",
        "list /",
        "list .",
    ];
    cases.extend(forms.map(|case| rust(30, case, COMPLETED, REFUSED)));
    let writes = [
        (31, "link /etc/passwd"),
        (31, "rename /etc/passwd"),
        (31, "remove /etc/passwd"),
        (32, "truncate /etc/passwd"),
    ];
    cases.extend(writes.map(|(row, case)| rust(row, case, COMPLETED, REFUSED)));
    let fills = ["create /tmp/x", "create x", "make-folder x"];
    cases.extend(fills.map(|case| rust(33, case, COMPLETED, REFUSED)));
    cases.extend(preview1());
    cases.push(Case {
        row: 35,
        name: "words that would be metrics".to_owned(),
        how: How::Special(Special::Labels),
    });
    cases.push(Case {
        row: 36,
        name: "clocks read without a pause".to_owned(),
        how: How::Special(Special::Timers),
    });
    cases
}

/// Programs of WASI preview 1: the adapter that makes components of them is inside the guest, and the host has none.
fn preview1() -> Vec<Case> {
    let module = |body: &str| {
        let text = format!(
            r#"(module
                (import "wasi_snapshot_preview1" "fd_renumber" (func $renumber (param i32 i32) (result i32)))
                (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
                (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
                (import "wasi_snapshot_preview1" "path_open"
                    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
                (memory (export "memory") 2)
                (data (i32.const 1024) "came back")
                (data (i32.const 2048) "\00\04\00\00\09\00\00\00")
                (func (export "_start") {body}))"#
        );
        wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
    };
    let wrapped = |name: &str, body: &str, ends| {
        let component = dunlin_admission::componentize(&module(body));
        let bytes = component.unwrap_or_else(|error| panic!("{name}: {error}"));
        item(34, name, Component { made: "preview 1", bytes }, ends)
    };
    let says = "(drop (call $write (i32.const 1) (i32.const 2048) (i32.const 1) (i32.const 4096)))";
    let open = "(drop (call $open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 0)
        (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 4096)))";
    vec![
        wrapped(
            "renumbers standard input and output, for ever",
            "(loop (drop (call $renumber (i32.const 1) (i32.const 0))) (drop (call $renumber (i32.const 0) (i32.const 1))) (br 0))",
            BUSY_OR_TRAPPED,
        ),
        wrapped(
            "renumbers descriptors that are not there",
            &format!(
                "(drop (call $renumber (i32.const 7) (i32.const 1))) (drop (call $renumber (i32.const -1) (i32.const -1))) \
                 (drop (call $renumber (i32.const 1) (i32.const 0x7fffffff))) {says}"
            ),
            COMPLETED_OR_TRAPPED,
        ),
        wrapped(
            "renumbers a descriptor to itself, closes it twice and writes",
            &format!(
                "(drop (call $renumber (i32.const 1) (i32.const 1))) (drop (call $close (i32.const 1))) \
                 (drop (call $close (i32.const 1))) {says}"
            ),
            COMPLETED_OR_TRAPPED,
        ),
        wrapped(
            "opens files and never closes one, for ever",
            &format!("(loop {open} (br 0))"),
            BUSY_OR_TRAPPED,
        ),
        refused(
            34,
            "a module of preview 1 as it is",
            Component { made: "preview 1", bytes: module("nop") },
            &["core_module"],
        ),
    ]
}
