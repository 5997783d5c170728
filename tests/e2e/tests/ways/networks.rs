//! Nodes behind routers that rewrite addresses, and nodes that move, on hosts with networks of their own.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;

use dunlin_e2e::{HalfAsked, fetched, in_the_attic};
use dunlin_guest_artifacts::SAY_HTTP;
use dunlin_harness::{Fleet, Network, eventually, http, with_ballast};

/// The hosts: of the coordinator, of a node that all reach, and of one that nobody reaches.
const COORDINATOR: u8 = 0;
const OPEN: u8 = 1;
const HIDDEN: u8 = 2;

/// A coordinator, a node that all reach, and one behind a router, on which a service runs.
struct Scene {
    network: Network,
    fleet: Fleet,
    open: usize,
}

impl Scene {
    async fn begin() -> Self {
        let network = Network::start(3).await.unwrap();
        network.hide(HIDDEN, &[OPEN]).await.unwrap();
        Self::begin_in(network).await
    }

    async fn begin_in(network: Network) -> Self {
        let mut fleet = Fleet::start_in(&network.place(COORDINATOR).unwrap()).await.unwrap();
        let open = fleet.add_agent_at(&network.place(OPEN).unwrap(), &[]).await.unwrap();
        let place = network.place(HIDDEN).unwrap();
        let anywhere = ["--endpoint", "0.0.0.0:0", "--ingress", "0.0.0.0:0"];
        let hidden = [&["--label", "place=attic"][..], &anywhere].concat();
        fleet.add_agent_at(&place, &hidden).await.unwrap();
        fleet.deploy(&in_the_attic("shop", "/", None)).await.unwrap();
        fleet.until_running("default/shop").await;
        Self { network, fleet, open }
    }

    fn ingress(&self) -> SocketAddr {
        self.fleet.ingress(self.open)
    }

    /// Has the service print something; the request enters at the node that all reach.
    async fn say(&self, text: &str) -> Result<(), String> {
        let sending = http().post(format!("http://{}/", self.ingress())).body(text.to_owned()).send();
        let response = sending.await.map_err(|error| format!("{error:?}"))?;
        let status = response.status();
        let told = response.text().await.map_err(|error| format!("{error:?}"))?;
        if status.is_success() { Ok(()) } else { Err(format!("{status}: {told}")) }
    }
}

fn run(scene: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(scene);
}

#[test]
fn a_node_behind_a_router_serves_what_arrives_elsewhere_and_is_asked_for_logs() {
    if Network::around("networks::a_node_behind_a_router_serves_what_arrives_elsewhere_and_is_asked_for_logs")
    {
        run(async {
            let scene = Scene::begin().await;
            eventually("an answer", || scene.say("good morning")).await;
            for _ in 0..20 {
                scene.say("good evening").await.unwrap();
            }
            eventually("its logs", || async {
                let logs =
                    scene.fleet.dunlin(&["logs", "shop/web"]).await.map_err(|error| error.to_string())?;
                let logs = String::from_utf8_lossy(&logs.stdout).into_owned();
                if logs.contains("good morning") && logs.contains("good evening") {
                    Ok(())
                } else {
                    Err(logs)
                }
            })
            .await;
            let nodes = scene.fleet.client().nodes().await.unwrap().nodes;
            let [open, hidden] = &nodes[..] else { panic!("{nodes:?}") };
            assert!(hidden.relayed_with.iter().eq([&open.node]), "{hidden:?}");
            assert!(open.relayed_with.iter().eq([&hidden.node]), "{open:?}");
            assert!(open.round_trip_us.is_some_and(|time| time < 1_000_000), "{nodes:?}");
        });
    }
}

#[test]
fn a_node_that_moves_answers_what_is_under_way() {
    if Network::around("networks::a_node_that_moves_answers_what_is_under_way") {
        run(async {
            let scene = Scene::begin().await;
            eventually("an answer", || scene.say("before")).await;
            let mut request = HalfAsked::begin(scene.ingress()).await.unwrap();
            scene.say("meanwhile").await.unwrap();
            scene.network.move_away(HIDDEN).await.unwrap();
            // New ones are answered too, by the same connections.
            scene.say("elsewhere").await.unwrap();
            request.go_on().await.unwrap();
            request.answered().await.unwrap();
            let of_node = |(path, _): &(std::path::PathBuf, String)| path.ends_with("node-2");
            let (_, log) = scene.fleet.logs().into_iter().find(of_node).unwrap();
            assert!(!log.contains("coordinator lost"), "{log}");
        });
    }
}

