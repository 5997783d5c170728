//! Secrets: read by who is granted them and by nobody else, changed while guests run, there without the coordinator, and
//! on no disk and in no output as they are (P12).

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::path::Path;
use std::process::Stdio;

use dunlin_api::{AppStatus, ClientError};
use dunlin_e2e::{Printed, printed};
use dunlin_guest_artifacts::CONFIG_HTTP;
use dunlin_harness::{App, Coordinators, Fleet, eventually, http};
use tokio::io::AsyncWriteExt as _;
use walkdir::WalkDir;

/// What must be found nowhere. Of a kind that nothing else writes.
const FIRST: &str = "squirrel-7f3a9c-first";
const SECOND: &str = "squirrel-7f3a9c-second";
const MARK: &[u8] = b"squirrel-7f3a9c";
/// The same as the store would write it if it were not sealed.
const MARK_IN_HEX: &[u8] = b"737175697272656c2d376633613963";

/// Returns a service which reads these secrets.
fn reader(namespace: &str, secrets: &str) -> App {
    let manifest = format!(
        r#"
        [app]
        name = "shop"
        namespace = "{namespace}"

        [service.cart]
        component = "guest.wasm"
        routes = [{{ host = "{namespace}.localhost", path = "/" }}]
        limits = {{ memory = "32MiB", fuel = "1G", fuel_rate = "50M/s", deadline = "20s" }}

        [service.cart.capabilities]
        config = {{ COLOUR = "red" }}
        secrets = {secrets}
        "#
    );
    App::new(&manifest, &[("guest.wasm", CONFIG_HTTP)])
}

async fn ask(fleet: &Fleet, namespace: &str, path: &str) -> Result<String, String> {
    let url = format!("http://{}{path}", fleet.ingress(0));
    let request = http().get(url).header("host", format!("{namespace}.localhost"));
    let response = request.send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let text = response.text().await.map_err(|error| error.to_string())?;
    if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}")) }
}

async fn until(fleet: &Fleet, namespace: &str, path: &str, expected: &str) {
    eventually(&format!("{namespace}{path} is {expected}"), async || {
        let text = ask(fleet, namespace, path).await?;
        if text == expected { Ok(()) } else { Err(text) }
    })
    .await;
}

/// Sets a secret as users do, through a pipe.
async fn set(fleet: &Fleet, name: &str, value: &str) -> Printed {
    let mut command = fleet.command(fleet.folder(), &["secret", "set", name]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).await.unwrap();
    printed(&child.wait_with_output().await.unwrap())
}

async fn dunlin(fleet: &Fleet, arguments: &[&str]) -> Printed {
    printed(&fleet.dunlin(arguments).await.unwrap())
}

