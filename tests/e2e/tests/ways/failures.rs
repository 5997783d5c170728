//! What is killed comes back or is replaced, and what was acknowledged is still there.

use dunlin_e2e::hello;
use dunlin_guest_artifacts::HELLO;
use dunlin_harness::{App, Fleet, children, eventually, http, is_running};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

async fn get(fleet: &Fleet, node: usize) -> Result<String, String> {
    let response = http()
        .get(format!("http://{}/", fleet.ingress(node)))
        .send()
        .await
        .map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.text().await.map_err(|error| error.to_string())?;
    if status.is_success() { Ok(body) } else { Err(format!("{status}: {body}")) }
}

#[tokio::test]
async fn a_killed_agent_is_replaced_and_no_request_at_another_node_fails() {
    let mut fleet = Fleet::start(3).await.unwrap();
    fleet.deploy(&hello(HELLO, 3)).await.unwrap();
    fleet.until_running("default/shop").await;
    for entry in 0..2 {
        eventually("the first answer", || get(&fleet, entry)).await;
    }
    fleet.agent(2).kill().await.unwrap();
    let mut failures = Vec::new();
    let name = "default/shop".parse().unwrap();
    let started = std::time::Instant::now();
    loop {
        for entry in 0..2 {
            failures.extend(get(&fleet, entry).await.err());
        }
        let status = fleet.client().app(&name).await.unwrap();
        let allocations = &status.workloads[0].allocations;
        let moved = allocations
            .iter()
            .filter(|one| one.state.name() == "running" && one.node.to_string() != "node-3");
        if moved.count() == 3 {
            break;
        }
        assert!(started.elapsed() < dunlin_harness::PATIENCE, "not moved: {status:?}");
    }
    assert_eq!(failures, Vec::<String>::new());
}

#[tokio::test]
async fn what_runs_everywhere_goes_on_over_a_restart_of_the_coordinator() {
    let mut fleet = Fleet::start(3).await.unwrap();
    let manifest = r#"
        [app]
        name = "shop"

        [service.hello]
        component = "guest.wasm"
        everywhere = true
        limits = { memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }
    "#;
    fleet.deploy(&App::new(manifest, &[("guest.wasm", HELLO)])).await.unwrap();
    let ids = |status: &dunlin_api::AppStatus| {
        let allocations = status.workloads[0].allocations.iter();
        let running = allocations.filter(|one| one.state.name() == "running");
        running.map(|one| (one.id, one.node.clone())).collect::<Vec<_>>()
    };
    let name = "default/shop".parse().unwrap();
    let all_run = async |fleet: &Fleet| {
        eventually("it runs on each node", || async {
            let status = fleet.client().app(&name).await.map_err(|error| error.to_string())?;
            if ids(&status).len() == 3 { Ok(ids(&status)) } else { Err(format!("{status:?}")) }
        })
        .await
    };
    let before = all_run(&fleet).await;
    fleet.coordinator().kill().await.unwrap();
    fleet.coordinator().start(&[]).await.unwrap();
    eventually("all nodes are heard again", || async {
        let nodes = fleet.client().nodes().await.map_err(|error| error.to_string())?;
        let heard = nodes.nodes.iter().filter(|node| node.last_seen_ms_ago.is_some()).count();
        if heard == 3 { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    assert_eq!(all_run(&fleet).await, before, "the coordinator came back and started nothing anew");
}

#[tokio::test]
async fn without_a_coordinator_services_serve_and_a_rebooted_agent_carries_on() {
    let mut fleet = Fleet::start(2).await.unwrap();
    fleet.deploy(&hello(HELLO, 2)).await.unwrap();
    let before = fleet.until_running("default/shop").await;
    eventually("the first answer", || get(&fleet, 0)).await;

    fleet.coordinator().kill().await.unwrap();
    for _ in 0..20 {
        get(&fleet, 0).await.unwrap();
    }
    fleet.agent(0).kill().await.unwrap();
    fleet.agent(0).start(&[]).await.unwrap();
    eventually("the rebooted agent answers without its coordinator", || get(&fleet, 0)).await;

    fleet.coordinator().start(&[]).await.unwrap();
    let after = fleet.until_running("default/shop").await;
    assert_eq!(after.revision, before.revision);
    let ids = |status: &dunlin_api::AppStatus| {
        status.workloads[0].allocations.iter().map(|one| (one.id, one.node.clone())).collect::<Vec<_>>()
    };
    assert_eq!(ids(&after), ids(&before), "the coordinator came back and moved nothing");
}

#[tokio::test]
async fn a_killed_worker_is_back_and_other_namespaces_do_not_notice() {
    let mut fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    fleet.until_running("default/shop").await;
    eventually("the first answer", || get(&fleet, 0)).await;
    let workers = children(fleet.agent(0).id().unwrap());
    assert_eq!(workers.len(), 1);
    kill(Pid::from_raw(workers[0]), Signal::SIGKILL).unwrap();
    eventually("the service answers from a new worker", || async {
        let fresh = get(&fleet, 0).await?;
        Ok(fresh)
    })
    .await;
    let again = children(fleet.agent(0).id().unwrap());
    assert!(again.len() == 1 && again != workers, "{again:?}");
}

#[tokio::test]
async fn an_agent_takes_its_workers_with_it() {
    let mut fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    fleet.until_running("default/shop").await;
    let workers = children(fleet.agent(0).id().unwrap());
    fleet.agent(0).kill().await.unwrap();
    eventually("the worker of a killed agent ends", || async {
        if workers.iter().any(|id| is_running(*id)) { Err(format!("{workers:?}")) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn no_acknowledged_deploy_is_lost_when_the_coordinator_is_killed() {
    let mut fleet = Fleet::start(0).await.unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..8_u64 {
        for number in 0..3 {
            let name = format!("app-{round}-{number}");
            let app = dunlin_e2e::service(&name, "hello", HELLO, 1, &format!("/{name}"));
            let path = app.path().display().to_string();
            let arguments = ["deploy", "--no-wait", path.as_str()];
            let deploy = fleet.dunlin(&arguments);
            if number < 2 {
                assert!(deploy.await.unwrap().status.success());
                acknowledged.push(name);
                continue;
            }
            // The third one is in flight when the coordinator dies: it may be there or not, but not half.
            let doomed = tokio::time::timeout(std::time::Duration::from_millis(round * 7), deploy).await;
            if doomed.is_ok_and(|output| output.unwrap().status.success()) {
                acknowledged.push(name);
            }
        }
        fleet.coordinator().kill().await.unwrap();
        fleet.coordinator().start(&[]).await.unwrap();
        let apps = fleet.client().apps().await.unwrap();
        for name in &acknowledged {
            let found = apps.apps.iter().find(|app| app.name.app.as_str() == name);
            assert!(found.is_some_and(|app| app.workloads.len() == 1), "{name} is lost after round {round}");
        }
    }
}
