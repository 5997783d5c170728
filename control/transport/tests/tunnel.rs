//! Connections over TCP: only where UDP does not come through, and for as long as nobody closes them.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use dunlin_protocol::{JoinReply, JoinRequest, StreamRequest};
use dunlin_transport::{
    Authority, ConnectError, Connection, Identity, Incoming, JoinToken, KeyRequest, NodeEndpoint, Role,
    Server, WireLimits, join, serve_join,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const DAY: Duration = Duration::from_secs(86_400);

/// Waits with a limit, so that a broken test fails instead of hanging.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("it takes too long")
}

fn authority() -> Authority {
    Authority::create(&"c4".parse().unwrap(), SystemTime::now()).unwrap()
}

fn coordinator(authority: &Authority) -> Server {
    let role = Role::Coordinator("main".parse().unwrap());
    let identity = Identity::issue(authority, &role, SystemTime::now(), DAY).unwrap();
    // Of two that ask for any port at the same time one may get that of the other for TCP.
    loop {
        let mut server = Server::bind(LOOPBACK, &identity, &WireLimits::FLEET).unwrap();
        if server.listen_on_tcp(&identity).is_ok() {
            return server;
        }
    }
}

fn node(authority: &Authority) -> NodeEndpoint {
    let role = Role::Node("attic".parse().unwrap());
    let identity = Identity::issue(authority, &role, SystemTime::now(), DAY).unwrap();
    NodeEndpoint::bind(LOOPBACK, &identity, &WireLimits::FLEET, &WireLimits::PEER).unwrap()
}

/// A network that lets through TCP alone, and of that what has come until now is ended by [`TcpAlone::cut`].
struct TcpAlone {
    address: SocketAddr,
    cuts: tokio::sync::mpsc::Sender<()>,
    open: Arc<AtomicUsize>,
}

impl TcpAlone {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, mut cut) = tokio::sync::mpsc::channel(1);
        let open = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&open);
        tokio::spawn(async move {
            let mut ways = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (mut from, _) = accepted.unwrap();
                        let count = Arc::clone(&count);
                        ways.spawn(async move {
                            count.fetch_add(1, Ordering::SeqCst);
                            let mut to = TcpStream::connect(server).await.unwrap();
                            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                            count.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                    cut = cut.recv() => match cut {
                        Some(()) => ways.abort_all(),
                        None => return,
                    },
                }
            }
        });
        Self { address, cuts, open }
    }

    async fn cut(&self) {
        self.cuts.send(()).await.unwrap();
    }
}

/// Sends bytes there and back on a stream of its own.
async fn echoed(dialed: &Connection, accepted: &Connection, bytes: Vec<u8>) {
    let answer = async {
        let mut stream = accepted.accept().await.unwrap();
        assert_eq!(stream.receive_request().await.unwrap(), StreamRequest::Relay);
        let mut received = Vec::new();
        stream.receive.read_to_end(&mut received).await.unwrap();
        stream.send.write_all(&received).await.unwrap();
        stream.finish();
        stream.send.delivered().await.unwrap();
    };
    let ask = async {
        let stream = dialed.open(&StreamRequest::Relay).await.unwrap();
        let (mut send, mut receive) = stream.split();
        let sending = async {
            send.write_all(&bytes).await.unwrap();
            send.finish();
        };
        let mut received = Vec::new();
        let receiving = receive.read_to_end(&mut received);
        let ((), read) = tokio::join!(sending, receiving);
        read.unwrap();
        assert!(received == bytes);
    };
    soon(async { tokio::join!(answer, ask) }).await;
}

