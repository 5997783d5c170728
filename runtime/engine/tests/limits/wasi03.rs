//! Guests of WASI 0.3: their own engine, the same limits.

use std::time::{Duration, Instant};

use bytes::Bytes as Buffer;
use dunlin_compiled::CodeKind;
use dunlin_engine::{CompileError, Failure, Item, ItemEnd, Job, LoadError, Service};
use dunlin_guest_artifacts::{HELLO, WASI3_COMMAND, WASI3_SERVICE};
use dunlin_model::{Bytes, DurationMs, Fuel, FuelRate, LimitHit, Limits, Metering, Outcome};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};

use crate::support::{LIMITS, Rig, job_of};

const WASI03: CodeKind = CodeKind { metering: Metering::Fuel, wasi03: true };

async fn service(limits: Limits) -> Service {
    Rig::new().service_of_kind(WASI3_SERVICE, limits, WASI03).await
}

async fn job(limits: Limits) -> Job {
    Rig::new().job_of_kind(WASI3_COMMAND, limits, WASI03).await
}

async fn run(job: &Job, case: &str) -> ItemEnd {
    let item = Item { number: 0, arguments: vec![case.to_owned()], input: None };
    job.run_item(item).await
}

fn post(path: &str, body: &[u8]) -> Request<Full<Buffer>> {
    let request = Request::post(format!("http://guest.test{path}")).header("host", "guest.test");
    request.body(Full::new(Buffer::copy_from_slice(body))).unwrap()
}

