//! Where requests go and how they look on the wire, without a guest: against servers of a few lines.

use std::collections::BTreeMap;
use std::sync::Mutex;

use dunlin_model::{AllocationId, Capabilities, Limits, LogRecord, WorkloadName};
use http_body_util::{Empty, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::outbound::{Connecting, Connector, Resolving};
use super::*;
use crate::logs::LogSink;

/// Connects everything to one address, and remembers what it was asked for.
struct Fixed(std::net::SocketAddr, Mutex<Vec<Wanted>>);

impl Connector for Fixed {
    fn connect(&self, wanted: Wanted) -> Connecting {
        self.1.lock().unwrap().push(wanted);
        let address = self.0;
        Box::pin(async move {
            TcpStream::connect(address).await.map_err(|error| ConnectFailure::NotConnected(error.to_string()))
        })
    }

    fn resolve(&self, _: AllocationId, name: String) -> Resolving {
        panic!("a request needs no addresses of {name}")
    }
}

#[derive(Default)]
struct Kept(Mutex<Vec<LogRecord>>);

impl LogSink for Kept {
    fn record(&self, record: LogRecord) {
        self.0.lock().unwrap().push(record);
    }
}

struct Setup {
    http: OutboundHttp,
    connector: Arc<Fixed>,
    log: Arc<Kept>,
    heard: tokio::task::JoinHandle<Vec<String>>,
}

/// A guest that may reach `grants`, and a server that gives each connection the next of `answers`.
async fn setup(grants: &[&str], limits: Limits, answers: &'static [&'static str]) -> Setup {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = Arc::new(Fixed(listener.local_addr().unwrap(), Mutex::default()));
    let heard = tokio::spawn(async move {
        let mut heard = Vec::new();
        let mut open = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            heard.push(String::from_utf8(head).unwrap());
            let _gone = stream.write_all(answer.as_bytes()).await;
            open.push(stream);
        }
        // What is not closed here stays silent.
        if answers.iter().any(|answer| answer.is_empty()) {
            std::future::pending::<()>().await;
        }
        heard
    });
    let capabilities = Capabilities {
        outbound_http: grants.iter().map(|&grant| grant.to_owned()).collect(),
        config: BTreeMap::new(),
        ..Default::default()
    };
    let allocation = AllocationId::new(1);
    let outbound = Outbound::granted(allocation, &limits, granted(capabilities, connector.clone()));
    let log = Arc::new(Kept::default());
    let logs = Arc::new(Logs::new(log.clone(), &limits));
    let http = OutboundHttp::new(Arc::new(outbound), InstanceId { allocation, number: 1 }, logs);
    Setup { http, connector, log, heard }
}

fn granted(capabilities: Capabilities, connector: Arc<dyn Connector>) -> GrantedOutbound {
    let workload = "demo/shop/web".parse().unwrap();
    GrantedOutbound { workload, capabilities, connector, tls: Arc::default() }
}

fn request(uri: &str) -> Request<WasiBody> {
    let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
    Request::builder()
        .uri(uri)
        .header("host", "forged.example")
        .header("upgrade", "websocket")
        .header("dunlin-hops", "forged")
        .body(body)
        .unwrap()
}

async fn sent(http: &mut OutboundHttp, request: Request<WasiBody>) -> Result<Response<WasiBody>, Error> {
    let (response, ended) = Pin::from(http.send_request(request, None, Box::new(async { Ok(()) }))).await?;
    tokio::spawn(Pin::from(ended));
    Ok(response)
}

/// Returns how often each limit was hit.
fn hits(setup: &Setup) -> Vec<(&'static str, u64)> {
    setup.http.outbound.hits.all().into_iter().collect()
}

const FINE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine";

#[tokio::test]
async fn host_and_target_come_from_the_checked_destination() {
    let mut setup = setup(&["http://*.example.org:8080"], Limits::SERVICE, &[FINE]).await;
    let response = sent(&mut setup.http, request("http://API.example.org.:8080/a?b=c")).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "fine");
    let heard = setup.heard.await.unwrap();
    assert!(heard[0].starts_with("GET /a?b=c HTTP/1.1\r\n"), "{heard:?}");
    assert!(heard[0].contains("host: api.example.org:8080\r\n"), "{heard:?}");
    assert!(!heard[0].contains("forged") && !heard[0].contains("upgrade"), "{heard:?}");
    assert!(heard[0].contains("dunlin-hops: 1\r\n"), "who answers no request begins: {heard:?}");
    let asked = setup.connector.1.lock().unwrap().clone();
    assert_eq!(
        (asked[0].host.as_str(), asked[0].port, asked[0].using),
        ("api.example.org", 8080, Using::Http)
    );
}

