//! The HTTP API as another program sees it: without our client, so that what the client would never send is sent.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::collections::BTreeSet;

use dunlin_api::{Problem, paths};
use dunlin_guest_artifacts::{CAT, HELLO};
use dunlin_harness::{Fleet, http};
use dunlin_model::{AppSpec, Digest, Manifest};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Method, Response, StatusCode};

/// A client that believes the fleet's authority and adds nothing to what a test sends.
pub(crate) fn plain(fleet: &Fleet) -> Client {
    // Whoever makes the plain client has also said who does TLS.
    http();
    let authority = std::fs::read(fleet.state().join("ca.pem")).unwrap();
    let authority = Certificate::from_pem(&authority).unwrap();
    Client::builder().tls_certs_only([authority]).no_proxy().build().unwrap()
}

pub(crate) fn token(fleet: &Fleet) -> String {
    std::fs::read_to_string(fleet.state().join("admin.token")).unwrap().trim().to_owned()
}

fn bearer(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap())])
}

async fn send(fleet: &Fleet, method: Method, path: &str, headers: HeaderMap, body: Vec<u8>) -> Response {
    let url = format!("{}{path}", fleet.client().url());
    plain(fleet).request(method, url).headers(headers).body(body).send().await.unwrap()
}

/// Sends with the administrator's token and `content_type`.
async fn ask(
    fleet: &Fleet,
    method: Method,
    path: &str,
    content_type: &'static str,
    body: Vec<u8>,
) -> Response {
    let mut headers = bearer(&token(fleet));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    send(fleet, method, path, headers, body).await
}

/// Asserts that an answer is a problem with this status, and returns it.
async fn problem(response: Response, status: u16) -> Problem {
    assert_eq!(response.status().as_u16(), status, "{response:?}");
    assert_eq!(response.headers()[CONTENT_TYPE], dunlin_api::CONTENT_TYPE_PROBLEM);
    let problem: Problem = response.json().await.unwrap();
    assert_eq!(problem.status, status);
    assert!(!problem.title.is_empty() && !problem.code.is_empty(), "{problem:?}");
    problem
}

/// The files that the coordinator keeps of what was uploaded, whole or not.
fn stored(fleet: &Fleet) -> Vec<String> {
    let files = |folder: &str| std::fs::read_dir(fleet.state().join(folder)).unwrap();
    let files = files("components").chain(files("inputs"));
    files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// An app whose component has this digest.
fn spec(digest: Digest) -> AppSpec {
    let text = "app.name = \"shop\"\nservice.hello.component = \"hello.wasm\"\n";
    let manifest = Manifest::parse(text).unwrap();
    let workloads = manifest.workloads.iter().map(|(name, workload)| (name.clone(), workload.spec(digest)));
    AppSpec { name: manifest.app_name(), workloads: workloads.collect() }
}

#[tokio::test]
async fn the_description_is_for_everybody_and_has_every_path() {
    let fleet = Fleet::start(0).await.unwrap();
    let health = send(&fleet, Method::GET, paths::HEALTH, HeaderMap::new(), Vec::new()).await;
    assert_eq!(health.status(), StatusCode::OK);

    let response = send(&fleet, Method::GET, paths::OPENAPI, HeaderMap::new(), Vec::new()).await;
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    let document: serde_json::Value = response.json().await.unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let described: BTreeSet<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap());
    let ids: Vec<&str> = operations.map(|(_, it)| it["operationId"].as_str().unwrap()).collect();
    assert!(ids.len() == ids.iter().collect::<BTreeSet<_>>().len(), "two have one name: {ids:?}");
    // The list is taken from its source, so that a new path cannot be left out here.
    let source = include_str!("../../../../control/api/src/paths.rs");
    let named = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split('"').nth(1));
    let named: BTreeSet<&str> =
        named.filter(|path| ![paths::HEALTH, paths::OPENAPI].contains(path)).collect();
    assert!(named.contains(paths::APP), "{named:?}");
    assert_eq!(described, named);
}

