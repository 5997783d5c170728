//! Another program for the fleet's agents: brought to them signed, become ring by ring while clients ask, and given up by
//! a node where it does not run, is not signed, ends, or hears of nobody.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use dunlin_api::{StartUpgrade, UpgradeNodeState, UpgradeState, UpgradeStatus};
use dunlin_e2e::printed;
use dunlin_guest_artifacts::HELLO;
use dunlin_harness::{App, Fleet, eventually, http, is_running, program};
use dunlin_model::{Architecture, Digest, DurationMs, Program, UpgradePlan};
use minisign::{KeyPair, PublicKey};
use nix::sys::signal::Signal;

/// Who signs, and where files of the test are.
struct Maker {
    keys: KeyPair,
    folder: tempfile::TempDir,
}

impl Maker {
    fn new() -> Self {
        Self { keys: KeyPair::generate_unencrypted_keypair().unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    fn public(&self) -> &PublicKey {
        &self.keys.pk
    }

    fn sign(&self, bytes: &[u8]) -> String {
        let signed = minisign::sign(Some(&self.keys.pk), &self.keys.sk, Cursor::new(bytes), None, None);
        signed.unwrap().into_string()
    }

    /// Makes a program that is the tested one and has a digest of its own, signed.
    fn program(&self, name: &str) -> PathBuf {
        let mut bytes = std::fs::read(program()).unwrap();
        bytes.extend(name.as_bytes());
        let path = self.folder.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        std::fs::write(self.folder.path().join(format!("{name}.minisig")), self.sign(&bytes)).unwrap();
        path
    }
}

/// Starts a fleet whose nodes take what this maker signs, with a service on each of them.
async fn fleet(maker: &Maker, nodes: usize) -> Fleet {
    let mut fleet = Fleet::start(0).await.unwrap();
    let config = fleet.folder().join("node.toml");
    let key = maker.public().to_base64();
    std::fs::write(&config, format!("[upgrade]\nkeys = [\"{key}\"]\ntrial = \"4s\"\n")).unwrap();
    for _ in 0..nodes {
        fleet.add_agent(&["--config", config.to_str().unwrap()]).await.unwrap();
    }
    let manifest = r#"
        [app]
        name = "shop"

        [service.cart]
        component = "guest.wasm"
        everywhere = true
        routes = [{ path = "/" }]
        limits = { memory = "16MiB", fuel = "1G", fuel_rate = "50M/s", deadline = "20s" }
    "#;
    fleet.deploy(&App::new(manifest, &[("guest.wasm", HELLO)])).await.unwrap();
    fleet.until_running("default/shop").await;
    fleet
}

async fn until(fleet: &Fleet, what: &str, is_so: impl Fn(&UpgradeStatus) -> bool) -> UpgradeStatus {
    eventually(what, async || {
        let status = fleet.client().upgrade().await.map_err(|error| error.to_string())?;
        if is_so(&status) { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await
}

/// Returns the file that an agent's process runs from.
fn runs_from(fleet: &mut Fleet, index: usize) -> PathBuf {
    let process = fleet.agent(index).id().unwrap();
    std::fs::read_link(format!("/proc/{process}/exe")).unwrap()
}

fn is_in(path: &Path, digest: &Digest) -> bool {
    path.ends_with(Path::new("programs").join(digest.hex()))
}

/// Asks all nodes again and again until told to stop; counts what was not answered.
fn clients(
    fleet: &Fleet,
    nodes: usize,
) -> (Arc<AtomicBool>, Arc<AtomicU32>, Vec<tokio::task::JoinHandle<u32>>) {
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let asking = (0..nodes).map(|node| {
        let (url, stop, failed) =
            (format!("http://{}/", fleet.ingress(node)), Arc::clone(&stop), Arc::clone(&failed));
        tokio::spawn(async move {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                let answer = http().get(&url).send().await;
                if !answer.is_ok_and(|answer| answer.status().is_success()) {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
                asked += 1;
            }
            asked
        })
    });
    let asking = asking.collect();
    (stop, failed, asking)
}

#[tokio::test]
async fn agents_become_a_signed_program_ring_by_ring_and_no_request_fails() {
    let maker = Maker::new();
    let mut fleet = fleet(&maker, 2).await;
    let next = maker.program("next");
    let digest = Digest::of(&std::fs::read(&next).unwrap());
    let processes: Vec<u32> = (0..2).map(|index| fleet.agent(index).id().unwrap()).collect();
    let (stop, failed, asking) = clients(&fleet, 2);

    let next = next.to_str().unwrap();
    let command =
        ["upgrade", "start", next, "--rings", "50,100", "--bake", "1s", "--wait", "--timeout", "60s"];
    let said = printed(&fleet.dunlin(&command).await.unwrap());
    assert!(said.code == 0, "{}", said.err);
    assert!(said.out.contains("done; 2 of 2 nodes have it"), "{}", said.out);
    for (index, process) in processes.iter().enumerate() {
        assert!(is_in(&runs_from(&mut fleet, index), &digest), "{index}");
        assert_eq!(fleet.agent(index).id(), Some(*process), "it is the same process");
    }
    stop.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for task in asking {
        asked += task.await.unwrap();
    }
    assert!(asked > 100, "{asked}");
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {asked}");

    // The machine starts what is installed, and that becomes what was chosen; also without a coordinator.
    fleet.coordinator().kill().await.unwrap();
    fleet.agent(0).kill().await.unwrap();
    fleet.agent(0).start(&[]).await.unwrap();
    assert!(is_in(&runs_from(&mut fleet, 0), &digest));
    fleet.coordinator().start(&[]).await.unwrap();

    // Who comes later is told too.
    let config = fleet.folder().join("node.toml");
    let late = fleet.add_agent(&["--config", config.to_str().unwrap()]).await.unwrap();
    until(&fleet, "the third node has it", |status| status.done == 3).await;
    assert!(is_in(&runs_from(&mut fleet, late), &digest));

    // A key that is taken off takes its programs off.
    let key = maker.public().to_base64();
    let stranger = Maker::new().public().to_base64();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(&key, &stranger)).unwrap();
    fleet.agent(late).signal(Signal::SIGHUP).unwrap();
    let node = format!("node-{}", late + 1).parse().unwrap();
    let status = until(&fleet, "the third node has it no more", |status| status.done == 2).await;
    let third = status.nodes.iter().find(|status| status.node == node).unwrap();
    assert_eq!((third.state, &third.program), (UpgradeNodeState::Failed, &None));
    assert!(
        third.reason.as_ref().is_some_and(|reason| reason.contains("it is not signed by a key")),
        "{third:?}"
    );
    std::fs::write(&config, text).unwrap();
    fleet.agent(late).signal(Signal::SIGHUP).unwrap();

    let said = printed(&fleet.dunlin(&["upgrade", "revert", "--yes"]).await.unwrap());
    assert!(said.code == 0, "{}", said.err);
    let status =
        until(&fleet, "all are what was installed", |status| status.state == UpgradeState::Done).await;
    assert!(status.nodes.iter().all(|node| node.program.is_none()), "{status:?}");
    for index in 0..3 {
        assert_eq!(runs_from(&mut fleet, index), program().canonicalize().unwrap());
    }
}

/// Has agents become a program that need not be one, under a plan that does not wait long.
async fn begin(fleet: &Fleet, bytes: &[u8], signature: String) -> u64 {
    let digest = Digest::of(bytes);
    fleet.client().upload_program(&digest, bytes.to_vec().into(), |_| {}).await.unwrap();
    let programs = BTreeMap::from([(Architecture::own(), Program { digest, signature })]);
    let plan = UpgradePlan { bake: DurationMs(500), ..UpgradePlan::default() };
    fleet.client().start_upgrade(&StartUpgrade { programs, plan }).await.unwrap().number
}

/// Returns why an upgrade was stopped, which must be as one node could not become the program; the other was not told.
async fn until_stopped(fleet: &Fleet, number: u64) -> String {
    let is_stopped =
        |status: &UpgradeStatus| status.number == number && status.state == UpgradeState::Stopped;
    let status = until(fleet, "the upgrade is stopped", is_stopped).await;
    let states: Vec<UpgradeNodeState> = status.nodes.iter().map(|node| node.state).collect();
    assert_eq!(states, [UpgradeNodeState::Failed, UpgradeNodeState::Waiting]);
    assert!(status.nodes.iter().all(|node| node.program.is_none()), "{status:?}");
    status.reason.unwrap()
}

const CHECKS: &str = "#!/bin/sh\nfor word; do [ \"$word\" = --check ] && exit 0; done\n";

#[tokio::test]
async fn a_program_that_is_no_good_is_given_up_by_the_first_node_and_no_other_is_told() {
    let maker = Maker::new();
    let mut fleet = fleet(&maker, 2).await;
    let (stop, failed, asking) = clients(&fleet, 2);

    let strange = Maker::new();
    let bytes = b"#!/bin/sh\nexit 0\n";
    let number = begin(&fleet, bytes, strange.sign(bytes)).await;
    let reason = until_stopped(&fleet, number).await;
    assert!(reason.contains("it is not signed by a key that this node's config names"), "{reason}");

    // The right key, and other bytes.
    let number = begin(&fleet, b"#!/bin/sh\nexit 1\n", maker.sign(bytes)).await;
    let reason = until_stopped(&fleet, number).await;
    assert!(reason.contains("it is not signed by a key"), "{reason}");

    let bytes = b"#!/bin/sh\necho it has no lights >&2\nexit 3\n";
    let number = begin(&fleet, bytes, maker.sign(bytes)).await;
    let reason = until_stopped(&fleet, number).await;
    assert!(reason.contains("would not run: it has no lights"), "{reason}");

    // One that waits until its coordinator is gone, and is then what is installed.
    let [waits, goes] = ["waits", "goes"].map(|name| fleet.folder().join(name));
    let (waits_at, goes_at) = (waits.display(), goes.display());
    let waiting = format!("touch {waits_at}\nwhile [ ! -e {goes_at} ]; do sleep 0.05; done\n");
    let bytes = format!("{CHECKS}{waiting}exec \"$DUNLIN_INSTALLED\" \"$@\"\n");
    let number = begin(&fleet, bytes.as_bytes(), maker.sign(bytes.as_bytes())).await;
    eventually("it was started", async || waits.exists().then_some(()).ok_or_else(String::new)).await;
    fleet.coordinator().kill().await.unwrap();
    std::fs::write(&goes, "").unwrap();
    let is_back =
        || fleet.logs().iter().any(|(_, log)| log.contains("the agent becomes again what it was before"));
    eventually("it is given up", async || is_back().then_some(()).ok_or_else(String::new)).await;
    fleet.coordinator().start(&[]).await.unwrap();
    let reason = until_stopped(&fleet, number).await;
    assert!(reason.contains("it was started and no coordinator spoke to it"), "{reason}");

    stop.store(true, Ordering::Relaxed);
    for task in asking {
        task.await.unwrap();
    }
    assert_eq!(failed.load(Ordering::Relaxed), 0);

    // One that ends: whoever starts the agent of the machine starts it again, a few times.
    let bytes = format!("{CHECKS}exit 3\n");
    let number = begin(&fleet, bytes.as_bytes(), maker.sign(bytes.as_bytes())).await;
    let process = i32::try_from(fleet.agent(0).id().unwrap()).unwrap();
    eventually("it has ended", async || (!is_running(process)).then_some(()).ok_or_else(String::new)).await;
    fleet.agent(0).gone().await.unwrap();
    let mut starts = 1;
    while fleet.agent(0).start(&[]).await.is_err() {
        starts += 1;
        assert!(starts < 10, "it is started for ever");
    }
    assert_eq!(starts, 3);
    let reason = until_stopped(&fleet, number).await;
    assert!(reason.contains("it was started 3 times and no coordinator spoke to it"), "{reason}");
    for index in 0..2 {
        assert_eq!(runs_from(&mut fleet, index), program().canonicalize().unwrap());
    }

    // What could not be is tried again only if somebody says so.
    fleet.agent(0).kill().await.unwrap();
    fleet.agent(0).start(&[]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), fleet.until_running("default/shop")).await.unwrap();
    let before = fleet.client().upgrade().await.unwrap();
    assert_eq!((before.number, before.state), (number, UpgradeState::Stopped));
}
