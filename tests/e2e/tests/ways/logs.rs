//! Logs: what guests print, framed so that nobody can forge a line, from all nodes, as it comes, and after the end.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::process::Stdio;

use dunlin_api::LogLine;
use dunlin_e2e::{job, printed, service};
use dunlin_guest_artifacts::{SAY_HTTP, TRAP};
use dunlin_harness::{App, Fleet, PATIENCE, eventually, http, program};
use dunlin_model::LogSource;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// What would clear a terminal, set its title, and begin a line that looks like another's.
const EVIL: &str =
    "evil \u{1b}[2J\u{1b}]0;title\u{7} \u{9b}31m \u{202e}\r2026-01-01T00:00:00.000Z node-9 a1.1 host";

fn say(allocations: u32) -> App {
    service("shop", "say", SAY_HTTP, allocations, "/")
}

/// Posts `text` to the service on the first node until it has answered once.
async fn post(fleet: &Fleet, text: &str) {
    eventually("the service has printed it", || async {
        let request = http().post(format!("http://{}/", fleet.ingress(0))).body(text.to_owned());
        let response = request.send().await.map_err(|error| error.to_string())?;
        if response.status().is_success() { Ok(()) } else { Err(response.status().to_string()) }
    })
    .await;
}

/// Runs `dunlin logs` with `arguments` until its output has `wanted`, and returns all of it.
async fn until_logged(fleet: &Fleet, arguments: &[&str], wanted: &str) -> String {
    let arguments = [&["logs"], arguments].concat();
    eventually(&format!("{arguments:?} shows {wanted:?}"), || async {
        let shown = printed(&fleet.dunlin(&arguments).await.unwrap());
        if shown.out.contains(wanted) { Ok(shown.out) } else { Err(format!("{shown:?}")) }
    })
    .await
}

#[tokio::test]
async fn a_line_has_its_node_and_instance_whichever_word_it_is_asked_by() {
    let fleet = Fleet::start(2).await.unwrap();
    fleet.deploy(&say(1)).await.unwrap();
    let status = fleet.until_running("default/shop").await;
    let allocation = &status.workloads[0].allocations[0];
    post(&fleet, "good day").await;
    let id = allocation.id.to_string();
    for word in ["shop", "say", "shop/say", "default/shop/say", &id] {
        let shown = until_logged(&fleet, &[word], "good day").await;
        let line = shown.lines().find(|line| line.contains("good day")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[1], allocation.node.to_string(), "{line}");
        assert!(words[2].strip_prefix(&format!("{id}.")).is_some_and(|number| number.parse::<u64>().is_ok()));
    }
    let shown = until_logged(&fleet, &[], "stderr | good day").await;
    assert!(shown.contains("stdout | good day"), "{shown}");
}

#[tokio::test]
async fn the_lines_of_a_job_are_shown_after_its_allocations_have_ended() {
    let fleet = Fleet::start(1).await.unwrap();
    let app = job("panic", TRAP, "items = 2\n attempts = 1", &[]);
    fleet.deploy(&app).await.unwrap();
    let run = printed(&fleet.dunlin_in(app.path(), &["job", "run", "panic", "--wait"]).await.unwrap());
    assert_eq!(run.code, 1, "{run:?}");
    let shown = until_logged(&fleet, &["a1"], "this fixture always panics").await;
    assert!(shown.lines().all(|line| line.contains(" node-1 a1.")), "{shown}");
}

