//! A fleet of ingresses in one process: workers and other nodes are reached over pipes in memory.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(unreachable_pub, reason = "shared by several test binaries")]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dunlin_ingress::{BoxedStream, Doors, Failure, Ingress, IngressConfig, Local, Peers};
use dunlin_model::{Endpoint, Name, NodeId, Route, RouteSpec, RouteTable};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

pub type Body = BoxBody<Bytes, hyper::Error>;

/// How a worker behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Tells what it was asked.
    Tell,
    /// Sends the body back as it comes.
    Echo,
    /// Closes the connection after the head of a request.
    Break,
    /// Reads the whole body, then closes the connection.
    BreakAfterBody,
    /// Cannot be connected to.
    Absent,
    /// Does not have the allocation.
    NoAllocation,
    /// Has too much to do.
    Overloaded,
    /// Never answers.
    Silent,
}

/// The worker of a node: counts what reaches it.
pub struct Worker {
    pub node: String,
    pub behaviour: Mutex<Behaviour>,
    pub connections: AtomicUsize,
    pub requests: Arc<AtomicUsize>,
    pub cancelled: Arc<AtomicBool>,
}

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

impl Worker {
    pub fn new(node: &str, behaviour: Behaviour) -> Arc<Self> {
        Arc::new(Self {
            node: node.to_owned(),
            behaviour: Mutex::new(behaviour),
            connections: AtomicUsize::new(0),
            requests: Arc::default(),
            cancelled: Arc::default(),
        })
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn work(
    request: Request<Incoming>,
    node: String,
    behaviour: Behaviour,
    cancelled: Arc<AtomicBool>,
) -> io::Result<Response<Body>> {
    match behaviour {
        Behaviour::Echo => Ok(Response::new(request.into_body().boxed())),
        Behaviour::Break => Err(io::ErrorKind::ConnectionReset.into()),
        Behaviour::BreakAfterBody => {
            let _ = request.into_body().collect().await;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Behaviour::NoAllocation => {
            let failure =
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, Failure::NO_ALLOCATION, "gone".to_owned());
            Ok(failure.into_response().map(|body| body.map_err(|never| match never {}).boxed()))
        }
        Behaviour::Overloaded => {
            let failure =
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "busy".to_owned()).retry_after(1);
            Ok(failure.into_response().map(|body| body.map_err(|never| match never {}).boxed()))
        }
        Behaviour::Silent => {
            let _set = SetOnDrop(cancelled);
            std::future::pending().await
        }
        Behaviour::Tell | Behaviour::Absent => {
            let mut told = format!("node: {node}\n{} {}\n", request.method(), request.uri());
            let mut lines: Vec<String> = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
                .collect();
            lines.sort();
            told.extend(lines);
            let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
            told.push_str(&format!("body: {}\n", body.len()));
            Ok(Response::builder()
                .header("connection", "x-private")
                .header("x-private", "1")
                .body(full(told))
                .unwrap())
        }
    }
}

impl Local for Worker {
    fn connect(&self, _namespace: &Name) -> BoxFuture<'_, io::Result<BoxedStream>> {
        let behaviour = *self.behaviour.lock().unwrap();
        if behaviour == Behaviour::Absent {
            return async { Err(io::ErrorKind::ConnectionRefused.into()) }.boxed();
        }
        self.connections.fetch_add(1, Ordering::SeqCst);
        let (node, requests, cancelled) =
            (self.node.clone(), Arc::clone(&self.requests), Arc::clone(&self.cancelled));
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                requests.fetch_add(1, Ordering::SeqCst);
                work(request, node.clone(), behaviour, Arc::clone(&cancelled))
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(theirs), service)
                .await;
        });
        async move { Ok(Box::new(ours) as BoxedStream) }.boxed()
    }
}

/// All nodes of a fleet, by name.
#[derive(Default)]
pub struct Wires(Mutex<BTreeMap<NodeId, Ingress>>);

impl Peers for Wires {
    fn open(&self, node: &NodeId, _address: SocketAddr) -> BoxFuture<'_, io::Result<BoxedStream>> {
        let ingress = self.0.lock().unwrap().get(node).cloned();
        async move {
            let ingress = ingress.ok_or(io::ErrorKind::HostUnreachable)?;
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            tokio::spawn(async move { ingress.serve_peer(Box::new(theirs)).await });
            Ok(Box::new(ours) as BoxedStream)
        }
        .boxed()
    }
}

