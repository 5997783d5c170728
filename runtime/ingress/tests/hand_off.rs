//! Connections that a worker serves by itself, and how they come back.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod support;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dunlin_ingress::{
    BoxedStream, Failure, HandOff, Handed, HandedBody, HandedDoor, HandedEnd, Handling, Ingress,
    IngressConfig, Local, Order, serve_handed,
};
use dunlin_model::{AllocationId, Endpoint, Name, NamespaceRoutes, Route, RouteSpec, RouteTable};
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use support::{Behaviour, Door, Wires, Worker, config, full, receive, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// A worker with two allocations of `demo`, which says `handed` where the other way says `node`.
#[derive(Default)]
struct Guests {
    requests: AtomicUsize,
    is_busy: AtomicBool,
    is_gone: AtomicBool,
    /// Holds up requests for `/slow`.
    go_on: Notify,
}

impl Handed for Guests {
    type Body = Full<Bytes>;

    fn has(&self, _allocation: AllocationId) -> bool {
        !self.is_gone.load(Ordering::SeqCst)
    }

    async fn handle(&self, allocation: AllocationId, request: Request<HandedBody>) -> Handling<Full<Bytes>> {
        if self.is_busy.load(Ordering::SeqCst) {
            let detail = "busy".to_owned();
            return Handling::NotTaken(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail));
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        let (parts, body) = request.into_parts();
        if parts.uri.path() == "/slow" {
            self.go_on.notified().await;
        }
        let mut told = format!("handed to {allocation}: {} {}\n", parts.method, parts.uri);
        let mut lines: Vec<_> = parts
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
            .collect();
        lines.sort();
        told.extend(lines);
        if parts.uri.path() != "/unread" {
            match body.collect().await {
                Ok(body) => told.push_str(&format!("body: {}\n", body.to_bytes().len())),
                Err(error) => told.push_str(&format!("error: {error}\n")),
            }
        }
        let response = Response::builder().header("connection", "x-private").header("x-private", "1");
        Handling::Answered(response.body(Full::from(told)).unwrap())
    }
}

/// The workers of one node: that of `demo` takes connections.
struct Node {
    worker: Arc<Worker>,
    guests: Arc<Guests>,
    door: Arc<HandedDoor>,
    handed: AtomicUsize,
    returned: Arc<AtomicUsize>,
    told: Mutex<BTreeMap<Name, NamespaceRoutes>>,
}

impl Local for Node {
    fn connect(&self, namespace: &Name) -> BoxFuture<'_, io::Result<BoxedStream>> {
        self.worker.connect(namespace)
    }

    fn set_routes(&self, namespace: &Name, version: u64, routes: &NamespaceRoutes) {
        if namespace.as_str() == "demo" {
            self.door.set_routes(version, routes.routes.clone());
        }
        self.told.lock().unwrap().insert(namespace.clone(), routes.clone());
    }

    fn hand_off(&self, hand_off: HandOff) -> Result<(), Box<HandOff>> {
        let HandOff { stream, client, namespace, routes, slot } = hand_off;
        if namespace.as_str() != "demo" {
            return Err(Box::new(HandOff { stream, client, namespace, routes, slot }));
        }
        self.handed.fetch_add(1, Ordering::SeqCst);
        let (door, guests, returned) =
            (Arc::clone(&self.door), Arc::clone(&self.guests), Arc::clone(&self.returned));
        tokio::spawn(async move {
            door.wait_for_routes(routes).await;
            match serve_handed(stream, client, &door, &*guests).await {
                HandedEnd::Closed => drop(slot),
                HandedEnd::GiveBack { stream, read } => {
                    returned.fetch_add(1, Ordering::SeqCst);
                    slot.take_back(stream, client, &namespace, read);
                }
            }
        });
        Ok(())
    }

    fn drain(&self) {
        self.door.order(Order::Drain);
    }
}

struct House {
    node: Arc<Node>,
    ingress: Ingress,
}

