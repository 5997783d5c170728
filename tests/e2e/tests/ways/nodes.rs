//! What operators say of nodes and namespaces: nodes are drained without a failed request, cordoned nodes get nothing
//! new, a mass loss is no mass move, and namespaces have what they were given.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::net::SocketAddr;

use dunlin_api::{ItemPage, ItemsQuery};
use dunlin_e2e::{Printed, hello, job, printed};
use dunlin_guest_artifacts::{HELLO, SPIN};
use dunlin_harness::{Fleet, eventually, http};
use dunlin_model::{AppName, RunId};

async fn run(fleet: &Fleet, arguments: &[&str]) -> Printed {
    printed(&fleet.dunlin(arguments).await.unwrap())
}

async fn get(ingress: SocketAddr) -> Result<(), String> {
    let response =
        http().get(format!("http://{ingress}/")).send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.text().await.map_err(|error| error.to_string())?;
    if status.is_success() { Ok(()) } else { Err(format!("{status}: {body}")) }
}

fn shop() -> AppName {
    "default/shop".parse().unwrap()
}

/// Returns the nodes on which the only workload of `shop` has allocations, one for each.
async fn places(fleet: &Fleet) -> Vec<String> {
    let status = fleet.client().app(&shop()).await.unwrap();
    status.workloads[0].allocations.iter().map(|it| it.node.to_string()).collect()
}

/// Waits until the only workload of `shop` waits, and returns why.
async fn reason(fleet: &Fleet) -> String {
    eventually("the service waits", || async {
        let status = fleet.client().app(&shop()).await.map_err(|error| error.to_string())?;
        status.workloads[0].waiting.clone().ok_or_else(|| format!("{status:?}"))
    })
    .await
}

/// Returns the line of `dunlin nodes` for one node.
async fn line(fleet: &Fleet, node: &str) -> String {
    let nodes = run(fleet, &["nodes"]).await;
    let found = nodes.assert_done().lines().find(|line| line.starts_with(node));
    found.unwrap_or_else(|| panic!("{node} is missing: {nodes:?}")).to_owned()
}

#[tokio::test]
async fn a_drain_moves_a_service_without_a_failed_request() {
    let fleet = Fleet::start(2).await.unwrap();
    fleet.deploy(&hello(HELLO, 2)).await.unwrap();
    fleet.until_running("default/shop").await;
    let ingress = fleet.ingress(0);
    eventually("the first answer", || get(ingress)).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let asking = tokio::spawn(async move {
        let (mut answers, mut failures) = (0, Vec::new());
        while !*stopped.borrow() {
            match get(ingress).await {
                Ok(()) => answers += 1,
                Err(failure) => failures.push(failure),
            }
        }
        (answers, failures)
    });

    let drain = run(&fleet, &["node", "drain", "node-2", "--wait"]).await;
    let told = drain.assert_done();
    assert!(told.contains("`node-2` runs nothing") && told.contains("dunlin node uncordon node-2"), "{told}");
    for words in ["what is left in 10m00s is ended", "left on `node-2`", "of `default/shop/hello`"] {
        assert!(drain.err.contains(words), "`{words}` is missing: {drain:?}");
    }
    assert_eq!(places(&fleet).await, ["node-1", "node-1"]);
    assert!(line(&fleet, "node-2").await.contains(" drained "));
    stop.send(true).unwrap();
    let (answers, failures) = asking.await.unwrap();
    assert_eq!(failures, Vec::<String>::new(), "besides {answers} answers");
    assert!(answers > 0);

    run(&fleet, &["node", "uncordon", "node-2"]).await.assert_done();
    assert!(line(&fleet, "node-2").await.contains(" alive "));
    fleet.until_running("default/shop").await;
}

