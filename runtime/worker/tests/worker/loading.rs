//! What is loaded, what is refused, and why.

use dunlin_guest_artifacts as guests;
use dunlin_model::Work;

use crate::support::{LIMITS, Worker, items};

async fn refusal(component: &[u8], work: Work) -> String {
    let mut worker = Worker::start().await;
    let (reason, refused) = worker.try_start(component, work, LIMITS).await.unwrap_err();
    assert!(refused, "{reason}");
    reason
}

#[tokio::test]
async fn a_core_module_is_refused_with_what_to_do() {
    let reason = refusal(guests::CORE_MODULE, Work::Serve).await;
    assert!(reason.starts_with("core_module: this is a core module"), "{reason}");
}

#[tokio::test]
async fn a_missing_import_is_refused_with_its_name() {
    let reason = refusal(guests::MISSING_IMPORT, items()).await;
    assert!(
        reason.contains("missing_imports") && reason.contains("example:absent/nothing@0.1.0"),
        "{reason}"
    );
}

#[tokio::test]
async fn precompiled_code_is_refused() {
    let reason = refusal(b"\x7fELF and so on", Work::Serve).await;
    assert!(reason.starts_with("precompiled_not_accepted"), "{reason}");
}

#[tokio::test]
async fn what_is_no_wasm_is_refused() {
    let reason = refusal(b"#!/bin/sh", Work::Serve).await;
    assert!(reason.starts_with("invalid_wasm"), "{reason}");
}

#[tokio::test]
async fn a_job_is_not_a_service() {
    assert!(refusal(guests::CAT, Work::Serve).await.contains("not a service"));
}

#[tokio::test]
async fn a_component_with_another_digest_is_not_run() {
    let mut worker = Worker::start().await;
    let path = worker.path("component");
    std::fs::write(&path, guests::HELLO).unwrap();
    let allocation = crate::support::allocation(guests::HELLO_V2, Work::Serve, LIMITS);
    worker.send(&dunlin_protocol::ToWorker::Start { allocation: Box::new(allocation), component: path });
    let refused = worker
        .wait(|message| match message {
            dunlin_protocol::FromWorker::NotStarted { refused, .. } => Some(*refused),
            _ => None,
        })
        .await;
    assert!(!refused, "the file is at fault, not the component");
}

#[tokio::test]
async fn compiled_code_that_was_tampered_with_is_compiled_again_and_never_run() {
    let mut worker = Worker::start().await;
    worker.serve(guests::HELLO, LIMITS).await;
    let cache = worker.path("cache");
    let folder = worker.end();
    let files: Vec<_> = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = files.as_slice() else { panic!("one compiled component, not {files:?}") };
    let genuine = std::fs::read(file).unwrap();
    let mut tampered = genuine.clone();
    // Beyond the MAC and the ELF header: what would be code.
    let middle = tampered.len() / 2;
    tampered[middle] ^= 0xff;
    std::fs::write(file, &tampered).unwrap();

    let mut worker = Worker::start_in(folder).await;
    worker.serve(guests::HELLO, LIMITS).await;
    assert_eq!(worker.get("/").await.0, 200);
    let kept = std::fs::read(file).unwrap();
    assert!(kept != tampered, "the file was not written again");
}

#[tokio::test]
async fn a_component_in_the_cache_is_not_compiled_again() {
    let mut worker = Worker::start().await;
    worker.serve(guests::HELLO, LIMITS).await;
    let mut worker = Worker::start_in(worker.end()).await;
    let component = worker.path("gone");
    let allocation = Box::new(crate::support::allocation(guests::HELLO, Work::Serve, LIMITS));
    worker.send(&dunlin_protocol::ToWorker::Start { allocation, component });
    worker.wait(|message| matches!(message, dunlin_protocol::FromWorker::Started { .. }).then_some(())).await;
    assert_eq!(worker.get("/").await.0, 200);
}