/// Fails if the value of a secret is in any file below a folder.
fn assert_nowhere(folder: &Path) {
    let mut files = 0;
    for entry in WalkDir::new(folder) {
        let entry = entry.unwrap();
        if !entry.file_type().is_file() {
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        files += 1;
        let has = |mark: &[u8]| bytes.windows(mark.len()).any(|window| window.eq_ignore_ascii_case(mark));
        let found = has(MARK) || has(MARK_IN_HEX);
        assert!(!found, "{} has the value of a secret in it", entry.path().display());
    }
    assert!(files > 10, "there are {files} files only");
}

fn restarts(status: &AppStatus) -> Vec<(String, u32)> {
    let allocations = status.workloads.iter().flat_map(|workload| &workload.allocations);
    allocations.map(|it| (it.id.to_string(), it.restarts)).collect()
}

#[tokio::test]
async fn a_secret_is_read_by_who_is_granted_it_and_changed_while_it_runs() {
    let mut fleet = Fleet::start(1).await.unwrap();
    let app = reader("team-a", "[\"URL\"]");
    let early = fleet.dunlin_in(app.path(), &["deploy", "--no-build"]).await.unwrap();
    printed(&early).assert_failed(
        1,
        &[
            "`team-a/shop/cart` reads the secret `team-a/URL`, which is not set",
            "set it first: `dunlin secret set team-a/URL`",
        ],
    );

    let told = set(&fleet, "team-a/URL", &format!("{FIRST}\n")).await;
    assert!(told.assert_done().contains("secret `team-a/URL` is set; no workload reads it yet"));
    set(&fleet, "team-a/OTHER", SECOND).await.assert_done();
    set(&fleet, "team-b/URL", "of another namespace").await.assert_done();
    fleet.deploy(&app).await.unwrap();
    fleet.deploy(&reader("team-b", "[]")).await.unwrap();
    let before = fleet.until_running("team-a/shop").await;
    fleet.until_running("team-b/shop").await;

    // By its name, and not among all; of the same namespace and granted.
    until(&fleet, "team-a", "/URL", FIRST).await;
    assert_eq!(ask(&fleet, "team-a", "/").await.unwrap(), "COLOUR=red\n");
    let missing = "404 Not Found: there is no such value\n";
    until(&fleet, "team-b", "/COLOUR", "red").await;
    for (namespace, path) in [("team-a", "/OTHER"), ("team-b", "/URL"), ("team-a", "/team-b/URL")] {
        assert_eq!(ask(&fleet, namespace, path).await.unwrap_err(), missing, "{namespace}{path}");
    }

    // A request that runs sees the other value, and nothing is started again for it.
    let waiting = format!("/URL?until={SECOND}");
    let (waited, told) = tokio::join!(ask(&fleet, "team-a", &waiting), set(&fleet, "team-a/URL", SECOND));
    assert!(told.assert_done().contains("`team-a/shop/cart` reads it"));
    assert_eq!(waited.unwrap(), SECOND);
    until(&fleet, "team-a", "/URL", SECOND).await;
    let after = fleet.client().app(&"team-a/shop".parse().unwrap()).await.unwrap();
    assert_eq!(restarts(&after), restarts(&before));

    // Nor can it be had from the memory of agent and coordinator by a core file.
    let process = fleet.agent(0).id().unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");

    // What is read is not deleted; then it is.
    dunlin(&fleet, &["secret", "delete", "team-a/URL", "--yes"]).await.assert_failed(
        1,
        &["`team-a/shop/cart` reads the secret `team-a/URL`", "deploy it without the secret"],
    );
    let list = dunlin(&fleet, &["--namespace", "team-a", "secret", "list", "--output", "json"]).await;
    let list: serde_json::Value = serde_json::from_str(list.assert_done()).unwrap();
    assert_eq!(list["secrets"][1]["secret"], "team-a/URL");
    assert_eq!(list["secrets"][1]["readers"], serde_json::json!(["team-a/shop/cart"]));
    let secrets = fleet.folder().join("node-1/secrets");
    let kept = || std::fs::read_dir(&secrets).unwrap().count();
    assert_eq!(kept(), 1, "the node keeps what its allocations read");
    dunlin(&fleet, &["delete", "team-a/shop", "--yes"]).await.assert_done();
    eventually("the node wipes it", async || match kept() {
        0 => Ok(()),
        count => Err(format!("{count} are there")),
    })
    .await;
    dunlin(&fleet, &["secret", "delete", "team-a/URL", "--yes"]).await.assert_done();
    match fleet.client().delete_secret(&"team-a/URL".parse().unwrap()).await {
        Err(ClientError::Problem(problem)) => {
            assert_eq!((problem.status, problem.code.as_str()), (404, "unknown_secret"))
        }
        other => panic!("{other:?}"),
    }
    assert_nowhere(fleet.folder());
}

#[tokio::test]
async fn without_the_coordinator_a_rebooted_node_has_its_secrets_and_a_restored_one_has_all() {
    let mut fleet = Fleet::start(1).await.unwrap();
    set(&fleet, "team-a/URL", FIRST).await.assert_done();
    fleet.deploy(&reader("team-a", "[\"URL\"]")).await.unwrap();
    until(&fleet, "team-a", "/URL", FIRST).await;
    dunlin(&fleet, &["backup", "first.tar"]).await.assert_done();
    set(&fleet, "team-a/URL", SECOND).await.assert_done();
    until(&fleet, "team-a", "/URL", SECOND).await;

    // Killed at once, as by a power cut, and back alone.
    fleet.coordinator().kill().await.unwrap();
    fleet.agent(0).kill().await.unwrap();
    fleet.agent(0).start(&[]).await.unwrap();
    until(&fleet, "team-a", "/URL", SECOND).await;

    // What was acknowledged is there after the coordinator was killed as well (P1).
    fleet.coordinator().start(&[]).await.unwrap();
    fleet.deploy(&reader("team-b", "[]")).await.unwrap();
    fleet.until_running("team-b/shop").await;
    set(&fleet, "team-b/URL", "of another namespace").await.assert_done();
    fleet.deploy(&reader("team-b", "[\"URL\"]")).await.unwrap();
    until(&fleet, "team-b", "/URL", "of another namespace").await;
    let known = fleet.client().secrets(&"team-a".parse().unwrap()).await.unwrap();
    assert_eq!(known.secrets.len(), 1);
    until(&fleet, "team-a", "/URL", SECOND).await;

    // The restored store has the value of its time, whatever the node has.
    fleet.coordinator().kill().await.unwrap();
    let state = fleet.state().to_owned();
    std::fs::rename(&state, fleet.folder().join("lost")).unwrap();
    dunlin(&fleet, &["restore", "first.tar", "--state", &state.display().to_string()]).await.assert_done();
    fleet.coordinator().start(&[]).await.unwrap();
    assert_eq!(ask(&fleet, "team-a", "/URL").await.unwrap(), SECOND, "nothing changes in recovery");
    dunlin(&fleet, &["recover", "--confirm"]).await.assert_done();
    until(&fleet, "team-a", "/URL", FIRST).await;
    assert_nowhere(fleet.folder());
}

#[tokio::test]
async fn a_store_and_a_key_that_do_not_belong_together_are_refused() {
    let mut fleet = Fleet::start(0).await.unwrap();
    set(&fleet, "team-a/URL", FIRST).await.assert_done();
    fleet.coordinator().kill().await.unwrap();
    let mut other = Fleet::start(0).await.unwrap();
    other.coordinator().kill().await.unwrap();
    for name in ["authority.pem", "ca.pem"] {
        std::fs::copy(other.state().join(name), fleet.state().join(name)).unwrap();
    }
    let error = fleet.coordinator().start(&[]).await.unwrap_err();
    let told = format!("{error:#}");
    assert!(told.contains("the store's secret team-a/URL cannot be unsealed"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_coordinator_goes_on_with_the_secrets() {
    let Some(mut fleet) = Coordinators::start(2, 1).await.unwrap() else { return };
    let client = fleet.client().unwrap();
    let value = |text: &str| dunlin_model::SecretValue::new(text.to_owned().into()).unwrap();
    let id = "team-a/URL".parse().unwrap();
    client.set_secret(&id, &dunlin_api::SetSecret { value: value(FIRST) }).await.unwrap();
    let first = fleet.in_charge(None).await;
    fleet.coordinator(first).kill().await.unwrap();
    fleet.in_charge(Some(first)).await;
    fleet.deploy(&reader("team-a", "[\"URL\"]")).await.unwrap();
    let ingress = fleet.agent(0).address("ingress");
    eventually("the secret is read", async || {
        let request = http().get(format!("http://{ingress}/URL")).header("host", "team-a.localhost");
        let response = request.send().await.map_err(|error| error.to_string())?;
        let text = response.text().await.map_err(|error| error.to_string())?;
        if text == FIRST { Ok(()) } else { Err(text) }
    })
    .await;
    assert_nowhere(fleet.folder());
}
