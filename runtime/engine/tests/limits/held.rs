//! What an instance holds: memory, tables, core instances, handles, stack.

use dunlin_model::{Bytes, Limits, Outcome};

use crate::support::{CLOCK, LIMITS, Rig, allocation, hits, job_of, run, times};

/// Returns a job with so many more instances of a core module that has `contents`.
fn with_modules(count: usize, contents: &str) -> String {
    let instances = "(core instance (instantiate $part))\n".repeat(count);
    job_of(&format!("(core module $part {contents}) {instances} (core instance $host)"), "", "")
}

#[tokio::test]
async fn memory_is_summed_over_all_memories() {
    // Each of the three would fit alone: 6.25 MiB of 16.
    let hit = hits(&with_modules(3, "(memory 100)"), LIMITS, "memory").await;
    assert_eq!((hit.value.as_str(), hit.observed.as_str()), ("16MiB", "19200KiB"));
}

#[tokio::test]
async fn memory_that_is_refused_is_minus_one_to_the_guest_and_counted() {
    let grow = "(drop (memory.grow (i32.const 60000)))";
    let component = wat::parse_str(job_of("", "(memory 1)", grow)).unwrap();
    let rig = Rig::new();
    let job = rig.job(&component, LIMITS).await;
    let end = run(&job).await;
    assert_eq!((end.outcome, end.memory), (Outcome::Completed, Bytes(64 << 10)));
    assert_eq!(job.usage().limit_hits["memory"], 1);
}

#[tokio::test]
async fn table_elements_are_summed_over_all_tables() {
    let hit = hits(&with_modules(3, "(table 40000 funcref)"), LIMITS, "table_elements").await;
    assert_eq!((hit.value.as_str(), hit.observed.as_str()), ("100000", "120000"));
}

#[tokio::test]
async fn core_instances_are_counted() {
    let hit = hits(&with_modules(64, ""), LIMITS, "core_instances").await;
    assert_eq!((hit.value.as_str(), hit.observed.as_str()), ("64", "65"));
}

#[tokio::test]
async fn memories_are_counted() {
    let hit = hits(&with_modules(9, "(memory 0)"), LIMITS, "memories").await;
    assert_eq!((hit.value.as_str(), hit.observed.as_str()), ("8", "9"));
}

#[tokio::test]
async fn tables_are_counted() {
    let hit = hits(&with_modules(33, "(table 0 funcref)"), LIMITS, "tables").await;
    assert_eq!((hit.value.as_str(), hit.observed.as_str()), ("32", "33"));
}

#[tokio::test]
async fn as_many_as_a_manifest_can_ask_for_can_be_had() {
    let most = Limits::MAXIMUM;
    let limits = Limits {
        core_instances: most.core_instances,
        memories: most.memories,
        tables: most.tables,
        ..LIMITS
    };
    let rig = Rig::new();
    for component in [
        with_modules(most.core_instances as usize - 1, ""),
        with_modules(most.memories as usize, "(memory 0)"),
        with_modules(most.tables as usize, "(table 0 funcref)"),
    ] {
        let job = rig.job(&wat::parse_str(component).unwrap(), limits).await;
        assert_eq!(run(&job).await.outcome, Outcome::Completed);
    }
    let limits = Limits { table_elements: most.table_elements, ..LIMITS };
    let component = wat::parse_str(with_modules(1, "(table 1000000 funcref)")).unwrap();
    assert_eq!(run(&rig.job(&component, limits).await).await.outcome, Outcome::Completed);
}

#[tokio::test]
async fn a_recursion_without_end_hits_the_stack() {
    let core = "(func $deeper (param i32) (result i32)
        (i32.add (call $deeper (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))";
    let component = job_of("", core, "(drop (call $deeper (i32.const 0)))");
    let hit = hits(&component, LIMITS, "stack").await;
    assert_eq!(hit.value, "512KiB");
}

#[tokio::test]
async fn handles_of_the_host_are_bounded() {
    let imports = r#"
        (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
            (alias outer 1 $pollable (type $outer))
            (export "pollable" (type (eq $outer)))
            (export "subscribe-duration" (func (param "when" u64) (result (own 1))))))
        (core func $subscribe (canon lower (func $clock "subscribe-duration")))
        (core instance $host (export "subscribe" (func $subscribe)))"#;
    let core = r#"(import "host" "subscribe" (func $subscribe (param i64) (result i32)))"#;
    let component = job_of(imports, core, &times(20_000, "(drop (call $subscribe (i64.const 1)))"));
    let hit = hits(&component, LIMITS, "handles").await;
    assert_eq!((hit.value.as_str(), hit.observed.as_str()), ("10000", "10001"));
}

#[tokio::test]
async fn handles_of_the_guests_own_are_bounded_too() {
    let imports = "
        (type $thing (resource (rep i32)))
        (core func $make (canon resource.new $thing))
        (core instance $host (export \"make\" (func $make)))";
    let core = r#"(import "host" "make" (func $make (param i32) (result i32)))"#;
    let component = job_of(imports, core, &times(20_000, "(drop (call $make (i32.const 1)))"));
    let hit = hits(&component, LIMITS, "handles").await;
    assert_eq!(hit.value, "10000");
}

#[tokio::test]
async fn the_host_has_stack_left_where_a_guest_has_none() {
    // Each level calls the host, also the last one before there is no more stack.
    let core = r#"(import "host" "now" (func $now (result i64)))
        (func $deeper (param i32) (result i32)
            (drop (call $now))
            (i32.add (call $deeper (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))"#;
    let component = job_of(CLOCK, core, "(drop (call $deeper (i32.const 0)))");
    let hit = hits(&component, LIMITS, "stack").await;
    assert_eq!(hit.to_string(), "limit `stack` is 512KiB, observed more");
}

#[test]
fn a_guest_is_not_given_more_than_its_environment_may_hold() {
    let given = |bytes: usize| {
        let mut allocation = allocation(b"", LIMITS, true);
        // One byte each for the names.
        let spec = std::sync::Arc::make_mut(&mut allocation.spec);
        spec.environment.insert("A".to_owned(), "x".repeat(1 << 10));
        let config = &mut spec.capabilities.config;
        config.insert("b".to_owned(), "x".repeat(bytes - (1 << 10) - 2));
        dunlin_engine::check_environment(&allocation)
    };
    assert_eq!(given(64 << 10), Ok(()));
    let refused = given((64 << 10) + 1).unwrap_err();
    assert!(refused.to_string().contains("limit `environment` is 64KiB, observed 65537B"), "{refused}");
}