/// `demo` has the host `shop.example`, where `/away` is for other nodes; `other` has the host `other.example`.
fn routes() -> RouteTable {
    let route = |host: &str, path: &str, workload: &str| Route {
        spec: RouteSpec::new(Some(host), path),
        workload: workload.parse().unwrap(),
    };
    let endpoint = |number| Endpoint::new(AllocationId::new(number), "n1".parse().unwrap());
    RouteTable {
        routes: vec![
            route("shop.example", "/", "demo/shop/web"),
            route("shop.example", "/none", "demo/shop/none"),
            route("other.example", "/", "other/app/web"),
        ],
        endpoints: BTreeMap::from([
            ("demo/shop/web".parse().unwrap(), vec![endpoint(1), endpoint(2)]),
            ("other/app/web".parse().unwrap(), vec![endpoint(3)]),
        ]),
        ..RouteTable::default()
    }
}

impl House {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: IngressConfig) -> Self {
        let node = Arc::new(Node {
            worker: Worker::new("n1", Behaviour::Tell),
            guests: Arc::default(),
            door: Arc::new(HandedDoor::new(config.header_timeout)),
            handed: AtomicUsize::new(0),
            returned: Arc::default(),
            told: Mutex::default(),
        });
        let local: Arc<dyn Local> = Arc::clone(&node) as _;
        let ingress = Ingress::with_config("n1".parse().unwrap(), local, Arc::new(Wires::default()), config);
        ingress.set_routes(&routes());
        Self { node, ingress }
    }

    async fn open(&self) -> Door {
        Door::open(self.ingress.clone()).await
    }

    /// How many connections were handed off, and how many of them came back.
    fn connections(&self) -> (usize, usize) {
        (self.node.handed.load(Ordering::SeqCst), self.node.returned.load(Ordering::SeqCst))
    }
}

fn get(host: &str, path: &str) -> Request<support::Body> {
    Request::get(path).header("host", host).body(full("")).unwrap()
}

/// One response as it came over the wire, without `date`.
struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    async fn open(door: &Door) -> Self {
        Self { stream: TcpStream::connect(door.address).await.unwrap(), read: Vec::new() }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Returns the next response, whose length must be known.
    async fn response(&mut self) -> String {
        let reading = async {
            loop {
                if let Some(end) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                    let head = String::from_utf8(self.read[..end].to_vec()).unwrap();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                    let whole = end + 4 + length.parse::<usize>().unwrap();
                    if self.read.len() >= whole {
                        let response = self.read.drain(..whole).collect();
                        return String::from_utf8(response).unwrap();
                    }
                }
                let read = self.stream.read_buf(&mut self.read).await.unwrap();
                assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&self.read));
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reading).await.expect("a response should come")
    }

    async fn is_closed(&mut self) -> bool {
        let reading = self.stream.read_to_end(&mut self.read);
        let ended = tokio::time::timeout(Duration::from_secs(10), reading).await;
        ended.expect("the connection should be closed").is_ok() && self.read.is_empty()
    }
}

const OURS: &str = "GET /x HTTP/1.1\r\nHost: shop.example\r\n\r\n";
const THEIRS: &str = "GET /y HTTP/1.1\r\nHost: other.example\r\n\r\n";

