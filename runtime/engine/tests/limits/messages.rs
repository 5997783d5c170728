//! What goes in and out of a service: head and body of requests and of responses, and how many at a time.

use bytes::Bytes;
use dunlin_engine::{AccountNames, Failure, Service};
use dunlin_guest_artifacts as guests;
use dunlin_model::{Bytes as Size, LimitHit, Limits};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};

use crate::support::{LIMITS, Rig};

async fn ask(service: &Service, request: http::request::Builder, body: &[u8]) -> Result<Bytes, Failure> {
    let request = request.header("host", "h").body(Full::new(Bytes::copy_from_slice(body))).unwrap();
    let response = service.handle(request).await?;
    assert_eq!(response.status(), StatusCode::OK);
    match response.into_body().collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(Failure::NoResponse(error.to_string())),
    }
}

/// Checks that `failure` names `limit`, that it is counted, and that the service goes on.
async fn check(service: &Service, limit: &str, hit: LimitHit) {
    assert_eq!(hit.limit, limit);
    assert_eq!(service.usage().limit_hits.get(limit), Some(&1), "{:?}", service.usage());
    ask(service, Request::get("/"), b"").await.unwrap();
}

#[tokio::test]
async fn the_head_of_a_request_is_bounded() {
    let rig = Rig::new();
    let service = rig.service(guests::HELLO, LIMITS).await;
    let mut many = Request::get("/");
    for number in 0..100 {
        many = many.header(format!("x-{number}"), "y");
    }
    let Err(Failure::HeadTooLarge(hit)) = ask(&service, many, b"").await else { panic!("it is accepted") };
    assert_eq!(hit.to_string(), "limit `headers` is 100, observed 101");
    check(&service, "headers", hit).await;
    let large = Request::get("/").header("x", "y".repeat(32 << 10));
    let Err(Failure::HeadTooLarge(hit)) = ask(&service, large, b"").await else { panic!("it is accepted") };
    let observed = (32 << 10) + "x".len() + "hosth".len();
    assert_eq!(hit.to_string(), format!("limit `header_bytes` is 32KiB, observed {observed}B"));
    check(&service, "header_bytes", hit).await;
}

#[tokio::test]
async fn a_request_that_comes_through_too_many_services_is_refused() {
    let rig = Rig::new();
    let service = rig.service(guests::HELLO, LIMITS).await;
    ask(&service, Request::get("/").header("dunlin-hops", "15"), b"").await.unwrap();
    let looping = Request::get("/").header("dunlin-hops", "2").header("dunlin-hops", "16");
    let Err(Failure::TooManyHops(hit)) = ask(&service, looping, b"").await else { panic!("it is accepted") };
    assert_eq!(hit.to_string(), "limit `hops` is 16, observed 16");
    check(&service, "hops", hit).await;
}

#[tokio::test]
async fn the_body_of_a_request_is_bounded() {
    let rig = Rig::new();
    let service = rig.service(guests::HELLO, Limits { request_body: Size(1 << 10), ..LIMITS }).await;
    let post = Request::post("/echo").header("content-length", "1025");
    let Err(Failure::TooLarge(hit)) = ask(&service, post, &[0; 1025]).await else { panic!("it is accepted") };
    assert_eq!(hit.to_string(), "limit `request_body` is 1KiB, observed 1025B");
    check(&service, "request_body", hit).await;
    // Who does not say how long it is gets as far as the limit, and no further.
    let echoed = ask(&service, Request::post("/echo"), &[0; 5_000]).await;
    assert!(echoed.is_err() || echoed.unwrap().len() <= 1 << 10);
}

#[tokio::test]
async fn the_body_of_a_response_is_bounded() {
    let rig = Rig::new();
    let service = rig.service(guests::HELLO, Limits { response_body: Size(1 << 10), ..LIMITS }).await;
    let failure = ask(&service, Request::post("/echo"), &[0; 1025]).await.unwrap_err();
    let Failure::ResponseTooLarge(hit) = failure else { panic!("{failure:?}") };
    assert_eq!(hit.value, "1KiB");
    check(&service, "response_body", hit).await;
}

#[tokio::test]
async fn a_body_that_streams_ends_with_what_was_burned_and_one_of_known_length_does_not() {
    let rig = Rig::new();
    let service = rig.service(guests::HELLO, LIMITS).await;
    let (name, other) =
        (http::HeaderName::from_static("dunlin-fuel"), http::HeaderName::from_static("dunlin-account"));
    let names = AccountNames { fuel: Some(name.clone()), account: Some(other.clone()) };
    let request =
        |body: Vec<u8>| Request::post("/echo").header("host", "h").body(Full::new(Bytes::from(body)));

    let before = service.usage().fuel;
    let mut response = service.handle(request(vec![7; 300_000]).unwrap()).await.unwrap();
    assert!(response.body_mut().end_with_account(names.clone()));
    let collected = response.into_body().collect().await.unwrap();
    let told: u64 = collected.trailers().unwrap()[&name].to_str().unwrap().parse().unwrap();
    let account = collected.trailers().unwrap()[&other].to_str().unwrap().to_owned();
    let (instance, fuel) = account.split_once(' ').unwrap();
    assert!(instance.parse::<dunlin_model::InstanceId>().is_ok(), "{account}");
    assert_eq!(fuel, told.to_string());
    assert_eq!(collected.to_bytes().len(), 300_000);
    assert_eq!(told, service.usage().fuel.minus(before).0);

    let mut response = service.handle(request(vec![7; 3]).unwrap()).await.unwrap();
    assert!(!response.body_mut().end_with_account(names), "it is whole, and its head can tell");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 3);
}
