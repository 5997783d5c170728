//! Several coordinators on etcd: whichever is lost, another one acts, and nothing that was acknowledged is lost (P16).

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dunlin_api::{AppStatus, Client};
use dunlin_e2e::hello;
use dunlin_guest_artifacts::HELLO;
use dunlin_harness::{Coordinators, Etcd, Fleet, Place, S3, eventually, http};
use dunlin_model::{Digest, Name, NamespaceSpec};
use nix::sys::signal::Signal;

/// A new one is acting so soon after the one in charge is gone (P16).
const FAILOVER: Duration = Duration::from_secs(15);

/// Writes all the time, and remembers what was acknowledged, and how long it took.
struct Ledger {
    stop: Arc<AtomicBool>,
    done: tokio::task::JoinHandle<(BTreeSet<Name>, Duration)>,
}

impl Ledger {
    fn start(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let done = tokio::spawn(async move {
            let (mut acknowledged, mut longest) = (BTreeSet::new(), Duration::ZERO);
            let mut last = Instant::now();
            for number in 0_u32.. {
                if stopping.load(Ordering::Relaxed) {
                    break;
                }
                let name: Name = format!("written-{number}").parse().unwrap();
                if client.set_namespace(&name, &NamespaceSpec::default()).await.is_ok() {
                    acknowledged.insert(name);
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (acknowledged, longest)
        });
        Self { stop, done }
    }

    async fn end(self) -> (BTreeSet<Name>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.done.await.unwrap()
    }
}

/// Asks a service all the time; returns how many answers there were when it is stopped.
fn ask_all_the_time(
    address: std::net::SocketAddr,
) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u64>, Arc<AtomicU64>) {
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopping, failing) = (Arc::clone(&stop), Arc::clone(&failed));
    let asking = tokio::spawn(async move {
        let mut answered = 0;
        while !stopping.load(Ordering::Relaxed) {
            let answer = http().get(format!("http://{address}/")).header("host", "localhost").send().await;
            match answer {
                Ok(answer) if answer.status().is_success() => answered += 1,
                _ => drop(failing.fetch_add(1, Ordering::Relaxed)),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        answered
    });
    (stop, asking, failed)
}

async fn until_answered(ingress: std::net::SocketAddr) {
    eventually("the service answers", async || {
        let answer = http().get(format!("http://{ingress}/")).header("host", "localhost").send().await;
        let status = answer.map_err(|error| error.to_string())?.status();
        if status.is_success() { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

async fn until_heard(fleet: &Coordinators) {
    eventually("the node is heard", async || {
        let nodes = fleet.client().unwrap().nodes().await.map_err(|error| error.to_string())?;
        nodes.nodes[0].last_seen_ms_ago.map(drop).ok_or_else(|| "it is not".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_is_lost_another_one_acts_and_nothing_is_lost() {
    let Some(mut fleet) = Coordinators::start(3, 1).await.unwrap() else { return };
    fleet.deploy(&hello(HELLO, 2)).await.unwrap();
    let ingress = fleet.agent(0).address("ingress");
    until_answered(ingress).await;
    let (stop, asking, failed) = ask_all_the_time(ingress);
    let ledger = Ledger::start(fleet.client().unwrap());

    // Killed, and started again.
    let first = fleet.in_charge(None).await;
    fleet.coordinator(first).kill().await.unwrap();
    let second = fleet.in_charge(Some(first)).await;
    fleet.coordinator(first).start(&[]).await.unwrap();
    until_heard(&fleet).await;

    // Paused, and woken when another one is in charge.
    fleet.coordinator(second).signal(Signal::SIGSTOP).unwrap();
    let third = fleet.in_charge(Some(second)).await;
    let meanwhile: Name = "while-it-was-paused".parse().unwrap();
    fleet.client_of(third).unwrap().set_namespace(&meanwhile, &NamespaceSpec::default()).await.unwrap();
    fleet.coordinator(second).signal(Signal::SIGCONT).unwrap();
    let address = fleet.coordinator(third).address("api").to_string();
    eventually("the one that was paused follows", async || {
        // It must never tell what was before it was paused.
        if let Ok(known) = fleet.client_of(second).unwrap().namespaces().await {
            let known: Vec<Name> = known.namespaces.into_iter().map(|known| known.namespace).collect();
            assert!(known.contains(&meanwhile), "{known:?}");
        }
        let status = fleet.client_of(second).unwrap().status().await;
        let status = status.map_err(|error| format!("{error}; it said:\n{}", fleet.log_of(second)))?;
        if status.in_charge.as_ref() == Some(&address) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    until_heard(&fleet).await;

    // Each member of etcd, one after the other.
    for member in 0..3 {
        fleet.etcd.kill(member).await.unwrap();
        let name: Name = format!("without-{member}").parse().unwrap();
        eventually("a write is acknowledged", async || {
            let written = fleet.client().unwrap().set_namespace(&name, &NamespaceSpec::default()).await;
            written.map(drop).map_err(|error| error.to_string())
        })
        .await;
        fleet.etcd.start_again(member).await.unwrap();
    }
    // Told to end: another one need not wait for the end of its lease.
    let last = fleet.in_charge(None).await;
    fleet.coordinator(last).end().await.unwrap();
    fleet.in_charge(Some(last)).await;
    until_heard(&fleet).await;

    let (acknowledged, longest) = ledger.end().await;
    let known = fleet.client().unwrap().namespaces().await.unwrap().namespaces;
    let known: BTreeSet<Name> = known.into_iter().map(|namespace| namespace.namespace).collect();
    let lost: Vec<_> = acknowledged.difference(&known).collect();
    assert!(lost.is_empty(), "of {} acknowledged {lost:?} are lost", acknowledged.len());
    assert!(acknowledged.len() > 100, "{acknowledged:?}");
    assert!(longest < FAILOVER, "no write was acknowledged for {longest:?}");
    stop.store(true, Ordering::Relaxed);
    let answered = asking.await.unwrap();
    assert_eq!(failed.load(Ordering::Relaxed), 0, "requests failed, {answered} did not");
    eprintln!(
        "{} writes acknowledged, none for {longest:?} at most; {answered} requests",
        acknowledged.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_coordinator_can_be_asked_for_anything() {
    let Some(fleet) = Coordinators::start(2, 1).await.unwrap() else { return };
    let leader = fleet.in_charge(None).await;
    let follower = 1 - leader;
    let client = fleet.client_of(follower).unwrap();
    let digest = Digest::of(HELLO);
    client.upload_component(&digest, HELLO.into(), |_| {}).await.unwrap();
    assert!(fleet.client_of(leader).unwrap().has_component(&digest).await.unwrap());
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    let app = "default/shop".parse().unwrap();
    eventually("it runs, as both say", async || {
        for index in 0..2 {
            let status =
                fleet.client_of(index).unwrap().app(&app).await.map_err(|error| error.to_string())?;
            if status.workloads[0].running != 1 {
                return Err(format!("{status:?}"));
            }
        }
        Ok(())
    })
    .await;
    let told = fleet.dunlin(&["status"]).await.unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("1 of 1 nodes alive"), "{told}");
    // What is streamed is passed on as well.
    client.backup().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_etcd_may_go_and_come_back() {
    let Some(mut fleet) = Coordinators::start(2, 1).await.unwrap() else { return };
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    let ingress = fleet.agent(0).address("ingress");
    until_answered(ingress).await;
    let (stop, asking, failed) = ask_all_the_time(ingress);
    for member in 0..3 {
        fleet.etcd.kill(member).await.unwrap();
    }
    // Whoever was in charge is not any more, and says so; nobody can be.
    eventually("nobody is in charge", async || {
        for index in 0..2 {
            match fleet.client_of(index).unwrap().status().await {
                Err(error) if error.problem().is_some_and(|problem| problem.code == "not_in_charge") => {}
                other => return Err(format!("{other:?}")),
            }
        }
        Ok(())
    })
    .await;
    for member in 0..3 {
        fleet.etcd.launch_again(member).unwrap();
    }
    fleet.in_charge(None).await;
    until_heard(&fleet).await;
    let name: Name = "later".parse().unwrap();
    fleet.client().unwrap().set_namespace(&name, &NamespaceSpec::default()).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let answered = asking.await.unwrap();
    assert_eq!(failed.load(Ordering::Relaxed), 0, "requests failed, {answered} did not");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_uploaded_is_in_s3_and_outlives_the_coordinator_that_took_it() {
    let s3 = S3::start().await.unwrap();
    let (url, environment) = (s3.url(), s3.environment());
    let started = Coordinators::start_with(2, 1, (&url, &environment)).await.unwrap();
    let Some(mut fleet) = started else { return };
    let client = fleet.client().unwrap();
    let digest = Digest::of(HELLO);
    client.upload_component(&digest, HELLO.into(), |_| {}).await.unwrap();
    // Larger than what is put in one part.
    let large: Vec<u8> = (0..20_000_000_u32).map(|number| (number % 251).to_le_bytes()[0]).collect();
    let input = Digest::of(&large);
    client.upload_input(&input, large.into()).await.unwrap();
    assert!(s3.files() >= 2, "{}", s3.files());
    let unknown = Digest::of(b"never uploaded");
    assert!(!client.has_input(&unknown).await.unwrap());

    let leader = fleet.in_charge(None).await;
    fleet.coordinator(leader).kill().await.unwrap();
    fleet.in_charge(Some(leader)).await;
    assert!(client.has_component(&digest).await.unwrap());
    assert!(client.has_input(&input).await.unwrap());
    // Nothing of it is uploaded again, and the node gets it from the one that never saw it.
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    let ingress = fleet.agent(0).address("ingress");
    until_answered(ingress).await;
    let backup = fleet.folder().join("backup.tar").display().to_string();
    let output = fleet.dunlin(&["backup", &backup]).await.unwrap();
    assert!(told(&output).contains("2 components and inputs"), "{}", told(&output));
}

fn told(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_moves_into_etcd_and_back_and_its_services_go_on() {
    let Some(etcd) = Etcd::start(1).await.unwrap() else { return };
    let mut fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    let before = fleet.until_running("default/shop").await;
    let ids = |status: &AppStatus| {
        status.workloads[0].allocations.iter().map(|allocation| allocation.id).collect::<Vec<_>>()
    };
    until_answered(fleet.ingress(0)).await;
    let (stop, asking, failed) = ask_all_the_time(fleet.ingress(0));
    let state = fleet.state().display().to_string();
    let shared = format!("file://{}", fleet.folder().join("shared").display());
    let url = etcd.url();
    let places = ["--state", &state, "--store", &url, "--components", &shared];

    let refused = fleet.dunlin(&[&["migrate-store"], &places[..]].concat()).await.unwrap();
    assert!(told(&refused).contains("is in use by the process"), "{}", told(&refused));
    fleet.coordinator().end().await.unwrap();
    let moved = fleet.dunlin(&[&["migrate-store"], &places[..]].concat()).await.unwrap();
    assert!(told(&moved).contains("1 components and inputs"), "{}", told(&moved));
    fleet.coordinator().add_arguments(&["--store", &url, "--components", &shared]);
    fleet.coordinator().start(&[]).await.unwrap();
    assert_eq!(ids(&fleet.until_running("default/shop").await), ids(&before));
    let name: Name = "in-etcd".parse().unwrap();
    fleet.client().set_namespace(&name, &NamespaceSpec::default()).await.unwrap();

    let refused = fleet.dunlin(&[&["migrate-store", "--back"], &places[..]].concat()).await.unwrap();
    assert!(!refused.status.success(), "{}", told(&refused));
    fleet.coordinator().end().await.unwrap();
    std::fs::remove_dir_all(fleet.state().join("components")).unwrap();
    let moved = fleet.dunlin(&[&["migrate-store", "--back"], &places[..]].concat()).await.unwrap();
    assert!(told(&moved).contains("1 components and inputs"), "{}", told(&moved));
    fleet.coordinator().remove_arguments(&["--store", &url, "--components", &shared]);
    fleet.coordinator().start(&[]).await.unwrap();
    assert_eq!(ids(&fleet.until_running("default/shop").await), ids(&before));
    let known = fleet.client().namespaces().await.unwrap().namespaces;
    assert!(known.iter().any(|known| known.namespace == name), "{known:?}");
    stop.store(true, Ordering::Relaxed);
    let answered = asking.await.unwrap();
    assert_eq!(failed.load(Ordering::Relaxed), 0, "requests failed, {answered} did not");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_asks_for_certificates_gets_them() {
    let folder = tempfile::tempdir().unwrap();
    Etcd::make_certificates(folder.path(), &[Place::here()]).unwrap();
    let Some(etcd) = Etcd::start_closed(1, folder.path()).await.unwrap() else { return };
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (url, shared) = (etcd.url(), format!("file://{}", file("shared")));
    let (ca, certificate, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let closed = ["--store", &url, "--components", &shared, "--etcd-ca", &ca];
    let own = ["--etcd-cert", &certificate, "--etcd-key", &key];
    let fleet = Fleet::start_with(&[&closed[..], &own].concat(), 0).await.unwrap();
    let name: Name = "by-certificate".parse().unwrap();
    fleet.client().set_namespace(&name, &NamespaceSpec::default()).await.unwrap();

    // Without one, nothing is told.
    let state = file("other");
    let listen = ["--fleet", "127.0.0.1:0", "--api", "127.0.0.1:0"];
    let arguments = [&["coordinator", "--state", &state], &listen[..], &closed].concat();
    let mut other = fleet.command(folder.path(), &arguments);
    let log = folder.path().join("other.log");
    let mut other = other.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    eventually("it says that etcd does not want it", async || {
        let log = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
        if log.contains("etcd does not answer") { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(!folder.path().join("other/authority.pem").exists());
    other.kill().await.unwrap();
}
