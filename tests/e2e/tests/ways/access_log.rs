//! The access log of a node: who asked for what, who has answered, and what that burned.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::path::Path;

use dunlin_guest_artifacts::{HELLO, TRAP_HTTP};
use dunlin_harness::{App, Fleet, eventually, http};
use serde_json::Value;

const LIMITS: &str = r#"limits = { memory = "32MiB", fuel = "1G", fuel_rate = "100M/s", deadline = "60s" }"#;

/// Two nodes, of which the first has an access log, and services on both.
async fn start() -> (Fleet, std::path::PathBuf) {
    let mut fleet = Fleet::start(0).await.unwrap();
    let (config, log) = (fleet.folder().join("node.toml"), fleet.folder().join("access.log"));
    std::fs::write(&config, format!("[ingress]\naccess_log = \"{}\"\n", log.display())).unwrap();
    fleet.add_agent(&["--config", config.to_str().unwrap(), "--label", "place=here"]).await.unwrap();
    fleet.add_agent(&["--label", "place=there"]).await.unwrap();
    let manifest = format!(
        r#"
        [app]
        name = "shop"

        [service.here]
        component = "hello.wasm"
        {LIMITS}
        routes = [{{ host = "here.example" }}]
        placement = {{ require = ["place = here"] }}

        [service.there]
        component = "hello.wasm"
        {LIMITS}
        routes = [{{ host = "there.example" }}, {{ host = "limited.example", rate_limit = {{ requests = 1, per = "1h" }} }}]
        placement = {{ require = ["place = there"] }}

        [service.trap]
        component = "trap.wasm"
        {LIMITS}
        routes = [{{ host = "trap.example" }}]
        placement = {{ require = ["place = here"] }}
        "#
    );
    fleet.deploy(&App::new(&manifest, &[("hello.wasm", HELLO), ("trap.wasm", TRAP_HTTP)])).await.unwrap();
    fleet.until_running("default/shop").await;
    (fleet, log)
}

/// Returns the lines that fit, once there are so many.
async fn lines(log: &Path, count: usize, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
    eventually(&format!("{count} lines"), async || {
        let text = std::fs::read_to_string(log).map_err(|error| error.to_string())?;
        let all = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let fit: Vec<Value> = all.filter(|line| fits(line)).collect();
        if fit.len() == count { Ok(fit) } else { Err(text) }
    })
    .await
}

#[tokio::test]
async fn each_request_is_told_of_with_who_has_answered_and_what_that_burned() {
    let (fleet, log) = start().await;
    let url = format!("http://{}", fleet.ingress(0));
    let ask = async |host: &str, path: &str| {
        let request = http().get(format!("{url}{path}")).header("host", host);
        let request =
            request.header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let answer = request.header("user-agent", "a \"test\"").send().await.unwrap();
        let headers: Vec<String> = answer.headers().keys().map(ToString::to_string).collect();
        assert!(!headers.iter().any(|name| name == "dunlin-account" || name == "trailer"), "{headers:?}");
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for host in ["here.example", "there.example"] {
        eventually("an answer", async || match ask(host, "/").await {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        let (status, body) = ask(host, "/?the=last").await;
        assert_eq!(status, 200);
        let told = &lines(&log, 1, |line| line["host"] == host && line["path"] == "/?the=last").await[0];
        assert_eq!((told["status"].as_u64(), told["bytes"].as_u64()), (Some(200), Some(body.len() as u64)));
        let service = format!("default/shop/{}", host.strip_suffix(".example").unwrap());
        assert_eq!(
            (told["service"].as_str(), told["method"].as_str()),
            (Some(service.as_str()), Some("GET"))
        );
        let app = fleet.client().app(&"default/shop".parse().unwrap()).await.unwrap();
        let workload = app.workloads.iter().find(|it| service.ends_with(&format!("/{}", it.name))).unwrap();
        let instance = told["instance"].as_str().unwrap();
        assert!(instance.starts_with(&format!("{}.", workload.allocations[0].id)), "{told}");
        assert!(told["fuel"].as_u64().unwrap() > 1000, "{told}");
        assert!(told["complete"] == true && told["duration_ms"].as_f64().unwrap() > 0.0, "{told}");
        assert_eq!(told["client"], "127.0.0.1");
        assert_eq!(told["trace"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(told["user_agent"], "a \"test\"");
        assert!(told["time"].as_str().unwrap().ends_with('Z') && told["protocol"] == "HTTP/1.1", "{told}");
    }

    // A body that is made while it is sent ends with what it burned.
    let echo = http().post(format!("{url}/echo")).header("host", "there.example").body(vec![b'x'; 300_000]);
    assert_eq!(echo.send().await.unwrap().bytes().await.unwrap().len(), 300_000);
    let told = &lines(&log, 1, |line| line["path"] == "/echo").await[0];
    assert!(told["bytes"] == 300_000 && told["fuel"].as_u64().unwrap() > 1000, "{told}");

    assert_eq!(ask("nobody.example", "/").await.0, 404);
    let told = &lines(&log, 1, |line| line["host"] == "nobody.example").await[0];
    assert!(told["failure"] == "no_route" && told.get("service").is_none(), "{told}");
    assert_eq!(ask("limited.example", "/").await.0, 200);
    assert_eq!(ask("limited.example", "/").await.0, 429);
    let told = &lines(&log, 1, |line| line["status"] == 429).await[0];
    assert!(told["failure"] == "rate_limited" && told["service"] == "default/shop/there", "{told}");
    let (status, body) = ask("trap.example", "/").await;
    assert_eq!(status, 502, "{body}");
    let told = &lines(&log, 1, |line| line["host"] == "trap.example").await[0];
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&told["failure"], &told["instance"]), (&problem["code"], &problem["instance"]), "{told}");
}

#[tokio::test]
async fn a_file_that_cannot_be_had_is_told_before_the_agent_starts() {
    let fleet = Fleet::start(0).await.unwrap();
    let config = fleet.folder().join("node.toml");
    std::fs::write(&config, "[ingress]\naccess_log = \"/nowhere/access.log\"\n").unwrap();
    let state = fleet.folder().join("state");
    let (config, state) = (config.to_str().unwrap(), state.to_str().unwrap());
    let check =
        ["--check", "--fleet", "127.0.0.1:1", "--node", "attic", "--state", state, "--config", config];
    let told = fleet.dunlin(&[&["agent"], &check[..]].concat()).await.unwrap();
    let told = dunlin_e2e::printed(&told);
    told.assert_failed(1, &["`[ingress] access_log` cannot be written: /nowhere/access.log", "No such file"]);
}