#[tokio::test]
async fn where_no_udp_comes_through_a_node_comes_by_tcp_and_survives_its_end() {
    let authority = authority();
    let (server, node) = (coordinator(&authority), node(&authority));
    let network = TcpAlone::before(server.local_address()).await;
    let (dialed, accepted) =
        soon(async { tokio::join!(node.connect_coordinator(network.address), server.accept()) }).await;
    let dialed = dialed.unwrap();
    let Some(Incoming::Fleet(name, accepted)) = accepted else { panic!("no node came") };
    assert_eq!(name.to_string(), "attic");
    assert!(dialed.is_over_tcp() && accepted.is_over_tcp());
    assert_eq!(dialed.remote_address(), network.address);
    assert_eq!(accepted.remote_address().ip(), Ipv4Addr::LOCALHOST, "it is known from where it comes");
    echoed(&dialed, &accepted, vec![7; 3 << 20]).await;

    network.cut().await;
    echoed(&dialed, &accepted, b"still here".to_vec()).await;
    assert_eq!((dialed.ended(), accepted.ended()), (None, None));
}

#[tokio::test]
async fn where_udp_comes_through_nobody_comes_by_tcp() {
    let authority = authority();
    let (server, node) = (coordinator(&authority), node(&authority));
    let dialed = soon(node.connect_coordinator(server.local_address())).await.unwrap();
    let Some(Incoming::Fleet(_, accepted)) = soon(server.accept()).await else { panic!("no node came") };
    assert!(!dialed.is_over_tcp() && !accepted.is_over_tcp());
}

#[tokio::test]
async fn a_machine_joins_by_tcp_and_who_is_not_the_coordinator_hears_no_secret() {
    let authority = authority();
    let server = coordinator(&authority);
    let network = TcpAlone::before(server.local_address()).await;
    let token = JoinToken::create(authority.key_hash());
    let name = "attic".parse().unwrap();
    let key = KeyRequest::create().unwrap();
    let answering = async {
        let Some(Incoming::Join(connection)) = server.accept().await else { panic!("nobody came") };
        let decide = async |request: JoinRequest| {
            let role = Role::Node(request.node);
            let certificate =
                authority.issue(&request.signing_request, &role, SystemTime::now(), DAY).unwrap();
            JoinReply::Joined {
                cluster: authority.cluster().clone(),
                certificate: certificate.to_vec(),
                authority: authority.certificate().to_vec(),
            }
        };
        serve_join(&connection, decide).await.unwrap();
    };
    let joining = join(network.address, &token, &name, key);
    let (joined, ()) = soon(async { tokio::join!(joining, answering) }).await;
    assert_eq!(joined.unwrap().member().to_string(), "node attic of fleet c4");

    let other = Authority::create(&"c4".parse().unwrap(), SystemTime::now()).unwrap();
    let stranger = node(&other);
    let error = soon(stranger.connect_coordinator(network.address)).await.unwrap_err();
    assert!(matches!(error, ConnectError::WrongPeer { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_no_tunnel_is_ended_and_harms_none() {
    let authority = authority();
    let server = coordinator(&authority);
    let mut strangers = Vec::new();
    for _ in 0..100 {
        strangers.push(TcpStream::connect(server.local_address()).await.unwrap());
    }
    let mut stranger = TcpStream::connect(server.local_address()).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    soon(stranger.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"));
    let (network, node) = (TcpAlone::before(server.local_address()).await, node(&authority));
    assert!(soon(node.connect_coordinator(network.address)).await.unwrap().is_over_tcp());
}

#[tokio::test]
async fn a_tunnel_ends_with_what_was_in_it() {
    let authority = authority();
    let (server, node) = (coordinator(&authority), node(&authority));
    let network = TcpAlone::before(server.local_address()).await;
    let dialed = soon(node.connect_coordinator(network.address)).await.unwrap();
    assert_eq!(network.open.load(Ordering::SeqCst), 1);
    // The next time UDP is not waited for, as it did not come through.
    let began = std::time::Instant::now();
    let again = soon(node.connect_coordinator(network.address)).await.unwrap();
    assert!(again.is_over_tcp() && began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(network.open.load(Ordering::SeqCst), 2);
    drop((dialed, again));
    soon(async {
        while network.open.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