#[test]
fn a_node_whose_network_lets_no_udp_through_comes_by_tcp_until_it_does() {
    if Network::around("networks::a_node_whose_network_lets_no_udp_through_comes_by_tcp_until_it_does") {
        run(async {
            let network = Network::start(3).await.unwrap();
            network.let_no_udp(HIDDEN).await.unwrap();
            // It joins, fetches its component and is asked for logs by TCP, too.
            let scene = Scene::begin_in(network).await;
            eventually("an answer", || scene.say("good morning")).await;
            let hidden = || async {
                let nodes = scene.fleet.client().nodes().await.unwrap().nodes;
                nodes.into_iter().find(|node| node.node.to_string() == "node-2").unwrap()
            };
            let status = hidden().await;
            assert!(status.over_tcp && status.relayed_with.len() == 1, "{status:?}");
            let shown = scene.fleet.dunlin(&["nodes"]).await.unwrap();
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            assert!(shown.contains("ms over TCP, relayed with node-1"), "{shown}");
            eventually("its logs", || async {
                let logs = scene.fleet.dunlin(&["logs", "shop/web"]).await.map_err(|it| it.to_string())?;
                let logs = String::from_utf8_lossy(&logs.stdout).into_owned();
                if logs.contains("good morning") { Ok(()) } else { Err(logs) }
            })
            .await;

            scene.network.let_udp(HIDDEN).await.unwrap();
            eventually("it comes by UDP", || async {
                scene.say("meanwhile").await.unwrap();
                let status = hidden().await;
                if status.over_tcp { Err(format!("{status:?}")) } else { Ok(()) }
            })
            .await;
            scene.say("afterwards").await.unwrap();
        });
    }
}

#[test]
fn a_large_transfer_on_a_slow_link_delays_no_heartbeat_and_no_order() {
    if Network::around("networks::a_large_transfer_on_a_slow_link_delays_no_heartbeat_and_no_order") {
        run(async {
            let scene = Scene::begin().await;
            eventually("an answer", || scene.say("before")).await;
            scene.network.slow_down(HIDDEN, "1mbit").await.unwrap();
            // It takes minutes.
            let depot = in_the_attic("depot", "/depot", Some(&with_ballast(SAY_HTTP, 24 << 20, 0)));
            let begun = scene.fleet.dunlin_in(depot.path(), &["deploy", "--no-wait"]).await.unwrap();
            assert!(begun.status.success(), "{begun:?}");
            let hidden = || async {
                let nodes = scene.fleet.client().nodes().await.unwrap().nodes;
                nodes.into_iter().find(|node| node.node.to_string() == "node-2").unwrap()
            };
            eventually("the transfer fills the link", || async {
                let time = hidden().await.round_trip_us;
                if time > Some(50_000) { Ok(()) } else { Err(format!("{time:?}")) }
            })
            .await;
            let began = std::time::Instant::now();
            while began.elapsed() < std::time::Duration::from_secs(5) {
                let seen = hidden().await.last_seen_ms_ago.unwrap();
                assert!(seen < 2_500, "it was heard of {seen} ms ago");
                scene.say("meanwhile").await.unwrap();
            }
            // Two of them are to run there, and one; both are orders.
            let stopped = scene.fleet.dunlin(&["delete", "shop", "--yes"]).await.unwrap();
            assert!(stopped.status.success(), "{stopped:?}");
            eventually("the order is carried out", || async {
                let allocations = hidden().await.allocations;
                if allocations == 1 { Ok(()) } else { Err(format!("{allocations} allocations")) }
            })
            .await;
            assert!(began.elapsed() < std::time::Duration::from_secs(15), "{:?}", began.elapsed());
        });
    }
}

#[test]
fn a_fetch_that_was_broken_off_goes_on_where_it_was() {
    if Network::around("networks::a_fetch_that_was_broken_off_goes_on_where_it_was") {
        run(async {
            let mut scene = Scene::begin().await;
            scene.network.slow_down(HIDDEN, "4mbit").await.unwrap();
            let component = with_ballast(SAY_HTTP, 4 << 20, 0);
            let depot = in_the_attic("depot", "/depot", Some(&component));
            let begun = scene.fleet.dunlin_in(depot.path(), &["deploy", "--no-wait"]).await.unwrap();
            assert!(begun.status.success(), "{begun:?}");
            let hidden = scene.fleet.agent(1);
            let components = hidden.folder().join("components");
            eventually("a third of it is there", || async {
                // The file has its full length from the beginning, and blocks where something was written.
                let on_disk = |entry: std::fs::DirEntry| entry.metadata().unwrap().blocks() * 512;
                let is_partial =
                    |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|it| it == "partial");
                let files = std::fs::read_dir(&components).map_err(|error| error.to_string())?;
                let partial = files.map(Result::unwrap).find(is_partial).map(on_disk);
                if partial > Some(1_500_000) { Ok(()) } else { Err(format!("{partial:?}")) }
            })
            .await;
            hidden.kill().await.unwrap();
            hidden.start(&[]).await.unwrap();
            scene.fleet.until_running("default/depot").await;
            let (_, log) = scene.fleet.logs().into_iter().find(|(path, _)| path.ends_with("node-2")).unwrap();
            let last = fetched(&log).pop().unwrap();
            assert_eq!(last.bytes, component.len() as u64);
            assert!(last.here_before > 1_200_000, "{last:?}");
            assert!(last.from_coordinator < last.bytes - last.here_before + 100_000, "{last:?}");
        });
    }
}
