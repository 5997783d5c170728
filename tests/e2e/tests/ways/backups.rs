//! A backup is taken while the coordinator works, and what is restored from it stops nothing until it is told to.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::process::Output;

use dunlin_api::ClientError;
use dunlin_e2e::hello;
use dunlin_guest_artifacts::HELLO;
use dunlin_harness::{App, Fleet, eventually, http};

const LATER: &str = "later.localhost";

/// Tells which app answers: the later one says what it burned.
async fn answers(fleet: &Fleet, host: &str) -> Result<&'static str, String> {
    let request = http().get(format!("http://{}/", fleet.ingress(0))).header("host", host);
    let response = request.send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let name = if response.headers().contains_key("dunlin-fuel") { "later" } else { "shop" };
    if status.is_success() { Ok(name) } else { Err(status.to_string()) }
}

async fn until_answered_by(fleet: &Fleet, host: &str, app: &str) {
    eventually(&format!("{app} answers"), || async {
        let name = answers(fleet, host).await?;
        if name == app { Ok(()) } else { Err(name.to_owned()) }
    })
    .await;
}

fn later() -> App {
    let manifest = r#"
        [app]
        name = "later"

        [service.hello]
        component = "guest.wasm"
        routes = [{ host = "later.localhost", path = "/" }]
        fuel_header = true
        limits = { memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }
    "#;
    App::new(manifest, &[("guest.wasm", HELLO)])
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn dunlin(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = fleet.dunlin(arguments).await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

async fn refused(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = fleet.dunlin(arguments).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output));
    text(&output)
}

async fn start_again(fleet: &mut Fleet) {
    fleet.coordinator().kill().await.unwrap();
    fleet.coordinator().start(&[]).await.unwrap();
    eventually("the node is heard", || async {
        let nodes = fleet.client().nodes().await.map_err(|error| error.to_string())?;
        nodes.nodes[0].last_seen_ms_ago.map(|_| ()).ok_or_else(|| "it is not".to_owned())
    })
    .await;
}

#[tokio::test]
async fn what_is_restored_stops_nothing_until_it_is_told_to() {
    let mut fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&hello(HELLO, 2)).await.unwrap();
    let before = fleet.until_running("default/shop").await;
    dunlin(&fleet, &["backup", "first.tar"]).await;
    let told = dunlin(&fleet, &["restore", "--check", "first.tar"]).await;
    assert!(told.contains("1 components and inputs"), "{told}");

    // The fleet goes on, and further than the store that is restored: its node has obeyed two more terms.
    fleet.deploy(&later()).await.unwrap();
    fleet.until_running("default/later").await;
    until_answered_by(&fleet, LATER, "later").await;
    start_again(&mut fleet).await;
    start_again(&mut fleet).await;
    fleet.coordinator().kill().await.unwrap();
    let state = fleet.state().to_owned();
    let told = refused(&fleet, &["restore", "first.tar", "--state", &state.display().to_string()]).await;
    assert!(told.contains("is there already"), "{told}");
    std::fs::rename(&state, fleet.folder().join("lost")).unwrap();
    dunlin(&fleet, &["restore", "first.tar", "--state", &state.display().to_string()]).await;
    fleet.coordinator().start(&[]).await.unwrap();

    let recovery = eventually("it hears how far its node is", || async {
        let status = fleet.client().status().await.map_err(|error| error.to_string())?;
        let recovery = status.recovery.clone().filter(|recovery| recovery.highest_term.0 == 3);
        recovery.ok_or_else(|| format!("{status:?}"))
    })
    .await;
    assert!(recovery.reason.contains("from a backup"), "{recovery:?}");
    match fleet.client().stop_app(&"default/shop".parse().unwrap()).await {
        Err(ClientError::Problem(problem)) => assert_eq!(problem.code, "recovering"),
        other => panic!("{other:?}"),
    }
    assert!(dunlin(&fleet, &["status"]).await.contains("in recovery"));
    assert!(dunlin(&fleet, &["recover"]).await.contains("what runs goes on"));
    assert_eq!(answers(&fleet, "localhost").await.unwrap(), "shop");
    assert_eq!(answers(&fleet, LATER).await.unwrap(), "later");

    dunlin(&fleet, &["recover", "--confirm"]).await;
    until_answered_by(&fleet, LATER, "shop").await;
    let after = fleet.until_running("default/shop").await;
    let ids = |status: &dunlin_api::AppStatus| {
        status.workloads[0].allocations.iter().map(|one| one.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&after), ids(&before), "what was in it was never stopped");
    fleet.deploy(&later()).await.unwrap();
    let later = fleet.until_running("default/later").await;
    assert!(ids(&later)[0].number() > 1_000_000, "no number is used again: {later:?}");
    assert!(refused(&fleet, &["recover", "--confirm"]).await.contains("is not in recovery"));
}

#[tokio::test]
async fn a_backup_that_is_not_whole_is_refused_and_leaves_nothing() {
    let fleet = Fleet::start(0).await.unwrap();
    dunlin(&fleet, &["backup", "whole.tar"]).await;
    assert!(refused(&fleet, &["backup", "whole.tar"]).await.contains("it is there already"));
    let whole = std::fs::read(fleet.folder().join("whole.tar")).unwrap();
    let before = std::fs::read_dir(fleet.folder()).unwrap().count();
    let broken = fleet.folder().join("broken.tar");
    let state = fleet.folder().join("restored").display().to_string();
    let flipped = |place: usize| {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        bytes
    };
    for end in (0..whole.len()).step_by(1_009) {
        std::fs::write(&broken, &whole[..end]).unwrap();
        let told = refused(&fleet, &["restore", "broken.tar", "--check"]).await;
        assert!(told.contains("it is no whole backup"), "cut to {end}: {told}");
    }
    // In what it holds: what it says of itself, the key, the token, a record, a sum.
    for needle in ["\"cluster\"", "PRIVATE KEY", "rlu1_", "term", "  admin.token"] {
        let place = whole.windows(needle.len()).rposition(|bytes| bytes == needle.as_bytes()).unwrap();
        std::fs::write(&broken, flipped(place)).unwrap();
        let told = refused(&fleet, &["restore", "broken.tar", "--check"]).await;
        assert!(told.contains("it is no whole backup"), "`{needle}` flipped: {told}");
    }
    // Anywhere: owners, times and padding are not summed up, but nothing fails in another way.
    for place in (0..whole.len()).step_by(509) {
        std::fs::write(&broken, flipped(place)).unwrap();
        let output = fleet.dunlin(&["restore", "broken.tar", "--check"]).await.unwrap();
        let told = text(&output);
        assert!(output.status.success() || told.contains("it is no whole backup"), "{place}: {told}");
    }
    std::fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    refused(&fleet, &["restore", "broken.tar", "--state", &state]).await;
    std::fs::remove_file(&broken).unwrap();
    assert_eq!(std::fs::read_dir(fleet.folder()).unwrap().count(), before);
}
