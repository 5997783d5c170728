//! Nodes that do not reach each other directly: requests go through the coordinator.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::time::Instant;

use dunlin_e2e::{HalfAsked, in_the_attic};
use dunlin_harness::{Fleet, PATIENCE, eventually, http};

/// An address at which nobody answers, and nobody says so: such packets are thrown away by every system.
const NOWHERE: &str = "240.0.0.1:7400";

/// Asks at a node and returns what the service has told.
async fn asked(fleet: &Fleet, node: usize) -> Result<String, String> {
    let sending = http().get(format!("http://{}/x", fleet.ingress(node))).timeout(PATIENCE).send();
    let response = sending.await.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let text = response.text().await.map_err(|error| format!("{error:?}"))?;
    if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}")) }
}

/// A node that answers, and another one, on which the service runs and which nobody reaches.
async fn start() -> (Fleet, usize) {
    let mut fleet = Fleet::start(1).await.unwrap();
    let attic = fleet.add_agent(&["--label", "place=attic", "--advertise", NOWHERE]).await.unwrap();
    fleet.deploy(&in_the_attic("shop", "/", None)).await.unwrap();
    fleet.until_running("default/shop").await;
    eventually("an answer where it runs", || asked(&fleet, attic)).await;
    eventually("an answer elsewhere", || asked(&fleet, 0)).await;
    (fleet, attic)
}

#[tokio::test]
async fn a_node_that_nobody_reaches_serves_what_arrives_elsewhere_whatever_becomes_of_the_coordinator() {
    let (mut fleet, attic) = start().await;
    for _ in 0..20 {
        asked(&fleet, 0).await.unwrap();
    }
    let mut request = HalfAsked::begin(fleet.ingress(0)).await.unwrap();
    asked(&fleet, 0).await.unwrap();
    fleet.coordinator().kill().await.unwrap();
    asked(&fleet, attic).await.unwrap();
    request.go_on().await.unwrap();
    fleet.coordinator().start(&[]).await.unwrap();
    // What was under way is answered, and what comes while there is no way waits for it.
    asked(&fleet, 0).await.unwrap();
    request.answered().await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_gone_is_given_up() {
    let (mut fleet, attic) = start().await;
    fleet.agent(attic).kill().await.unwrap();
    let (began, limit) = (Instant::now(), PATIENCE / 2);
    let told = asked(&fleet, 0).await.unwrap_err();
    assert!(told.starts_with("50"), "{told}");
    assert!(began.elapsed() < limit, "it took {:?}", began.elapsed());
    // One that says so when it ends is missed at once.
    fleet.agent(attic).start(&[]).await.unwrap();
    eventually("an answer elsewhere", || asked(&fleet, 0)).await;
    fleet.agent(attic).end().await.unwrap();
    let began = Instant::now();
    let told = asked(&fleet, 0).await.unwrap_err();
    assert!(told.starts_with("50"), "{told}");
    assert!(began.elapsed() < limit / 3, "it took {:?}", began.elapsed());
}
