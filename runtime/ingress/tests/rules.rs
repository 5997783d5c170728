//! Routes with rules: what is refused, what is answered without the service, and what is waited for.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use dunlin_ingress::Ingress;
use dunlin_model::{Route, RouteSpec, RouteTable};
use http::{Request, StatusCode};
use support::{Behaviour, Door, Wires, Worker, config, full, routes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The routes of one service on one node, of which that for `path` has rules.
fn table(path: &str, rules: &str) -> RouteTable {
    let mut table = routes(&[("n1", 1)]);
    let workload = table.routes[0].workload.clone();
    let spec = RouteSpec { rules: Some(serde_json::from_str(rules).unwrap()), ..RouteSpec::new(None, path) };
    table.routes.push(Route { spec, workload });
    table
}

async fn door(behaviour: Behaviour, path: &str, rules: &str) -> (Door, Arc<Worker>, Ingress) {
    let worker = Worker::new("n1", behaviour);
    let wires = Arc::new(Wires::default());
    let ingress = Ingress::with_config("n1".parse().unwrap(), Arc::clone(&worker) as _, wires, config());
    ingress.set_routes(&table(path, rules));
    (Door::open(ingress.clone()).await, worker, ingress)
}

#[tokio::test]
async fn who_sends_too_many_is_refused_also_when_other_routes_change() {
    let rules = r#"{"rate_limit":{"requests":2,"per":600000,"burst":2}}"#;
    let (door, worker, ingress) = door(Behaviour::Tell, "/api", rules).await;
    assert_eq!(door.get("/api/x").await.0, StatusCode::OK);
    let mut changed = table("/api", rules);
    changed.routes.push(Route {
        spec: RouteSpec::new(Some("other.example"), "/"),
        workload: changed.routes[0].workload.clone(),
    });
    ingress.set_routes(&changed);
    assert_eq!(door.get("/api/y").await.0, StatusCode::OK);
    let (status, headers, body) = door.get("/api/z").await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (StatusCode::TOO_MANY_REQUESTS, "300"));
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["code"], "rate_limited");
    assert_eq!(problem["value"], "2 in 10m, 2 at once");
    assert_eq!(door.get("/elsewhere").await.0, StatusCode::OK);
    assert_eq!(worker.requests(), 3);
}

#[tokio::test]
async fn what_needs_no_service_gets_none() {
    let (door, worker, _) = door(Behaviour::Tell, "/old", r#"{"redirect":{"to":"/new","status":301}}"#).await;
    let (status, headers, _) = door.get("/old/x?y=z").await;
    assert_eq!(
        (status, headers["location"].to_str().unwrap()),
        (StatusCode::MOVED_PERMANENTLY, "/new/x?y=z")
    );
    assert_eq!(worker.requests(), 0);
    assert_eq!(door.get("/older").await.0, StatusCode::OK);
    let rules = r#"{"respond":{"body":"User-agent: *\n"}}"#;
    let (door, worker, _) = self::door(Behaviour::Tell, "/robots.txt", rules).await;
    let (status, headers, body) = door.get("/robots.txt").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "User-agent: *\n"));
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(worker.requests(), 0);
}

#[tokio::test]
async fn a_body_is_as_large_as_its_route_takes() {
    let (door, worker, _) = door(Behaviour::Echo, "/", "{}").await;
    let large = "x".repeat(2000);
    let post = |path: &str| Request::post(path.to_owned()).header("host", "a");
    assert_eq!(door.send(post("/up").body(full(large.clone())).unwrap()).await.0, StatusCode::OK);
    let (door, limited, _) = self::door(Behaviour::Echo, "/up", r#"{"body_limit":1000}"#).await;
    assert_eq!(door.send(post("/up").body(full("x".repeat(1000))).unwrap()).await.0, StatusCode::OK);
    let (status, _, body) = door.send(post("/up").body(full(large.clone())).unwrap()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["code"], "body_too_large");
    assert_eq!((worker.requests(), limited.requests()), (1, 1));
    // One that does not say how large it is, is cut off where it is too large.
    let (door, ..) = self::door(Behaviour::BreakAfterBody, "/up", r#"{"body_limit":1000}"#).await;
    let mut client = TcpStream::connect(door.address).await.unwrap();
    let head = "POST /up HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write_all(format!("{head}7d0\r\n{large}\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _cut = client.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_service_has_the_time_of_its_route() {
    let (door, worker, _) = door(Behaviour::Silent, "/slow", r#"{"timeout":200}"#).await;
    let began = std::time::Instant::now();
    let (status, _, body) = door.get("/slow").await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((problem["code"].as_str(), problem["value"].as_str()), (Some("route_timeout"), Some("200ms")));
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(worker.requests(), 1);
}