#[tokio::test]
async fn a_cordoned_node_gets_nothing_new_until_it_is_uncordoned() {
    let fleet = Fleet::start(1).await.unwrap();
    let cordon = run(&fleet, &["node", "cordon", "node-1"]).await;
    assert!(cordon.assert_done().contains("nothing new goes to `node-1`"), "{cordon:?}");
    assert!(line(&fleet, "node-1").await.contains(" cordoned "));
    let app = hello(HELLO, 1);
    run(&fleet, &["deploy", "--no-wait", &app.path().display().to_string()]).await.assert_done();
    let reason = reason(&fleet).await;
    assert!(reason.contains("1 node cordoned; `dunlin node uncordon` lets"), "{reason}");
    assert_eq!(places(&fleet).await, Vec::<String>::new());

    let uncordon = run(&fleet, &["node", "uncordon", "node-1"]).await;
    assert!(uncordon.assert_done().contains("`node-1` is used as any other node"), "{uncordon:?}");
    fleet.until_running("default/shop").await;

    // What runs there already is none of a cordon's business.
    run(&fleet, &["node", "cordon", "node-1"]).await.assert_done();
    assert_eq!(places(&fleet).await, ["node-1"]);
}

#[tokio::test]
async fn what_has_no_other_place_is_ended_at_the_deadline_and_the_wait_fails() {
    let fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    fleet.until_running("default/shop").await;
    let drain = run(&fleet, &["node", "drain", "node-1", "--deadline", "2s", "--wait"]).await;
    let words = [
        "not everything has left `node-1` by itself",
        "of `default/shop/hello`",
        "1 node cordoned",
        "longer `--deadline`",
    ];
    drain.assert_failed(1, &words);
    assert_eq!(drain.out, "");
    assert_eq!(places(&fleet).await, Vec::<String>::new());
    assert!(line(&fleet, "node-1").await.contains(" cordoned "));
    run(&fleet, &["node", "uncordon", "node-1"]).await.assert_done();
    fleet.until_running("default/shop").await;
}

