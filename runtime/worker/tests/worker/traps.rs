//! Traps: what the author of a guest is told of how it ended.

use dunlin_guest_artifacts as guests;
use dunlin_model::{DurationMs, HostCall, Limits, Outcome, TrapRecord};
use dunlin_protocol::FromWorker;
use dunlin_worker::{HostCallWatch, watch_host_calls};
use tracing::subscriber::NoSubscriber;

use crate::support::{ALLOCATION, LIMITS, Worker};

const SOURCE: &str = include_str!("../../../../guests/fixtures/src/bin/traced-http.rs");

/// Has this process watch calls into the host, as `dunlin worker` does.
fn watch() {
    // All tests of this process want the same, and one of them is the first.
    let _earlier = tracing::subscriber::set_global_default(HostCallWatch::new(NoSubscriber::default()));
    watch_host_calls();
}

/// Serves a guest that fails, asks it once, and returns what its owner is told, and what its client.
async fn trapped(component: &[u8], limits: Limits) -> (TrapRecord, String) {
    watch();
    let mut worker = Worker::start().await;
    worker.serve(component, limits).await;
    let (_, body) = worker.get("/").await;
    let trap = worker
        .wait(|message| match message {
            FromWorker::Trap(trap) => Some((**trap).clone()),
            _ => None,
        })
        .await;
    (trap, body)
}

/// Returns the line of the fixture's source that has `text`.
fn line(text: &str) -> u32 {
    let before = SOURCE.lines().take_while(|line| !line.contains(text)).count();
    u32::try_from(before + 1).unwrap()
}

#[tokio::test]
async fn a_trap_names_function_file_and_line_and_the_last_calls_in_their_order() {
    let (trap, body) = trapped(guests::TRACED_HTTP, LIMITS).await;
    assert!(
        matches!(&trap.outcome, Outcome::Trapped { reason } if reason.contains("unreachable")),
        "{trap:#?}"
    );
    assert_eq!(trap.instance.allocation, ALLOCATION);
    assert!(body.contains(&format!("\"instance\":\"{}\"", trap.instance)), "{body}");
    assert!(trap.fuel.0 > 0 && trap.memory.0 > 0 && trap.host.calls > 0);

    let own = trap.first_frame().unwrap();
    assert_eq!(own.function, "traced_http::fail_after", "{trap:#?}");
    assert_eq!(own.file.as_deref(), Some("fixtures/src/bin/traced-http.rs"));
    assert_eq!(own.line, Some(line("assert!(files > 0")));
    let caller = trap.frames.iter().skip_while(|frame| *frame != own).nth(1).unwrap();
    assert_eq!(caller.line, Some(line("= fail_after(files)")), "{trap:#?}");

    let place = |name: &str| {
        trap.host_calls
            .iter()
            .position(|call| call.name == name)
            .unwrap_or_else(|| panic!("{name}: {trap:#?}"))
    };
    let order = [
        "wasi:cli/environment.get-arguments",
        "wasi:filesystem/preopens.get-directories",
        "wasi:clocks/monotonic-clock.now",
        "wasi:cli/stderr.get-stderr",
    ];
    assert!(order.map(place).is_sorted(), "{trap:#?}");
    let HostCall { name, outcome } = trap.host_calls.last().unwrap();
    assert!(name.starts_with("wasi:io/streams.output-stream.") && outcome == "ok", "{trap:#?}");
    assert!(trap.host_calls.len() <= TrapRecord::MAX_HOST_CALLS);

    assert_eq!(trap.stderr[0], "about to fail");
    assert!(trap.stderr.iter().any(|line| line.contains("none of the files is there")), "{trap:#?}");
}

#[tokio::test]
async fn a_guest_without_debug_information_has_a_stack_too() {
    let (trap, _) = trapped(guests::TRAP_HTTP, LIMITS).await;
    assert!(!trap.frames.is_empty() && trap.frames.iter().all(|frame| frame.file.is_none()), "{trap:#?}");
    assert!(trap.stderr.iter().any(|line| line.contains("this fixture always panics")), "{trap:#?}");
}

#[tokio::test]
async fn every_bad_end_is_told() {
    let (trap, _) = trapped(guests::SPIN_HTTP, LIMITS).await;
    assert!(matches!(trap.outcome, Outcome::OutOfFuel { .. }) && !trap.frames.is_empty(), "{trap:#?}");
    let (trap, _) = trapped(guests::HOG_HTTP, LIMITS).await;
    assert!(matches!(trap.outcome, Outcome::OutOfMemory { .. }), "{trap:#?}");
    let soon = Limits { deadline: DurationMs(300), ..LIMITS };
    let (trap, _) = trapped(guests::SLEEP_HTTP, soon).await;
    assert!(matches!(trap.outcome, Outcome::DeadlineExceeded { .. }), "{trap:#?}");
    let last = trap.host_calls.last().unwrap();
    assert_eq!((last.name.as_str(), last.outcome.as_str()), ("wasi:io/poll.poll", "did not return"));
}

#[tokio::test]
async fn of_many_traps_some_are_told_and_the_others_counted() {
    watch();
    let mut worker = Worker::start().await;
    worker.serve(guests::TRAP_HTTP, LIMITS).await;
    let began = std::time::Instant::now();
    let mut asked = 0;
    while asked < 30 || began.elapsed() < std::time::Duration::from_secs(2) {
        worker.get("/").await;
        asked += 1;
    }
    // What was missed is told with the next one that is told.
    let missed = worker.wait(|message| match message {
        FromWorker::Trap(trap) => (trap.missed > 0).then_some(trap.missed),
        _ => None,
    });
    let missed = missed.await;
    assert!(missed < asked, "{missed} missed of {asked}");
}
