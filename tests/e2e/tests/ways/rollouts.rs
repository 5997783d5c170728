//! From one revision to the next on a live fleet: canaries that a person promotes, what is unwell and taken back without
//! a failed request, and the way back to an earlier revision.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::net::SocketAddr;
use std::path::Path;

use dunlin_e2e::{Printed, printed, service};
use dunlin_guest_artifacts::{HELLO, HELLO_V2, SLEEP_HTTP, TRAP_HTTP};
use dunlin_harness::{App, Fleet, eventually, http};

/// Returns the app `shop` with two allocations of a service, and what it says of its rollouts.
fn shop(component: &[u8], more: &str) -> App {
    let manifest = format!(
        r#"
        [app]
        name = "shop"

        [service.hello]
        component = "guest.wasm"
        allocations = 2
        routes = [{{ path = "/" }}]
        limits = {{ memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }}
        {more}
        "#
    );
    App::new(&manifest, &[("guest.wasm", component)])
}

async fn run(fleet: &Fleet, arguments: &[&str]) -> Printed {
    printed(&fleet.dunlin(arguments).await.unwrap())
}

async fn deploy(fleet: &Fleet, app: &App) -> Printed {
    run(fleet, &["deploy", &app.path().display().to_string()]).await
}

async fn get(ingress: SocketAddr) -> Result<String, String> {
    let response =
        http().get(format!("http://{ingress}/")).send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.text().await.map_err(|error| error.to_string())?;
    if status.is_success() { Ok(body) } else { Err(format!("{status}: {body}")) }
}

