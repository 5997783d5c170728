//! The way of a request from client to worker and back: locally, over other nodes, and around failures.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use dunlin_ingress::Ingress;
use dunlin_model::Percent;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::{Behaviour, Body, Fleet, full, receive, routes, wait_until};

use Behaviour::{Absent, Break, BreakAfterBody, Echo, NoAllocation, Overloaded, Silent, Tell};

#[tokio::test]
async fn a_local_request_reaches_the_worker_clean_and_with_its_allocation() {
    let door = Fleet::new(&[Tell]).open().await;
    let request = Request::post("/cart?x=1")
        .header("host", "shop.example:80")
        .header("dunlin-allocation", "a99")
        .header("dunlin-forwarded", "evil")
        .header("dunlin-anything", "x")
        .header("connection", "x-private")
        .header("x-private", "secret")
        .header("x-public", "seen")
        .body(full("hello"))
        .unwrap();
    let (status, headers, told) = door.send(request).await;
    assert_eq!(status, StatusCode::OK);
    let expected = "node: n1\nPOST /cart?x=1\ncontent-length: 5\ndunlin-allocation: a1\n\
                    forwarded: for=127.0.0.1;proto=http\nhost: shop.example:80\nx-forwarded-for: 127.0.0.1\n\
                    x-public: seen\nbody: 5\n";
    assert_eq!(told, expected);
    assert!(!headers.contains_key("x-private"), "the worker's connection headers stay behind");
}

#[tokio::test]
async fn requests_go_round_all_nodes_and_are_marked() {
    let fleet = Fleet::new(&[Tell, Tell, Tell, Tell]);
    fleet.ingresses[0].set_routes(&routes(&[("n2", 2), ("n3", 3), ("n4", 4)]));
    let door = fleet.open().await;
    let mut told = Vec::new();
    for _ in 0..6 {
        told.push(door.get("/").await.2);
    }
    for (index, told) in told.iter().enumerate() {
        let number = index % 3 + 2;
        assert!(told.contains(&format!("node: n{number}\n")), "{told}");
        assert!(told.contains(&format!("dunlin-allocation: a{number}\n")), "{told}");
    }
    assert_eq!(fleet.requests(), [0, 2, 2, 2]);
}

#[tokio::test]
async fn the_own_node_answers_first_until_it_has_much_more_to_do() {
    let fleet = Fleet::new(&[Silent, Tell, Tell]);
    let door = fleet.open().await;
    // One more than the own node may have to do more than others.
    let mut waiting = Vec::new();
    for _ in 0..9 {
        let mut sender = door.connect().await;
        let request = Request::get("/").header("host", "a").body(full("")).unwrap();
        let before = fleet.workers[0].requests();
        waiting.push(tokio::spawn(async move { sender.send_request(request).await }));
        wait_until("it waits", || fleet.workers[0].requests() > before).await;
    }
    for _ in 0..4 {
        assert_eq!(door.get("/").await.0, StatusCode::OK);
    }
    assert_eq!(fleet.requests(), [9, 2, 2]);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    *fleet.workers[0].behaviour.lock().unwrap() = Tell;
    wait_until("they are given up", || fleet.workers[0].cancelled.load(Ordering::SeqCst)).await;
    eventually_answers(&door, "node: n1").await;
}

async fn eventually_answers(door: &support::Door, line: &str) {
    let asking = async {
        while !door.get("/").await.2.contains(line) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asking).await.unwrap();
}

#[tokio::test]
async fn who_has_too_much_to_do_is_not_the_last_to_be_asked_but_that_is_not_done_without_end() {
    let fleet = Fleet::new(&[Overloaded, Tell]);
    let door = fleet.open().await;
    for _ in 0..5 {
        assert_eq!(door.get("/").await.0, StatusCode::OK);
    }
    assert_eq!(fleet.requests(), [1, 5], "for a moment nobody asks it");
    let fleet = Fleet::new(&[Overloaded, Overloaded]);
    let door = fleet.open().await;
    let began = std::time::Instant::now();
    for _ in 0..100 {
        let (status, headers, _) = door.get("/").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(headers["dunlin-failure"], "overloaded");
        assert!(headers.contains_key("retry-after"));
    }
    let tries: usize = fleet.requests().iter().sum();
    // A fifth of all, and ten a second.
    let most = 100 + 100 / 5 + 11 * (usize::try_from(began.elapsed().as_secs()).unwrap() + 1);
    assert!((110..=most).contains(&tries), "{tries} tries, at most {most}");
}

