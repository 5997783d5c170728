//! What an instance asks of the host: how often, how much at once, and what it costs.

use dunlin_host::{BYTES_PER_FUEL, CALL_FUEL};
use dunlin_model::{Bytes, Limits, Outcome};

use crate::support::{CLOCK, LIMITS, Rig, hits, job_of, run, times};

const NOW: &str = r#"(import "host" "now" (func $now (result i64)))"#;

fn clock_calls(count: u32) -> String {
    job_of(CLOCK, NOW, &times(count, "(drop (call $now))"))
}

/// `get-random-bytes` as `random` of `host`.
const RANDOM: &str = r#"
    (import "wasi:random/random@0.2.0"
        (instance $random (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
    (core module $room
        (memory (export "memory") 20)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0)))
    (core instance $room (instantiate $room))
    (core func $get (canon lower (func $random "get-random-bytes")
        (memory $room "memory") (realloc (func $room "realloc"))))
    (core instance $host (export "random" (func $get)))"#;

fn random(bytes: u64) -> String {
    let core = r#"(import "host" "random" (func $random (param i64 i32)))"#;
    job_of(RANDOM, core, &format!("(call $random (i64.const {bytes}) (i32.const 1000000))"))
}

#[tokio::test]
async fn random_bytes_are_bounded() {
    let hit = hits(&random((64 << 10) + 1), LIMITS, "random_bytes").await;
    assert_eq!((hit.value.as_str(), hit.observed.as_str()), ("64KiB", "65537B"));
}

/// Logs a text of so many bytes.
fn log(bytes: u32) -> String {
    let imports = r#"
        (import "wasi:logging/logging@0.1.0-draft" (instance $logging
            (type $names (enum "trace" "debug" "info" "warn" "error" "critical"))
            (export "level" (type $level (eq $names)))
            (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
        (core module $room (memory (export "memory") 20))
        (core instance $room (instantiate $room))
        (core func $log (canon lower (func $logging "log") (memory $room "memory")))
        (core instance $host (export "log" (func $log)))"#;
    let core = r#"(import "host" "log" (func $log (param i32 i32 i32 i32 i32)))"#;
    let call =
        format!("(call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const {bytes}))");
    job_of(imports, core, &call)
}

#[tokio::test]
async fn what_one_call_copies_from_the_guest_is_bounded() {
    let limits = Limits { host_call_bytes: Bytes(64 << 10), ..LIMITS };
    let hit = hits(&log(70_000), limits, "host_call_bytes").await;
    assert_eq!(hit.value, "64KiB");
}

#[tokio::test]
async fn calls_beyond_the_rate_are_slowed_down_and_nothing_else() {
    let limits = Limits { host_calls: 500_000, host_call_burst: 1_000, ..LIMITS };
    let rig = Rig::new();
    let job = rig.job(&wat::parse_str(clock_calls(1_000_000)).unwrap(), limits).await;
    let end = run(&job).await;
    assert_eq!((end.outcome, end.host.calls), (Outcome::Completed, 1_000_000));
    assert!(job.usage().limit_hits["host_calls"] > 0);
}

#[tokio::test]
async fn every_call_and_every_byte_costs_fuel() {
    let rig = Rig::new();
    let burned = async |component: String| {
        let job = rig.job(&wat::parse_str(component).unwrap(), LIMITS).await;
        let end = run(&job).await;
        assert_eq!(end.outcome, Outcome::Completed);
        (end.fuel.0, end.host)
    };
    let ((none, _), (some, host)) = (burned(clock_calls(1)).await, burned(clock_calls(1_001)).await);
    assert_eq!(host.calls, 1_001);
    assert!((CALL_FUEL..CALL_FUEL + 20).contains(&((some - none) / 1_000)), "{none} {some}");
    let ((none, _), (some, host)) = (burned(random(0)).await, burned(random(64 << 10)).await);
    assert_eq!(some - none, (64 << 10) / BYTES_PER_FUEL);
    assert_eq!(host.bytes, Bytes(64 << 10));
}

#[tokio::test]
async fn empty_calls_run_out_of_fuel_like_any_other_work() {
    let limits = Limits { fuel: dunlin_model::Fuel(10_000_000), ..LIMITS };
    hits(&clock_calls(100_000), limits, "fuel").await;
}

#[tokio::test]
async fn calls_within_the_burst_do_not_wait_and_beyond_it_do() {
    let limits = Limits { host_calls: 200_000, host_call_burst: 50_000, ..LIMITS };
    let rig = Rig::new();
    let within = rig.job(&wat::parse_str(clock_calls(40_000)).unwrap(), limits).await;
    assert_eq!(run(&within).await.outcome, Outcome::Completed);
    assert_eq!(within.usage().limit_hits.get("host_calls"), None);
    let beyond = rig.job(&wat::parse_str(clock_calls(500_000)).unwrap(), limits).await;
    for count in 1..=2 {
        let end = run(&beyond).await;
        assert_eq!((end.outcome, end.host.calls), (Outcome::Completed, 500_000));
        // All but the burst came at the rate, up to the last slice of time.
        assert!(end.wall.0 >= 1_000, "{}", end.wall);
        assert!(beyond.usage().limit_hits["host_calls"] >= count);
    }
}

/// Writes so many bytes to standard output in one call.
fn write(bytes: u32) -> String {
    let imports = r#"
        (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
        (alias export $error "error" (type $error))
        (import "wasi:io/streams@0.2.0" (instance $streams
            (export "output-stream" (type $output (sub resource)))
            (alias outer 1 $error (type $outer))
            (export "error" (type $error (eq $outer)))
            (type $failure (variant (case "last-operation-failed" (own $error)) (case "closed")))
            (export "stream-error" (type $stream-error (eq $failure)))
            (export "[method]output-stream.write" (func
                (param "self" (borrow $output)) (param "contents" (list u8))
                (result (result (error $stream-error)))))))
        (alias export $streams "output-stream" (type $output))
        (import "wasi:cli/stdout@0.2.0" (instance $stdout
            (alias outer 1 $output (type $outer))
            (export "output-stream" (type $output (eq $outer)))
            (export "get-stdout" (func (result (own $output))))))
        (core module $room (memory (export "memory") 20))
        (core instance $room (instantiate $room))
        (core func $get (canon lower (func $stdout "get-stdout")))
        (core func $write (canon lower
            (func $streams "[method]output-stream.write") (memory $room "memory")))
        (core instance $host (export "get" (func $get)) (export "write" (func $write)))"#;
    let core = r#"
        (import "host" "get" (func $get (result i32)))
        (import "host" "write" (func $write (param i32 i32 i32 i32)))"#;
    job_of(
        imports,
        core,
        &format!("(call $write (call $get) (i32.const 64) (i32.const {bytes}) (i32.const 0))"),
    )
}

#[tokio::test]
async fn no_more_is_written_at_once_than_the_limit_says() {
    let hit = hits(&write((64 << 10) + 1), LIMITS, "write").await;
    assert_eq!((hit.value.as_str(), hit.observed.as_str()), ("64KiB", "65537B"));
    let rig = Rig::new();
    let job = rig.job(&wat::parse_str(write(64 << 10)).unwrap(), LIMITS).await;
    let end = run(&job).await;
    assert_eq!((end.outcome, end.output.len()), (Outcome::Completed, 64 << 10));
}