/// Waits until the last twenty answers began with these words.
async fn answers_with(ingress: SocketAddr, words: &str) {
    eventually(&format!("all answers are `{words}`"), || async move {
        for _ in 0..20 {
            let answer = get(ingress).await?;
            if !answer.starts_with(words) {
                return Err(answer);
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn canaries_run_beside_the_old_revision_until_a_person_promotes_them() {
    let fleet = Fleet::start(2).await.unwrap();
    deploy(&fleet, &shop(HELLO, "")).await.assert_done();
    answers_with(fleet.ingress(0), "hello from").await;

    let rollout = "rollout = { canary = 1, promote = \"by-hand\", bake = \"500ms\" }";
    let second = deploy(&fleet, &shop(HELLO_V2, rollout)).await;
    let told = second.assert_done();
    assert!(told.contains("`dunlin promote default/shop` lets all follow"), "{told}");
    let status = run(&fleet, &["status", "shop"]).await;
    assert!(
        status.assert_done().contains("rollout from revision 1 has canaries that are well"),
        "{status:?}"
    );
    let app = fleet.client().app(&"default/shop".parse().unwrap()).await.unwrap();
    let mut revisions: Vec<u64> = app.workloads[0].allocations.iter().map(|it| it.revision.0).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [1, 1, 2]);

    run(&fleet, &["promote", "shop"]).await.assert_done();
    answers_with(fleet.ingress(0), "hello again").await;
    eventually("the rollout is over", || async {
        let history = run(&fleet, &["history", "shop"]).await;
        let lines: Vec<String> = history.assert_done().lines().map(str::to_owned).collect();
        let is_over = lines[1].contains("current") && lines[2].contains("completed");
        if is_over { Ok(()) } else { Err(lines.join("\n")) }
    })
    .await;
    run(&fleet, &["promote", "shop"]).await.assert_failed(1, &["no canaries that wait"]);

    let back = run(&fleet, &["rollback", "shop"]).await;
    assert!(back.assert_done().contains("under revision 3"), "{back:?}");
    answers_with(fleet.ingress(0), "hello from").await;
    run(&fleet, &["rollback", "shop", "--to", "9"])
        .await
        .assert_failed(1, &["no earlier revision 9", "1, 2"]);
}

/// Returns how many of a hundred answers begin with these words.
async fn of_a_hundred(ingress: SocketAddr, words: &str) -> usize {
    let mut count = 0;
    for _ in 0..100 {
        count += usize::from(get(ingress).await.unwrap().starts_with(words));
    }
    count
}

#[tokio::test]
async fn canaries_have_their_share_of_the_requests_at_every_node() {
    let fleet = Fleet::start(2).await.unwrap();
    deploy(&fleet, &shop(HELLO, "")).await.assert_done();
    for node in 0..2 {
        answers_with(fleet.ingress(node), "hello from").await;
    }
    // A connection that is kept from before knows of it as well.
    let rollout = r#"rollout = { canary = 1, canary_share = "10%", promote = "by-hand", bake = "500ms" }"#;
    deploy(&fleet, &shop(HELLO_V2, rollout)).await.assert_done();
    for node in 0..2 {
        let ingress = fleet.ingress(node);
        eventually("ten of a hundred answers are of the canary", async || {
            let count = of_a_hundred(ingress, "hello again").await;
            if count == 10 { Ok(()) } else { Err(count.to_string()) }
        })
        .await;
        assert_eq!(of_a_hundred(ingress, "hello again").await, 10);
    }
    run(&fleet, &["promote", "shop"]).await.assert_done();
    for node in 0..2 {
        answers_with(fleet.ingress(node), "hello again").await;
    }
}

#[tokio::test]
async fn a_revision_that_is_unwell_is_taken_back_and_no_request_fails() {
    let fleet = Fleet::start(1).await.unwrap();
    let health = "health = { path = \"/\", interval = \"200ms\", failures = 2 }";
    deploy(&fleet, &shop(HELLO, health)).await.assert_done();
    let ingress = fleet.ingress(0);
    answers_with(ingress, "hello from").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let asking = tokio::spawn(async move {
        let (mut answers, mut failures) = (0, Vec::new());
        while !*stopped.borrow() {
            match get(ingress).await {
                Ok(_) => answers += 1,
                Err(failure) => failures.push(failure),
            }
        }
        (answers, failures)
    });

    let second = deploy(&fleet, &shop(TRAP_HTTP, health)).await;
    let words = [
        "revision 2 of `default/shop` has failed",
        "fails its health check: GET /: ",
        "the revision before was restored, as revision 3",
    ];
    second.assert_failed(1, &words);
    let history = run(&fleet, &["history", "shop"]).await;
    let told = history.assert_done();
    assert!(told.contains("restores 1") && told.contains("failed"), "{told}");
    fleet.until_running("default/shop").await;
    stop.send(true).unwrap();
    let (answers, failures) = asking.await.unwrap();
    assert_eq!(failures, Vec::<String>::new(), "besides {answers} answers");
    assert!(answers > 0);
}

#[tokio::test]
async fn what_stays_unwell_is_started_again_and_says_why() {
    let fleet = Fleet::start(1).await.unwrap();
    let health = "health = { path = \"/\", interval = \"200ms\", failures = 2, restart_after = 3 }";
    let app = shop(TRAP_HTTP, health);
    run(&fleet, &["deploy", "--no-wait", &app.path().display().to_string()]).await.assert_done();
    let name = "default/shop".parse().unwrap();
    let again = eventually("both were started again", || async {
        let status = fleet.client().app(&name).await.map_err(|error| error.to_string())?;
        let allocations = &status.workloads[0].allocations;
        let is_so = allocations.len() == 2 && allocations.iter().all(|one| one.restarts > 0);
        if is_so { Ok(allocations.clone()) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert!(again.iter().all(|one| one.revision.0 == 1), "{again:?}");
    let told = run(&fleet, &["explain", "shop/hello"]).await;
    let told = told.assert_done();
    assert!(told.contains("health checks in a row were bad") || told.contains("unhealthy"), "{told}");
}

/// Returns how many files with compiled code are in a folder and those below it.
fn compiled(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let counts = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => compiled(&entry.path()),
        _ => usize::from(entry.path().extension().is_some_and(|extension| extension == "compiled")),
    });
    counts.sum()
}

#[tokio::test]
async fn the_code_of_the_revision_before_stays_on_its_node_while_the_new_one_bakes() {
    let mut fleet = Fleet::start(0).await.unwrap();
    let config = fleet.folder().join("node.toml");
    // There is room for nothing that nobody needs.
    std::fs::write(&config, "[limits]\ncompiled_kept = \"1KiB\"\n").unwrap();
    fleet.add_agent(&["--config", config.to_str().unwrap()]).await.unwrap();
    deploy(&fleet, &shop(HELLO, "")).await.assert_done();
    let second = shop(HELLO_V2, "rollout = { bake = \"1h\" }");
    run(&fleet, &["deploy", "--no-wait", &second.path().display().to_string()]).await.assert_done();
    answers_with(fleet.ingress(0), "hello again").await;

    // What nobody needs goes when other code has come, before that is started.
    deploy(&fleet, &service("other", "web", SLEEP_HTTP, 1, "/other")).await.assert_done();
    assert_eq!(compiled(fleet.folder()), 3, "of both revisions, and the other app's");
    deploy(&fleet, &service("other", "web", TRAP_HTTP, 1, "/other")).await.assert_done();
    assert_eq!(compiled(fleet.folder()), 4, "both revisions of the other app besides");
    run(&fleet, &["rollback", "shop"]).await.assert_done();
    answers_with(fleet.ingress(0), "hello from").await;
}
