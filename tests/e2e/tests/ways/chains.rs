//! Jobs after jobs, jobs by themselves, jobs with what somebody gives them, and items that start at most once.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::collections::BTreeSet;
use std::process::Stdio;

use dunlin_api::{ItemsQuery, RunStatus, RunsQuery, StartRun};
use dunlin_e2e::{job, printed};
use dunlin_guest_artifacts::{CAT, ENV, SLEEP, TRAP, WORD_COUNT};
use dunlin_harness::{App, Fleet, eventually};
use dunlin_model::{AppName, Name, RunId};
use tokio::io::AsyncWriteExt as _;

/// Returns an app `etl` whose job `total` comes after `count`, which counts the words of files.
fn map_reduce(count: &[u8]) -> App {
    let manifest = r#"
        [app]
        name = "etl"

        [job.count]
        component = "count.wasm"
        input = ["texts/*.txt"]
        attempts = 1
        limits = { memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }

        [job.total]
        component = "cat.wasm"
        after = ["count"]
        limits = { memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }
        "#;
    let files: [(&str, &[u8]); 4] =
        [("count.wasm", count), ("cat.wasm", CAT), ("texts/a.txt", b"one"), ("texts/b.txt", b"one two")];
    App::new(manifest, &files)
}

async fn started(fleet: &Fleet, arguments: &[&str]) -> RunId {
    let all: Vec<&str> =
        ["job", "run"].iter().chain(arguments).chain(&["--output", "json"]).copied().collect();
    let run = printed(&fleet.dunlin(&all).await.unwrap());
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

async fn until_so_many_runs(fleet: &Fleet, least: usize) -> Vec<RunStatus> {
    eventually("the job has run so often", || async {
        let runs = fleet.client().runs(&RunsQuery::default()).await.map_err(|error| error.to_string())?.runs;
        if runs.len() >= least { Ok(runs) } else { Err(format!("{runs:?}")) }
    })
    .await
}

/// Returns the outputs of all items of a run, one after the other.
async fn outputs(fleet: &Fleet, run: RunId) -> String {
    let page = fleet.client().run_items(run, &ItemsQuery::default()).await.unwrap();
    page.items.into_iter().map(|item| item.record.output).collect()
}

#[tokio::test]
async fn a_job_reads_what_the_job_before_it_has_given() {
    let fleet = Fleet::start(2).await.unwrap();
    fleet.deploy(&map_reduce(WORD_COUNT)).await.unwrap();
    // Nobody who starts it is where the files are: they went with the deploy.
    let followed = printed(&fleet.dunlin(&["job", "run", "etl/total", "--follow"]).await.unwrap());
    followed.assert_done();
    assert!(followed.err.contains("is started, after r1"), "{followed:?}");
    let status = fleet.client().run("r2".parse().unwrap()).await.unwrap();
    assert_eq!(status.after, ["r1".parse().unwrap()]);
    assert!(status.began.is_some_and(|began| began > status.created), "{status:?}");
    assert_eq!(outputs(&fleet, status.run).await, "1 texts/a.txt\n2 texts/b.txt\n");
}

#[tokio::test]
async fn a_job_after_one_that_fails_says_so() {
    let fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&map_reduce(TRAP)).await.unwrap();
    let shown = printed(&fleet.dunlin(&["job", "run", "etl/total", "--wait"]).await.unwrap());
    shown.assert_failed(
        1,
        &["r2 of `default/etl/total` is failed", "r1, which it comes after, has not completed"],
    );
    let alone = started(&fleet, &["etl/count"]).await;
    assert_eq!(until_ended(&fleet, alone).await.state.name(), "failed");
    let all = fleet.client().runs(&RunsQuery::default()).await.unwrap().runs;
    assert_eq!(all.len(), 3, "a job alone starts nothing that comes after it: {all:?}");
}

#[tokio::test]
async fn what_comes_after_itself_is_refused_with_the_way_around() {
    let fleet = Fleet::start(0).await.unwrap();
    let manifest = "[app]\nname = \"etl\"\n[job.a]\ncomponent = \"a.wasm\"\nafter = [\"b\"]\n[job.b]\n\
                    component = \"a.wasm\"\nafter = [\"a\"]\n";
    let app = App::new(manifest, &[("a.wasm", CAT)]);
    let shown = printed(&fleet.dunlin_in(app.path(), &["deploy"]).await.unwrap());
    shown.assert_failed(1, &["5:1", "a job cannot come after itself: `a` after `b` after `a`"]);
}