#[tokio::test]
async fn a_handed_connection_carries_many_requests_cleaned_as_any() {
    let house = House::new();
    let door = house.open().await;
    let mut sender = door.connect().await;
    for number in 1..=20 {
        let request = Request::post("/cart?x=1")
            .header("host", "shop.example:80")
            .header("dunlin-allocation", "a99")
            .header("dunlin-anything", "x")
            .header("connection", "x-private")
            .header("x-private", "secret")
            .header("x-public", "seen")
            .body(full("hello"))
            .unwrap();
        let (status, headers, told) = receive(sender.send_request(request).await.unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        let allocation = 2 - number % 2;
        let expected = format!(
            "handed to a{allocation}: POST /cart?x=1\ncontent-length: 5\n\
             forwarded: for=127.0.0.1;proto=http\nhost: shop.example:80\nx-forwarded-for: 127.0.0.1\n\
             x-public: seen\nbody: 5\n"
        );
        assert_eq!(told, expected);
        assert!(!headers.contains_key("x-private") && headers.contains_key("date"));
        sender.ready().await.unwrap();
    }
    assert_eq!((house.connections(), house.node.worker.requests()), ((1, 0), 0));
}

#[tokio::test]
async fn a_request_for_another_namespace_is_answered_right_and_its_client_remembered() {
    let house = House::new();
    let door = house.open().await;
    let mut sender = door.connect().await;
    for (host, beginning) in [
        ("shop.example", "handed to a1: GET /x"),
        ("other.example", "node: n1\nGET /x\ndunlin-allocation: a3\n"),
        ("shop.example", "node: n1\nGET /x\ndunlin-allocation: a2\n"),
    ] {
        let (status, _, told) = receive(sender.send_request(get(host, "/x")).await.unwrap()).await;
        assert!(status == StatusCode::OK && told.starts_with(beginning), "{told}");
        sender.ready().await.unwrap();
    }
    assert_eq!(house.connections(), (1, 1));
    assert!(door.get("/x").await.2.starts_with("node: n1\n"), "its next connection is not handed off");
    assert_eq!(house.connections(), (1, 1));
}

#[tokio::test]
async fn a_worker_is_told_its_own_routes_only() {
    let house = House::new();
    let told = house.node.told.lock().unwrap();
    for (namespace, host) in [("demo", "shop.example"), ("other", "other.example")] {
        let routes = &told[&namespace.parse::<Name>().unwrap()];
        assert!(!routes.routes.is_empty());
        assert!(routes.routes.iter().all(|route| route.spec.host.as_deref() == Some(host)), "{routes:?}");
    }
}

#[tokio::test]
async fn where_nobody_runs_a_route_the_connection_comes_back_and_others_are_still_handed_off() {
    let house = House::new();
    let door = house.open().await;
    for round in 1..=2 {
        let mut wire = Wire::open(&door).await;
        wire.send(OURS).await;
        assert!(wire.response().await.contains("handed to"));
        wire.send("GET /none HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
        assert!(wire.response().await.contains("dunlin-failure: no_endpoint"));
        wire.send("GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n").await;
        assert!(wire.response().await.contains("dunlin-failure: no_route"));
        assert_eq!(house.connections(), (round, round));
    }
}

#[tokio::test]
async fn an_ingress_that_does_not_hand_off_serves_by_itself() {
    let house = House::with(IngressConfig { hand_off: false, ..config() });
    let door = house.open().await;
    assert!(door.get("/x").await.2.starts_with("node: n1\n"));
    assert_eq!(house.connections(), (0, 0));
}

#[tokio::test]
async fn pipelined_requests_are_all_answered_in_order_around_a_give_back() {
    for split in 0..(2 * OURS.len() + THEIRS.len()) {
        let house = House::new();
        let door = house.open().await;
        let mut wire = Wire::open(&door).await;
        let all = [OURS, OURS, THEIRS, OURS, THEIRS].concat();
        let (first, second) = all.split_at(split.max(1));
        wire.send(first).await;
        tokio::task::yield_now().await;
        wire.send(second).await;
        let mut ways = Vec::new();
        for _ in 0..5 {
            let response = wire.response().await;
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
            ways.push(response.contains("handed to"));
        }
        // What is cut within its first head is not handed off at all.
        if house.connections().0 == 1 {
            assert_eq!(ways, [true, true, false, false, false], "cut at {split}");
        }
        assert!(split < OURS.len() || house.connections() == (1, 1), "cut at {split}");
    }
}

#[tokio::test]
async fn a_body_longer_than_any_buffer_arrives_whole_around_a_give_back() {
    let length = 3 << 20;
    let chunk = format!("10000\r\n{}\r\n", "y".repeat(1 << 16));
    let chunked = chunk.repeat(length >> 16) + "0\r\n\r\n";
    for (header, body) in [
        (format!("Content-Length: {length}"), "y".repeat(length)),
        ("Transfer-Encoding: chunked".to_owned(), chunked),
    ] {
        for first in [
            "",
            OURS,
            "POST /x HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        ] {
            let house = House::new();
            let door = house.open().await;
            let mut wire = Wire::open(&door).await;
            wire.send(OURS).await;
            assert!(wire.response().await.contains("handed to"));
            let head = format!("POST /y HTTP/1.1\r\nHost: other.example\r\n{header}\r\n\r\n");
            let responses = if first.is_empty() { 1 } else { 2 };
            if !first.is_empty() {
                wire.send(first).await;
                assert!(wire.response().await.contains("handed to"));
            }
            wire.send(head + &body + OURS).await;
            let response = wire.response().await;
            assert!(response.contains(&format!("body: {length}\n")), "{response}");
            assert!(wire.response().await.contains("node: n1\n"));
            assert_eq!(house.connections(), (1, 1), "after {responses} requests");
        }
    }
}

#[tokio::test]
async fn bodies_of_all_kinds_are_followed_by_further_requests() {
    let house = House::new();
    let door = house.open().await;
    let mut wire = Wire::open(&door).await;
    let post = |path: &str, more: &str| format!("POST {path} HTTP/1.1\r\nHost: shop.example\r\n{more}");
    let requests = [
        (post("/x", "Content-Length: 5\r\n\r\nhello"), "body: 5\n"),
        (post("/x", "Content-Length: 0\r\n\r\n"), "body: 0\n"),
        (post("/x", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n"), "body: 6\n"),
        (post("/unread", "Content-Length: 5\r\n\r\nhello"), "/unread"),
        (OURS.to_owned(), "body: 0\n"),
        ("\r\n\r\n".to_owned() + OURS, "body: 0\n"),
        (OURS.replace("\r\n", "\n"), "body: 0\n"),
        (post("/x", "Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"), "body: 5\n"),
    ];
    for (request, expected) in &requests {
        wire.send(request).await;
        let mut response = wire.response_after_continue().await;
        response.retain(|character| character != '\r');
        assert!(response.starts_with("HTTP/1.1 200 OK\n"), "{request:?} was answered {response}");
        assert!(response.contains(expected), "{request:?} was answered {response}");
    }
    assert_eq!((house.connections(), house.node.worker.requests()), ((1, 0), 0));
    wire.send(THEIRS).await;
    assert!(wire.response().await.contains("node: n1"));
    assert_eq!(house.connections(), (1, 1));
}

impl Wire {
    async fn response_after_continue(&mut self) -> String {
        const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        while self.read.len() < CONTINUE.len() {
            assert!(self.stream.read_buf(&mut self.read).await.unwrap() > 0);
        }
        if self.read.starts_with(CONTINUE) {
            self.read.drain(..CONTINUE.len());
        }
        self.response().await
    }
}

#[tokio::test]
async fn a_request_is_never_answered_twice_or_lost_when_it_cannot_be_given_back() {
    let house = House::new();
    let door = house.open().await;
    let mut wire = Wire::open(&door).await;
    let chunked =
        "POST /x HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    // The server reads on after a body in chunks, and so has a part of what follows.
    wire.send([chunked, OURS, THEIRS].concat()).await;
    assert!(wire.response().await.contains("body: 2\n"));
    assert!(wire.response().await.contains("handed to"));
    let response = wire.response().await;
    assert!(
        response.starts_with("HTTP/1.1 503 ") && response.contains("connection: close\r\n"),
        "{response}"
    );
    assert!(wire.is_closed().await);
    assert_eq!((house.connections(), house.node.worker.requests()), ((1, 0), 0));
}

#[tokio::test]
async fn what_is_wrong_has_the_same_answer_on_a_handed_connection() {
    let house = House::new();
    let door = house.open().await;
    for (head, status, code) in [
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1", "501", "connect_unsupported"),
        ("GET http://a/ HTTP/1.1\r\nHost: a", "400", "bad_target"),
        ("GET / HTTP/1.1", "400", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b", "400", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket", "501", "upgrade_unsupported"),
    ] {
        let answer = door.raw(format!("{OURS}{head}\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.contains(&format!("\nHTTP/1.1 {status} ")), "{head:?} was answered {answer:?}");
        assert!(answer.contains(&format!("dunlin-failure: {code}\r\n")), "{head:?} was answered {answer:?}");
    }
    let long = format!("x: {}\r\n", "y".repeat(40 << 10));
    let many: String = (0..101).map(|number| format!("x{number}: y\r\n")).collect();
    for lines in [long, many] {
        let answer = door.raw(format!("{OURS}GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes()).await;
        assert!(answer.contains("\nHTTP/1.1 431 "), "{answer:?}");
    }
    let answer = door.raw(b"GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.contains("handed to"), "{answer:?}");
    assert_eq!(house.connections(), (8, 0));
}

#[tokio::test]
async fn busy_or_gone_allocations_make_the_connection_come_back() {
    let flags: [fn(&Guests) -> &AtomicBool; 2] = [|guests| &guests.is_busy, |guests| &guests.is_gone];
    for flag in flags {
        let house = House::new();
        let door = house.open().await;
        let mut wire = Wire::open(&door).await;
        wire.send(OURS).await;
        assert!(wire.response().await.contains("handed to"));
        flag(&house.node.guests).store(true, Ordering::SeqCst);
        wire.send("POST /x HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhello").await;
        let response = wire.response().await;
        assert!(response.contains("node: n1\n") && response.contains("body: 5\n"), "{response}");
        assert_eq!(house.connections(), (1, 1));
        flag(&house.node.guests).store(false, Ordering::SeqCst);
        assert!(door.get("/x").await.2.starts_with("handed to"), "such a client is not remembered");
    }
}

#[tokio::test]
async fn a_worker_that_leaves_gives_back_idle_connections_and_those_in_use_after_the_answer() {
    let house = House::with(IngressConfig { header_timeout: Duration::from_secs(10), ..config() });
    let door = house.open().await;
    let (mut idle, mut partial, mut busy) =
        (Wire::open(&door).await, Wire::open(&door).await, Wire::open(&door).await);
    for wire in [&mut idle, &mut partial, &mut busy] {
        wire.send(OURS).await;
        assert!(wire.response().await.contains("handed to"));
    }
    partial.send(&OURS[..7]).await;
    busy.send(OURS.replace("/x", "/slow")).await;
    wait_until("the slow request should begin", || house.node.guests.requests.load(Ordering::SeqCst) == 4)
        .await;
    house.node.door.order(Order::Leave);
    wait_until("idle connections should come back", || house.connections() == (3, 2)).await;
    house.node.guests.go_on.notify_one();
    assert!(busy.response().await.contains("handed to"));
    wait_until("the last connection should come back", || house.connections() == (3, 3)).await;
    partial.send(&OURS[7..]).await;
    idle.send(OURS).await;
    busy.send(OURS).await;
    for wire in [&mut idle, &mut partial, &mut busy] {
        assert!(wire.response().await.contains("node: n1\n"));
    }
}

#[tokio::test]
async fn a_shutdown_lets_requests_on_handed_connections_end() {
    let house = House::with(IngressConfig { header_timeout: Duration::from_secs(10), ..config() });
    let mut door = house.open().await;
    let (mut idle, mut busy) = (Wire::open(&door).await, Wire::open(&door).await);
    idle.send(OURS).await;
    let response = idle.response().await;
    assert!(response.contains("handed to"), "{response}");
    busy.send(OURS.replace("/x", "/slow")).await;
    wait_until("the slow request should begin", || house.node.guests.requests.load(Ordering::SeqCst) == 2)
        .await;
    door.closing.take().unwrap().send(()).unwrap();
    assert!(idle.is_closed().await);
    assert!(!door.served.is_finished(), "a request is under way");
    house.node.guests.go_on.notify_one();
    let response = busy.response().await;
    assert!(response.contains("connection: close\r\n") && response.contains("handed to"), "{response}");
    assert!(busy.is_closed().await);
    tokio::time::timeout(Duration::from_secs(5), &mut door.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn handed_connections_count_and_slow_clients_are_closed() {
    let house = House::with(IngressConfig { max_connections: 1, ..config() });
    let door = house.open().await;
    let mut first = Wire::open(&door).await;
    first.send(OURS).await;
    assert!(first.response().await.contains("handed to"));
    let mut second = Wire::open(&door).await;
    second.send(OURS).await;
    let early = tokio::time::timeout(Duration::from_millis(50), second.stream.readable()).await;
    assert!(early.is_err(), "there is room for one connection");
    assert!(first.is_closed().await, "an idle client is closed after a while");
    assert!(second.response().await.contains("handed to"));
    second.send(&OURS[..10]).await;
    assert!(second.is_closed().await, "so is one that does not finish its head");
}