/// A fleet with a service `demo/shop/web`, of which each node has one allocation: `a1` on the first, and so on.
pub struct Fleet {
    pub ingresses: Vec<Ingress>,
    pub workers: Vec<Arc<Worker>>,
    pub wires: Arc<Wires>,
}

pub fn config() -> IngressConfig {
    IngressConfig { header_timeout: Duration::from_millis(300), ..IngressConfig::default() }
}

/// Returns a route table in which `endpoints` serve everything.
pub fn routes(endpoints: &[(&str, u64)]) -> RouteTable {
    let workload: dunlin_model::WorkloadName = "demo/shop/web".parse().unwrap();
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let endpoint = |(node, number): &(&str, u64)| {
        Endpoint::new(dunlin_model::AllocationId::new(*number), node.parse().unwrap())
    };
    RouteTable {
        routes: vec![Route { spec: RouteSpec::new(None, "/"), workload: workload.clone() }],
        endpoints: BTreeMap::from([(workload, endpoints.iter().map(endpoint).collect())]),
        peers: endpoints.iter().map(|(node, _)| (node.parse().unwrap(), nowhere)).collect(),
        ..RouteTable::default()
    }
}

impl Fleet {
    pub fn new(behaviours: &[Behaviour]) -> Self {
        let wires = Arc::new(Wires::default());
        let names: Vec<String> = (1..=behaviours.len()).map(|number| format!("n{number}")).collect();
        let endpoints: Vec<(&str, u64)> = names.iter().map(String::as_str).zip(1..).collect();
        let mut fleet = Self { ingresses: Vec::new(), workers: Vec::new(), wires: Arc::clone(&wires) };
        for (name, behaviour) in names.iter().zip(behaviours) {
            let worker = Worker::new(name, *behaviour);
            let node: NodeId = name.parse().unwrap();
            let peers: Arc<dyn Peers> = Arc::clone(&wires) as _;
            let ingress = Ingress::with_config(node.clone(), Arc::clone(&worker) as _, peers, config());
            ingress.set_routes(&routes(&endpoints));
            wires.0.lock().unwrap().insert(node, ingress.clone());
            fleet.ingresses.push(ingress);
            fleet.workers.push(worker);
        }
        fleet
    }

    /// Makes a node unreachable for the others.
    pub fn cut_off(&self, node: &str) {
        self.wires.0.lock().unwrap().remove(&node.parse().unwrap());
    }

    /// Opens the front door of the first node.
    pub async fn open(&self) -> Door {
        self.open_at(0).await
    }

    pub async fn open_at(&self, node: usize) -> Door {
        Door::open(self.ingresses[node].clone()).await
    }

    /// Returns how many requests each worker has had.
    pub fn requests(&self) -> Vec<usize> {
        self.workers.iter().map(|worker| worker.requests()).collect()
    }
}

/// An ingress that listens.
pub struct Door {
    pub address: SocketAddr,
    pub closing: Option<oneshot::Sender<()>>,
    pub served: tokio::task::JoinHandle<()>,
}

impl Door {
    pub async fn open(ingress: Ingress) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (closing, closed) = oneshot::channel();
        let served = tokio::spawn(async move {
            ingress.serve(Doors::plain(listener), async { drop(closed.await) }).await.finish().await;
        });
        Self { address, closing: Some(closing), served }
    }

    /// Opens a connection for HTTP/1.1.
    pub async fn connect(&self) -> hyper::client::conn::http1::SendRequest<Body> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Sends one request on a connection of its own.
    pub async fn send(&self, request: Request<Body>) -> (StatusCode, http::HeaderMap, String) {
        let mut sender = self.connect().await;
        receive(sender.send_request(request).await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> (StatusCode, http::HeaderMap, String) {
        self.send(Request::get(path).header("host", "shop.example").body(full("")).unwrap()).await
    }

    /// Sends bytes as they are and returns all that comes back until the end.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        let _ =
            tokio::time::timeout(Duration::from_secs(10), reading).await.expect("the connection should end");
        String::from_utf8(answer).unwrap()
    }
}

pub async fn receive(response: Response<Incoming>) -> (StatusCode, http::HeaderMap, String) {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

/// Waits until `is_so`, for ten seconds at most.
pub async fn wait_until(claim: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect(claim);
}