#[tokio::test]
async fn canaries_have_their_share_of_the_requests_wherever_these_come_in() {
    let fleet = Fleet::new(&[Tell, Tell]);
    let mut table = routes(&[("n1", 1), ("n1", 2), ("n2", 3)]);
    for endpoints in table.endpoints.values_mut() {
        endpoints[2].canary = true;
    }
    table.shares = table.endpoints.keys().map(|service| (service.clone(), Percent(10))).collect();
    for ingress in &fleet.ingresses {
        ingress.set_routes(&table);
    }
    let door = fleet.open().await;
    for _ in 0..200 {
        assert_eq!(door.get("/").await.0, StatusCode::OK);
    }
    assert_eq!(fleet.requests(), [180, 20]);
    // Where nobody says how much, they have as much as their number says.
    table.shares.clear();
    fleet.ingresses[0].set_routes(&table);
    for _ in 0..30 {
        assert_eq!(door.get("/").await.0, StatusCode::OK);
    }
    assert_eq!(fleet.requests(), [200, 30]);
    // Where there are none, all have all.
    table.endpoints.values_mut().for_each(|endpoints| endpoints.truncate(2));
    fleet.ingresses[0].set_routes(&table);
    for _ in 0..20 {
        assert_eq!(door.get("/").await.0, StatusCode::OK);
    }
    assert_eq!(fleet.requests(), [220, 30]);
}