#[tokio::test]
async fn a_request_that_is_not_granted_is_denied_and_the_log_says_what_would_grant_it() {
    let mut setup = setup(&["https://api.example.org"], Limits::SERVICE, &[]).await;
    for uri in [
        "http://api.example.org/",
        "https://api.example.org:444/",
        "https://evil.example/",
        "http://127.0.0.1/",
    ] {
        let error = sent(&mut setup.http, request(uri)).await.unwrap_err();
        assert!(matches!(error, Error::HttpRequestDenied), "{uri}: {error:?}");
    }
    for _ in 0..100 {
        sent(&mut setup.http, request("https://evil.example/")).await.unwrap_err();
    }
    assert!(setup.connector.1.lock().unwrap().is_empty());
    let log: Vec<_> = setup.log.0.lock().unwrap().iter().map(|record| record.text.clone()).collect();
    assert_eq!(log.len(), 4, "each destination is told once: {log:?}");
    assert_eq!(
        log[2],
        "outbound request denied: egress_denied: no `outbound_http` grant matches https://evil.example; \
         to allow it, write `outbound_http = [\"https://evil.example\"]` in the workload's `capabilities`"
    );
}

#[tokio::test]
async fn what_is_no_plain_request_is_refused() {
    let mut setup = setup(&["http://*", "https://*"], Limits::SERVICE, &[]).await;
    let mut connect = request("http://a.example:80/");
    *connect.method_mut() = Method::CONNECT;
    assert!(matches!(sent(&mut setup.http, connect).await, Err(Error::HttpRequestMethodInvalid)));
    for uri in [
        "http://user@a.example/",
        "http://a.example:0/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://a..b/",
    ] {
        let error = sent(&mut setup.http, request(uri)).await.unwrap_err();
        assert!(matches!(error, Error::HttpRequestUriInvalid), "{uri}: {error:?}");
    }
    assert!(setup.connector.1.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_an_upgrade_is_none() {
    const REDIRECT: &str =
        "HTTP/1.1 302 Found\r\nlocation: http://evil.example/\r\ncontent-length: 0\r\n\r\n";
    const UPGRADE: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
    let mut setup = setup(&["http://a.example"], Limits::SERVICE, &[REDIRECT, UPGRADE]).await;
    let response = sent(&mut setup.http, request("http://a.example/")).await.unwrap();
    assert_eq!(
        (response.status(), response.headers()["location"].as_bytes()),
        (StatusCode::FOUND, &b"http://evil.example/"[..])
    );
    assert!(sent(&mut setup.http, request("http://a.example/")).await.is_err());
    assert_eq!(setup.connector.1.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_server_that_is_silent_or_stalls_is_given_up() {
    let limits = Limits {
        first_byte_timeout: dunlin_model::DurationMs(100),
        between_bytes_timeout: dunlin_model::DurationMs(100),
        ..Limits::SERVICE
    };
    const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let mut setup = setup(&["http://a.example"], limits, &["", HALF]).await;
    let silent = sent(&mut setup.http, request("http://a.example/")).await.unwrap_err();
    assert!(matches!(silent, Error::ConnectionReadTimeout), "{silent:?}");
    assert_eq!(hits(&setup), [("first_byte_timeout", 1)]);
    let response = sent(&mut setup.http, request("http://a.example/")).await.unwrap();
    let stalled = response.into_body().collect().await.unwrap_err();
    assert!(matches!(stalled, Error::ConnectionReadTimeout), "{stalled:?}");
    assert_eq!(hits(&setup), [("between_bytes_timeout", 1), ("first_byte_timeout", 1)]);
}

/// Connects nothing, ever.
struct Nowhere;

impl Connector for Nowhere {
    fn connect(&self, _wanted: Wanted) -> Connecting {
        Box::pin(std::future::pending())
    }

    fn resolve(&self, _: AllocationId, name: String) -> Resolving {
        panic!("a request needs no addresses of {name}")
    }
}

#[tokio::test]
async fn a_server_that_is_not_reached_in_time_is_given_up() {
    let limits = Limits { connect_timeout: dunlin_model::DurationMs(100), connections: 1, ..Limits::SERVICE };
    let mut setup = setup(&["http://a.example"], limits, &[FINE]).await;
    let near = Arc::clone(&setup.http.outbound);
    let capabilities = near.granted.as_ref().unwrap().capabilities.clone();
    let far = Outbound::granted(AllocationId::new(1), &limits, granted(capabilities, Arc::new(Nowhere)));
    setup.http.outbound = Arc::new(far);
    let started = Instant::now();
    let given_up = sent(&mut setup.http, request("http://a.example/")).await.unwrap_err();
    assert!(matches!(given_up, Error::ConnectionTimeout), "{given_up:?}");
    assert!(started.elapsed() >= Duration::from_millis(100));
    assert_eq!(hits(&setup), [("connect_timeout", 1)]);
    // A guest that does not want to wait so long has hit no limit.
    let options = RequestOptions { connect_timeout: Some(Duration::from_millis(1)), ..Default::default() };
    let sending =
        setup.http.send_request(request("http://a.example/"), Some(options), Box::new(async { Ok(()) }));
    assert!(matches!(Pin::from(sending).await.err(), Some(Error::ConnectionTimeout)));
    assert_eq!(hits(&setup), [("connect_timeout", 1)]);
    // The one connection that it may have open is free again.
    setup.http.outbound = near;
    assert!(sent(&mut setup.http, request("http://a.example/")).await.is_ok());
}

#[tokio::test]
async fn connections_beyond_the_rate_come_later_or_not_at_all() {
    let limits =
        Limits { connection_rate: 2, connect_timeout: dunlin_model::DurationMs(300), ..Limits::SERVICE };
    let mut setup = setup(&["http://a.example"], limits, &[FINE, FINE, FINE]).await;
    for _ in 0..2 {
        sent(&mut setup.http, request("http://a.example/")).await.unwrap();
    }
    // The third would have to wait for half a second, and a connection may take no more than 300 ms.
    let refused = sent(&mut setup.http, request("http://a.example/")).await.unwrap_err();
    assert!(matches!(refused, Error::ConnectionLimitReached), "{refused:?}");
    assert_eq!(hits(&setup), [("connection_rate", 1)]);
    assert!(setup.log.0.lock().unwrap()[0].text.contains("limit `connection_rate` is 2"));
}

#[tokio::test]
async fn a_head_of_too_many_headers_is_not_taken() {
    let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(200));
    let mut setup = setup(&["http://a.example"], Limits::SERVICE, vec![&*head.leak()].leak()).await;
    assert!(sent(&mut setup.http, request("http://a.example/")).await.is_err());
}

#[tokio::test]
async fn no_more_connections_are_open_than_the_limit_says() {
    let limits = Limits { connections: 2, ..Limits::SERVICE };
    let mut setup = setup(&["http://a.example"], limits, &[FINE, FINE, FINE, ""]).await;
    let open = |http: &mut OutboundHttp| {
        Pin::from(http.send_request(request("http://a.example/"), None, Box::new(async { Ok(()) })))
    };
    let first = open(&mut setup.http).await.ok().unwrap();
    let second = open(&mut setup.http).await.ok().unwrap();
    assert!(matches!(open(&mut setup.http).await.err(), Some(Error::ConnectionLimitReached)));
    drop(first);
    let third = open(&mut setup.http).await;
    assert!(third.is_ok());
    drop((second, third));
    assert!(setup.log.0.lock().unwrap()[0].text.contains("limit `connections` is 2"));
    assert_eq!(hits(&setup), [("connections", 1)]);
}

#[tokio::test]
async fn a_refusal_is_heard_by_who_still_writes() {
    let mut setup = setup(&[], Limits::SERVICE, &[]).await;
    let body = Full::new(Bytes::from_static(b"body")).map_err(|never| match never {}).boxed_unsync();
    let request = Request::post("http://a.example/").body(body).unwrap();
    assert!(matches!(sent(&mut setup.http, request).await, Err(Error::HttpRequestDenied)));
}

/// A fleet in which `cart` has a place in this process, `stock` runs elsewhere, and nothing else is there.
#[derive(Default)]
struct Services(Arc<Mutex<Vec<String>>>);

struct Cart(Arc<Mutex<Vec<String>>>);

fn told(request: &Request<WasiBody>) -> String {
    let mut lines: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    format!("{} {}\n{}", request.method(), request.uri(), lines.join("\n"))
}

impl Callee for Cart {
    fn answer(self: Box<Self>, request: Request<WasiBody>) -> Answering {
        self.0.lock().unwrap().push(told(&request));
        if request.uri().path() == "/refused" {
            // As a service does it that answers before it has read the body.
            drop(request);
            let body = Full::new(Bytes::from_static(b"no")).map_err(|never| match never {}).boxed_unsync();
            return Box::pin(async move { Response::builder().status(413).body(body).unwrap() });
        }
        let body = Full::new(Bytes::from_static(b"cart")).map_err(|never| match never {}).boxed_unsync();
        let response = Response::builder().header("x-padding", "x".repeat(3000)).body(body).unwrap();
        Box::pin(async move { response })
    }
}

impl Connector for Services {
    fn connect(&self, wanted: Wanted) -> Connecting {
        panic!("{wanted:?} is no service")
    }

    fn resolve(&self, _: AllocationId, name: String) -> Resolving {
        panic!("a call needs no addresses of {name}")
    }

    fn callee(&self, service: &WorkloadName) -> Option<Box<dyn Callee>> {
        let is_here = service.to_string() == "demo/shop/cart";
        is_here.then(|| Box::new(Cart(Arc::clone(&self.0))) as Box<dyn Callee>)
    }

    fn call(&self, _: AllocationId, service: WorkloadName) -> Calling {
        let heard = Arc::clone(&self.0);
        Box::pin(async move {
            if service.to_string() != "demo/shop/stock" {
                return Err(ConnectFailure::NotResolved(service.to_string()));
            }
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    assert_ne!(theirs.read_buf(&mut head).await.unwrap(), 0);
                }
                heard.lock().unwrap().push(String::from_utf8(head).unwrap());
                theirs.write_all(FINE.as_bytes()).await.unwrap();
            });
            Ok(ours)
        })
    }
}

