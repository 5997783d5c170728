//! Machines that an operator must approve, and nodes that are taken off the list.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use dunlin_api::{CreateJoinToken, NodeState, NodeStatus};
use dunlin_harness::{Fleet, Process, eventually};

/// Returns how a node stands, if it is on the list.
async fn listed(fleet: &Fleet, node: &str) -> Option<NodeStatus> {
    let nodes = fleet.client().nodes().await.unwrap().nodes;
    nodes.into_iter().find(|found| found.node.to_string() == node)
}

/// Waits until a node stands so.
async fn until(fleet: &Fleet, node: &str, state: NodeState) -> NodeStatus {
    eventually(&format!("{node} is {}", state.name()), || async {
        let found = listed(fleet, node).await;
        found.clone().filter(|found| found.state == state).ok_or_else(|| format!("{found:?}"))
    })
    .await
}

async fn dunlin(fleet: &Fleet, arguments: &[&str]) -> (bool, String) {
    let output = fleet.dunlin(arguments).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// An agent that is not started yet.
fn agent(fleet: &Fleet) -> Process {
    let folder = fleet.folder().join("edge");
    let (state, address) = (folder.display().to_string(), fleet.fleet_address().to_string());
    let given = ["agent", "--state", &state, "--node", "edge", "--fleet", &address];
    let listen = ["--ingress", "127.0.0.1:0", "--endpoint", "127.0.0.1:0"];
    let capacity = ["--memory", "512MiB", "--fuel-rate", "1G/s"];
    Process::new(folder, [&given[..], &listen, &capacity].concat().into_iter().map(str::to_owned).collect())
}

#[tokio::test]
async fn a_machine_waits_for_approval_is_a_node_then_and_is_taken_off_the_list_when_it_is_gone() {
    let mut fleet = Fleet::start(0).await.unwrap();
    let wish = CreateJoinToken { approval: true, ..CreateJoinToken::default() };
    let token = fleet.client().create_join_token(&wish).await.unwrap().token;
    let mut process = agent(&fleet);
    let log = process.folder().join("process.log");
    let started = tokio::spawn(async move {
        process.start(&[("DUNLIN_JOIN_TOKEN", &token)]).await.unwrap();
        process
    });

    let key = until(&fleet, "edge", NodeState::Pending).await.key.unwrap();
    let (_, shown) = dunlin(&fleet, &["nodes"]).await;
    assert!(shown.contains(&format!("waits for approval, its key is {key}")), "{shown}");
    eventually("the agent says for what it waits", || async {
        let log = std::fs::read_to_string(&log).unwrap();
        let told = log.contains("dunlin node approve edge") && log.contains(&key.to_string());
        if told { Ok(()) } else { Err(log) }
    })
    .await;
    // It waits on while the coordinator is started again.
    fleet.coordinator().kill().await.unwrap();
    fleet.coordinator().start(&[]).await.unwrap();
    assert!(!started.is_finished());
    let (worked, told) = dunlin(&fleet, &["node", "approve", "other"]).await;
    assert!(!worked && told.contains("no machine waits to become node `other`"), "{told}");
    let (worked, told) = dunlin(&fleet, &["node", "approve", "edge"]).await;
    assert!(worked, "{told}");
    let mut process = started.await.unwrap();
    until(&fleet, "edge", NodeState::Alive).await;

    let (worked, told) = dunlin(&fleet, &["node", "remove", "edge", "--yes"]).await;
    assert!(!worked && told.contains("is in use") && told.contains("dunlin node revoke edge"), "{told}");
    process.kill().await.unwrap();
    until(&fleet, "edge", NodeState::Lost).await;
    let (worked, told) = dunlin(&fleet, &["node", "remove", "edge"]).await;
    assert!(!worked && told.contains("--yes"), "{told}");
    let (worked, told) = dunlin(&fleet, &["node", "remove", "edge", "--yes"]).await;
    assert!(worked, "{told}");
    assert_eq!(listed(&fleet, "edge").await, None);

    // It comes back, and is not let in.
    process.start(&[]).await.unwrap();
    eventually("the agent is refused", || async {
        let log = process.log();
        if log.contains("is not known to this fleet") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(listed(&fleet, "edge").await, None);
}
