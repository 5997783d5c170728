//! Deploy and request: from a folder with a manifest to answers from several nodes, and on to the next revision.

use std::collections::BTreeSet;

use dunlin_e2e::{hello, printed, service};
use dunlin_guest_artifacts::{HELLO, HELLO_V2, HOG_HTTP, SLEEP_HTTP, SPIN_HTTP, TRAP_HTTP};
use dunlin_harness::{App, Fleet, eventually, http};

async fn get(fleet: &Fleet, node: usize, path: &str) -> Result<String, String> {
    let url = format!("http://{}{path}", fleet.ingress(node));
    let response = http().get(url).send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.text().await.map_err(|error| error.to_string())?;
    if status.is_success() { Ok(body) } else { Err(format!("{status}: {body}")) }
}

#[tokio::test]
async fn a_deployed_service_answers_on_every_node_from_every_node() {
    let fleet = Fleet::start(3).await.unwrap();
    fleet.deploy(&hello(HELLO, 3)).await.unwrap();
    let status = fleet.until_running("default/shop").await;
    let nodes: BTreeSet<_> = status.workloads[0].allocations.iter().map(|one| one.node.to_string()).collect();
    assert_eq!(nodes.len(), 3, "three allocations are spread over three nodes: {nodes:?}");
    for entry in 0..3 {
        let fleet = &fleet;
        eventually("the node that is asked answers", || async move {
            for _ in 0..6 {
                let answer = get(fleet, entry, "/").await?;
                if answer.split(' ').nth(4) != Some(&format!("node-{}", entry + 1)) {
                    return Err(answer);
                }
            }
            Ok(())
        })
        .await;
    }
    // And one that is elsewhere, through all others.
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    let status = fleet.until_running("default/shop").await;
    let node = status.workloads[0].allocations[0].node.to_string();
    for entry in 0..3 {
        eventually("the node that has it answers", || async {
            let answer = get(&fleet, entry, "/").await?;
            if answer.split(' ').nth(4) == Some(&node) { Ok(()) } else { Err(answer) }
        })
        .await;
    }
}