#[tokio::test]
async fn services_are_called_by_their_names_and_told_who_calls() {
    let heard = Arc::default();
    let mut setup = setup(&["http://*.shop.internal", "http://*:8080"], Limits::SERVICE, &[]).await;
    let capabilities = setup.http.outbound.granted.as_ref().unwrap().capabilities.clone();
    let mut call = async |limits: &Limits, uri: &str| {
        let granted = granted(capabilities.clone(), Arc::new(Services(Arc::clone(&heard))));
        setup.http.outbound = Arc::new(Outbound::granted(AllocationId::new(1), limits, granted));
        let mut request = request(uri);
        request.headers_mut().insert("dunlin-caller", HeaderValue::from_static("bank/bank/bank"));
        sent(&mut setup.http, request).await
    };
    for (uri, body) in [("http://cart.shop.internal/a?b", "cart"), ("http://stock.shop.internal/a?b", "fine")]
    {
        let response = call(&Limits::SERVICE, uri).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
        let heard = std::mem::take(&mut *heard.lock().unwrap()).concat().to_ascii_lowercase();
        let host = uri.split('/').nth(2).unwrap();
        assert!(heard.starts_with("get /a?b"), "{heard}");
        for line in
            [format!("host: {host}"), "dunlin-caller: demo/shop/web".to_owned(), "dunlin-hops: 1".to_owned()]
        {
            assert!(heard.lines().any(|heard| heard == line), "{line:?} is missing in {heard}");
        }
        assert!(!heard.contains("bank") && !heard.contains("forged"), "{heard}");
    }
    let absent = call(&Limits::SERVICE, "http://nobody.shop.internal/").await.unwrap_err();
    assert!(matches!(absent, Error::DnsError { .. }), "{absent:?}");
    for uri in ["http://cart.bank.internal/", "https://cart.shop.internal/", "http://cart.internal/"] {
        let denied = call(&Limits::SERVICE, uri).await.unwrap_err();
        assert!(matches!(denied, Error::HttpRequestDenied), "{uri}: {denied:?}");
    }
    let small = Limits { header_bytes: dunlin_model::Bytes(2048), ..Limits::SERVICE };
    let long = call(&small, "http://cart.shop.internal/").await.unwrap_err();
    assert!(matches!(long, Error::HttpResponseHeaderSectionSize(_)), "{long:?}");
    let log = setup.log.0.lock().unwrap().iter().map(|record| format!("{record:?}")).collect::<String>();
    assert!(log.contains("there is no service `demo/shop/nobody`, which the guest calls"), "{log}");
}