async fn text(response: Response<dunlin_engine::GuestBody>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn ended(service: &Service, path: &str) -> Outcome {
    match service.handle(post(path, b"")).await.map(drop) {
        Err(Failure::Ended(outcome, _)) => outcome,
        other => panic!("{path} should have ended, but: {other:?}"),
    }
}

#[tokio::test]
async fn a_service_answers_and_echoes_what_it_is_sent() {
    let service = service(LIMITS).await;
    let response = service.handle(post("/", b"")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let greeting = text(response).await;
    assert!(greeting.starts_with("hello from tests/app/guest on node-1"), "{greeting}");
    let body: Vec<u8> = (0..=u8::MAX).cycle().take(3_000_000).collect();
    for path in ["/echo", "/pass"] {
        let response = service.handle(post(path, &body)).await.unwrap();
        let echoed = response.into_body().collect().await.unwrap().to_bytes();
        assert!(echoed == body, "{path}: {} bytes of {} came back", echoed.len(), body.len());
    }
    let response = service.handle(post("/trailers", b"")).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["checksum"], "seven");
    assert_eq!(body.to_bytes(), "a body\n");
    let usage = service.usage();
    assert_eq!(usage.outcomes.get("Completed"), Some(&4), "{usage:?}");
    assert!(usage.fuel > Fuel(0) && usage.host.calls > 0, "{usage:?}");
}

#[tokio::test]
async fn what_a_guest_waits_for_at_the_same_time_takes_no_longer_than_one_of_it() {
    let service = service(LIMITS).await;
    let started = Instant::now();
    assert_eq!(text(service.handle(post("/tasks", b"")).await.unwrap()).await, "all done\n");
    // One of them takes half a second, ten one after the other five.
    let took = started.elapsed();
    assert!((500..4_500).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test]
async fn the_same_limits_bind_a_service() {
    let fuel = Limits { fuel: Fuel(50_000_000), ..LIMITS };
    assert_eq!(ended(&service(fuel).await, "/spin").await, Outcome::OutOfFuel { limit: fuel.fuel });
    let memory = Limits { memory: Bytes(8 << 20), ..LIMITS };
    assert!(matches!(ended(&service(memory).await, "/hog").await, Outcome::OutOfMemory { .. }));
    let deadline = Limits { deadline: DurationMs(200), ..LIMITS };
    let exceeded = Outcome::DeadlineExceeded { limit: deadline.deadline };
    assert_eq!(ended(&service(deadline).await, "/sleep").await, exceeded);
    let Outcome::LimitExceeded { hit } = ended(&service(LIMITS).await, "/handles").await else {
        panic!("it should run out of handles")
    };
    // Fewer than others may have, since some of them hold a stack.
    assert_eq!((hit.limit.as_str(), hit.value.as_str()), ("handles", "1000"), "{hit}");
    let trapped = ended(&service(LIMITS).await, "/trap").await;
    assert!(matches!(trapped, Outcome::Trapped { .. }), "{trapped}");
}

#[tokio::test]
async fn bodies_are_bound_both_ways() {
    let limits = Limits { request_body: Bytes(1_000), response_body: Bytes(100), ..LIMITS };
    let service = service(limits).await;
    let mut announced = post("/echo", &[b'x'; 1_001]);
    announced.headers_mut().insert("content-length", 1_001.into());
    let refused = service.handle(announced).await.map(drop).unwrap_err();
    assert!(
        matches!(&refused, Failure::TooLarge(LimitHit { limit, .. }) if limit == "request_body"),
        "{refused:?}"
    );
    for path in ["/echo", "/pass"] {
        let is_cut = match service.handle(post(path, &[b'x'; 101])).await {
            Ok(response) => response.into_body().collect().await.is_err(),
            Err(failure) => matches!(failure, Failure::ResponseTooLarge(_)),
        };
        assert!(is_cut, "{path} sent more than it may");
    }
}

#[tokio::test]
async fn a_response_whose_guest_perishes_is_seen_to_be_broken() {
    let service = service(LIMITS).await;
    let response = service.handle(post("/half", b"")).await.unwrap();
    let error = response.into_body().collect().await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("ended before its response"), "{error}");
    let failure = service.handle(post("/drop", b"")).await.map(drop).unwrap_err();
    assert!(
        matches!(&failure, Failure::NoResponse(reason) if reason.contains("no answer today")),
        "{failure:?}"
    );
}

#[tokio::test]
async fn an_instance_ends_with_its_client() {
    let service = service(LIMITS).await;
    drop(service.handle(post("/half", b"")).await.unwrap());
    let asked = service.handle(post("/sleep", b""));
    assert!(tokio::time::timeout(Duration::from_millis(100), asked).await.is_err());
    let all_ended = async {
        while service.usage().instances < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all_ended).await.unwrap();
    let usage = service.usage();
    assert_eq!(usage.outcomes.get("Cancelled"), Some(&2), "{usage:?}");
}

#[tokio::test]
async fn a_program_runs_and_its_end_is_told() {
    let job = job(LIMITS).await;
    let end = run(&job, "greet").await;
    assert_eq!((end.outcome, end.output.as_str()), (Outcome::Completed, "hello from WASI 0.3\n"));
    assert!(end.fuel > Fuel(0) && end.memory > Bytes(0) && end.host.calls > 0);
    assert_eq!(run(&job, "complain").await.outcome, Outcome::Exited { code: 1 });
    assert_eq!(run(&job, "exit").await.outcome, Outcome::Exited { code: 7 });
    assert!(matches!(run(&job, "trap").await.outcome, Outcome::Trapped { .. }));
    // Files and the network are not there, whatever others are granted.
    assert_eq!(run(&job, "reach").await.output, "folders 0, names false, tcp false, udp false\n");
    assert_eq!(run(&job, "random").await.output, format!("{} bytes\n", LIMITS.random_bytes.0));
}

#[tokio::test]
async fn a_program_gets_its_input() {
    let job = job(LIMITS).await;
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    std::fs::write(&input, "line\n".repeat(5_000)).unwrap();
    let item = Item { number: 0, arguments: vec!["cat".to_owned()], input: Some(input) };
    let end = job.run_item(item).await;
    assert_eq!((end.outcome, end.output), (Outcome::Completed, "line\n".repeat(5_000)));
}

#[tokio::test]
async fn the_same_limits_bind_a_program() {
    let limits =
        Limits { fuel: Fuel(50_000_000), memory: Bytes(8 << 20), deadline: DurationMs(5_000), ..LIMITS };
    let tight = job(limits).await;
    assert_eq!(run(&tight, "spin").await.outcome, Outcome::OutOfFuel { limit: limits.fuel });
    assert!(matches!(run(&tight, "hog").await.outcome, Outcome::OutOfMemory { .. }));
    // It computes nothing to speak of, and makes the host work.
    let end = run(&tight, "yield").await;
    assert_eq!(end.outcome, Outcome::OutOfFuel { limit: limits.fuel });
    assert!(end.host.calls > 10_000, "{:?}", end.host);
    let hasty = job(Limits { deadline: DurationMs(200), ..LIMITS }).await;
    let exceeded = Outcome::DeadlineExceeded { limit: DurationMs(200) };
    assert_eq!(run(&hasty, "sleep").await.outcome, exceeded);
}

#[tokio::test]
async fn it_can_be_metered_by_time() {
    let rig = Rig::new();
    rig.set_processor_rate(FuelRate(1_000_000_000));
    let limits = Limits { fuel: Fuel(100_000_000), ..LIMITS };
    let kind = CodeKind { metering: Metering::Time, wasi03: true };
    let job = rig.job_of_kind(WASI3_COMMAND, limits, kind).await;
    assert_eq!(run(&job, "spin").await.outcome, Outcome::OutOfFuel { limit: limits.fuel });
}

#[tokio::test]
async fn who_is_of_which_version_is_for_the_component_to_say() {
    for (component, kind) in [(WASI3_COMMAND, CodeKind::from(Metering::Fuel)), (HELLO, WASI03)] {
        let refused = dunlin_engine::compile_as(component, kind).unwrap_err();
        assert!(matches!(&refused, CompileError::Refused(_)), "{refused}");
    }
    let rig = Rig::new();
    let component = wat::parse_str(job_of("", "", "")).unwrap();
    let code = dunlin_engine::compile_as(&component, Metering::Fuel).unwrap();
    // Even where an agent has kept it under the wrong name.
    let refused = rig.load_code(&code, WASI03, &component).await.map(drop).unwrap_err();
    assert!(matches!(&refused, LoadError::Failed(_)), "{refused}");
    let code = dunlin_engine::compile_as(WASI3_COMMAND, WASI03).unwrap();
    let refused = rig.load_code(&code, Metering::Fuel, WASI3_COMMAND).await.map(drop).unwrap_err();
    assert!(matches!(&refused, LoadError::Failed(_)), "{refused}");
}

/// A program whose `run` is made of `core` and lifted as `lift` says.
fn lifted(core: &str, lift: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (core module $code
                (memory (export "memory") 1)
                {core})
            (core instance $code (instantiate $code))
            {lift}
            (instance $exported (export "run" (func $run)))
            (export "wasi:cli/run@0.3.0" (instance $exported)))"#
    );
    wat::parse_str(text).unwrap()
}

