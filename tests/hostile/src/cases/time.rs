//! Group 1: time.

use super::{asked, item, rust};
use crate::case::{Case, How, Special};
use crate::expected::{BUSY, COMPLETED, DEADLINE, EXITED, FUEL, OWN_STACK, STACK, TRAPPED};
use crate::wat::{component, framed, job, reallocating, running};

/// A job that ends itself by `wasi:cli/exit`.
fn exit(name: &str, parameter: &str, value: u32) -> crate::case::Component {
    framed(
        &format!(
            r#"(import "wasi:cli/exit@0.2.0" (instance $exit (export "{name}" (func (param {parameter})))))"#
        ),
        &format!(
            r#"(core func $end (canon lower (func $exit "{name}")))
            (core module $code (import "host" "end" (func $end (param i32)))
                (func (export "run") (result i32) (call $end (i32.const {value})) i32.const 0))
            (core instance $code (instantiate $code (with "host" (instance (export "end" (func $end))))))"#
        ),
    )
}

fn after_return(code: &str) -> crate::case::Component {
    component(&format!(
        r#"(component
            (core module $code
                (func (export "run") (result i32) i32.const 0)
                (func (export "after") (param i32) {code}))
            (core instance $code (instantiate $code))
            (func $run (result (result)) (canon lift (core func $code "run") (post-return (func $code "after"))))
            (instance $exported (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $exported)))"#
    ))
}

#[expect(clippy::too_many_lines, reason = "a table of cases reads best in one piece")]
pub(super) fn cases() -> Vec<Case> {
    let start = |code: &str| {
        job(&format!(r#"(func $first {code}) (start $first) (func (export "run") (result i32) i32.const 0)"#))
    };
    vec![
        item(1, "endless loop", running("", "(loop (br 0))"), FUEL),
        item(
            1,
            "endless chain of tail calls",
            job(r#"(func $f (result i32) return_call $f) (func (export "run") (result i32) call $f)"#),
            FUEL,
        ),
        rust(1, "spin", FUEL, &[]),
        asked(1, "/hostile/spin", &[502, 504], &["out_of_fuel", "deadline_exceeded"]),
        item(
            2,
            "memory.fill of all memory, for ever",
            running(
                "(memory 240)",
                "(loop (memory.fill (i32.const 0) (i32.const 7) (i32.const 15728640)) (br 0))",
            ),
            BUSY,
        ),
        item(
            2,
            "memory.copy of half the memory, for ever",
            running(
                "(memory 240)",
                "(loop (memory.copy (i32.const 0) (i32.const 7864320) (i32.const 7864320)) (br 0))",
            ),
            BUSY,
        ),
        item(
            2,
            "table.fill of a large table, for ever",
            running(
                "(table 90000 funcref)",
                "(loop (table.fill (i32.const 0) (ref.null func) (i32.const 90000)) (br 0))",
            ),
            BUSY,
        ),
        rust(3, "busy-poll", BUSY, &[]),
        rust(3, "yield", BUSY, &[]),
        rust(3, "clock", BUSY, &[]),
        rust(3, "random-often", BUSY, &[]),
        rust(4, "sleep", DEADLINE, &[]),
        rust(4, "sleep-day", DEADLINE, &[]),
        rust(4, "poll-nothing", TRAPPED, &[]),
        asked(4, "/hostile/sleep", &[504], &["deadline_exceeded"]),
        rust(5, "past", COMPLETED, &["came back"]),
        rust(5, "long-ago", COMPLETED, &["came back"]),
        item(
            6,
            "recursion",
            job(
                r#"(func $f (param i64) (call $f (i64.add (local.get 0) (i64.const 1)))) (func (export "run") (result i32) (call $f (i64.const 0)) i32.const 0)"#,
            ),
            STACK,
        ),
        item(
            6,
            "recursion by call_indirect",
            job(
                r#"(type $t (func)) (table 1 funcref) (elem (i32.const 0) $f) (func $f (call_indirect (type $t) (i32.const 0))) (func (export "run") (result i32) call $f i32.const 0)"#,
            ),
            STACK,
        ),
        rust(6, "recursion", OWN_STACK, &[]),
        asked(6, "/hostile/recursion", &[502], &["limit_exceeded", "guest_trapped"]),
        item(6, "recursion in the start function", start("call $first"), STACK),
        item(
            6,
            "recursion in realloc",
            reallocating("(call $again (local.get 0) (local.get 1) (local.get 2) (local.get 3))"),
            STACK,
        ),
        item(6, "endless loop in realloc", reallocating("(loop (br 0)) i32.const 0"), FUEL),
        item(7, "trap in the start function", start("unreachable"), TRAPPED),
        item(7, "endless loop in the start function", start("(loop (br 0))"), FUEL),
        item(7, "trap after the return", after_return("unreachable"), TRAPPED),
        item(7, "endless loop after the return", after_return("(loop (br 0))"), FUEL),
        rust(7, "trap", TRAPPED, &[]),
        asked(7, "/hostile/trap", &[502], &["guest_trapped"]),
        item(8, "exit with success", exit("exit", "\"status\" (result)", 0), COMPLETED),
        item(8, "exit with failure", exit("exit", "\"status\" (result)", 1), EXITED),
        item(8, "exit with the code 7", exit("exit-with-code", "\"status-code\" u8", 7), EXITED),
        item(
            8,
            "a result that is neither success nor failure",
            job(r#"(func (export "run") (result i32) i32.const 2)"#),
            TRAPPED,
        ),
        item(8, "a result of failure", job(r#"(func (export "run") (result i32) i32.const 1)"#), EXITED),
        asked(8, "/hostile/exit", &[502], &["guest_exited"]),
        Case { row: 9, name: "clients that go away".to_owned(), how: How::Special(Special::Disconnects) },
        Case {
            row: 10,
            name: "computes long, traps, and is tried again".to_owned(),
            how: How::Special(Special::CrashLoop),
        },
    ]
}
