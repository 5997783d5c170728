//! An agent that is told to start again becomes the program which is in its file by then; nobody who asks it for
//! something notices.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dunlin_api::{ItemsQuery, RunStatus};
use dunlin_e2e::{hello, job, printed};
use dunlin_guest_artifacts::{ENV, HELLO, SAY_HTTP};
use dunlin_harness::{Fleet, Load, children, eventually, http, is_running};
use dunlin_model::RunId;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Has an agent run from a copy of the program, which can be replaced; returns where that is.
async fn on_a_copy(fleet: &mut Fleet, node: usize) -> PathBuf {
    let copy = fleet.folder().join(format!("dunlin-{node}"));
    std::fs::copy(dunlin_harness::program(), &copy).unwrap();
    let agent = fleet.agent(node);
    let script = format!("shift; exec '{}' \"$@\"", copy.display());
    agent.start_through(["sh", "-c", &script, "sh"].map(str::to_owned).to_vec());
    agent.end().await.unwrap();
    agent.start(&[]).await.unwrap();
    copy
}

/// Puts another file in the place of a program.
fn replace(program: &Path, with: &Path) {
    let new = program.with_extension("new");
    std::fs::copy(with, &new).unwrap();
    std::fs::rename(new, program).unwrap();
}

/// Returns which file a process runs.
fn file_of(process: u32) -> u64 {
    std::fs::metadata(format!("/proc/{process}/exe")).unwrap().ino()
}

async fn until_it_runs(process: u32, program: &Path) {
    let wanted = std::fs::metadata(program).unwrap().ino();
    eventually("the process runs the new program", || async {
        let file = file_of(process);
        if file == wanted { Ok(()) } else { Err(format!("it runs {file}, not {wanted}")) }
    })
    .await;
}

fn starts(fleet: &mut Fleet, node: usize) -> usize {
    fleet.agent(node).log().matches("agent ready").count()
}

async fn until_started(fleet: &mut Fleet, node: usize, times: usize) {
    let patience = tokio::time::Instant::now() + dunlin_harness::PATIENCE;
    while starts(fleet, node) < times {
        assert!(tokio::time::Instant::now() < patience, "{}", fleet.agent(node).log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_program_takes_over_and_no_request_fails() {
    let mut fleet = Fleet::start(2).await.unwrap();
    let copy = on_a_copy(&mut fleet, 0).await;
    // Its only allocation is on one of the nodes, and the other sends requests there.
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    fleet.until_running("default/shop").await;
    let load = Load::start(&[fleet.ingress(0), fleet.ingress(1)]);
    load.until_answered(200).await;
    let process = fleet.agent(0).id().unwrap();
    for _ in 0..3 {
        let before = starts(&mut fleet, 0);
        replace(&copy, &dunlin_harness::program());
        fleet.agent(0).signal(Signal::SIGHUP).unwrap();
        until_it_runs(process, &copy).await;
        until_started(&mut fleet, 0, before + 1).await;
        load.until_answered(200).await;
    }
    let (answered, failures) = load.end().await;
    assert_eq!(failures, Vec::<String>::new(), "beside {answered} that were answered");
    assert_eq!(fleet.agent(0).id(), Some(process), "it is the same process for who started it");
    // It is a member as before.
    let nodes = fleet.client().nodes().await.unwrap();
    assert!(nodes.nodes.iter().all(|node| node.state.name() == "alive"), "{nodes:?}");
}

#[tokio::test]
async fn a_request_that_takes_longer_than_the_change_goes_on() {
    let mut fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&hello(SAY_HTTP, 1)).await.unwrap();
    fleet.until_running("default/shop").await;
    let mut client = TcpStream::connect(fleet.ingress(0)).await.unwrap();
    // After its first request a connection is with the worker.
    client.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"said\n") {
        assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
    }
    // The guest has it when it asks for the body; before that a connection may be closed as an idle one.
    let request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(request).await.unwrap();
    answer.clear();
    while !answer.ends_with(b"\r\n\r\n") {
        assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
    }
    assert!(answer.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&answer));
    client.write_all(b"begin").await.unwrap();
    let agent = fleet.agent(0).id().unwrap();
    let workers = || children(agent);
    let former = workers();
    assert_eq!(former.len(), 1);
    fleet.agent(0).signal(Signal::SIGHUP).unwrap();
    until_started(&mut fleet, 0, 2).await;
    // The worker that has the request is still there, and another one is for those that come now.
    assert!(is_running(former[0]));
    assert!(workers().len() == 2, "{:?}", workers());
    let answer = http().get(format!("http://{}/", fleet.ingress(0))).send().await.unwrap();
    assert!(answer.status().is_success());
    client.write_all(b" end!").await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200") && rest.ends_with("said\n"), "{rest}");
    eventually("the former worker ends and is awaited", || async {
        let left = workers();
        if left.len() == 1 && left != former { Ok(()) } else { Err(format!("{left:?}, before {former:?}")) }
    })
    .await;
}

#[tokio::test]
async fn items_are_not_given_up_and_none_is_run_twice() {
    let mut fleet = Fleet::start(1).await.unwrap();
    // Its fuel rate lets it run some hundred of them in a second.
    let app = job("print", ENV, "items = 3000\n attempts = 1\n semantics = \"at-most-once\"", &[]);
    fleet.deploy(&app).await.unwrap();
    let run =
        printed(&fleet.dunlin_in(app.path(), &["job", "run", "print", "--output", "json"]).await.unwrap());
    let started: serde_json::Value = serde_json::from_str(run.assert_done()).unwrap();
    let run: RunId = started["run"].as_str().unwrap().parse().unwrap();
    for times in 2..5 {
        fleet.agent(0).signal(Signal::SIGHUP).unwrap();
        until_started(&mut fleet, 0, times).await;
    }
    let status: RunStatus = eventually("the run ends", || async {
        let status = fleet.client().run(run).await.map_err(|error| error.to_string())?;
        if status.state.is_ended() { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert_eq!((status.state.name(), status.failed), ("completed", 0), "{status:?}");
    let page = fleet.client().run_items(run, &ItemsQuery::default()).await.unwrap();
    assert!(page.items.iter().all(|item| item.record.outcome.name() == "Completed"));
}

#[tokio::test]
async fn a_program_that_would_not_run_does_not_take_over() {
    let mut fleet = Fleet::start(1).await.unwrap();
    let copy = on_a_copy(&mut fleet, 0).await;
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    fleet.until_running("default/shop").await;
    let process = fleet.agent(0).id().unwrap();
    let file = file_of(process);
    let broken = fleet.folder().join("broken");
    std::fs::write(&broken, "#!/bin/sh\necho 'error: unknown flag' >&2\nexit 2\n").unwrap();
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    replace(&copy, &broken);
    fleet.agent(0).signal(Signal::SIGHUP).unwrap();
    eventually("the agent says why not", || async {
        let log = std::fs::read_to_string(fleet.folder().join("node-1/process.log")).unwrap_or_default();
        let is_said = log.contains("the agent does not start again") && log.contains("unknown flag");
        if is_said { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(file_of(process), file);
    let answer = http().get(format!("http://{}/", fleet.ingress(0))).send().await.unwrap();
    assert!(answer.status().is_success());
}
