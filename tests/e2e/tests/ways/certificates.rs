//! Certificates of nodes are renewed in time, and also late, without any work being dropped.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::path::PathBuf;

use dunlin_e2e::hello;
use dunlin_guest_artifacts::HELLO;
use dunlin_harness::{Fleet, eventually, http};

fn identity(fleet: &Fleet) -> Vec<u8> {
    let file: PathBuf = fleet.folder().join("node-1/identity/identity.pem");
    std::fs::read(file).unwrap()
}

async fn get(fleet: &Fleet) -> Result<(), String> {
    let url = format!("http://{}/", fleet.ingress(0));
    let response = http().get(url).send().await.map_err(|error| error.to_string())?;
    if response.status().is_success() { Ok(()) } else { Err(response.status().to_string()) }
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends_and_after() {
    let mut fleet = Fleet::start_with(&["--node-certificates", "20s"], 1).await.unwrap();
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    let before = fleet.until_running("default/shop").await;
    let first = identity(&fleet);
    eventually("it is renewed in time", || async {
        get(&fleet).await?;
        if identity(&fleet) == first { Err("it is the first one".to_owned()) } else { Ok(()) }
    })
    .await;
    let nodes = fleet.client().nodes().await.unwrap();
    assert!(nodes.nodes[0].last_seen_ms_ago.is_some_and(|ago| ago < 10_000), "{nodes:?}");

    // Without a coordinator the certificate ends; the node goes on, and has a new one as soon as there is somebody.
    fleet.coordinator().kill().await.unwrap();
    let second = identity(&fleet);
    let ended = std::time::Instant::now() + std::time::Duration::from_secs(21);
    eventually("it has ended", || async {
        get(&fleet).await?;
        if std::time::Instant::now() < ended { Err("it has not".to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(identity(&fleet) == second, "nobody could have renewed it");
    fleet.coordinator().start(&[]).await.unwrap();
    eventually("it is renewed late", || async {
        get(&fleet).await?;
        if identity(&fleet) == second { Err("it is the second one".to_owned()) } else { Ok(()) }
    })
    .await;
    eventually("the node is heard", || async {
        let nodes = fleet.client().nodes().await.map_err(|error| error.to_string())?;
        nodes.nodes[0].last_seen_ms_ago.map(|_| ()).ok_or_else(|| format!("{nodes:?}"))
    })
    .await;
    let after = fleet.until_running("default/shop").await;
    let ids = |status: &dunlin_api::AppStatus| status.workloads[0].allocations[0].id;
    assert_eq!(ids(&after), ids(&before), "nothing was started anew");
}
