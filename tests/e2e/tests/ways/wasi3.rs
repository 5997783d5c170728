//! Components of WASI 0.3: where an operator has switched them on, and nowhere else.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use dunlin_api::ItemsQuery;
use dunlin_e2e::{outside, printed};
use dunlin_guest_artifacts::{HELLO, WASI3_COMMAND, WASI3_COMMAND_PATH, WASI3_SERVICE, WASI3_SERVICE_PATH};
use dunlin_harness::{App, Fleet, eventually, http};

const LIMITS: &str = r#"limits = { memory = "8MiB", fuel = "200M", fuel_rate = "100M/s", fuel_burst = "20G", deadline = "30s" }"#;

/// Starts a node whose operator has switched WASI 0.3 on, and returns its index.
async fn add_node(fleet: &mut Fleet) -> usize {
    let path = fleet.folder().join("node.toml");
    std::fs::write(&path, "features = [\"wasi-0.3\"]\n").unwrap();
    fleet.add_agent(&["--config", path.to_str().unwrap()]).await.unwrap()
}

fn service(capabilities: &str) -> App {
    let manifest = format!(
        r#"
        [app]
        name = "shop"

        [service.web]
        component = "web.wasm"
        routes = [{{ path = "/" }}]
        {LIMITS}

        [service.web.capabilities]
        {capabilities}
        "#
    );
    App::new(&manifest, &[("web.wasm", WASI3_SERVICE)])
}

fn job(case: &str) -> App {
    let manifest = format!(
        r#"
        [app]
        name = "work"

        [job.work]
        component = "work.wasm"
        items = 3
        attempts = 1
        environment = {{ CASE = "{case}" }}
        {LIMITS}
        "#
    );
    App::new(&manifest, &[("work.wasm", WASI3_COMMAND)])
}

async fn ask(fleet: &Fleet, node: usize, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let url = format!("http://{}{path}", fleet.ingress(node));
    let response = http().post(url).body(body.to_owned()).send().await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    Ok((status, response.bytes().await.map_err(|error| error.to_string())?.to_vec()))
}

async fn text(fleet: &Fleet, node: usize, path: &str, expected: u16) -> String {
    eventually(path, || async {
        let (status, body) = ask(fleet, node, path, b"").await?;
        let body = String::from_utf8_lossy(&body).into_owned();
        if status == expected { Ok(body) } else { Err(format!("{status}: {body}")) }
    })
    .await
}

