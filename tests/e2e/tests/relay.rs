//! Nodes that do not reach each other directly: requests go through the coordinator.

use dunlin_guest_artifacts::TELL_HTTP;
use dunlin_harness::{App, Fleet, eventually, http};

/// An address at which nobody answers, and nobody says so: such packets are thrown away by every system.
const NOWHERE: &str = "240.0.0.1:7400";

/// A service that tells what it was asked, on the second node alone.
const MANIFEST: &str = r#"
[app]
name = "shop"

[service.web]
component = "tell.wasm"
routes = [{ path = "/" }]
limits = { memory = "32MiB", fuel = "1G", fuel_rate = "100M/s", deadline = "20s", concurrency = 40 }
placement = { require = ["place = attic"] }
"#;

/// Asks at a node and returns what the service has told.
async fn asked(fleet: &Fleet, node: usize) -> Result<String, String> {
    let sending = http().get(format!("http://{}/x", fleet.ingress(node))).send();
    let response = sending.await.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let text = response.text().await.map_err(|error| format!("{error:?}"))?;
    if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}")) }
}

#[tokio::test]
async fn a_node_that_nobody_reaches_serves_what_arrives_elsewhere() {
    let mut fleet = Fleet::start(1).await.unwrap();
    let attic = fleet.add_agent(&["--label", "place=attic", "--advertise", NOWHERE]).await.unwrap();
    fleet.deploy(&App::new(MANIFEST, &[("tell.wasm", TELL_HTTP)])).await.unwrap();
    fleet.until_running("default/shop").await;
    eventually("an answer where it runs", || asked(&fleet, attic)).await;
    eventually("an answer elsewhere", || asked(&fleet, 0)).await;
    for _ in 0..20 {
        asked(&fleet, 0).await.unwrap();
    }
    // The way lasts as long as there is a coordinator, whichever it is.
    fleet.coordinator().kill().await.unwrap();
    eventually("an answer where it runs", || asked(&fleet, attic)).await;
    fleet.coordinator().start(&[]).await.unwrap();
    eventually("an answer elsewhere", || asked(&fleet, 0)).await;
    // A node that is gone is given up at once.
    fleet.agent(attic).kill().await.unwrap();
    let refused = || async {
        match asked(&fleet, 0).await {
            Err(told) if told.starts_with("50") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    eventually("a failure that is told", refused).await;
}
