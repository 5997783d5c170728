//! Jobs: items over the nodes, one record each, a total, and outcomes with names.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use dunlin_api::{ItemsQuery, RunStatus};
use dunlin_e2e::{job, printed};
use dunlin_guest_artifacts::{CAT, ENV, EXIT_CODE, HOG, SPIN, TRAP, WORD_COUNT};
use dunlin_harness::{App, Fleet, eventually};
use dunlin_model::RunId;

async fn start(fleet: &Fleet, app: &App, job: &str) -> RunId {
    fleet.deploy(app).await.unwrap();
    let run = printed(&fleet.dunlin_in(app.path(), &["job", "run", job, "--output", "json"]).await.unwrap());
    let started: serde_json::Value = serde_json::from_str(run.assert_done()).unwrap();
    started["run"].as_str().unwrap().parse().unwrap()
}

async fn until_ended(fleet: &Fleet, run: RunId) -> RunStatus {
    eventually("the run ends", || async {
        let status = fleet.client().run(run).await.map_err(|error| error.to_string())?;
        if status.state.is_ended() { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await
}

#[tokio::test]
async fn every_file_is_an_item_and_the_total_adds_up() {
    let fleet = Fleet::start(3).await.unwrap();
    let files: Vec<(String, Vec<u8>)> = (1..=12)
        .map(|number| (format!("texts/{number:02}.txt"), "word ".repeat(number).into_bytes()))
        .collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, text)| (name.as_str(), text.as_slice())).collect();
    let app = job("count", WORD_COUNT, "input = [\"texts/*.txt\"]\n combine = true", &files);
    let run = start(&fleet, &app, "count").await;
    let status = until_ended(&fleet, run).await;
    assert_eq!(status.state.name(), "completed", "{status:?}");
    assert_eq!((status.items, status.failed), (12, 0));
    let result = printed(&fleet.dunlin(&["job", "result", &run.to_string()]).await.unwrap());
    assert_eq!(result.assert_done().trim(), "total 78 words in 12 files");

    let page = fleet.client().run_items(run, &ItemsQuery::default()).await.unwrap();
    let nodes: std::collections::BTreeSet<_> =
        page.items.iter().map(|item| item.record.node.clone()).collect();
    assert_eq!(nodes.len(), 3, "the items ran on {nodes:?}");
}

#[tokio::test]
async fn an_item_ends_with_the_outcome_of_what_it_did() {
    let fleet = Fleet::start(1).await.unwrap();
    for (component, outcome) in [
        (SPIN, "OutOfFuel"),
        (HOG, "OutOfMemory"),
        (TRAP, "Trapped"),
        (EXIT_CODE, "Exited"),
        (CAT, "Completed"),
    ] {
        let app = job("try", component, "items = 1\n attempts = 1", &[]);
        let run = start(&fleet, &app, "try").await;
        until_ended(&fleet, run).await;
        let page = fleet.client().run_items(run, &ItemsQuery::default()).await.unwrap();
        assert_eq!(page.items.len(), 1);
        assert_eq!(page.items[0].record.outcome.name(), outcome, "{:?}", page.items[0].record);
    }
}

#[tokio::test]
async fn an_item_that_fails_is_tried_again_as_often_as_the_manifest_says() {
    let fleet = Fleet::start(1).await.unwrap();
    let run = start(&fleet, &job("try", TRAP, "items = 2\n attempts = 2", &[]), "try").await;
    let status = until_ended(&fleet, run).await;
    assert_eq!((status.state.name(), status.failed), ("failed", 2));
    let page = fleet.client().run_items(run, &ItemsQuery::default()).await.unwrap();
    let attempts: Vec<u32> = page.items.iter().map(|item| item.record.attempt).collect();
    assert_eq!(attempts, [2, 2]);
}

#[tokio::test]
async fn a_guest_sees_its_item_and_nothing_of_the_machine() {
    let fleet = Fleet::start(1).await.unwrap();
    let more = "items = 1\n environment = { GREETING = \"hello\" }";
    let run = start(&fleet, &job("show", ENV, more, &[]), "show").await;
    until_ended(&fleet, run).await;
    let page = fleet.client().run_items(run, &ItemsQuery::default()).await.unwrap();
    let output = &page.items[0].record.output;
    assert!(output.contains("GREETING=hello") && output.contains("DUNLIN_ITEM=0"), "{output}");
    assert!(!output.contains("PATH=") && !output.contains("HOME="), "{output}");
}

#[tokio::test]
async fn a_run_that_finds_no_room_says_why() {
    let fleet = Fleet::start(1).await.unwrap();
    let app = job("try", CAT, "items = 1\n node_labels = { zone = \"b\" }", &[]);
    let run = start(&fleet, &app, "try").await;
    let waiting = eventually("the run has a reason", || async {
        let status = fleet.client().run(run).await.map_err(|error| error.to_string())?;
        status.waiting.ok_or("no reason yet".to_owned())
    })
    .await;
    assert!(waiting.contains("zone"), "{waiting}");
}
