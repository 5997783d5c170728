//! Routes with rules, from the manifest to clients, also on connections that were handed to workers.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use dunlin_e2e::printed;
use dunlin_guest_artifacts::{HELLO, SLEEP_HTTP, TELL_HTTP};
use dunlin_harness::{App, Fleet, PATIENCE, eventually, http};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMITS: &str = r#"limits = { memory = "32MiB", fuel = "1G", fuel_rate = "100M/s", deadline = "60s" }"#;

/// An app with these routes of a service that tells what it was asked, and a slow one.
fn shop(routes: &str) -> App {
    let manifest = format!(
        r#"
        [app]
        name = "shop"

        [service.web]
        component = "tell.wasm"
        {LIMITS}
        routes = [{{ path = "/" }}, {routes}]

        [service.slow]
        component = "sleep.wasm"
        {LIMITS}
        routes = [{{ path = "/slow", timeout = "500ms" }}]
        "#
    );
    App::new(&manifest, &[("tell.wasm", TELL_HTTP), ("sleep.wasm", SLEEP_HTTP)])
}

/// One connection, on which one request is sent after the other.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(fleet: &Fleet) -> Self {
        Self(BufReader::new(TcpStream::connect(fleet.ingress(0)).await.unwrap()))
    }

    /// Sends a request, and returns the head and the body of the response, which says how long it is.
    async fn ask(&mut self, path: &str, more: &str) -> (String, String) {
        let request = format!("POST {path} HTTP/1.1\r\nhost: shop.example\r\n{more}\r\n");
        let answer = async {
            self.0.get_mut().write_all(request.as_bytes()).await.unwrap();
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert_ne!(self.0.read_line(&mut head).await.unwrap(), 0, "closed after {head:?}");
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            self.0.read_exact(&mut body).await.unwrap();
            (head, String::from_utf8(body).unwrap())
        };
        timeout(PATIENCE, answer).await.expect("an answer comes")
    }
}