#[tokio::test]
async fn a_drained_node_finishes_the_items_it_has_and_gets_no_more() {
    let fleet = Fleet::start(2).await.unwrap();
    let app = job("spin", SPIN, "items = 12\n attempts = 1", &[]);
    // Each item burns what it may at the rate that it may, which takes some hundred milliseconds.
    let manifest = std::fs::read_to_string(app.path().join("dunlin.toml")).unwrap();
    let manifest = manifest.replace("fuel = \"100M\"", "fuel = \"5M\"");
    std::fs::write(app.path().join("dunlin.toml"), manifest).unwrap();
    fleet.deploy(&app).await.unwrap();
    let started = fleet.dunlin_in(app.path(), &["job", "run", "spin", "--output", "json"]).await.unwrap();
    let started: serde_json::Value = serde_json::from_str(printed(&started).assert_done()).unwrap();
    let id: RunId = started["run"].as_str().unwrap().parse().unwrap();
    eventually("node-2 works on items", || async {
        let nodes = fleet.client().nodes().await.map_err(|error| error.to_string())?.nodes;
        if nodes[1].allocations > 0 { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;

    let drain = run(&fleet, &["node", "drain", "node-2", "--wait"]).await;
    assert!(drain.assert_done().contains("`node-2` runs nothing"), "{drain:?}");
    let on_second =
        |page: &ItemPage| page.items.iter().filter(|item| item.record.node.to_string() == "node-2").count();
    let when_drained = fleet.client().run_items(id, &ItemsQuery::default()).await.unwrap();
    let status = eventually("the run ends", || async {
        let status = fleet.client().run(id).await.map_err(|error| error.to_string())?;
        if status.state.is_ended() { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert_eq!((status.recorded, status.items), (12, 12));
    let page = fleet.client().run_items(id, &ItemsQuery::default()).await.unwrap();
    let outcomes = page.items.iter().map(|item| item.record.outcome.name());
    assert!(outcomes.clone().all(|outcome| outcome == "OutOfFuel"), "{:?}", outcomes.collect::<Vec<_>>());
    assert!(on_second(&page) > 0);
    assert_eq!(on_second(&page), on_second(&when_drained), "nothing ran there after it was drained");
}

#[tokio::test]
async fn a_mass_loss_moves_nothing_until_the_operator_says_so() {
    let mut fleet = Fleet::start(5).await.unwrap();
    fleet.deploy(&hello(HELLO, 5)).await.unwrap();
    fleet.until_running("default/shop").await;
    let release = run(&fleet, &["node", "release"]).await;
    assert_eq!(release.assert_done(), "nothing waits to be replaced; no zone was held\n");
    for lost in 0..4 {
        fleet.agent(lost).kill().await.unwrap();
    }
    let status = eventually("the zone is held", || async {
        let status = run(&fleet, &["status"]).await;
        let is_held = status.assert_done().contains("held: the nodes without a zone with ");
        if is_held { Ok(status.out) } else { Err(status.out) }
    })
    .await;
    assert!(status.contains(" of 5 nodes lost, ") && status.contains("`dunlin node release`"), "{status}");
    assert!(reason(&fleet).await.contains("`dunlin node release`"));
    // The first to be lost may have been replaced before anybody could know that it was not alone.
    let places_now = places(&fleet).await;
    let on_last = places_now.iter().filter(|node| *node == "node-5").count();
    assert!(on_last <= 2, "{places_now:?}");

    let release = run(&fleet, &["node", "release"]).await;
    let told = release.assert_done();
    assert!(told.contains("is replaced now; a zone was held: the nodes without a zone with "), "{told}");
    fleet.until_running("default/shop").await;
    assert_eq!(places(&fleet).await, ["node-5"; 5]);
    assert!(!run(&fleet, &["status"]).await.assert_done().contains("held: "));
}

#[tokio::test]
async fn a_node_that_nobody_knows_is_no_usage_error() {
    let fleet = Fleet::start(0).await.unwrap();
    for words in
        [&["node", "cordon", "node-9"][..], &["node", "drain", "node-9"], &["node", "uncordon", "node-9"]]
    {
        let known = run(&fleet, &["stop", "nothing"]).await.code;
        run(&fleet, words).await.assert_failed(known, &["there is no node `node-9`", "`dunlin nodes` shows"]);
    }
    run(&fleet, &["node", "drain", "node-9", "--wait"])
        .await
        .assert_failed(1, &["there is no node `node-9`"]);
}

#[tokio::test]
async fn what_a_namespace_may_have_is_set_bit_by_bit_and_shown() {
    let mut fleet = Fleet::start(0).await.unwrap();
    let unknown = run(&fleet, &["namespace", "show", "team-a"]).await;
    unknown.assert_failed(1, &["cannot show namespace `team-a`", "nobody has said anything"]);
    let set = ["namespace", "set", "team-a", "--memory", "4GiB", "--fuel-rate", "2G/s", "--items", "1000000"];
    run(&fleet, &set).await.assert_done();
    let more = ["namespace", "set", "team-a", "--weight", "3", "--packing", "pack", "--items", "none"];
    let set = run(&fleet, &more).await;
    // A coordinator that starts again knows it too.
    fleet.coordinator().kill().await.unwrap();
    fleet.coordinator().start(&[]).await.unwrap();
    let show = run(&fleet, &["namespace", "show", "team-a"]).await;
    assert_eq!(show.assert_done(), set.assert_done());
    for words in ["weight 3, packing pack", "0B   4GiB", "0/s  2G/s", "0    any"] {
        assert!(show.out.contains(words), "`{words}` is missing: {}", show.out);
    }
    let json = run(&fleet, &["namespace", "show", "team-a", "--output", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(json.assert_done()).unwrap();
    let quota = serde_json::json!({"memory": 4_u64 << 30, "fuel_rate": 2_000_000_000_u64});
    assert_eq!(json["spec"], serde_json::json!({"quota": quota, "weight": 3, "packing": "pack"}));
    let list = run(&fleet, &["namespace", "list"]).await;
    assert!(list.assert_done().contains("team-a"), "{list:?}");
}

#[tokio::test]
async fn a_namespace_is_not_set_by_bad_input() {
    let fleet = Fleet::start(0).await.unwrap();
    for weight in ["0", "1001"] {
        let set = run(&fleet, &["namespace", "set", "team-a", "--weight", weight]).await;
        let words = [
            "cannot set what namespace `team-a` may have",
            "limit `weight` is ",
            &format!(", observed {weight}"),
            "mend `weight`",
        ];
        set.assert_failed(1, &words);
    }
    for words in [
        &["team-a"][..],
        &["team-a", "--memory", "4GB"],
        &["team-a", "--allocations", "many"],
        &["team-a", "--packing", "tight"],
        &["Team_A", "--weight", "3"],
    ] {
        let set = run(&fleet, &[&["namespace", "set"], words].concat()).await;
        assert_eq!(set.code, 2, "{set:?}");
        assert!(set.err.starts_with("error: ") && set.err.contains("--help"), "{set:?}");
    }
    assert_eq!(fleet.client().namespaces().await.unwrap().namespaces, []);
}
