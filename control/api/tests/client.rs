//! The client against a small server of its own: what it sends, what it believes, and what it refuses to read.

#![expect(clippy::unwrap_used, reason = "a test may panic; clippy sees only the test functions as one")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dunlin_api::{
    Client, ClientConfig, ClientConfigError, ClientError, CreateJoinToken, ItemsQuery, LogsQuery, MAX_ANSWER,
    Problem, RunsQuery, StartRun, code,
};
use dunlin_model::{Digest, RunId};
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Answer = Response<BoxBody<Bytes, Infallible>>;
type Answers = fn(&Seen) -> Answer;

/// What a request looked like when it arrived.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    headers: BTreeMap<String, String>,
    body: Bytes,
    version: hyper::Version,
}

struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    async fn start(answers: Answers, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, tls) = (Arc::clone(&log), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, answers, Arc::clone(&log)));
                    let builder = Builder::new(TokioExecutor::new());
                    // A refused handshake or a client which goes away is part of the tests.
                    if let Some(tls) = tls {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        drop(builder.serve_connection(TokioIo::new(stream), service).await);
                    } else {
                        drop(builder.serve_connection(TokioIo::new(stream), service).await);
                    }
                });
            }
        });
        Self { address, seen }
    }

    fn client(&self) -> Client {
        let url = format!("http://{}", self.address);
        Client::new(ClientConfig { url, token: "secret".to_owned(), authority_pem: String::new() }).unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }
}

async fn answer(
    request: Request<Incoming>,
    answers: Answers,
    log: Arc<Mutex<Vec<Seen>>>,
) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap_or_default().to_owned())
    };
    let seen = Seen {
        line: format!("{} {target}", head.method),
        headers: head.headers.iter().map(header).collect(),
        body: body.collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
        version: head.version,
    };
    log.lock().unwrap().push(seen.clone());
    Ok(answers(&seen))
}

fn reply(status: u16, content_type: &str, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).boxed();
    Response::builder().status(status).header("content-type", content_type).body(body).unwrap()
}

fn json(body: &'static str) -> Answer {
    reply(200, "application/json", body)
}