#[tokio::test]
async fn a_service_runs_where_it_is_switched_on_and_nowhere_else() {
    let mut fleet = Fleet::start(1).await.unwrap();
    let app = service("");
    let path = app.path().display().to_string();
    let deployed = printed(&fleet.dunlin(&["deploy", &path, "--no-wait"]).await.unwrap());
    deployed.assert_done();
    assert!(deployed.err.contains("`web` needs wasi-0.3"), "{deployed:?}");
    let name = "default/shop".parse().unwrap();
    eventually("the reason why it waits", || async {
        let status = fleet.client().app(&name).await.map_err(|error| error.to_string())?;
        let waiting = status.workloads[0].waiting.clone().unwrap_or_default();
        let is_told = waiting.contains("no node has the feature wasi-0.3")
            && waiting.contains("features = [\"wasi-0.3\"]");
        if is_told && status.workloads[0].allocations.is_empty() {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;

    let second = add_node(&mut fleet).await;
    let status = fleet.until_running("default/shop").await;
    assert_eq!(status.workloads[0].allocations[0].node.to_string(), "node-2");
    assert_eq!(text(&fleet, second, "/", 200).await, "hello from default/shop/web on node-2\n");
    // By way of the other node, through the guest's memory and past it.
    let body: Vec<u8> = (0..3_000_000_u32).map(|byte| byte.to_le_bytes()[0]).collect();
    for path in ["/echo", "/pass"] {
        for entry in [0, second] {
            let echoed = eventually("the echo", || async {
                match ask(&fleet, entry, path, &body).await? {
                    (200, echoed) => Ok(echoed),
                    (status, said) => Err(format!("{status}: {}", String::from_utf8_lossy(&said))),
                }
            })
            .await;
            assert!(echoed == body, "{path}: {} of {} bytes came back", echoed.len(), body.len());
        }
    }
    for (path, code) in [("/spin", "out_of_fuel"), ("/hog", "out_of_memory"), ("/trap", "trapped")] {
        let answer = text(&fleet, second, path, 502).await;
        assert!(answer.contains(code), "{path}: {answer}");
    }
    // Nothing is granted, so nothing is reached.
    let answer = text(&fleet, second, "/fetch?127.0.0.1:1", 200).await;
    assert!(answer.contains("not fetched") && answer.contains("HttpRequestDenied"), "{answer}");
    let listed = printed(&fleet.dunlin(&["nodes"]).await.unwrap());
    assert!(listed.assert_done().contains("feature/wasi-0.3=on"), "{listed:?}");
}

#[tokio::test]
async fn a_service_of_wasi_0_3_calls_others_of_both_versions() {
    let mut fleet = Fleet::start(0).await.unwrap();
    let node = add_node(&mut fleet).await;
    let manifest = format!(
        r#"
        [app]
        name = "shop"

        [service.web]
        component = "web.wasm"
        routes = [{{ path = "/" }}]
        {LIMITS}
        [service.web.capabilities]
        outbound_http = ["http://*.shop.internal"]

        [service.young]
        component = "web.wasm"
        {LIMITS}

        [service.old]
        component = "hello.wasm"
        {LIMITS}
        "#
    );
    fleet.deploy(&App::new(&manifest, &[("web.wasm", WASI3_SERVICE), ("hello.wasm", HELLO)])).await.unwrap();
    fleet.until_running("default/shop").await;
    for callee in ["young", "old"] {
        let answer = eventually("the callee greets", || async {
            let (status, said) = ask(&fleet, node, &format!("/fetch?{callee}.shop.internal"), b"").await?;
            let said = String::from_utf8_lossy(&said).into_owned();
            if status == 200 && said.starts_with("hello from") {
                Ok(said)
            } else {
                Err(format!("{status}: {said}"))
            }
        })
        .await;
        assert!(answer.contains(&format!("default/shop/{callee}")), "{answer}");
    }
}

#[tokio::test]
async fn a_program_runs_as_a_job() {
    let mut fleet = Fleet::start(0).await.unwrap();
    add_node(&mut fleet).await;
    for (case, outcome, output) in [
        ("greet", "Completed", "hello from WASI 0.3\n"),
        ("spin", "OutOfFuel", ""),
        ("hog", "OutOfMemory", ""),
        ("exit", "Exited", ""),
    ] {
        let app = job(case);
        fleet.deploy(&app).await.unwrap();
        let ran = fleet.dunlin_in(app.path(), &["job", "run", "work", "--output", "json"]).await.unwrap();
        let started: serde_json::Value = serde_json::from_str(printed(&ran).assert_done()).unwrap();
        let run = started["run"].as_str().unwrap().parse().unwrap();
        eventually("the run ends", || async {
            let status = fleet.client().run(run).await.map_err(|error| error.to_string())?;
            if status.state.is_ended() { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
        let page = fleet.client().run_items(run, &ItemsQuery::default()).await.unwrap();
        assert_eq!(page.items.len(), 3);
        for item in page.items {
            assert_eq!(
                (item.record.outcome.name(), item.record.output.as_str()),
                (outcome, output),
                "{case}"
            );
        }
    }
}

#[tokio::test]
async fn what_it_cannot_have_is_refused_at_deploy() {
    let fleet = Fleet::start(0).await.unwrap();
    for (grant, thing) in
        [("scratch = \"/tmp\"", "no files"), ("sockets = [\"127.0.0.1:5432\"]", "no sockets")]
    {
        let refused = fleet.deploy(&service(grant)).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("a component of WASI 0.3 has {thing}")), "{refused}");
    }
}

#[tokio::test]
async fn without_a_fleet_an_option_switches_it_on() {
    let home = tempfile::tempdir().unwrap();
    let run = async |arguments: &[&str]| printed(&outside(home.path(), arguments).output().await.unwrap());
    for verb in [["run", WASI3_COMMAND_PATH], ["serve", WASI3_SERVICE_PATH]] {
        let refused = run(&verb).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(
            refused.err.contains("needs wasi-0.3") && refused.err.contains("--feature wasi-0.3"),
            "{refused:?}"
        );
    }
    let on = ["run", WASI3_COMMAND_PATH, "--feature", "wasi-0.3"];
    assert_eq!(run(&on).await.assert_done(), "hello from WASI 0.3\n");
    let ended = run(&[&on[..], &["--", "exit"]].concat()).await;
    assert_eq!(ended.code, 7, "{ended:?}");
    let scratch = run(&[&on[..], &["--scratch", "/tmp"]].concat()).await;
    assert!(scratch.code == 1 && scratch.err.contains("neither folders nor scratch"), "{scratch:?}");
    let sockets = run(&[&on[..], &["--allow-socket", "127.0.0.1:5432"]].concat()).await;
    assert!(sockets.code == 1 && sockets.err.contains("nor sockets"), "{sockets:?}");
    let unknown = run(&["run", WASI3_COMMAND_PATH, "--feature", "wasi-0.9"]).await;
    assert!(unknown.code == 2 && unknown.err.contains("there is: wasi-0.3"), "{unknown:?}");
}