#[tokio::test]
async fn a_client_stays_with_its_allocation_on_whatever_node_it_comes_in() {
    let fleet = Fleet::new(&[Tell, Tell, Tell]);
    let mut table = routes(&[("n1", 1), ("n2", 2), ("n3", 3)]);
    table.routes[0].spec.rules = Some(serde_json::from_str(r#"{"sticky":{"cookie":"shop"}}"#).unwrap());
    for ingress in &fleet.ingresses {
        ingress.set_routes(&table);
    }
    let doors = [fleet.open_at(0).await, fleet.open_at(1).await];
    let mut nodes = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let (_, headers, told) = doors[0].get("/").await;
        let cookie = headers["set-cookie"].to_str().unwrap().split_once(';').unwrap().0.to_owned();
        let node = told.lines().next().unwrap().to_owned();
        for door in &doors {
            let request = Request::get("/").header("host", "a").header("cookie", &cookie);
            let (_, headers, told) = door.send(request.body(full("")).unwrap()).await;
            assert_eq!(told.lines().next(), Some(node.as_str()));
            assert!(!headers.contains_key("set-cookie"));
        }
        nodes.insert(node);
    }
    assert_eq!(nodes.len(), 3, "clients are shared among all");
}

#[tokio::test]
async fn what_runs_on_every_node_is_answered_by_the_node_that_is_asked_and_by_others_if_that_fails() {
    let fleet = Fleet::new(&[Tell, Tell, Tell]);
    let mut everywhere = routes(&[("n1", 1), ("n2", 2), ("n3", 3)]);
    everywhere.everywhere = everywhere.endpoints.keys().cloned().collect();
    fleet.ingresses[0].set_routes(&everywhere);
    let door = fleet.open().await;
    for _ in 0..6 {
        assert_eq!(door.get("/").await.0, StatusCode::OK);
    }
    assert_eq!(fleet.workers[0].requests(), 6);
    let without = routes(&[("n2", 2), ("n3", 3)]);
    everywhere.endpoints = without.endpoints;
    fleet.ingresses[0].set_routes(&everywhere);
    for _ in 0..4 {
        assert_eq!(door.get("/").await.0, StatusCode::OK);
    }
    let requests: Vec<_> = fleet.workers.iter().map(|worker| worker.requests()).collect();
    assert_eq!(requests, [6, 2, 2]);
}

#[tokio::test]
async fn the_turn_goes_on_when_routes_change() {
    let fleet = Fleet::new(&[Tell, Tell, Tell]);
    let door = fleet.open().await;
    for _ in 0..4 {
        fleet.ingresses[0].set_routes(&routes(&[("n2", 2), ("n3", 3)]));
        assert_eq!(door.get("/").await.0, StatusCode::OK);
    }
    assert_eq!(fleet.requests(), [0, 2, 2]);
}

/// Sends chunks one by one, each after the one before has come back, so that both ways must stream.
async fn echo_interleaved(fleet: &Fleet) {
    const CHUNK: usize = 64 << 10;
    const CHUNKS: usize = 80;
    let door = fleet.open().await;
    let mut sender = door.connect().await;
    let (feed, feeding) = tokio::sync::mpsc::channel::<Bytes>(1);
    let stream = futures_util::stream::unfold(feeding, |mut feeding| async move {
        feeding.recv().await.map(|data| (Ok::<_, hyper::Error>(Frame::data(data)), feeding))
    });
    let body: Body = BodyExt::boxed(StreamBody::new(Box::pin(stream.map(|frame| frame)).sync()));
    let request = Request::post("/").header("host", "a").body(body).unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    for number in 0..CHUNKS {
        let sent = Bytes::from(vec![u8::try_from(number).unwrap(); CHUNK]);
        feed.send(sent.clone()).await.unwrap();
        let mut received = Vec::new();
        while received.len() < CHUNK {
            let frame = tokio::time::timeout(Duration::from_secs(10), response.body_mut().frame())
                .await
                .expect("a chunk should come back before the next is sent")
                .unwrap()
                .unwrap();
            received.extend_from_slice(&frame.into_data().unwrap());
        }
        assert!(received == sent, "chunk {number} should come back as it was sent");
    }
    drop(feed);
    assert!(response.body_mut().frame().await.is_none());
}

trait IntoSync: Sized {
    fn sync(self) -> SyncStream<Self>;
}

impl<T> IntoSync for T {
    fn sync(self) -> SyncStream<Self> {
        SyncStream(std::sync::Mutex::new(self))
    }
}

/// A stream which may be shared, as a boxed body must be.
struct SyncStream<T>(std::sync::Mutex<T>);

impl<T: futures_util::Stream + Unpin> futures_util::Stream for SyncStream<T> {
    type Item = T::Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T::Item>> {
        self.get_mut().0.get_mut().unwrap().poll_next_unpin(context)
    }
}

#[tokio::test]
async fn five_mebibytes_of_unknown_length_stream_both_ways_locally() {
    echo_interleaved(&Fleet::new(&[Echo])).await;
}

#[tokio::test]
async fn five_mebibytes_of_unknown_length_stream_both_ways_over_another_node() {
    let fleet = Fleet::new(&[Absent, Echo]);
    fleet.ingresses[0].set_routes(&routes(&[("n2", 2)]));
    echo_interleaved(&fleet).await;
}

#[tokio::test]
async fn connections_to_the_worker_are_used_again() {
    let fleet = Fleet::new(&[Tell]);
    let door = fleet.open().await;
    let mut sender = door.connect().await;
    for _ in 0..20 {
        let request = Request::get("/").header("host", "a").body(full("")).unwrap();
        let (status, _, _) = receive(sender.send_request(request).await.unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        sender.ready().await.unwrap();
    }
    assert_eq!(fleet.workers[0].requests(), 20);
    let connections = fleet.workers[0].connections.load(Ordering::SeqCst);
    assert!(connections <= 2, "20 requests took {connections} connections");
}

#[tokio::test]
async fn a_worker_that_went_away_between_requests_is_connected_again() {
    let fleet = Fleet::new(&[Break]);
    let door = fleet.open().await;
    assert_eq!(door.get("/").await.0, StatusCode::BAD_GATEWAY);
    *fleet.workers[0].behaviour.lock().unwrap() = Tell;
    assert_eq!(door.get("/").await.0, StatusCode::OK);
}

#[tokio::test]
async fn nodes_that_cannot_be_reached_are_passed_over_also_with_a_body() {
    let fleet = Fleet::new(&[Absent, Tell, Tell]);
    fleet.cut_off("n2");
    let door = fleet.open().await;
    for _ in 0..6 {
        let request = Request::post("/").header("host", "a").body(full("hello")).unwrap();
        let (status, _, told) = door.send(request).await;
        assert_eq!(status, StatusCode::OK);
        assert!(told.starts_with("node: n3\n") && told.ends_with("body: 5\n"), "{told}");
    }
}

#[tokio::test]
async fn an_allocation_that_has_moved_is_passed_over_and_its_body_sent_again() {
    let fleet = Fleet::new(&[NoAllocation, NoAllocation, Tell]);
    let door = fleet.open().await;
    for _ in 0..4 {
        let request = Request::post("/").header("host", "a").body(full("hello")).unwrap();
        let (status, _, told) = door.send(request).await;
        assert_eq!(status, StatusCode::OK, "{told}");
        assert!(told.starts_with("node: n3\n") && told.ends_with("body: 5\n"), "{told}");
    }
}

#[tokio::test]
async fn a_node_whose_own_routes_are_newer_says_that_the_allocation_is_gone() {
    let fleet = Fleet::new(&[Tell, Tell]);
    fleet.ingresses[1].set_routes(&routes(&[("n1", 1)]));
    let door = fleet.open().await;
    for _ in 0..4 {
        let (status, _, told) = door.get("/").await;
        assert!(status == StatusCode::OK && told.starts_with("node: n1\n"), "{told}");
    }
    assert_eq!(fleet.workers[1].requests(), 0);
}

#[tokio::test]
async fn a_get_is_repeated_when_the_connection_breaks_and_a_post_is_not() {
    for broken in [Break, BreakAfterBody] {
        let fleet = Fleet::new(&[broken, Tell]);
        let door = fleet.open().await;
        let request = Request::post("/").header("host", "a").body(full("hello")).unwrap();
        let (status, headers, _) = door.send(request).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        assert_eq!(headers["dunlin-failure"], "peer_failed");
        assert_eq!((fleet.workers[0].requests(), fleet.workers[1].requests()), (1, 0));
        for _ in 0..4 {
            let (status, _, told) = door.get("/").await;
            assert!(status == StatusCode::OK && told.starts_with("node: n2\n"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_get_is_repeated_when_a_worker_breaks_on_another_node() {
    let fleet = Fleet::new(&[Tell, Break]);
    let door = fleet.open().await;
    for _ in 0..4 {
        let (status, _, told) = door.get("/").await;
        assert!(status == StatusCode::OK && told.starts_with("node: n1\n"), "{told}");
    }
}

#[tokio::test]
async fn at_most_three_endpoints_are_tried() {
    let fleet = Fleet::new(&[Break, Break, Break, Break, Break]);
    let door = fleet.open().await;
    assert_eq!(door.get("/").await.0, StatusCode::BAD_GATEWAY);
    let requests: usize = fleet.workers.iter().map(|worker| worker.requests()).sum();
    assert_eq!(requests, 3);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_request_at_the_worker() {
    for behaviours in [&[Silent][..], &[Absent, Silent]] {
        let fleet = Fleet::new(behaviours);
        let worker = fleet.workers.last().unwrap();
        let door = fleet.open().await;
        let mut sender = door.connect().await;
        let request = Request::get("/").header("host", "a").body(full("")).unwrap();
        let waiting = tokio::spawn(async move { sender.send_request(request).await });
        wait_until("the request should reach the worker", || worker.requests() == 1).await;
        waiting.abort();
        wait_until("the worker should notice", || worker.cancelled.load(Ordering::SeqCst)).await;
    }
}

#[tokio::test]
async fn a_request_from_another_node_is_never_sent_on() {
    let fleet = Fleet::new(&[Tell, Tell]);
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let ingress = fleet.ingresses[0].clone();
    tokio::spawn(async move { ingress.serve_peer(Box::new(theirs)).await });
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(ours)).await.unwrap();
    tokio::spawn(connection);
    let request =
        Request::get("/").header("host", "a").header("dunlin-allocation", "a2").body(full("")).unwrap();
    let (status, headers, _) = receive(sender.send_request(request).await.unwrap()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["dunlin-failure"], "no_allocation");
    assert_eq!(fleet.workers[1].requests(), 0);
}

#[tokio::test]
async fn failures_are_problem_json() {
    let fleet = Fleet::new(&[Absent]);
    let door = fleet.open().await;
    for (table, status, code, retry_after) in [
        (routes(&[("n1", 1)]), 502, "peer_failed", Some("1")),
        (routes(&[]), 503, "no_endpoint", Some("1")),
        (Default::default(), 404, "no_route", None),
    ] {
        fleet.ingresses[0].set_routes(&table);
        let (answered, headers, body) = door.get("/x").await;
        assert_eq!(answered.as_u16(), status);
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["dunlin-failure"], code);
        assert_eq!(headers.get("retry-after").map(|value| value.to_str().unwrap()), retry_after);
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((problem["status"].as_u64(), problem["code"].as_str()), (Some(status.into()), Some(code)));
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_node_that_hears_of_new_routes_later_is_waited_for() {
    let fleet = Fleet::new(&[Tell, Tell]);
    let door = fleet.open().await;
    // The first node knows already that the service moves to the second, which does not.
    fleet.ingresses[0].set_routes(&routes(&[("n2", 9)]));
    let post = Request::post("/").header("host", "shop.example").body(full("hello")).unwrap();
    let second = fleet.ingresses[1].clone();
    let hearing = async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        second.set_routes(&routes(&[("n2", 9)]));
    };
    let ((status, _, told), ()) = tokio::join!(door.send(post), hearing);
    assert_eq!(status, StatusCode::OK, "{told}");
    assert!(told.contains("node: n2\n") && told.contains("body: 5\n"), "{told}");
}

#[tokio::test]
async fn what_no_node_knows_is_refused_after_a_moment() {
    let fleet = Fleet::new(&[Tell, Tell]);
    let door = fleet.open().await;
    fleet.ingresses[0].set_routes(&routes(&[("n2", 9)]));
    let (status, headers, told) = door.get("/").await;
    assert_eq!(
        (status, headers["dunlin-failure"].to_str().unwrap()),
        (StatusCode::SERVICE_UNAVAILABLE, "no_endpoint"),
        "{told}"
    );
}

/// Has the ingress take a call of a service, as a worker sends it.
async fn call(ingress: &Ingress, service: &str) -> (StatusCode, http::HeaderMap, String) {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (ingress, service) = (ingress.clone(), service.parse().unwrap());
    tokio::spawn(async move {
        ingress.serve_call(Box::new(theirs), &service, &"demo/shop/front".parse().unwrap()).await;
    });
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(ours)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/x")
        .header("host", "web.shop.internal")
        .header("dunlin-caller", "forged")
        .header("dunlin-hops", "3")
        .header("x-forwarded-for", "192.0.2.1")
        .body(full(""))
        .unwrap();
    receive(sender.send_request(request).await.unwrap()).await
}

#[tokio::test]
async fn a_call_goes_to_any_node_and_says_who_calls() {
    let fleet = Fleet::new(&[Tell, Tell, Tell]);
    fleet.ingresses[0].set_routes(&routes(&[("n2", 2), ("n3", 3)]));
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let (status, _, told) = call(&fleet.ingresses[0], "demo/shop/web").await;
        assert_eq!(status, StatusCode::OK, "{told}");
        nodes.push(told.lines().next().unwrap().to_owned());
        for line in
            ["GET /x\n", "dunlin-caller: demo/shop/front\n", "dunlin-hops: 3\n", "host: web.shop.internal\n"]
        {
            assert!(told.contains(line), "{line:?} is missing in {told}");
        }
        // The guest may pass on whom it serves itself.
        assert!(told.contains("x-forwarded-for: 192.0.2.1\n"), "{told}");
        assert!(!told.contains("forged"), "{told}");
    }
    nodes.sort();
    assert_eq!(nodes, ["node: n2", "node: n3"]);
    assert!(fleet.ingresses[0].knows(&"demo/shop/web".parse().unwrap()));
    assert!(!fleet.ingresses[0].knows(&"demo/shop/none".parse().unwrap()));
    assert_eq!(call(&fleet.ingresses[0], "demo/shop/none").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_client_cannot_say_that_it_is_a_guest() {
    let fleet = Fleet::new(&[Tell, Tell]);
    let door = fleet.open().await;
    for _ in 0..2 {
        let request =
            Request::get("/").header("host", "shop.example").header("dunlin-caller", "demo/shop/front");
        let (_, _, told) = door.send(request.body(full("")).unwrap()).await;
        assert!(!told.contains("dunlin-caller"), "{told}");
    }
}