#[tokio::test]
async fn who_has_not_the_token_gets_one_answer_whatever_was_tried() {
    let fleet = Fleet::start(0).await.unwrap();
    let right = token(&fleet);
    let mut two = bearer(&right);
    two.append(AUTHORIZATION, bearer(&right)[AUTHORIZATION].clone());
    let plainly = |text: &str| HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(text).unwrap())]);
    let mut bodies = BTreeSet::new();
    for headers in [
        HeaderMap::new(),
        bearer(""),
        bearer("garbage"),
        bearer(&right[..right.len() - 1]),
        bearer(&format!("{right}0")),
        bearer(&right.to_uppercase()),
        plainly(&right),
        plainly(&format!("Basic {right}")),
        plainly("Bearer"),
        two,
    ] {
        let coredump = "/v1/nodes/node-1/coredumps/a1.1";
        for (method, path) in
            [(Method::GET, paths::APPS), (Method::POST, paths::JOIN_TOKENS), (Method::GET, coredump)]
        {
            let shown = format!("{method} {path} {headers:?}");
            let response = send(&fleet, method, path, headers.clone(), Vec::new()).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{shown}");
            assert!(response.headers().contains_key("www-authenticate"), "{shown}");
            bodies.insert(response.text().await.unwrap());
        }
    }
    for name in ["token", "access_token", "authorization"] {
        let path = format!("{}?{name}={right}", paths::APPS);
        let response = send(&fleet, Method::GET, &path, HeaderMap::new(), Vec::new()).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
        bodies.insert(response.text().await.unwrap());
    }
    assert_eq!(bodies.len(), 1, "{bodies:?}");
}

#[tokio::test]
async fn a_request_that_is_not_described_is_a_problem_with_a_code() {
    let fleet = Fleet::start(0).await.unwrap();
    let json = "application/json";
    let nowhere = ask(&fleet, Method::GET, "/v1/nothing", json, Vec::new()).await;
    assert_eq!(problem(nowhere, 404).await.code, "not_found");
    let patched = ask(&fleet, Method::PATCH, paths::APPS, json, Vec::new()).await;
    assert_eq!(problem(patched, 405).await.code, "method_not_allowed");
    let app = "/v1/apps/default/shop";
    let large = ask(&fleet, Method::PUT, app, json, vec![b' '; 2 << 20]).await;
    assert_eq!(problem(large, 413).await.code, "limit_exceeded");
    let broken = ask(&fleet, Method::PUT, app, json, b"{\"name\":".to_vec()).await;
    assert_eq!(problem(broken, 400).await.code, "invalid_request");
    let wrong = ask(&fleet, Method::PUT, app, json, b"{\"name\":7}".to_vec()).await;
    assert_eq!(problem(wrong, 422).await.code, "invalid_request");
    let text = ask(&fleet, Method::PUT, app, "text/plain", b"{}".to_vec()).await;
    assert_eq!(problem(text, 415).await.code, "unsupported_media_type");
    let name = ask(&fleet, Method::GET, "/v1/apps/default/Shop%00", json, Vec::new()).await;
    assert_eq!(problem(name, 400).await.code, "invalid_request");
    let query = ask(&fleet, Method::GET, "/v1/logs?tail=many", json, Vec::new()).await;
    assert_eq!(problem(query, 400).await.code, "invalid_request");
    assert_eq!(fleet.client().apps().await.unwrap().apps, []);
}

