//! How much an instance computes, and how long it takes.

use dunlin_model::{DurationMs, Fuel, FuelRate, Limits, Outcome};

use crate::support::{CLOCK, LIMITS, Rig, hits, job_of, run, times};

/// Computes for ever.
fn spin() -> String {
    job_of("", "", "(loop $again (br $again))")
}

#[tokio::test]
async fn a_guest_that_burns_all_its_fuel_is_ended() {
    let limits = Limits { fuel: Fuel(5_000_000), ..LIMITS };
    let hit = hits(&spin(), limits, "fuel").await;
    assert_eq!(hit.value, "5M");
}

#[tokio::test]
async fn a_guest_that_takes_too_long_is_ended() {
    let limits = Limits { fuel: Limits::MAXIMUM.fuel, deadline: DurationMs(100), ..LIMITS };
    let hit = hits(&spin(), limits, "deadline").await;
    assert_eq!(hit.value, "100ms");
}

/// A component of two parts, one of which hands strings of 128 MiB to the other for ever.
const TWO_PARTS: &str = r#"(component
    (component $taker
        (core module $module
            (memory (export "memory") 2064)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
            (func (export "take") (param i32 i32)))
        (core instance $instance (instantiate $module))
        (func (export "take") (param "value" string)
            (canon lift (core func $instance "take")
                (memory $instance "memory") (realloc (func $instance "realloc")))))
    (component $giver
        (import "take" (func $take (param "value" string)))
        (core module $libc (memory (export "memory") 2064))
        (core instance $libc (instantiate $libc))
        (core func $lowered (canon lower (func $take) (memory $libc "memory")))
        (core module $module
            (import "host" "take" (func $take (param i32 i32)))
            (func (export "run") (result i32)
                (loop $again (call $take (i32.const 0) (i32.const 134217728)) (br $again))
                unreachable))
        (core instance $instance (instantiate $module
            (with "host" (instance (export "take" (func $lowered))))))
        (func (export "run") (result (result)) (canon lift (core func $instance "run"))))
    (instance $taker (instantiate $taker))
    (instance $giver (instantiate $giver (with "take" (func $taker "take"))))
    (instance $exported (export "run" (func $giver "run")))
    (export "wasi:cli/run@0.2.0" (instance $exported)))"#;

#[tokio::test]
async fn a_guest_whose_parts_hand_each_other_long_strings_is_ended_too() {
    let limits = Limits { memory: Limits::MAXIMUM.memory, deadline: DurationMs(100), ..LIMITS };
    let job = Rig::new().job(&wat::parse_str(TWO_PARTS).unwrap(), limits).await;
    let end = run(&job).await;
    assert_eq!(end.outcome, Outcome::DeadlineExceeded { limit: limits.deadline });
    // A slice of fuel lasts for so many strings that they take far longer.
    assert!(end.wall.0 < 5_000, "{}", end.wall);
}

#[tokio::test]
async fn a_guest_beyond_its_fuel_rate_waits_and_is_counted() {
    // It burns a burst of 10 M, and then 20 M more at 100 M/s; faster than any of them it could go.
    let limits = Limits { fuel_rate: FuelRate(100_000_000), fuel_burst: Fuel(10_000_000), ..LIMITS };
    let limits = Limits { fuel: Fuel(30_000_000), ..limits };
    let (rig, component) = (Rig::new(), wat::parse_str(spin()).unwrap());
    let job = rig.job(&component, limits).await;
    let end = run(&job).await;
    assert_eq!(end.outcome, Outcome::OutOfFuel { limit: limits.fuel });
    assert!(job.usage().limit_hits.contains_key("fuel_rate"), "{:?}", job.usage());
    assert!(end.wall.0 >= 100, "{}", end.wall);
}

#[tokio::test]
async fn the_same_work_burns_the_same_fuel_a_thousand_times() {
    let core = r#"(import "host" "now" (func $now (result i64))) (memory 1)"#;
    let body = "(drop (call $now)) (drop (memory.grow (i32.const 1)))";
    // The memory is grown until there is no more, and it is computed for longer than a slice of fuel lasts.
    let component = job_of(CLOCK, core, &format!("{}{}", times(300, body), times(1_000_000, "")));
    let component = wat::parse_str(component).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    // Two engines, as two worker processes have.
    for _ in 0..2 {
        let rig = Rig::new();
        let job = rig.job(&component, LIMITS).await;
        for _ in 0..500 {
            let end = run(&job).await;
            assert_eq!(end.outcome, Outcome::Completed);
            seen.insert((end.fuel, end.host.calls));
        }
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[tokio::test]
async fn a_guest_within_its_burst_does_not_wait_and_beyond_it_does() {
    let limits = Limits { fuel_rate: FuelRate(100_000_000), fuel_burst: Fuel(200_000_000), ..LIMITS };
    let component = wat::parse_str(job_of("", "", &times(30_000_000, ""))).unwrap();
    let rig = Rig::new();
    let job = rig.job(&component, limits).await;
    let first = run(&job).await;
    assert!((100_000_000..200_000_000).contains(&first.fuel.0), "{}", first.fuel);
    assert_eq!(job.usage().limit_hits.get("fuel_rate"), None, "it had saved up enough");
    let second = run(&job).await;
    assert_eq!((second.outcome, second.fuel), (Outcome::Completed, first.fuel));
    // While the first went on, it earned; but not as much as the second lacks unless that took a second.
    let hits = job.usage().limit_hits.get("fuel_rate").copied().unwrap_or(0);
    assert!(hits > 0 || first.wall.0 + second.wall.0 > 400, "{hits} {} {}", first.wall, second.wall);
}