#[tokio::test]
async fn rules_hold_on_whatever_connection_and_from_one_deploy_to_the_next() {
    let fleet = Fleet::start(1).await.unwrap();
    let app = shop(
        r#"{ path = "/old", redirect = { to = "https://shop.example/new" } },
           { path = "/robots.txt", respond = { body = "nothing" } },
           { path = "/api", body_limit = "1KiB", rate_limit = { requests = 3, per = "1h", by = "x-api-key" } }"#,
    );
    fleet.deploy(&app).await.unwrap();
    fleet.until_running("default/shop").await;
    let mut client = Client::connect(&fleet).await;
    eventually("an answer", async || {
        let (head, _) = Client::connect(&fleet).await.ask("/", "content-length: 0\r\n").await;
        if head.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(head) }
    })
    .await;
    let empty = "content-length: 0\r\n";
    assert!(client.ask("/", empty).await.0.starts_with("HTTP/1.1 200"));
    let (head, _) = client.ask("/old/x?y=z", empty).await;
    assert!(head.starts_with("HTTP/1.1 308"), "{head}");
    assert!(head.contains("location: https://shop.example/new/x?y=z\r\n"), "{head}");
    let (head, body) = client.ask("/robots.txt", empty).await;
    assert!(head.starts_with("HTTP/1.1 200") && body == "nothing", "{head}{body}");
    for (key, left) in [("one", 3), ("two", 3)] {
        let with_key = format!("x-api-key: {key}\r\n{empty}");
        for _ in 0..left {
            assert!(client.ask("/api", &with_key).await.0.starts_with("HTTP/1.1 200"));
        }
        let (head, body) = client.ask("/api", &with_key).await;
        assert!(head.starts_with("HTTP/1.1 429") && head.contains("retry-after: 1200\r\n"), "{head}");
        assert!(body.contains("\"rate_limited\"") && body.contains("`x-api-key`"), "{body}");
    }
    let (head, body) = client.ask("/%61pi", empty).await;
    assert!(head.starts_with("HTTP/1.1 400") && body.contains("bad_path"), "{head}{body}");
    let large = "x-api-key: three\r\ncontent-length: 2000\r\n";
    let (head, body) = Client::connect(&fleet).await.ask("/api", large).await;
    assert!(head.starts_with("HTTP/1.1 413") && body.contains("1KiB"), "{head}{body}");
    let (head, body) = Client::connect(&fleet).await.ask("/slow", empty).await;
    assert!(head.starts_with("HTTP/1.1 504") && body.contains("route_timeout"), "{head}{body}");

    // Rules are of the route and not of an allocation: to change them replaces nothing.
    let before = fleet.until_running("default/shop").await;
    fleet.deploy(&shop(r#"{ path = "/old", redirect = { to = "/newer", status = 302 } }"#)).await.unwrap();
    eventually("the other redirect", async || {
        let (head, _) = Client::connect(&fleet).await.ask("/old", empty).await;
        if head.contains("location: /newer\r\n") { Ok(()) } else { Err(head) }
    })
    .await;
    let after = fleet.until_running("default/shop").await;
    let ids = |status: &dunlin_api::AppStatus| {
        let all = status.workloads.iter().flat_map(|workload| workload.allocations.iter().map(|it| it.id));
        all.collect::<Vec<_>>()
    };
    assert_eq!(ids(&before), ids(&after));
}

#[tokio::test]
async fn what_is_wrong_with_a_rule_is_told_with_its_place() {
    let fleet = Fleet::start(0).await.unwrap();
    let app = shop(
        r#"{ path = "/a", redirect = { to = "//evil.example", status = 200 } },
           { path = "/b", rate_limit = { requests = 0, per = "2d" } },
           { path = "/c", rate_limit = { request = 1 } }"#,
    );
    let told = printed(&fleet.dunlin_in(app.path(), &["deploy"]).await.unwrap());
    told.assert_failed(
        1,
        &[
            "redirect leads to a path",
            "limit `redirect.status` is 301, 302, 303, 307 or 308, observed 200",
            "limit `requests` is 1 to 1000000, observed 0",
            "did you mean `requests`",
        ],
    );
}

#[tokio::test]
async fn headers_choose_the_service_and_clients_stay_with_their_allocation() {
    let fleet = Fleet::start(2).await.unwrap();
    let manifest = format!(
        r#"
        [app]
        name = "shop"

        [service.hello]
        component = "hello.wasm"
        allocations = 2
        {LIMITS}
        routes = [{{ path = "/", sticky = {{ cookie = "shop" }} }}]

        [service.beta]
        component = "tell.wasm"
        {LIMITS}
        routes = [{{ path = "/", headers = {{ x-beta = "yes" }} }}]
        "#
    );
    let app = App::new(&manifest, &[("hello.wasm", HELLO), ("tell.wasm", TELL_HTTP)]);
    fleet.deploy(&app).await.unwrap();
    fleet.until_running("default/shop").await;
    let ask = async |node: usize, header: (&str, &str)| {
        let url = format!("http://{}/", fleet.ingress(node));
        let answer = http().get(url).header(header.0, header.1).send().await.map_err(|it| it.to_string())?;
        let cookie = answer.headers().get("set-cookie").map(|it| it.to_str().unwrap().to_owned());
        let status = answer.status();
        let body = answer.text().await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok((body, cookie)) } else { Err(format!("{status}: {body}")) }
    };
    for node in 0..2 {
        eventually("an answer", async || ask(node, ("x-beta", "no")).await).await;
        let (body, _) = ask(node, ("x-beta", "yes")).await.unwrap();
        assert!(body.contains("x-beta: yes"), "{body}");
        let (body, _) = ask(node, ("x-beta", "no")).await.unwrap();
        assert!(body.starts_with("hello from"), "{body}");
    }
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..16 {
        let (first, cookie) = ask(0, ("x-none", "")).await.unwrap();
        let cookie = cookie.unwrap();
        let pair = cookie.split_once(';').unwrap().0;
        let place = first.split(' ').nth(4).unwrap().to_owned();
        for node in [0, 1, 0] {
            let (again, cookie) = ask(node, ("cookie", pair)).await.unwrap();
            assert_eq!((again.split(' ').nth(4), cookie), (Some(place.as_str()), None));
        }
        places.insert(place);
    }
    assert_eq!(places.len(), 2, "clients are shared among both: {places:?}");

    // Nobody else's requests can be had by a header.
    let thief = r#"
        [app]
        name = "thief"
        namespace = "other"

        [service.web]
        component = "tell.wasm"
        routes = [{ path = "/", headers = { cookie = "*" } }]
    "#;
    let thief = App::new(thief, &[("tell.wasm", TELL_HTTP)]);
    let told = printed(&fleet.dunlin_in(thief.path(), &["deploy"]).await.unwrap());
    told.assert_failed(1, &["the route `*/` already leads to `default/shop/"]);
}
