//! Why things are as they are, what a deploy would change and what a loss would bring about, asked of a fleet at work.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use dunlin_e2e::{Printed, hello, printed};
use dunlin_guest_artifacts::{CAT, HELLO};
use dunlin_harness::{App, Fleet, eventually};
use dunlin_model::{
    AllocationChange, AllocationExplanation, Decision, EndReason, Explanation, Forecast, Plan,
};
use serde::de::DeserializeOwned;

async fn run(fleet: &Fleet, arguments: &[&str]) -> Printed {
    printed(&fleet.dunlin(arguments).await.unwrap())
}

async fn json<T: DeserializeOwned>(fleet: &Fleet, arguments: &[&str]) -> T {
    let told = run(fleet, &[arguments, &["--output", "json"]].concat()).await;
    serde_json::from_str(told.assert_done()).unwrap_or_else(|error| panic!("{error}: {told:?}"))
}

/// Returns what a plan says, and its exit code.
async fn plan(fleet: &Fleet, app: &App) -> (Plan, i32) {
    let told = run(fleet, &["plan", "--output", "json", &path(app)]).await;
    let plan = serde_json::from_str(&told.out).unwrap_or_else(|error| panic!("{error}: {told:?}"));
    (plan, told.code)
}

fn path(app: &App) -> String {
    app.path().display().to_string()
}

