//! A node that is cut off from its coordinator: what stops there, what is placed elsewhere, and when.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dunlin_guest_artifacts::HOSTILE_HTTP;
use dunlin_harness::{App, Fleet, PATIENCE, eventually, http};
use tokio::net::UdpSocket;

/// The way between one agent and its coordinator, which can be cut.
struct Way {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
}

impl Way {
    async fn to(coordinator: SocketAddr) -> Self {
        let (front, back) =
            (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        back.connect(coordinator).await.unwrap();
        let (address, is_cut) = (front.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let cut = Arc::clone(&is_cut);
        tokio::spawn(async move {
            let (mut there, mut here) = (vec![0; 1 << 16], vec![0; 1 << 16]);
            let mut agent = None;
            loop {
                // A packet that finds nobody is one that is lost.
                tokio::select! {
                    Ok((length, from)) = front.recv_from(&mut there) => {
                        agent = Some(from);
                        if !cut.load(Ordering::Relaxed) {
                            let _lost = back.send(&there[..length]).await;
                        }
                    }
                    Ok(length) = back.recv(&mut here) => {
                        if let Some(agent) = agent.filter(|_| !cut.load(Ordering::Relaxed)) {
                            let _lost = front.send_to(&here[..length], agent).await;
                        }
                    }
                }
            }
        });
        Self { address, is_cut }
    }

    fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }
}

/// Asks a service through the ingress of a node; returns which node has answered, and its fencing number if it has one.
async fn ask(fleet: &Fleet, node: usize, host: &str) -> Result<(String, Option<u64>), String> {
    let url = format!("http://{}/environment", fleet.ingress(node));
    let response = http().get(url).header("host", host).send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.text().await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("{status}: {body}"));
    }
    let variable = |name: &str| {
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(str::to_owned)
    };
    let node = variable("DUNLIN_NODE").ok_or_else(|| format!("no node in {body}"))?;
    Ok((node, variable("DUNLIN_FENCE").map(|fence| fence.parse().unwrap())))
}

const MANIFEST: &str = r#"
[app]
name = "shop"

[service.one]
component = "guest.wasm"
routes = [{ host = "one.localhost" }]
limits = { memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "60s" }
on_partition = "singleton"

[service.each]
component = "guest.wasm"
routes = [{ host = "each.localhost" }]
limits = { memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }
everywhere = true
on_partition = { stop_after = "6s" }
"#;

#[tokio::test]
async fn a_singleton_moves_without_ever_running_twice_and_what_stops_when_cut_off_does() {
    let mut fleet = Fleet::start(2).await.unwrap();
    let mut ways = Vec::new();
    for index in 0..2 {
        let way = Way::to(fleet.fleet_address()).await;
        let agent = fleet.agent(index);
        agent.kill().await.unwrap();
        agent.set_argument("--fleet", way.address.to_string());
        agent.start(&[]).await.unwrap();
        ways.push(way);
    }
    fleet.deploy(&App::new(MANIFEST, &[("guest.wasm", HOSTILE_HTTP)])).await.unwrap();
    fleet.until_running("default/shop").await;
    let (first, fence) = eventually("the first answer", || ask(&fleet, 0, "one.localhost")).await;
    let cut = usize::from(first == "node-2");
    let (other, second) = (1 - cut, format!("node-{}", 2 - cut));
    eventually("each node answers for itself", || ask(&fleet, cut, "each.localhost")).await;

    // What a request is at that would go on for a minute is broken off with the singleton.
    let long = http().get(format!("http://{}/sleep", fleet.ingress(cut))).header("host", "one.localhost");
    let long = tokio::spawn(long.send());
    ways[cut].cut(true);
    let started = std::time::Instant::now();
    let later = loop {
        // Who asks the new one first and the old one then sees both only if both run.
        let new = ask(&fleet, other, "one.localhost").await.ok().filter(|(node, _)| *node == second);
        let old = ask(&fleet, cut, "one.localhost").await.ok().filter(|(node, _)| *node == first);
        match (new, old) {
            (Some(new), None) => break new,
            (Some(new), Some(old)) => panic!("two run at once: {old:?} and {new:?}"),
            (None, _) => assert!(started.elapsed() < PATIENCE, "it was not placed elsewhere"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    };
    assert!(started.elapsed().as_secs() >= 8, "replaced within {:?}", started.elapsed());
    assert!(long.is_finished(), "a request of the old one goes on");
    assert!(fence.is_some() && later.1 > fence, "the number grows from {fence:?} to {:?}", later.1);
    let silent = || async {
        match ask(&fleet, cut, "each.localhost").await {
            Ok((node, _)) if node == first => Err("it still answers".to_owned()),
            Ok(_) | Err(_) => Ok(()),
        }
    };
    eventually("what stops after 6 s has stopped", silent).await;

    ways[cut].cut(false);
    let again = || async {
        let (node, fence) = ask(&fleet, cut, "each.localhost").await?;
        if node == first && fence.is_none() { Ok(()) } else { Err(node) }
    };
    eventually("it goes on when the coordinator is heard again", again).await;
    assert_eq!(ask(&fleet, other, "one.localhost").await.unwrap(), later, "the singleton stays where it is");
}
