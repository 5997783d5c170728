//! Services: what clients and logs are told.

use std::sync::Arc;

use bytes::Bytes;
use dunlin_guest_artifacts as guests;
use dunlin_model::{DurationMs, Limits, LogSource};
use dunlin_protocol::{FromWorker, ToWorker};
use http::Request;
use http_body_util::{BodyExt, Full};

use crate::support::{ALLOCATION, LIMITS, Worker};

#[tokio::test]
async fn a_service_answers_and_its_use_is_told() {
    let mut worker = Worker::start().await;
    worker.serve(guests::HELLO, LIMITS).await;
    let (status, body) = worker.get("/").await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("hello"), "{body}");
    let (fuel, memory) = worker
        .wait(|message| match message {
            FromWorker::Usage { allocation, fuel, memory, instances, .. } if *allocation == ALLOCATION => {
                assert_eq!(*instances, 1);
                Some((*fuel, *memory))
            }
            _ => None,
        })
        .await;
    assert!(fuel.0 > 0 && memory.0 > 0);
}

#[tokio::test]
async fn a_body_streams_through_the_guest_in_both_directions() {
    let mut worker = Worker::start().await;
    worker.serve(guests::HELLO, LIMITS).await;
    let sent = Bytes::from((0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect::<Vec<_>>());
    let request = Request::post("/echo")
        .header("host", "hello.test")
        .header("dunlin-allocation", "a1")
        .body(Full::new(sent.clone()))
        .unwrap();
    let response = worker.request(request).await;
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.unwrap().to_bytes() == sent);
}

#[tokio::test]
async fn a_request_for_no_allocation_is_told_so() {
    let worker = Worker::start().await;
    for header in [None, Some("a9"), Some("nonsense")] {
        let mut request = Request::get("/").header("host", "hello.test");
        if let Some(header) = header {
            request = request.header("dunlin-allocation", header);
        }
        let response = worker.request(request.body(Full::<Bytes>::default()).unwrap()).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["dunlin-failure"], "no_allocation");
    }
}

/// Serves a guest that misbehaves, and checks what its client and its owner hear.
async fn check(component: &[u8], limits: Limits, status: u16, code: &str, logged: &str) {
    let mut worker = Worker::start().await;
    worker.serve(component, limits).await;
    let (answered, body) = worker.get("/").await;
    assert_eq!(answered, status, "{body}");
    assert!(body.contains(&format!("\"code\":\"{code}\"")), "{body}");
    worker.wait_for_log(logged).await;
    // Whatever one guest did, the next is served.
    let (answered, _) = worker.get("/").await;
    assert_eq!(answered, status);
}

#[tokio::test]
async fn a_guest_that_computes_for_ever_runs_out_of_fuel() {
    let logged = "request ended: OutOfFuel: limit `fuel` is 200M";
    check(guests::SPIN_HTTP, LIMITS, 502, "out_of_fuel", logged).await;
}

#[tokio::test]
async fn a_guest_that_takes_memory_for_ever_runs_out_of_it() {
    let logged = "request ended: OutOfMemory: limit `memory` is 16MiB";
    check(guests::HOG_HTTP, LIMITS, 502, "out_of_memory", logged).await;
}

#[tokio::test]
async fn a_guest_that_panics_has_trapped() {
    check(guests::TRAP_HTTP, LIMITS, 502, "guest_trapped", "request ended: Trapped").await;
}

#[tokio::test]
async fn a_guest_that_sleeps_exceeds_its_deadline() {
    let limits = Limits { deadline: DurationMs(200), ..LIMITS };
    let logged = "request ended: DeadlineExceeded: limit `deadline` is 200ms";
    check(guests::SLEEP_HTTP, limits, 504, "deadline_exceeded", logged).await;
}

#[tokio::test]
async fn more_requests_than_may_run_or_wait_are_refused() {
    let mut worker = Worker::start().await;
    let limits = Limits { concurrency: 1, deadline: DurationMs(1_000), ..LIMITS };
    worker.serve(guests::SLEEP_HTTP, limits).await;
    let (one, two, three) = tokio::join!(worker.get("/"), worker.get("/"), worker.get("/"));
    let mut statuses = [one.0, two.0, three.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [503, 504, 504]);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_guest() {
    let mut worker = Worker::start().await;
    worker.serve(guests::SLEEP_HTTP, LIMITS).await;
    let request = Request::get("/").header("host", "h").header("dunlin-allocation", "a1");
    let request = worker.request(request.body(Full::<Bytes>::default()).unwrap());
    // The guest sleeps for a day; its client does not wait as long.
    assert!(tokio::time::timeout(std::time::Duration::from_millis(500), request).await.is_err());
    worker.wait_for_log("request ended: Cancelled").await;
}

#[tokio::test]
async fn an_allocation_that_is_stopped_serves_no_more() {
    let mut worker = Worker::start().await;
    worker.serve(guests::HELLO, LIMITS).await;
    worker.send(&ToWorker::Stop { allocation: ALLOCATION, at_once: false });
    worker.wait(|message| matches!(message, FromWorker::Stopped { .. }).then_some(())).await;
    let (status, body) = worker.get("/").await;
    assert_eq!(status, 503);
    assert!(body.contains("no_allocation"), "{body}");
}

#[tokio::test]
async fn a_flood_of_log_lines_is_bounded_and_told() {
    let mut worker = Worker::start().await;
    let limits = Limits { fuel: Limits::JOB.fuel, ..LIMITS };
    worker.serve(guests::FLOOD_HTTP, limits).await;
    worker.get("/").await;
    worker.wait_for_log("of output dropped: limit `log_rate`").await;
    let bytes: usize = worker
        .logs
        .iter()
        .filter(|record| record.source != LogSource::Host)
        .map(|record| record.text.len())
        .sum();
    assert!(bytes < 16 << 20, "{bytes} bytes of a gibibyte were kept");
}

#[tokio::test]
async fn guests_that_compute_do_not_keep_others_from_being_served() {
    let mut worker = Worker::start().await;
    let limits = Limits { fuel: Limits::MAXIMUM.fuel, deadline: DurationMs(20_000), ..LIMITS };
    worker.serve(guests::SPIN_HTTP, limits).await;
    let channel = Arc::clone(&worker.channel);
    let spin = || {
        let request = Request::get("/").header("host", "h").header("dunlin-allocation", "a1");
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let channel = Arc::clone(&channel);
        tokio::spawn(async move { crate::support::request_to(&channel, request).await.status() })
    };
    let spinning: Vec<_> = (0..8).map(|_| spin()).collect();
    // Not served, but answered, while twice as many guests compute as there are processors.
    let request = Request::get("/").header("host", "h").header("dunlin-allocation", "a2");
    let started = std::time::Instant::now();
    let response = worker.request(request.body(Full::<Bytes>::default()).unwrap()).await;
    assert_eq!(response.status(), 503);
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    for guest in spinning {
        guest.abort();
    }
}
