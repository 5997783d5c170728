//! The ingress under test, one for the whole process, and the worker behind it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dunlin_ingress::{BoxedStream, Doors, Ingress, IngressConfig, Local, Peers};
use dunlin_model::{AllocationId, Endpoint, Name, NodeId, Route, RouteSpec, RouteTable, WorkloadName};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::expectation::ROUTES;

/// Long enough that it only ends what hangs: that is a finding.
const PATIENCE: Duration = Duration::from_secs(30);

/// What has reached the worker, with the number of the exchange in which its connection was opened: what was
/// cancelled may still be written down while the next exchange is under way.
#[derive(Default)]
struct Notebook {
    exchange: AtomicU64,
    heads: Mutex<Vec<(u64, Vec<u8>)>>,
}

/// Answers every request alike and writes down its head.
struct Recorder(Arc<Notebook>);

impl Local for Recorder {
    fn connect(&self, _namespace: &Name) -> BoxFuture<'_, io::Result<BoxedStream>> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let exchange = self.0.exchange.load(Ordering::SeqCst);
        tokio::spawn(record(theirs, Arc::clone(&self.0), exchange));
        async move { Ok(Box::new(ours) as BoxedStream) }.boxed()
    }
}

/// Takes one request and closes, so that each head is the beginning of a connection.
async fn record(mut stream: tokio::io::DuplexStream, notebook: Arc<Notebook>, exchange: u64) {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while !bytes.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(length @ 1..) if bytes.len() < 64 << 10 => bytes.extend_from_slice(&piece[..length]),
            _ => return,
        }
    }
    notebook.heads.lock().unwrap_or_else(PoisonError::into_inner).push((exchange, bytes));
    // The other side may be gone already.
    let _gone =
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
    let _gone = stream.shutdown().await;
}

struct Nobody;

impl Peers for Nobody {
    fn open(&self, _node: &NodeId, _address: SocketAddr) -> BoxFuture<'_, io::Result<BoxedStream>> {
        async { Err(io::ErrorKind::HostUnreachable.into()) }.boxed()
    }
}

struct Front {
    address: SocketAddr,
    notebook: Arc<Notebook>,
    _runtime: tokio::runtime::Runtime,
}

/// Exchanges happen one after the other, so that what reached the worker belongs to one of them.
static FRONT: OnceLock<Mutex<Front>> = OnceLock::new();

fn front() -> Front {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let notebook = Arc::<Notebook>::default();
    let node: NodeId = "n1".parse().expect("a name");
    let config = IngressConfig { header_timeout: PATIENCE, ..IngressConfig::default() };
    let local = Arc::new(Recorder(Arc::clone(&notebook)));
    let ingress = Ingress::with_config(node.clone(), local, Arc::new(Nobody), config);
    ingress.set_routes(&routes(&node));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    runtime.spawn(async move {
        ingress.serve(Doors::plain(listener), std::future::pending()).await.finish().await
    });
    Front { address, notebook, _runtime: runtime }
}

fn routes(node: &NodeId) -> RouteTable {
    let mut table = RouteTable::default();
    for (host, path, number) in ROUTES {
        let workload: WorkloadName = format!("demo/shop/web-{number}").parse().expect("a name");
        let spec = RouteSpec::new(host, path);
        table.routes.push(Route { spec, workload: workload.clone() });
        let endpoint = Endpoint::new(AllocationId::new(number), node.clone());
        table.endpoints.insert(workload, vec![endpoint]);
    }
    table
}

/// Sends `request` and returns what came back and what reached the worker. `is_complete` says that there must be an
/// answer: only when its head is there is the connection ended, since a client that goes away is not answered.
pub(super) fn exchange(request: &[u8], is_complete: bool) -> (Vec<u8>, Vec<Vec<u8>>) {
    let front = FRONT.get_or_init(|| Mutex::new(front()));
    let front = front.lock().unwrap_or_else(PoisonError::into_inner);
    let number = front.notebook.exchange.fetch_add(1, Ordering::SeqCst) + 1;
    let mut stream = TcpStream::connect(front.address).expect("the ingress listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
    // The ingress may have answered and closed before it has read everything.
    let _closed = stream.write_all(request);
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    let mut is_open = true;
    loop {
        if is_open && (!is_complete || answer.windows(4).any(|four| four == b"\r\n\r\n")) {
            is_open = false;
            let _closed = stream.shutdown(Shutdown::Write);
        }
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error) => {
                let is_slow = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                assert!(!is_slow, "no end within {PATIENCE:?}: {}", request.escape_ascii());
                break;
            }
        }
    }
    let mut heads = front.notebook.heads.lock().unwrap_or_else(PoisonError::into_inner);
    let reached = std::mem::take(&mut *heads).into_iter().filter(|(exchange, _)| *exchange == number);
    (answer, reached.map(|(_, head)| head).collect())
}
