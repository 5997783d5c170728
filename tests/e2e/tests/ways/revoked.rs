//! A node that is revoked is cut off by the coordinator and by the other nodes, and its work is elsewhere.

use std::time::{Duration, Instant};

use dunlin_e2e::hello;
use dunlin_guest_artifacts::HELLO;
use dunlin_harness::{Fleet, eventually, http};

async fn get(fleet: &Fleet, node: usize) -> Result<(), String> {
    let url = format!("http://{}/", fleet.ingress(node));
    let response = http().get(url).send().await.map_err(|error| error.to_string())?;
    if response.status().is_success() { Ok(()) } else { Err(response.status().to_string()) }
}

#[tokio::test]
async fn a_revoked_node_is_cut_off_within_seconds() {
    let mut fleet = Fleet::start(3).await.unwrap();
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    let before = fleet.until_running("default/shop").await;
    // Every node has a connection to the one that answers, and the two others to be cut off are among them.
    for node in 0..3 {
        eventually("it answers through each", || get(&fleet, node)).await;
    }
    let holder = before.workloads[0].allocations[0].node.clone();
    let other = (0..3).find(|index| format!("node-{}", index + 1) != holder.to_string()).unwrap();
    let name = format!("node-{}", other + 1);

    let output = fleet.dunlin(&["node", "revoke", &name]).await.unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = fleet.dunlin(&["node", "revoke", &name, "--yes"]).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let revoked = Instant::now();
    eventually("its requests reach nobody", || async {
        match get(&fleet, other).await {
            Ok(()) => Err("it answers".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;
    assert!(revoked.elapsed() < Duration::from_secs(5), "{:?}", revoked.elapsed());
    let shown = fleet.dunlin(&["nodes"]).await.unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.lines().any(|line| line.starts_with(&name) && line.contains("revoked")), "{shown}");

    // What the holder ran is replaced as soon as that is revoked, and the third node goes on.
    let output = fleet.dunlin(&["node", "revoke", &holder.to_string(), "--yes"]).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let third = (0..3).find(|index| ![&holder.to_string(), &name].contains(&&format!("node-{}", index + 1)));
    eventually("the third node answers", || get(&fleet, third.unwrap())).await;
    let after = fleet.until_running("default/shop").await;
    assert_eq!(after.workloads[0].allocations[0].node.to_string(), format!("node-{}", third.unwrap() + 1));

    // Its key opens nothing any more, also after a restart.
    fleet.agent(other).kill().await.unwrap();
    fleet.agent(other).start(&[]).await.unwrap();
    let agent = fleet.agent(other);
    eventually("it is told why", || async {
        let log = agent.log();
        if log.contains("was revoked") { Ok(()) } else { Err(log) }
    })
    .await;
}