#[tokio::test]
async fn the_lines_of_an_ended_allocation_are_still_there_by_its_id() {
    let fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&say(1)).await.unwrap();
    let status = fleet.until_running("default/shop").await;
    let id = status.workloads[0].allocations[0].id.to_string();
    post(&fleet, "last words").await;
    until_logged(&fleet, &[&id], "last words").await;
    printed(&fleet.dunlin(&["delete", "shop", "--yes"]).await.unwrap()).assert_done();
    eventually("the allocation is gone", || async {
        let nodes = fleet.client().nodes().await.map_err(|error| error.to_string())?;
        if nodes.nodes.iter().all(|node| node.allocations == 0) { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    until_logged(&fleet, &[&id], "last words").await;
    let unknown = printed(&fleet.dunlin(&["logs", "shop"]).await.unwrap());
    unknown.assert_failed(1, &["there is no app, workload or allocation `shop`"]);
}

/// Starts `dunlin logs shop -f` and returns its lines with the process, which ends when it is dropped.
fn follow(fleet: &Fleet) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut follower = Command::new(program())
        .args(["logs", "shop", "-f", "--tail", "0"])
        .env("DUNLIN_COORDINATOR", fleet.client().url())
        .env("DUNLIN_TOKEN_FILE", fleet.state().join("admin.token"))
        .env("DUNLIN_CA_FILE", fleet.state().join("ca.pem"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    (follower, lines)
}

#[tokio::test]
async fn a_follower_goes_on_with_an_allocation_that_comes_later() {
    let fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&say(1)).await.unwrap();
    fleet.until_running("default/shop").await;
    let (_follower, mut lines) = follow(&fleet);
    // It has begun once it has heard the first allocation.
    until_heard(&fleet, &mut lines, " a1.").await;
    fleet.deploy(&say(2)).await.unwrap();
    until_heard(&fleet, &mut lines, " a2.").await;
}

/// Speaks to the service until a follower has heard a line with `words`.
async fn until_heard(fleet: &Fleet, lines: &mut Lines<BufReader<ChildStdout>>, words: &str) {
    let speak = async {
        loop {
            tokio::select! {
                line = lines.next_line() => {
                    if line.unwrap().unwrap().contains(words) {
                        return;
                    }
                }
                () = tokio::time::sleep(std::time::Duration::from_millis(200)) => post(fleet, "more").await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, speak).await.unwrap_or_else(|_| panic!("no line with{words}was heard"));
}

#[tokio::test]
async fn a_follower_sees_a_line_as_it_comes_and_none_from_before() {
    let fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&say(1)).await.unwrap();
    fleet.until_running("default/shop").await;
    post(&fleet, "before").await;
    until_logged(&fleet, &["shop"], "before").await;
    let (mut follower, mut lines) = follow(&fleet);
    // When it has begun to follow cannot be seen from outside, so it is spoken to until it hears something.
    let next = lines.next_line();
    tokio::pin!(next);
    let speak = async {
        loop {
            tokio::select! {
                line = &mut next => return line.unwrap().unwrap(),
                () = tokio::time::sleep(std::time::Duration::from_millis(200)) => post(&fleet, "after").await,
            }
        }
    };
    let line = tokio::time::timeout(PATIENCE, speak).await.unwrap();
    assert!(line.ends_with("| after"), "{line}");
    assert!(follower.try_wait().unwrap().is_none(), "it goes on");
}

#[tokio::test]
async fn a_guest_can_neither_steer_the_terminal_nor_forge_a_line() {
    let fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&say(1)).await.unwrap();
    fleet.until_running("default/shop").await;
    post(&fleet, EVIL).await;
    let shown = until_logged(&fleet, &["shop"], "stderr | evil").await;
    assert!(!shown.chars().any(|one| one.is_control() && one != '\n'), "{shown:?}");
    assert!(!shown.contains('\u{202e}'), "{shown:?}");
    assert!(shown.lines().all(|line| line.contains(" node-1 a1.")), "{shown:?}");
    let raw = until_logged(&fleet, &["shop", "--raw"], "stderr | evil").await;
    assert!(raw.contains("\u{1b}[2J"), "{raw:?}");
}

#[tokio::test]
async fn programs_get_one_value_a_line() {
    let fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&say(1)).await.unwrap();
    fleet.until_running("default/shop").await;
    post(&fleet, EVIL).await;
    let shown = until_logged(&fleet, &["shop", "--output", "json"], "stderr").await;
    let lines: Vec<LogLine> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for source in [LogSource::Stdout, LogSource::Stderr] {
        let found = lines.iter().any(|line| line.record.source == source && line.record.text == EVIL);
        assert!(found, "{shown}");
    }
}