/// An app `shop` with the service `hello` and this placement.
fn placed(allocations: u32, placement: &str) -> App {
    let app = hello(HELLO, allocations);
    let manifest = app.path().join("dunlin.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, format!("{text}\n[service.hello.placement]\n{placement}\n")).unwrap();
    app
}

async fn until_explained(fleet: &Fleet, is: impl Fn(&Explanation) -> bool) -> Explanation {
    let workload = "default/shop/hello".parse().unwrap();
    eventually("it is explained", || async {
        let told = fleet.client().explain(&workload).await.map_err(|error| error.to_string())?;
        if is(&told) { Ok(told) } else { Err(format!("{told:?}")) }
    })
    .await
}

#[tokio::test]
async fn where_a_service_is_why_it_waits_and_why_it_ended_is_explained() {
    let mut fleet = Fleet::start(2).await.unwrap();
    fleet.add_agent(&["--label", "zone=b", "--memory", "16MiB"]).await.unwrap();
    fleet.deploy(&hello(HELLO, 2)).await.unwrap();
    fleet.until_running("default/shop").await;
    let told: Explanation = json(&fleet, &["explain", "shop/hello"]).await;
    assert_eq!((told.desired, told.running, told.allocations.len()), (2, 2, 2));
    assert!(told.allocations.iter().all(|it| it.decided_by == Decision::Copies), "{told:?}");
    let id = told.allocations[0].id.to_string();
    let one: AllocationExplanation = json(&fleet, &["explain", &id]).await;
    assert_eq!(one.allocation.as_ref().unwrap().node, told.allocations[0].node);
    assert!(run(&fleet, &["explain", &id]).await.assert_done().contains("why there: "), "{one:?}");

    // It wants what only one node has, which is too small: the old ones go on, and what would help is told.
    let bound = placed(2, r#"require = ["zone = b"]"#);
    run(&fleet, &["deploy", "--no-wait", &path(&bound)]).await.assert_done();
    let told = until_explained(&fleet, |told| told.waiting.is_some()).await;
    let waiting = told.waiting.unwrap();
    assert_eq!((waiting.nodes, waiting.able), (3, 0));
    let shown = run(&fleet, &["explain", "hello"]).await;
    for words in [
        "2 are not `zone = b`",
        "1 is too full",
        "free 16MiB of memory on a node with `zone = b`: on node-3 it is least",
        "lower its `memory` to 16MiB",
        "drop `zone = b`",
    ] {
        assert!(shown.assert_done().contains(words), "`{words}` is missing: {shown:?}");
    }

    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    let told = until_explained(&fleet, |told| told.allocations.len() == 1 && !told.ended.is_empty()).await;
    assert!(told.waiting.is_none(), "{told:?}");
    let gone = &told.ended[0];
    let one: AllocationExplanation = json(&fleet, &["explain", &gone.id.to_string()]).await;
    assert_eq!((one.allocation, one.ended.as_ref()), (None, Some(gone)));
    run(&fleet, &["delete", "shop", "--yes"]).await.assert_done();
    let told = until_explained(&fleet, |told| told.allocations.is_empty()).await;
    assert_eq!((told.revision, told.ended[0].why), (None, EndReason::Deleted));
    let shown = run(&fleet, &["explain", "default/shop/hello"]).await;
    assert!(shown.assert_done().contains("its app was deleted"), "{shown:?}");
}

#[tokio::test]
async fn what_nobody_knows_is_not_explained() {
    let fleet = Fleet::start(0).await.unwrap();
    run(&fleet, &["explain", "a99"])
        .await
        .assert_failed(1, &["cannot explain allocation a99", "until the coordinator"]);
    let words = ["cannot explain `default/shop/none`", "there is no workload `default/shop/none`"];
    run(&fleet, &["explain", "default/shop/none"]).await.assert_failed(1, &words);
    run(&fleet, &["explain", "none"]).await.assert_failed(1, &["there is no workload `none`"]);
    let wrong = run(&fleet, &["explain", "a99", "--coredump", "file"]).await;
    wrong.assert_failed(2, &["only an instance has one"]);
}

#[tokio::test]
async fn a_plan_says_what_the_deploy_then_does_and_changes_nothing() {
    let fleet = Fleet::start(2).await.unwrap();
    let app = hello(HELLO, 2);
    let (new, code) = plan(&fleet, &app).await;
    assert_eq!((new.before, new.changed, code), (None, true, 2));
    assert_eq!(new.forecast.workloads[0].started, 2);
    assert!(fleet.client().apps().await.unwrap().apps.is_empty(), "a plan changes nothing");
    let digest = dunlin_model::Digest::of(HELLO);
    assert!(!fleet.client().has_component(&digest).await.unwrap(), "a plan uploads nothing");

    fleet.deploy(&app).await.unwrap();
    let status = fleet.until_running("default/shop").await;
    let mut nodes: Vec<String> =
        status.workloads[0].allocations.iter().map(|it| it.node.to_string()).collect();
    let started = new.forecast.workloads[0].allocations.iter();
    let mut foreseen: Vec<String> = started.map(|it| it.to.as_ref().unwrap().to_string()).collect();
    nodes.sort();
    foreseen.sort();
    assert_eq!(nodes, foreseen);
    let (same, code) = plan(&fleet, &app).await;
    assert_eq!((same.changed, same.fields.len(), code), (false, 0, 0));

    let (more, code) = plan(&fleet, &hello(HELLO, 3)).await;
    assert_eq!(code, 2);
    let field = &more.fields[0];
    assert_eq!(
        (field.field.as_str(), field.from.as_deref(), field.to.as_deref()),
        ("allocations", Some("2"), Some("3"))
    );
    let told = &more.forecast.workloads[0];
    assert_eq!((told.kept, told.started, told.serving), (2, 1, 3));

    // The component is another one, which nobody has uploaded.
    let other = [HELLO, b"\0\x04\x01xyz"].concat();
    let (replaced, _) = plan(&fleet, &hello(&other, 2)).await;
    let told = &replaced.forecast.workloads[0];
    assert_eq!((told.replaced, told.serving), (2, 2));
    assert!(told.allocations.iter().all(|it| it.change == AllocationChange::Replaced), "{told:?}");

    let shown = run(&fleet, &["deploy", "--plan", &path(&hello(HELLO, 3))]).await;
    assert_eq!(shown.code, 2, "{shown:?}");
    for words in [
        "revision 1 of `default/shop` would become 2",
        "hello.allocations: 2 -> 3",
        "+ one is started on node-",
    ] {
        assert!(shown.out.contains(words), "`{words}` is missing: {shown:?}");
    }
    assert_eq!(fleet.client().apps().await.unwrap().apps[0].revision, status.revision);
}

#[tokio::test]
async fn a_plan_that_cannot_be_made_does_not_look_like_one_with_changes() {
    let fleet = Fleet::start(0).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().display().to_string();
    run(&fleet, &["plan", &nowhere]).await.assert_failed(1, &["cannot read the manifest"]);
    assert_eq!(run(&fleet, &["plan", "--fly"]).await.code, 1);
    assert_eq!(run(&fleet, &["deploy", "--plan", "--no-wait"]).await.code, 1);
    // What a deploy would refuse a plan refuses too.
    let job = hello(CAT, 1);
    let digest = dunlin_model::Digest::of(CAT);
    fleet.client().upload_component(&digest, CAT.into(), |_| {}).await.unwrap();
    run(&fleet, &["plan", &path(&job)])
        .await
        .assert_failed(1, &["cannot plan `default/shop`", "does not export"]);
}

#[tokio::test]
async fn a_simulation_of_the_fleet_at_work_tells_what_a_loss_would_move_and_touches_nothing() {
    let mut fleet = Fleet::start(0).await.unwrap();
    for zone in ["zone=a", "zone=a", "zone=b"] {
        fleet.add_agent(&["--label", zone]).await.unwrap();
    }
    fleet.deploy(&placed(3, r#"spread = ["zone"]"#)).await.unwrap();
    let before = fleet.until_running("default/shop").await;
    let on_last = before.workloads[0].allocations.iter().filter(|it| it.node.to_string() == "node-3").count();
    assert!(on_last > 0, "{before:?}");
    let told: Forecast = json(&fleet, &["simulate", "--lose-zone", "b"]).await;
    let service = &told.workloads[0];
    assert_eq!((service.moved as usize, service.serving, service.desired), (on_last, 3, 3), "{told:?}");
    let lost = told.moments.iter().find(|it| it.text.starts_with("node-3 is lost")).unwrap();
    assert_eq!(lost.after_ms.0, 10_000, "the lease of the profile");
    let told: Forecast = json(&fleet, &["simulate", "--load", "x40"]).await;
    assert!(told.workloads[0].waiting.is_some() && told.workloads[0].desired == 120, "{told:?}");
    let shown =
        run(&fleet, &["simulate", "--scale", "hello=1", "--lose-node", "node-1", "--drain-node", "node-2"])
            .await;
    assert!(shown.assert_done().contains("3/3 -> 1/1"), "{shown:?}");
    run(&fleet, &["simulate", "--lose-zone", "c"]).await.assert_failed(1, &["no node is in the zone `c`"]);
    run(&fleet, &["simulate", "--lose-node", "node-9"])
        .await
        .assert_failed(1, &["there is no node `node-9`"]);

    // What is written down is looked at without the fleet, and comes to the same.
    let file = fleet.folder().join("fleet.json").display().to_string();
    run(&fleet, &["simulate", "--snapshot-out", &file]).await.assert_done();
    assert_eq!(fleet.until_running("default/shop").await.workloads[0].allocations.len(), 3);
    let live: Forecast = json(&fleet, &["simulate", "--lose-node", "node-3"]).await;
    fleet.coordinator().kill().await.unwrap();
    let written: Forecast = json(&fleet, &["simulate", "--fleet", &file, "--lose-node", "node-3"]).await;
    let counts = |told: &Forecast| {
        let it = &told.workloads[0];
        (it.moved, it.kept, it.serving, it.fewest, it.whole_after_ms, told.took_ms)
    };
    assert_eq!(counts(&live), counts(&written));
}
