//! Group 2: memory, tables, instances and handles.

use super::{asked, item, refused, rust};
use crate::case::{Case, Component, How, Special};
use crate::expected::{
    ANY, BUSY, COMPLETED, CORE_INSTANCES, FUEL, HANDLES, HEADERS, HOST_CALL_BYTES, MEMORIES, MEMORY, RANDOM,
    TABLE_ELEMENTS, TABLE_GROW, TABLES, TRAPPED,
};
use crate::wat::{component, framed, instances, job, running};

const OFF: &[&str] = &["feature_off"];

fn with_module(body: &str) -> Component {
    component(&format!("(component (core module {body}))"))
}

/// A job that makes handles of a resource of its own, for ever.
fn own_handles() -> Component {
    framed(
        "(type $thing (resource (rep i32)))",
        r#"(core func $new (canon resource.new $thing))
        (core module $code (import "own" "new" (func $new (param i32) (result i32)))
            (func (export "run") (result i32) (loop (drop (call $new (i32.const 1))) (br 0)) i32.const 0))
        (core instance $code (instantiate $code (with "own" (instance (export "new" (func $new))))))"#,
    )
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = memories();
    cases.extend(tables());
    cases.extend(handles());
    cases
}

fn memories() -> Vec<Case> {
    let grow = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))";
    vec![
        item(11, "grows until it gets no more, and goes on", running("(memory 1)", grow), COMPLETED),
        item(
            11,
            "grows until it gets no more, and fails",
            running("(memory 1)", &format!("{grow} unreachable")),
            MEMORY,
        ),
        item(
            11,
            "grows by everything at once",
            running("(memory 1)", "(drop (memory.grow (i32.const 65535)))"),
            COMPLETED,
        ),
        rust(11, "hog", MEMORY, &[]),
        asked(11, "/hostile/hog", &[502, 504], &["out_of_memory", "deadline_exceeded"]),
        item(12, "four memories which are too large together", instances(4, "(memory 100)"), MEMORY),
        item(12, "nine memories", instances(9, "(memory 1)"), MEMORIES),
        refused(12, "two memories in a module", with_module("(memory 1) (memory 1)"), OFF),
        item(13, "begins above the limit", running("(memory 1000)", ""), MEMORY),
        refused(13, "begins with 4 GiB", running("(memory 65536)", ""), &["too_complex"]),
        refused(
            13,
            "begins above 4 GiB",
            Component { made: "bytes", bytes: memory_beyond() },
            &["invalid_wasm"],
        ),
        refused(14, "a 64-bit memory", with_module("(memory i64 1)"), OFF),
        refused(14, "a 64-bit table", with_module("(table i64 1 funcref)"), OFF),
        refused(14, "pages of one byte", with_module("(memory 1 (pagesize 1))"), OFF),
        refused(21, "shared memory", with_module("(memory 1 1 shared)"), OFF),
        refused(
            21,
            "atomic instructions",
            with_module("(memory 1) (func (drop (i32.atomic.load (i32.const 0))))"),
            OFF,
        ),
        Case {
            row: 22,
            name: "remains of the instance before".to_owned(),
            how: How::Special(Special::Remains),
        },
        Case { row: 23, name: "every kind of request at once".to_owned(), how: How::Special(Special::Storm) },
        asked(24, "/hostile/connect-127.0.0.1:80", &[200], &["denied"]),
        asked(24, "/hostile/connect-hostile.test", &[200], &["denied"]),
    ]
}

/// A component with a module whose memory begins with 65,537 pages; no text can say this.
fn memory_beyond() -> Vec<u8> {
    let module = b"\0asm\x01\0\0\0\x05\x05\x01\0\x81\x80\x04";
    let mut bytes = b"\0asm\x0d\0\x01\0\x01".to_vec();
    bytes.push(u8::try_from(module.len()).expect("a short module"));
    bytes.extend_from_slice(module);
    bytes
}

fn tables() -> Vec<Case> {
    vec![
        item(
            15,
            "table.grow by everything",
            job(
                r#"(table 1 funcref) (func (export "run") (result i32) (i32.ne (table.grow (ref.null func) (i32.const -1)) (i32.const -1)))"#,
            ),
            TABLE_GROW,
        ),
        item(
            15,
            "table.grow for ever",
            running(
                "(table 1 funcref)",
                "(loop (drop (table.grow (ref.null func) (i32.const 1000))) (br 0))",
            ),
            FUEL,
        ),
        refused(
            15,
            "a table that begins above the limit",
            running("(table 5000000 funcref)", ""),
            &["too_complex"],
        ),
        item(
            15,
            "tables which are too large together",
            instances(4, "(table 60000 funcref)"),
            TABLE_ELEMENTS,
        ),
        item(16, "65 core instances", instances(70, ""), CORE_INSTANCES),
        item(16, "900 core instances", instances(900, ""), CORE_INSTANCES),
        refused(16, "3,000 core instances", instances(3_000, ""), &["invalid_wasm"]),
        item(16, "40 tables", instances(40, "(table 1 funcref)"), TABLES),
        refused(16, "250,000 core instances", instances(250_000, ""), &["too_complex"]),
    ]
}

fn handles() -> Vec<Case> {
    vec![
        item(
            17,
            "handles of its own, for ever",
            own_handles(),
            &[("LimitExceeded", Some("handles")), ("OutOfFuel", None)],
        ),
        rust(17, "handles-timers", HANDLES, &[]),
        rust(17, "handles-headers", HANDLES, &[]),
        rust(17, "handles-streams", HANDLES, &[]),
        rust(18, "large-write", HOST_CALL_BYTES, &[]),
        rust(18, "more-than-allowed", HOST_CALL_BYTES, &[]),
        rust(19, "random-huge", RANDOM, &[]),
        rust(19, "random-large", RANDOM, &[]),
        rust(19, "insecure-huge", RANDOM, &[]),
        rust(20, "empty-writes", BUSY, &[]),
        rust(20, "empty-flushes", BUSY, &[]),
        rust(20, "many-fields", HEADERS, &["refused"]),
        rust(20, "large-field", &[("LimitExceeded", None), ("Completed", None), ("Trapped", None)], &["Err"]),
        asked(20, "/hostile/empty-chunks", &[200, 502, 504], &[]),
        item(
            20,
            "a loop of calls which give nothing",
            running("(func $nothing)", "(loop (call $nothing) (br 0))"),
            FUEL,
        ),
        item(17, "drops a handle that is not there", dropping(7), TRAPPED),
        item(17, "drops the handle 2^32 - 1", dropping(u32::MAX), TRAPPED),
        item(16, "an element segment as large as the table", running("(table 90000 funcref)", ""), ANY),
    ]
}

/// A job that drops a handle of the host's which it was never given.
fn dropping(handle: u32) -> Component {
    framed(
        r#"(import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
        (alias export $poll "pollable" (type $pollable))"#,
        &format!(
            r#"(core func $drop (canon resource.drop $pollable))
            (core module $code (import "host" "drop" (func $drop (param i32)))
                (func (export "run") (result i32) (call $drop (i32.const {})) i32.const 0))
            (core instance $code (instantiate $code (with "host" (instance (export "drop" (func $drop))))))"#,
            i64::from(handle)
        ),
    )
}
