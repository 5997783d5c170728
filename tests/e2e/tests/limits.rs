//! The limits that operators set: on the coordinator for what is uploaded, on a node for what it compiles and runs.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use dunlin_api::AllocationState;
use dunlin_e2e::{hello, printed, service};
use dunlin_guest_artifacts::HELLO;
use dunlin_harness::{Fleet, eventually};

/// Starts a fleet of one node whose config file has these limits.
async fn fleet_with(limits: &str) -> Fleet {
    let mut fleet = Fleet::start(0).await.unwrap();
    let file = fleet.folder().join("node.toml");
    std::fs::write(&file, format!("[limits]\n{limits}\n")).unwrap();
    fleet.add_agent(&["--config", file.to_str().unwrap()]).await.unwrap();
    fleet
}

/// Returns why the only allocation of `shop` does not start.
async fn why_not(fleet: &Fleet) -> String {
    eventually("the allocation says why it does not start", || async {
        let app = fleet.client().app(&"default/shop".parse().unwrap()).await.map_err(|error| error.to_string())?;
        let mut allocations = app.workloads.iter().flat_map(|workload| &workload.allocations);
        let is_over = |state| [AllocationState::BackingOff, AllocationState::Refused].contains(&state);
        let why = allocations.find(|one| is_over(one.state)).and_then(|one| one.reason.clone());
        why.ok_or_else(|| format!("{app:?}"))
    })
    .await
}

#[tokio::test]
async fn a_node_compiles_what_its_operator_allows_and_says_the_limit() {
    for (limit, expected) in [
        ("functions = 7", "limit `functions` is 7, observed "),
        ("component_size = \"10KiB\"", "limit `component_size` is 10KiB, observed more"),
        ("compiled_size = \"20KiB\"", "limit `compiled_size` is 20KiB, observed more"),
        ("compile_memory = \"24MiB\"", "limit `compile_memory` is 24MiB, observed more"),
    ] {
        let fleet = fleet_with(limit).await;
        fleet.deploy(&hello(HELLO, 1)).await.unwrap();
        let reason = why_not(&fleet).await;
        assert!(reason.contains(expected), "{limit}: {reason}");
    }
}

#[tokio::test]
async fn a_coordinator_takes_what_its_operator_allows() {
    let limits = ["--limit", "functions=7"];
    let fleet = Fleet::start_with(&limits, 0).await.unwrap();
    let app = service("shop", "hello", HELLO, 1, "/");
    let deployed = printed(&fleet.dunlin_in(app.path(), &["deploy"]).await.unwrap());
    deployed.assert_failed(1, &["limit `functions` is 7, observed "]);
    let wrong = printed(&fleet.dunlin(&["coordinator", "--state", "x", "--limit", "functions=0"]).await.unwrap());
    assert!(wrong.code == 2 && wrong.err.contains("limit `functions` is more than 0 and at most 200000"), "{wrong:?}");
}