/// A body that a guest writes piece by piece.
struct Written(tokio::sync::mpsc::Receiver<Bytes>);

impl Body for Written {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[tokio::test]
async fn who_still_writes_hears_the_answer_and_a_head_has_no_body() {
    let mut setup = setup(&["http://*.shop.internal"], Limits::SERVICE, &[]).await;
    let capabilities = setup.http.outbound.granted.as_ref().unwrap().capabilities.clone();
    let granted = granted(capabilities, Arc::new(Services::default()));
    setup.http.outbound = Arc::new(Outbound::granted(AllocationId::new(1), &Limits::SERVICE, granted));
    let (writer, body) = tokio::sync::mpsc::channel(1);
    let mut posted = request("http://cart.shop.internal/refused").map(|_| Written(body).boxed_unsync());
    *posted.method_mut() = Method::POST;
    let answer = sent(&mut setup.http, posted).await.unwrap();
    assert_eq!(answer.status(), 413);
    for _ in 0..8 {
        writer.send(Bytes::from_static(b"more")).await.unwrap();
    }
    drop(writer);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "no");

    let mut asked = request("http://cart.shop.internal/");
    *asked.method_mut() = Method::HEAD;
    let answer = sent(&mut setup.http, asked).await.unwrap();
    assert!(answer.headers().contains_key("x-padding"));
    assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
}
