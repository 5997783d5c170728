//! Jobs: what becomes of an item.

use dunlin_guest_artifacts as guests;
use dunlin_model::{Fuel, Limits, LogSource, MAX_ITEM_OUTPUT, Outcome};
use dunlin_protocol::{FromWorker, ToWorker};

use crate::support::{ALLOCATION, LIMITS, Worker, items};

struct End {
    outcome: Outcome,
    output: String,
    output_cut: bool,
    fuel: Fuel,
}

async fn run(worker: &mut Worker, item: u32, arguments: &[&str], input: Option<&[u8]>) -> End {
    let input = input.map(|bytes| {
        let path = worker.path(&format!("input-{item}"));
        std::fs::write(&path, bytes).unwrap();
        path
    });
    let arguments = arguments.iter().map(ToString::to_string).collect();
    worker.send(&ToWorker::RunItem { allocation: ALLOCATION, item, arguments, input });
    worker
        .wait(|message| match message {
            FromWorker::ItemsEnded { items, .. } => {
                let (_, record) = items.iter().find(|(ended, _)| *ended == item)?;
                let (outcome, output) = (record.outcome.clone(), record.output.clone());
                Some(End { outcome, output, output_cut: record.output_cut, fuel: record.fuel })
            }
            _ => None,
        })
        .await
}

async fn worker_with(component: &[u8], limits: Limits) -> Worker {
    let mut worker = Worker::start().await;
    worker.try_start(component, items(), limits).await.unwrap();
    worker
}

#[tokio::test]
async fn the_input_is_standard_input_and_standard_output_is_the_output() {
    let mut worker = worker_with(guests::CAT, LIMITS).await;
    let end = run(&mut worker, 0, &[], Some(b"line 1\nline 2")).await;
    assert_eq!((end.outcome, end.output.as_str()), (Outcome::Completed, "line 1\nline 2"));
    let end = run(&mut worker, 1, &[], None).await;
    assert_eq!((end.outcome, end.output.as_str()), (Outcome::Completed, ""));
}

#[tokio::test]
async fn the_same_item_burns_the_same_fuel() {
    let mut worker = worker_with(guests::CAT, LIMITS).await;
    let first = run(&mut worker, 0, &[], Some(b"the same")).await.fuel;
    let second = run(&mut worker, 1, &[], Some(b"the same")).await.fuel;
    assert_eq!(first, second);
    assert!(first.0 > 0);
}

#[tokio::test]
async fn output_beyond_the_limit_is_cut_and_said_to_be() {
    let mut worker = worker_with(guests::CAT, LIMITS).await;
    let end = run(&mut worker, 0, &[], Some(&vec![b'x'; 3 * MAX_ITEM_OUTPUT])).await;
    assert_eq!(end.outcome, Outcome::Completed);
    assert_eq!((end.output.len(), end.output_cut), (MAX_ITEM_OUTPUT, true));
}

#[tokio::test]
async fn an_item_knows_what_it_is_and_nothing_of_the_machine() {
    let mut worker = worker_with(guests::ENV, LIMITS).await;
    let end = run(&mut worker, 5, &["file.txt"], None).await;
    let lines: Vec<&str> = end.output.lines().collect();
    for expected in [
        "argument hello",
        "argument file.txt",
        "variable COLOUR=grey",
        "variable DUNLIN_ALLOCATION=a1",
        "variable DUNLIN_ATTEMPT=2",
        "variable DUNLIN_ITEM=5",
        "variable DUNLIN_NODE=node-1",
        "variable DUNLIN_REVISION=4",
        "variable DUNLIN_RUN=r3",
        "variable DUNLIN_WORKLOAD=tests/app/hello",
    ] {
        assert!(lines.contains(&expected), "{expected} is not in {lines:?}");
    }
    assert_eq!(lines.len(), 10, "{lines:?}");
}

#[tokio::test]
async fn an_item_ends_as_it_ends() {
    let outcome = |component: &'static [u8]| async move {
        let mut worker = worker_with(component, LIMITS).await;
        run(&mut worker, 0, &[], None).await.outcome
    };
    assert_eq!(outcome(guests::EXIT_CODE).await, Outcome::Exited { code: 1 });
    assert!(matches!(outcome(guests::TRAP).await, Outcome::Trapped { .. }));
    assert_eq!(outcome(guests::SPIN).await, Outcome::OutOfFuel { limit: LIMITS.fuel });
    assert!(
        matches!(outcome(guests::HOG).await, Outcome::OutOfMemory { limit, .. } if limit == LIMITS.memory)
    );
}

#[tokio::test]
async fn an_item_of_no_allocation_is_not_started() {
    let mut worker = Worker::start().await;
    let end = run(&mut worker, 0, &[], None).await;
    assert!(matches!(end.outcome, Outcome::NotStarted { .. }));
}

#[tokio::test]
async fn what_an_item_says_comes_before_how_it_ended() {
    let mut worker = worker_with(guests::TRAP, LIMITS).await;
    run(&mut worker, 0, &[], None).await;
    let logs = &worker.logs;
    let ended = logs.iter().position(|record| record.text.starts_with("item ended: Trapped"));
    let (said, told) = logs.split_at(ended.expect("the host tells how it ended"));
    assert!(said.iter().any(|record| record.text.contains("panicked")), "{logs:?}");
    // How it ended has a line for each frame of its stack; nothing of the guest comes among them.
    assert!(told.iter().all(|record| record.source == LogSource::Host), "{logs:?}");
}