#[tokio::test]
async fn one_component_is_metered_by_fuel_and_by_time_on_one_node() {
    let fleet = Fleet::start(1).await.unwrap();
    let section = |name: &str, component: &str, path: &str, metering: &str| {
        format!(
            r#"
            [service.{name}]
            component = "{component}"
            routes = [{{ path = "{path}" }}]
            metering = "{metering}"
            limits = {{ memory = "32MiB", fuel = "10M", fuel_rate = "10M/s", fuel_burst = "100M", deadline = "30s" }}
            "#
        )
    };
    let manifest = [
        "[app]\nname = \"shop\"".to_owned(),
        section("by-fuel", "hello.wasm", "/fuel", "fuel"),
        section("by-time", "hello.wasm", "/", "time"),
        section("spin", "spin.wasm", "/spin", "time"),
    ];
    let files: [(&str, &[u8]); 2] = [("hello.wasm", HELLO), ("spin.wasm", SPIN_HTTP)];
    fleet.deploy(&App::new(&manifest.concat(), &files)).await.unwrap();
    fleet.until_running("default/shop").await;
    let answer = eventually("an answer", || get(&fleet, 0, "/")).await;
    assert!(answer.starts_with("hello") && answer.contains("by-time"), "{answer}");
    // Below its path the guest that is metered by fuel says itself that nothing is there.
    for (path, expected) in [("/fuel", "there is only"), ("/spin", "out_of_fuel")] {
        eventually(path, || async {
            match get(&fleet, 0, path).await {
                Err(answer) if answer.contains(expected) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_large_body_is_echoed_through_another_node() {
    let fleet = Fleet::start(2).await.unwrap();
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    let status = fleet.until_running("default/shop").await;
    let elsewhere = usize::from(status.workloads[0].allocations[0].node.to_string() == "node-1");
    let body: Vec<u8> = (0..4_000_000_u32).map(|byte| byte.to_le_bytes()[0]).collect();
    let echoed = eventually("the echo", || async {
        let url = format!("http://{}/echo", fleet.ingress(elsewhere));
        let response = http().post(url).body(body.clone()).send().await;
        let response = response.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("{}: {:?}", response.status(), response.text().await));
        }
        response.bytes().await.map_err(|error| error.to_string())
    })
    .await;
    assert!(echoed == body, "{} of {} bytes came back", echoed.len(), body.len());
}

#[tokio::test]
async fn the_next_revision_takes_over_and_no_request_fails() {
    let fleet = Fleet::start(2).await.unwrap();
    fleet.deploy(&hello(HELLO, 2)).await.unwrap();
    fleet.until_running("default/shop").await;
    eventually("the first answer", || get(&fleet, 0, "/")).await;

    fleet.deploy(&hello(HELLO_V2, 2)).await.unwrap();
    let mut failures = Vec::new();
    let name = "default/shop".parse().unwrap();
    loop {
        for entry in 0..2 {
            failures.extend(get(&fleet, entry, "/").await.err());
        }
        let status = fleet.client().app(&name).await.unwrap();
        let workload = &status.workloads[0];
        let is_done = workload.allocations.len() == 2
            && workload
                .allocations
                .iter()
                .all(|one| one.revision == status.revision && one.state.name() == "running");
        if is_done {
            break;
        }
    }
    assert_eq!(failures, Vec::<String>::new());
    let answer = eventually("an answer of the second revision", || get(&fleet, 0, "/")).await;
    assert!(answer.contains("again"), "{answer}");
}

#[tokio::test]
async fn misbehaving_guests_get_named_answers_and_hurt_nobody() {
    let fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    for (name, component) in
        [("spin", SPIN_HTTP), ("hog", HOG_HTTP), ("trap", TRAP_HTTP), ("sleep", SLEEP_HTTP)]
    {
        let app = service(name, name, component, 1, &format!("/{name}"));
        fleet.deploy(&app).await.unwrap();
        fleet.until_running(&format!("default/{name}")).await;
    }
    let cases = [
        ("/spin", "out_of_fuel"),
        ("/hog", "out_of_memory"),
        ("/trap", "guest_trapped"),
        ("/sleep", "deadline_exceeded"),
    ];
    for (path, code) in cases {
        eventually(path, || async {
            match get(&fleet, 0, path).await {
                Err(answer) if answer.contains(code) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let answer = get(&fleet, 0, "/").await;
        assert!(answer.is_ok(), "after {path} hello answered {answer:?}");
    }
}

#[tokio::test]
async fn an_app_can_be_seen_stopped_and_deleted() {
    let fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    fleet.until_running("default/shop").await;

    let shown = printed(&fleet.dunlin(&["status", "shop"]).await.unwrap());
    assert!(shown.assert_done().contains("hello"), "{shown:?}");
    let shown = printed(&fleet.dunlin(&["nodes"]).await.unwrap());
    assert!(shown.assert_done().contains("node-1"), "{shown:?}");

    printed(&fleet.dunlin(&["stop", "shop"]).await.unwrap()).assert_done();
    eventually("the stopped app answers no more", || async {
        match get(&fleet, 0, "/").await {
            Err(answer) if answer.starts_with("503") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    printed(&fleet.dunlin(&["delete", "shop"]).await.unwrap()).assert_failed(2, &["--yes"]);
    printed(&fleet.dunlin(&["delete", "shop", "--yes"]).await.unwrap()).assert_done();
    eventually("the deleted app has no route", || async {
        match get(&fleet, 0, "/").await {
            Err(answer) if answer.contains("no_route") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    printed(&fleet.dunlin(&["status", "shop"]).await.unwrap()).assert_failed(1, &["shop"]);
}