#[tokio::test]
async fn a_scheduled_job_runs_by_itself_once_for_each_moment() {
    let mut fleet = Fleet::start(1).await.unwrap();
    let schedule =
        "items = 1\n schedule = \"* * * * * *\"\n time_zone = \"Europe/Zurich\"\n overlap = \"allow\"";
    fleet.deploy(&job("tick", CAT, schedule, &[])).await.unwrap();
    let before = until_so_many_runs(&fleet, 3).await;
    fleet.coordinator().kill().await.unwrap();
    fleet.coordinator().start(&[]).await.unwrap();
    let runs = until_so_many_runs(&fleet, before.len() + 2).await;
    let moments: BTreeSet<_> = runs.iter().map(|run| run.due.unwrap()).collect();
    assert_eq!(moments.len(), runs.len(), "no moment has two runs: {runs:?}");
    assert!(moments.iter().all(|moment| moment.0.is_multiple_of(1_000)), "{moments:?}");
    let list = printed(&fleet.dunlin(&["job", "list"]).await.unwrap());
    assert!(list.assert_done().contains("* * * * * * Europe/Zurich"), "{list:?}");
    let name: AppName = "default/batch".parse().unwrap();
    let status = fleet.client().app(&name).await.unwrap();
    let schedule = status.workloads[0].schedule.as_ref().unwrap();
    assert!(schedule.next > schedule.last && schedule.run.is_some(), "{schedule:?}");
    printed(&fleet.dunlin(&["stop", "batch"]).await.unwrap()).assert_done();
    let status = fleet.client().app(&name).await.unwrap();
    assert_eq!(status.workloads[0].schedule, None, "what is stopped does not run by itself");
}

#[tokio::test]
async fn a_run_gets_what_is_written_to_standard_input_and_its_own_variables() {
    let fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&job("show", CAT, "", &[])).await.unwrap();
    let mut command = fleet.command(fleet.folder(), &["job", "run", "show", "--input", "-", "--wait"]);
    let mut running = command.stdin(Stdio::piped()).spawn().unwrap();
    running.stdin.take().unwrap().write_all(b"from far away").await.unwrap();
    assert!(running.wait().await.unwrap().success());
    assert_eq!(outputs(&fleet, "r1".parse().unwrap()).await, "from far away");

    let environment = "items = 1\n environment = { GREETING = \"hello\", NAME = \"nobody\" }";
    fleet.deploy(&job("show", ENV, environment, &[])).await.unwrap();
    let run = started(&fleet, &["batch/show", "--env", "NAME=somebody", "--env", "MORE=1"]).await;
    until_ended(&fleet, run).await;
    let seen = outputs(&fleet, run).await;
    for words in ["GREETING=hello", "NAME=somebody", "MORE=1"] {
        assert!(seen.contains(words), "{seen}");
    }
    let refused = printed(&fleet.dunlin(&["job", "run", "show", "--env", "DUNLIN_RUN=r9"]).await.unwrap());
    refused.assert_failed(1, &["`environment`", "Dunlin's own"]);
}

#[tokio::test]
async fn a_run_is_started_over_the_api_with_its_input() {
    let fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&job("show", CAT, "", &[])).await.unwrap();
    let (app, name): (AppName, Name) = ("default/batch".parse().unwrap(), "show".parse().unwrap());
    let wish = StartRun { input: Some("{\"order\": 7}".to_owned()), ..StartRun::default() };
    let run = fleet.client().start_run(&app, &name, &wish).await.unwrap().run;
    assert_eq!(until_ended(&fleet, run).await.items, 1);
    assert_eq!(outputs(&fleet, run).await, "{\"order\": 7}");

    let much = StartRun { input: Some("x".repeat((256 << 10) + 1)), ..StartRun::default() };
    let refused = fleet.client().start_run(&app, &name, &much).await.unwrap_err();
    let problem = refused.problem().unwrap();
    assert_eq!((problem.status, problem.limit.as_deref()), (422, Some("input")), "{problem:?}");
    let unclear = StartRun { items: Some(2), ..wish };
    assert!(fleet.client().start_run(&app, &name, &unclear).await.is_err());
    let nothing = fleet.client().start_run(&app, &name, &StartRun::default()).await.unwrap_err();
    assert_eq!(nothing.problem().unwrap().code, "nothing_to_work_on");
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_ended() {
    let fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&job("slow", SLEEP, "items = 1\n deadline = \"1s\"", &[])).await.unwrap();
    let run = started(&fleet, &["slow"]).await;
    let status = until_ended(&fleet, run).await;
    assert_eq!(status.state.name(), "failed");
    assert_eq!(status.reason.as_deref(), Some("limit `deadline` of its run is 1s, and it had passed"));
    assert_eq!(status.recorded, 0);
}

#[tokio::test]
async fn an_item_that_may_be_started_once_is_unknown_after_its_agent_was_killed() {
    let mut fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&job("pay", SLEEP, "items = 1\n semantics = \"at-most-once\"", &[])).await.unwrap();
    let run = started(&fleet, &["pay"]).await;
    let name: AppName = "default/batch".parse().unwrap();
    eventually("the item runs", || async {
        let status = fleet.client().app(&name).await.map_err(|error| error.to_string())?;
        let allocations = &status.workloads[0].allocations;
        let is_running = allocations.iter().any(|one| one.state.name() == "running");
        if is_running { Ok(()) } else { Err(format!("{allocations:?}")) }
    })
    .await;
    fleet.agent(0).kill().await.unwrap();
    fleet.agent(0).start(&[]).await.unwrap();
    let status = until_ended(&fleet, run).await;
    assert_eq!((status.state.name(), status.failed), ("failed", 1));
    let page = fleet.client().run_items(run, &ItemsQuery::default()).await.unwrap();
    let record = &page.items[0].record;
    assert_eq!((record.outcome.name(), record.attempt), ("Unknown", 1), "{record:?}");
}
