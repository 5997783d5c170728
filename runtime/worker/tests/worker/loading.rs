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
async fn code_of_another_component_is_not_run() {
    let mut worker = Worker::start().await;
    let compiled = worker.compile(guests::HELLO).unwrap();
    let allocation = crate::support::allocation(guests::HELLO_V2, Work::Serve, LIMITS);
    let (reason, refused) = worker.try_start_compiled(compiled, allocation).await.unwrap_err();
    assert_eq!(reason, "its compiled code cannot be used: it is not genuine");
    assert!(!refused, "the file is at fault, not the component");
}

#[tokio::test]
async fn code_that_was_tampered_with_is_never_run() {
    let mut worker = Worker::start().await;
    let compiled = worker.compile(guests::HELLO).unwrap();
    let mut bytes = std::fs::read(&compiled).unwrap();
    // Beyond the MAC and the ELF header: what would be code.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&compiled, &bytes).unwrap();
    let allocation = || crate::support::allocation(guests::HELLO, Work::Serve, LIMITS);
    let (reason, refused) = worker.try_start_compiled(compiled.clone(), allocation()).await.unwrap_err();
    assert_eq!(reason, "its compiled code cannot be used: it is not genuine");
    assert!(!refused, "the agent compiles it again");

    bytes[middle] ^= 0xff;
    std::fs::write(&compiled, &bytes).unwrap();
    worker.try_start_compiled(compiled, allocation()).await.unwrap();
    assert_eq!(worker.get("/").await.0, 200);
}

#[tokio::test]
async fn code_that_is_not_there_is_no_fault_of_the_component() {
    let mut worker = Worker::start().await;
    let allocation = crate::support::allocation(guests::HELLO, Work::Serve, LIMITS);
    let gone = worker.path("gone");
    let (reason, refused) = worker.try_start_compiled(gone, allocation).await.unwrap_err();
    assert!(reason.starts_with("its compiled code cannot be used: it cannot be read"), "{reason}");
    assert!(!refused);
}
