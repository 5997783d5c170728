//! Guests that call services of their namespace by name: in the same process, by another node, during rollouts, in loops.

use dunlin_guest_artifacts::{ASK_HTTP, FETCH_HTTP, TELL_HTTP};
use dunlin_harness::{App, Fleet, eventually, http};

const LIMITS: &str =
    r#"limits = { memory = "32MiB", fuel = "1G", fuel_rate = "100M/s", deadline = "20s", concurrency = 40 }"#;

/// An app with a service `web` that asks for the URL which is posted to it, and a service `cart` that tells what it was
/// asked and has no route; `more` is of its section.
fn shop(more: &str) -> App {
    let manifest = format!(
        r#"
        [app]
        name = "shop"

        [service.web]
        component = "fetch.wasm"
        allocations = 2
        routes = [{{ path = "/" }}]
        {LIMITS}
        [service.web.capabilities]
        outbound_http = ["http://*.shop.internal", "http://cart.bank.internal"]

        [service.cart]
        component = "tell.wasm"
        {LIMITS}
        {more}
        "#
    );
    App::new(&manifest, &[("fetch.wasm", FETCH_HTTP), ("tell.wasm", TELL_HTTP)])
}

/// Has the service at `node` ask for `url`.
async fn asked(fleet: &Fleet, node: usize, url: &str) -> Result<String, String> {
    let sending = http().post(format!("http://{}/", fleet.ingress(node))).body(url.to_owned());
    let sending = sending.header("dunlin-caller", "bank/bank/bank").send();
    let response = sending.await.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let text = response.text().await.map_err(|error| format!("{error:?}"))?;
    if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}")) }
}

/// Waits until the service at each node gets an answer that begins so.
async fn until(fleet: &Fleet, nodes: usize, url: &str, start: &str) -> String {
    let mut last = String::new();
    for node in 0..nodes {
        last = eventually("an answer", || async {
            let heard = asked(fleet, node, url).await?;
            if heard.starts_with(start) { Ok(heard) } else { Err(heard) }
        })
        .await;
    }
    last
}

#[tokio::test]
async fn a_service_is_called_by_its_name_wherever_it_runs() {
    let fleet = Fleet::start(2).await.unwrap();
    fleet.deploy(&shop("")).await.unwrap();
    fleet.until_running("default/shop").await;
    until(&fleet, 2, "http://cart.shop.internal/", "200").await;
    // It runs on one of the two, so that some of these stay in a process and others go by both agents.
    for number in 0..12 {
        let heard = asked(&fleet, number % 2, "http://cart.shop.internal/a/b?c").await.unwrap();
        assert!(heard.starts_with("200 OK\nGET http://cart.shop.internal/a/b?c\n"), "{heard}");
        for line in ["dunlin-caller: default/shop/web\n", "body: 0\n"] {
            assert!(heard.contains(line), "{line:?} is missing in {heard}");
        }
        assert!(!heard.contains("bank"), "{heard}");
    }
    // What is not there, not of this namespace, or not granted.
    for (url, error) in [
        ("http://nobody.shop.internal/", "DnsError"),
        ("http://cart.bank.internal/", "DnsError"),
        ("http://cart.other.internal/", "HttpRequestDenied"),
        ("https://cart.shop.internal/", "HttpRequestDenied"),
    ] {
        let heard = asked(&fleet, 0, url).await.unwrap();
        assert!(heard.contains(error), "{url}: {heard}");
    }
    // From outside it has no name.
    let outside = http().get(format!("http://{}/", fleet.ingress(0))).header("host", "cart.shop.internal");
    let heard = outside.send().await.unwrap().text().await.unwrap();
    assert!(!heard.contains("dunlin-caller") && !heard.contains("GET /"), "{heard}");
    // Another namespace has services of its own.
    let other =
        fleet.dunlin_in(shop("").path(), &["--namespace", "other", "deploy", "--no-wait"]).await.unwrap();
    assert!(!other.status.success(), "its route is taken");
}

#[tokio::test]
async fn a_rollout_of_what_is_called_fails_no_request() {
    let fleet = Fleet::start(2).await.unwrap();
    fleet.deploy(&shop("environment = { A = \"1\" }")).await.unwrap();
    fleet.until_running("default/shop").await;
    until(&fleet, 2, "http://cart.shop.internal/", "200").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let calls = async {
        let mut heard = Vec::new();
        while !*stopped.borrow() || heard.len() < 50 {
            heard.push(asked(&fleet, heard.len() % 2, "http://cart.shop.internal/").await);
        }
        heard
    };
    let rollouts = async {
        for revision in 2..5 {
            fleet.deploy(&shop(&format!("environment = {{ A = \"{revision}\" }}"))).await.unwrap();
            fleet.until_running("default/shop").await;
        }
        stop.send(true).unwrap();
    };
    let (heard, ()) = tokio::join!(calls, rollouts);
    let failed: Vec<_> =
        heard.iter().filter(|heard| !heard.as_ref().is_ok_and(|it| it.starts_with("200 OK\n"))).collect();
    assert!(failed.is_empty(), "of {}: {failed:?}", heard.len());
}

#[tokio::test]
async fn a_loop_of_services_ends() {
    let fleet = Fleet::start(1).await.unwrap();
    let manifest = format!(
        r#"
        [app]
        name = "loop"

        [service.a]
        component = "ask.wasm"
        routes = [{{ path = "/" }}]
        environment = {{ NEXT = "http://b.loop.internal/" }}
        {LIMITS}
        [service.a.capabilities]
        outbound_http = ["http://b.loop.internal"]

        [service.b]
        component = "ask.wasm"
        environment = {{ NEXT = "http://a.loop.internal/" }}
        {LIMITS}
        [service.b.capabilities]
        outbound_http = ["http://a.loop.internal"]
        "#
    );
    fleet.deploy(&App::new(&manifest, &[("ask.wasm", ASK_HTTP)])).await.unwrap();
    fleet.until_running("default/loop").await;
    let heard = eventually("the loop is found", || async {
        let response = http().get(format!("http://{}/", fleet.ingress(0))).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        if status == 508 { Ok(text) } else { Err(format!("{status}: {text}")) }
    })
    .await;
    assert!(heard.contains("loop_detected"), "{heard}");
}