#[tokio::test]
async fn each_method_asks_its_path_with_the_token() {
    let server = Server::start(
        |seen| match seen.line.as_str() {
            line if line.starts_with("POST /v1/jobs") => json(r#"{"run":"r3"}"#),
            line if line.starts_with("POST /v1/tokens") => json(r#"{"token":"t","expires_ms":1}"#),
            line if line.contains("/items") => json(r#"{"items":[],"a_later_field":1}"#),
            line if line.starts_with("GET /v1/runs") => json(r#"{"runs":[]}"#),
            line if line.starts_with("GET /v1/apps") => json(r#"{"apps":[]}"#),
            _ => reply(204, "text/plain", ""),
        },
        None,
    )
    .await;
    let client = server.client();
    let app = "default/shop".parse().unwrap();
    client.apps().await.unwrap();
    client.stop_app(&app).await.unwrap();
    client.delete_app(&app).await.unwrap();
    let start = StartRun { items: Some(3), ..StartRun::default() };
    client.start_run(&app, &"sum".parse().unwrap(), &start).await.unwrap();
    client.runs(&RunsQuery { app: Some(app) }).await.unwrap();
    let query = ItemsQuery { after: Some(7), limit: Some(10) };
    client.run_items(RunId::new(3), &query).await.unwrap();
    client.cancel_run(RunId::new(3)).await.unwrap();
    client.create_join_token(&CreateJoinToken::default()).await.unwrap();
    client.health().await.unwrap();
    let expected = expect_test::expect![[r#"
        GET /v1/apps
        POST /v1/apps/default/shop/stop
        DELETE /v1/apps/default/shop
        POST /v1/jobs/default/shop/sum/runs
        GET /v1/runs?app=default/shop
        GET /v1/runs/r3/items?after=7&limit=10
        POST /v1/runs/r3/cancel
        POST /v1/tokens/join
        GET /healthz"#]];
    expected.assert_eq(&server.lines().join("\n"));
    assert!(server.seen().iter().all(|seen| seen.headers["authorization"] == "Bearer secret"));
    assert_eq!(server.seen()[3].body, r#"{"items":3}"#);
}

#[tokio::test]
async fn an_upload_says_its_length_and_how_far_it_is() {
    let server = Server::start(
        |seen| match seen.line.starts_with("HEAD") {
            true => reply(404, "text/plain", ""),
            false => {
                let digest = Digest::of(&seen.body);
                reply(
                    200,
                    "application/json",
                    format!(r#"{{"digest":"{digest}","size":{}}}"#, seen.body.len()),
                )
            }
        },
        None,
    )
    .await;
    let bytes = Bytes::from(vec![7; 300_000]);
    let digest = Digest::of(&bytes);
    let client = server.client();
    assert!(!client.has_component(&digest).await.unwrap());
    let told = Arc::new(AtomicU64::new(0));
    let progress = Arc::clone(&told);
    let info = client
        .upload_component(&digest, bytes, move |sent| progress.store(sent, Ordering::SeqCst))
        .await
        .unwrap();
    assert_eq!((info.digest, info.size.0), (digest, 300_000));
    assert_eq!(told.load(Ordering::SeqCst), 300_000);
    assert_eq!(server.seen()[1].headers["content-length"], "300000");
    assert_eq!(server.seen()[1].headers["content-type"], "application/wasm");
}

#[tokio::test]
async fn an_upload_of_nothing_is_possible() {
    let server = Server::start(|_| reply(200, "text/plain", ""), None).await;
    server.client().upload_input(&Digest::of(b""), Bytes::new()).await.unwrap();
    assert_eq!(server.seen()[0].body, "");
}

#[tokio::test]
async fn a_refusal_is_a_problem_whoever_says_it() {
    let server = Server::start(
        |seen| match seen.line.as_str() {
            "GET /v1/nodes" => {
                let problem = Problem::new(429, code::BUSY, "too many requests", "32 are in flight");
                reply(429, "application/problem+json", serde_json::to_vec(&problem).unwrap())
            }
            "GET /v1/status" => reply(401, "application/problem+json", "not json"),
            _ => reply(502, "text/html", "<h1>Bad Gateway</h1>"),
        },
        None,
    )
    .await;
    let client = server.client();
    let error = client.nodes().await.unwrap_err();
    assert_eq!(error.problem().unwrap().detail, "32 are in flight");
    assert_eq!(client.status().await.unwrap_err().problem().unwrap().code, code::UNAUTHORIZED);
    assert_eq!(client.apps().await.unwrap_err().problem().unwrap().status, 502);
    let head = client.has_input(&Digest::of(b"")).await.unwrap_err();
    assert_eq!(head.problem().unwrap().status, 502);
}

#[tokio::test]
async fn the_token_follows_no_redirect() {
    let server = Server::start(
        |_| {
            let mut answer = reply(307, "text/plain", "");
            answer.headers_mut().insert("location", "/elsewhere".parse().unwrap());
            answer
        },
        None,
    )
    .await;
    assert_eq!(server.client().nodes().await.unwrap_err().problem().unwrap().status, 307);
    assert_eq!(server.lines(), ["GET /v1/nodes"]);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let server = Server::start(|_| reply(200, "application/json", vec![b' '; MAX_ANSWER + 1]), None).await;
    let error = server.client().nodes().await.unwrap_err();
    assert!(matches!(error, ClientError::BadAnswer { .. }), "{error}");
}

#[tokio::test]
async fn log_lines_come_one_by_one_and_have_a_bound() {
    let server = Server::start(
        |_| {
            let line = r#"{"node":"node-1","record":{"at":1,"instance":{"allocation":"a1","number":1},"source":"stdout","text":"hi"}}"#;
            let long = "x".repeat(1 << 20);
            reply(200, "application/x-ndjson", format!("{line}\n\n{line}\n{long}\n"))
        },
        None,
    )
    .await;
    let query = LogsQuery { app: Some("shop".parse().unwrap()), follow: Some(true), ..LogsQuery::default() };
    let mut lines = server.client().logs(&query).await.unwrap();
    assert_eq!(server.lines(), ["GET /v1/logs?app=shop&follow=true"]);
    assert_eq!(lines.next().await.unwrap().unwrap().record.text, "hi");
    assert_eq!(lines.next().await.unwrap().unwrap().record.text, "hi");
    let error = lines.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::BadAnswer { .. }), "{error}");
}

#[tokio::test]
async fn nobody_there_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let config = ClientConfig { url, token: "secret".to_owned(), authority_pem: String::new() };
    let error = Client::new(config).unwrap().nodes().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}

/// An authority and a server under it.
fn fleet() -> (String, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (authority.pem(), TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn only_the_fleet_s_own_authority_is_believed() {
    let (authority_pem, acceptor) = fleet();
    let server = Server::start(|_| json(r#"{"nodes":[]}"#), Some(acceptor)).await;
    let client = |authority_pem: String| {
        let url = format!("https://{}/", server.address);
        Client::new(ClientConfig { url, token: "secret".to_owned(), authority_pem }).unwrap()
    };
    client(authority_pem).nodes().await.unwrap();
    assert_eq!(server.seen()[0].version, hyper::Version::HTTP_2);
    let (another, _) = fleet();
    let error = client(another).nodes().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert_eq!(server.seen().len(), 1, "a server that is not believed must not see the token");
}

#[test]
fn a_client_that_would_be_unsafe_is_not_made() {
    let make = |url: &str, token: &str| {
        let (authority_pem, _) = fleet();
        Client::new(ClientConfig { url: url.to_owned(), token: token.to_owned(), authority_pem })
    };
    assert!(matches!(make("http://192.0.2.1:80", "a"), Err(ClientConfigError::Plain { .. })));
    assert!(matches!(make("http://localhost.example:80", "a"), Err(ClientConfigError::Plain { .. })));
    assert!(matches!(make("ftp://127.0.0.1", "a"), Err(ClientConfigError::Url { .. })));
    assert!(matches!(make("127.0.0.1:7300", "a"), Err(ClientConfigError::Url { .. })));
    assert!(matches!(make("https://a:1", "a\nb"), Err(ClientConfigError::Token)));
    assert!(make("http://[::1]:80", "a").is_ok());
    let config = ClientConfig {
        url: "https://a:1".to_owned(),
        token: "hush".to_owned(),
        authority_pem: String::new(),
    };
    assert!(!format!("{config:?}").contains("hush"));
    assert!(matches!(Client::new(config), Err(ClientConfigError::Authority)));
}