#[tokio::test]
async fn what_operators_say_is_taken_with_or_without_a_body_and_refused_with_a_code() {
    let fleet = Fleet::start(1).await.unwrap();
    let json = "application/json";
    // As `curl --request POST` sends it: neither a body nor a type of one.
    let bare = |path: &'static str| send(&fleet, Method::POST, path, bearer(&token(&fleet)), Vec::new());
    let cordoned = bare("/v1/nodes/node-1/cordon").await;
    assert_eq!(cordoned.status(), StatusCode::OK);
    let node: serde_json::Value = cordoned.json().await.unwrap();
    assert!(node["cordoned_ms_ago"].is_u64() && node["drain_ends_in_ms"].is_null(), "{node}");
    let wish = br#"{"drain_ms":600000}"#.to_vec();
    let drained = ask(&fleet, Method::POST, "/v1/nodes/node-1/cordon", json, wish).await;
    let node: serde_json::Value = drained.json().await.unwrap();
    assert!(node["drain_ends_in_ms"].as_u64().is_some_and(|left| left <= 600_000), "{node}");
    let uncordoned = bare("/v1/nodes/node-1/uncordon").await;
    let node: serde_json::Value = uncordoned.json().await.unwrap();
    assert!(node["cordoned_ms_ago"].is_null() && node["drain_ends_in_ms"].is_null(), "{node}");
    assert_eq!(node["batch_overcommit"], 100);
    let released: serde_json::Value = bare(paths::BRAKE_RELEASE).await.json().await.unwrap();
    assert_eq!(released, serde_json::json!({"held_zones": [], "nodes": 0}));

    let broken = ask(&fleet, Method::POST, "/v1/nodes/node-1/cordon", json, b"{".to_vec()).await;
    assert_eq!(problem(broken, 400).await.code, "invalid_request");
    let wrong = br#"{"drain_ms":"soon"}"#.to_vec();
    let wrong = ask(&fleet, Method::POST, "/v1/nodes/node-1/cordon", json, wrong).await;
    assert_eq!(problem(wrong, 422).await.code, "invalid_request");
    for path in ["/v1/nodes/node-9/cordon", "/v1/nodes/node-9/uncordon"] {
        assert_eq!(problem(bare(path).await, 404).await.code, "unknown_node");
    }

    let team = "/v1/namespaces/team-a";
    let unknown = ask(&fleet, Method::GET, team, json, Vec::new()).await;
    assert_eq!(problem(unknown, 404).await.code, "not_found");
    let heavy = ask(&fleet, Method::PUT, team, json, br#"{"weight":1001}"#.to_vec()).await;
    let heavy = problem(heavy, 422).await;
    assert_eq!((heavy.code.as_str(), heavy.limit.as_deref()), ("invalid_namespace", Some("weight")));
    let wrong = ask(&fleet, Method::PUT, team, json, br#"{"packing":"tight"}"#.to_vec()).await;
    assert_eq!(problem(wrong, 422).await.code, "invalid_request");
    assert_eq!(fleet.client().namespaces().await.unwrap().namespaces, []);
    let set = ask(&fleet, Method::PUT, team, json, br#"{"quota":{"items":0}}"#.to_vec()).await;
    let set: serde_json::Value = set.json().await.unwrap();
    assert_eq!(set["spec"], serde_json::json!({"quota": {"items": 0}, "weight": 1, "packing": "spread"}));
}

#[tokio::test]
async fn bytes_with_another_digest_are_not_kept() {
    let fleet = Fleet::start(0).await.unwrap();
    let other = Digest::of(CAT);
    for path in [paths::component(&other), paths::input(&other)] {
        let response = ask(&fleet, Method::PUT, &path, "application/octet-stream", HELLO.to_vec()).await;
        assert_eq!(problem(response, 422).await.code, "digest_mismatch");
    }
    for digest in [other, Digest::of(HELLO)] {
        assert!(!fleet.client().has_component(&digest).await.unwrap());
        assert!(!fleet.client().has_input(&digest).await.unwrap());
    }
    assert_eq!(stored(&fleet), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_over_the_limit_is_refused_while_it_comes_and_not_kept() {
    let fleet = Fleet::start(0).await.unwrap();
    let bytes = vec![0; (64 << 20) + 1];
    let path = paths::input(&Digest::of(&bytes));
    let response = ask(&fleet, Method::PUT, &path, "application/octet-stream", bytes).await;
    let problem = problem(response, 413).await;
    assert_eq!((problem.code.as_str(), problem.value.as_deref()), ("limit_exceeded", Some("64MiB")));
    assert_eq!(stored(&fleet), Vec::<String>::new());
}

#[tokio::test]
async fn the_same_deploy_again_changes_nothing() {
    let fleet = Fleet::start(0).await.unwrap();
    let client = fleet.client();
    let missing = client.deploy(&spec(Digest::of(HELLO))).await.unwrap_err();
    assert_eq!(missing.problem().unwrap().code, "component_missing");
    assert_eq!(client.apps().await.unwrap().apps, []);

    client.upload_component(&Digest::of(HELLO), HELLO.into(), |_| {}).await.unwrap();
    let first = client.deploy(&spec(Digest::of(HELLO))).await.unwrap();
    let again = client.deploy(&spec(Digest::of(HELLO))).await.unwrap();
    assert_eq!((first.changed, again.changed), (true, false));
    assert_eq!(first.revision, again.revision);
}
