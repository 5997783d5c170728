//! The wall around guests, as it stands on a node: what a worker may, whose guests it has, and what is on its disk.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use dunlin_e2e::{hello, printed};
use dunlin_guest_artifacts::HELLO;
use dunlin_harness::{App, Fleet, eventually, http};

/// Starts one node whose operator has written `config`.
async fn fleet(config: &str) -> Fleet {
    let mut fleet = Fleet::start(0).await.unwrap();
    let path = fleet.folder().join("node.toml");
    fs::write(&path, config).unwrap();
    fleet.add_agent(&["--config", path.to_str().unwrap()]).await.unwrap();
    fleet
}

/// Returns the processes which `agent` has started and which still run.
fn workers(agent: u32) -> BTreeSet<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_worker = |process: &u32| {
        let status = status(*process);
        status.get("PPid") == Some(&agent.to_string()) && !status["State"].starts_with('Z')
    };
    processes.filter(is_worker).collect()
}

/// Returns what `/proc` says of a process; nothing if it is gone.
fn status(process: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

async fn answer(fleet: &Fleet, host: &str) -> String {
    eventually("an answer", || async {
        let url = format!("http://{}/", fleet.ingress(0));
        let response =
            http().get(url).header("host", host).send().await.map_err(|error| error.to_string())?;
        let status = response.status();
        let text = response.text().await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}")) }
    })
    .await
}

fn at(host: &str) -> App {
    let manifest = format!(
        r#"
        [app]
        name = "shop"

        [service.hello]
        component = "hello.wasm"
        routes = [{{ host = "{host}", path = "/" }}]
        "#
    );
    App::new(&manifest, &[("hello.wasm", HELLO)])
}

/// Deploys one service for each of two namespaces and returns the workers that there are then.
async fn workers_of_two_namespaces(fleet: &mut Fleet) -> BTreeSet<u32> {
    for namespace in ["red", "blue"] {
        let host = format!("{namespace}.example");
        let output = fleet.dunlin_in(at(&host).path(), &["deploy", "--namespace", namespace]).await.unwrap();
        printed(&output).assert_done();
        fleet.until_running(&format!("{namespace}/shop")).await;
        assert!(answer(fleet, &host).await.contains("hello"));
    }
    workers(fleet.agent(0).id().unwrap())
}

#[tokio::test]
async fn a_worker_has_no_rights_and_ends_with_its_agent() {
    let mut fleet = fleet("").await;
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    fleet.until_running("default/shop").await;
    let agent = fleet.agent(0).id().unwrap();
    let workers = workers(agent);
    assert_eq!(workers.len(), 1, "{workers:?}");
    let worker = *workers.first().unwrap();
    let status = status(worker);
    for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[field], "0000000000000000", "{field}");
    }
    assert_eq!((status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()), ("1", "2"));
    if nix::unistd::geteuid().is_root() {
        let user: u32 = status["Uid"].split_whitespace().next().unwrap().parse().unwrap();
        assert!((0x7000_0000..0x7001_0000).contains(&user), "{user}");
        let network = |process: u32| fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
        assert_ne!(network(worker), network(agent));
    }

    fleet.agent(0).kill().await.unwrap();
    eventually("the worker ends", || async {
        if self::status(worker).is_empty() { Ok(()) } else { Err("it still runs".to_owned()) }
    })
    .await;
}

#[tokio::test]
async fn each_namespace_has_a_worker_of_its_own() {
    let mut fleet = fleet("").await;
    let workers = workers_of_two_namespaces(&mut fleet).await;
    assert_eq!(workers.len(), 2, "{workers:?}");
    if nix::unistd::geteuid().is_root() {
        let users: BTreeSet<_> = workers.iter().map(|worker| status(*worker)["Uid"].clone()).collect();
        assert_eq!(users.len(), 2, "{users:?}");
    }
}

#[tokio::test]
async fn namespaces_share_a_worker_where_the_operator_says_so() {
    let mut fleet = fleet("isolation = \"shared\"\n").await;
    let workers = workers_of_two_namespaces(&mut fleet).await;
    assert_eq!(workers.len(), 1, "{workers:?}");
    assert!(answer(&fleet, "red.example").await.contains("hello"));

    // What ends one of them ends both, and both come back.
    let worker = nix::unistd::Pid::from_raw(i32::try_from(*workers.first().unwrap()).unwrap());
    nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGKILL).unwrap();
    for host in ["red.example", "blue.example"] {
        assert!(answer(&fleet, host).await.contains("hello"));
    }
}

#[tokio::test]
async fn a_node_that_requires_the_whole_wall_runs_nothing_without_it() {
    let fleet = fleet("hardening = \"required\"\n").await;
    let doctor = fleet.dunlin(&["doctor"]).await.unwrap();
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    if doctor.status.success() {
        fleet.until_running("default/shop").await;
        assert!(answer(&fleet, "any.example").await.contains("hello"));
    } else {
        eventually("the reason why it does not start", || async {
            let output = fleet.dunlin(&["status", "shop"]).await.map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if text.contains("hardening = \"required\"") { Ok(()) } else { Err(text) }
        })
        .await;
    }
}

#[tokio::test]
async fn compiled_code_that_was_changed_on_disk_is_compiled_again() {
    let mut fleet = fleet("").await;
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    fleet.until_running("default/shop").await;
    fleet.agent(0).kill().await.unwrap();

    let folder = fleet.agent(0).folder().join("workers/by-namespace/default/compiled");
    let files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = files.as_slice() else { panic!("one component was compiled, not {files:?}") };
    let mut bytes = fs::read(file).unwrap();
    // Behind the MAC and the header: what would be code.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(file, &bytes).unwrap();

    fleet.agent(0).start(&[]).await.unwrap();
    assert!(answer(&fleet, "any.example").await.contains("hello"));
    assert!(fleet.agent(0).log().contains("compiled code is not genuine"));
    assert!(fs::read(file).unwrap() != bytes, "it was written again");
}
