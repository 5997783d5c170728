//! Batch work makes way for a service that finds no room, and all of it is done in the end.

use dunlin_api::ItemsQuery;
use dunlin_e2e::{hello, printed};
use dunlin_guest_artifacts::{HELLO, SLEEP, SPIN};
use dunlin_harness::{App, Fleet, eventually};
use dunlin_model::{EndReason, Explanation, Fuel, RunId};

const ITEMS: usize = 8;

/// A job that fills a node of 64 MiB: each of its items takes a second.
fn batch() -> App {
    let manifest = format!(
        r#"
        [app]
        name = "batch"

        [job.slow]
        component = "sleep.wasm"
        items = {ITEMS}
        parallelism = 2
        attempts = 1
        priority = 10
        limits = {{ memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "1s" }}
        "#
    );
    App::new(&manifest, &[("sleep.wasm", SLEEP)])
}

#[tokio::test]
async fn batch_work_makes_way_for_a_service_and_each_of_its_items_is_done_once() {
    let mut fleet = Fleet::start(0).await.unwrap();
    fleet.add_agent(&["--memory", "64MiB"]).await.unwrap();
    fleet.deploy(&batch()).await.unwrap();
    let started = printed(&fleet.dunlin(&["job", "run", "batch/slow", "--output", "json"]).await.unwrap());
    let started: serde_json::Value = serde_json::from_str(started.assert_done()).unwrap();
    let run: RunId = started["run"].as_str().unwrap().parse().unwrap();
    let workload = "default/batch/slow".parse().unwrap();
    let explained = async || -> Result<Explanation, String> {
        fleet.client().explain(&workload).await.map_err(|error| error.to_string())
    };
    eventually("the job fills the node", || async {
        let told = explained().await?;
        if told.allocations.len() == 2 { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;

    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    fleet.until_running("default/shop").await;
    let ended = eventually("one has made way", || async {
        let told = explained().await?;
        let mut ended = told.ended.iter().filter(|it| it.why == EndReason::Preempted);
        ended.next().cloned().ok_or_else(|| format!("{told:?}"))
    })
    .await;
    assert!(ended.because.contains("preempted for default/shop/hello"), "{ended:?}");

    let status = eventually("the run ends", || async {
        let status = fleet.client().run(run).await.map_err(|error| error.to_string())?;
        if status.state.is_ended() { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await;
    let page = fleet.client().run_items(run, &ItemsQuery::default()).await.unwrap();
    let items: Vec<(u32, u32)> = page.items.iter().map(|it| (it.item, it.record.attempt)).collect();
    let each_once: Vec<(u32, u32)> = (0..u32::try_from(ITEMS).unwrap()).map(|item| (item, 1)).collect();
    assert_eq!(items, each_once, "{status:?}");
    fleet.until_running("default/shop").await;
}

#[tokio::test]
async fn what_an_item_has_burned_that_is_broken_off_is_accounted() {
    let mut fleet = Fleet::start(0).await.unwrap();
    fleet.add_agent(&["--memory", "64MiB"]).await.unwrap();
    let manifest = r#"
        [app]
        name = "batch"

        [job.spin]
        component = "spin.wasm"
        items = 1
        priority = 10
        limits = { memory = "64MiB", fuel = "60G", fuel_rate = "10M/s", deadline = "10m" }
    "#;
    fleet.deploy(&App::new(manifest, &[("spin.wasm", SPIN)])).await.unwrap();
    printed(&fleet.dunlin(&["job", "run", "batch/spin"]).await.unwrap()).assert_done();
    let run: RunId = "r1".parse().unwrap();
    let status = async || fleet.client().run(run).await.map_err(|error| error.to_string());
    let name = "default/batch".parse().unwrap();
    eventually("the job runs", || async {
        let app = fleet.client().app(&name).await.map_err(|error| error.to_string())?;
        let running = app.workloads[0].allocations.iter().filter(|it| it.state.name() == "running");
        if running.count() == 1 { Ok(()) } else { Err(format!("{app:?}")) }
    })
    .await;
    assert_eq!(status().await.unwrap().fuel, Fuel(0), "nothing has ended");

    let shop = hello(HELLO, 1);
    let path = shop.path().display().to_string();
    printed(&fleet.dunlin(&["deploy", "--no-wait", &path]).await.unwrap()).assert_done();
    eventually("the item was broken off", || async {
        let status = status().await?;
        if status.fuel > Fuel(0) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    fleet.until_running("default/shop").await;
    let status = status().await.unwrap();
    assert_eq!((status.recorded, status.failed), (0, 0), "it is queued again: {status:?}");
}