/// Callbacks and types that are not what they should be: CVE-2026-115384 was of this kind.
#[tokio::test]
async fn what_is_asynchronous_and_mistyped_is_refused_or_ends_alone() {
    const BACK: &str = r#"(func (export "back") (param i32 i32 i32) (result i32) i32.const 0)"#;
    let entry = |body: &str| format!(r#"(func (export "run") (result i32) {body}) {BACK}"#);
    let lift = |types: &str| {
        format!(
            r#"(func $run {types} (canon lift (core func $code "run") async (callback (func $code "back"))))"#
        )
    };
    for types in ["async", "async (result u32)", "async (param \"x\" u32) (result (result))"] {
        let component = lifted(&entry("i32.const 0"), &lift(types));
        let rig = Rig::new();
        let Ok(code) = dunlin_engine::compile_as(&component, WASI03) else { continue };
        let loaded = rig.load_code(&code, WASI03, &component).await;
        // What of its type is only looked at when it is called ends there.
        if let Ok(job) = rig.try_job(&component, loaded).await {
            let outcome = run(&job, "").await.outcome;
            assert!(!outcome.is_completed(), "{types}: {outcome}");
        }
    }
    let wrong_callback = r#"(func (export "run") (result i32) i32.const 0)
        (func (export "back") (param i64) (result i32) i32.const 0)"#;
    let refused =
        dunlin_engine::compile_as(&lifted(wrong_callback, &lift("async (result (result))")), WASI03);
    assert!(matches!(refused, Err(CompileError::Refused(_))), "{refused:?}");
    // Codes that mean nothing, sets that are not there, and an end without a result.
    for code in ["0", "1", "2", "3", "7", "0x7ffffff2", "-1"] {
        let component = lifted(&entry(&format!("i32.const {code}")), &lift("async (result (result))"));
        let limits = Limits { fuel: Fuel(10_000_000), deadline: DurationMs(1_000), ..LIMITS };
        let job = Rig::new().job_of_kind(&component, limits, WASI03).await;
        let outcome = run(&job, "").await.outcome;
        assert!(!outcome.is_completed(), "{code} is taken for success");
    }
}
