//! Two nodes and a relay between them, in one process.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::SystemTime;

use dunlin_protocol::StreamRequest;
use dunlin_transport::{Authority, Identity, Incoming, Relay, Role, Server, WireLimits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;

use super::*;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const DAY: Duration = Duration::from_secs(86_400);

/// Waits with a limit, so that a broken test fails instead of hanging.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("it takes too long")
}

/// A coordinator that relays, and two nodes that have it do so.
struct Scene {
    attic: Arc<NodeEndpoint>,
    cellar: Arc<NodeEndpoint>,
}

impl Scene {
    async fn begin() -> Self {
        let now = SystemTime::now();
        let authority = Authority::create(&"c4".parse().unwrap(), now).unwrap();
        let role = Role::Coordinator("main".parse().unwrap());
        let identity = Identity::issue(&authority, &role, now, DAY).unwrap();
        let server = Server::bind(LOOPBACK, &identity, &WireLimits::FLEET).unwrap();
        let address = server.local_address();
        tokio::spawn(async move {
            let relay = Arc::new(Relay::default());
            while let Some(Incoming::Fleet(node, connection)) = server.accept().await {
                let relay = Arc::clone(&relay);
                tokio::spawn(async move {
                    let mut stream = connection.accept().await.unwrap();
                    assert_eq!(stream.receive_request().await.unwrap(), StreamRequest::Relay);
                    relay.carry(&node, stream).await
                });
            }
        });
        let join = |name: &str| {
            let role = Role::Node(name.parse().unwrap());
            let identity = Identity::issue(&authority, &role, now, DAY).unwrap();
            NodeEndpoint::bind(LOOPBACK, &identity, &WireLimits::FLEET, &WireLimits::PEER)
                .map(Arc::new)
                .unwrap()
        };
        let nodes = [join("attic"), join("cellar")];
        for node in &nodes {
            let connection = soon(node.connect_coordinator(address)).await.unwrap();
            let relayed = Arc::clone(node);
            tokio::spawn(async move { relayed.relay_through(&connection).await });
            soon(async {
                while !node.has_relay() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        let [attic, cellar] = nodes;
        Self { attic, cellar }
    }

    /// Opens a stream from the attic to the cellar at `address`, and says something on it.
    async fn open(&self, peers: &PeerConnections, address: SocketAddr) -> BoxedStream {
        let mut stream = soon(peers.open(&"cellar".parse().unwrap(), address)).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream
    }

    /// Returns the next connection to the cellar.
    async fn accepted(&self) -> Connection {
        soon(self.cellar.accept_peer()).await.unwrap().1
    }
}

/// Waits until something is said on a stream of this connection.
async fn heard(connection: &Connection) {
    let mut stream = soon(connection.accept()).await.unwrap();
    let mut said = [0; 5];
    soon(stream.read_exact(&mut said)).await.unwrap();
    assert_eq!(&said, b"hello");
}

/// A way to `to` on which each packet takes so long in each direction.
async fn long_way(to: SocketAddr, time: Duration) -> SocketAddr {
    let front = Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap());
    let back = Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap());
    back.connect(to).await.unwrap();
    let address = front.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut there, mut here) = (vec![0; 2048], vec![0; 2048]);
        let mut dialer = None;
        loop {
            tokio::select! {
                Ok((length, from)) = front.recv_from(&mut there) => {
                    dialer = Some(from);
                    let (back, packet) = (Arc::clone(&back), there[..length].to_vec());
                    tokio::spawn(async move { tokio::time::sleep(time).await; back.send(&packet).await });
                }
                Ok(length) = back.recv(&mut here) => {
                    let Some(dialer) = dialer else { continue };
                    let (front, packet) = (Arc::clone(&front), here[..length].to_vec());
                    tokio::spawn(async move {
                        tokio::time::sleep(time).await;
                        front.send_to(&packet, dialer).await
                    });
                }
            }
        }
    });
    address
}

#[tokio::test]
async fn a_node_is_reached_directly_where_that_works() {
    let scene = Scene::begin().await;
    let peers = PeerConnections::new(Arc::clone(&scene.attic));
    let address = scene.cellar.local_address();
    let _stream = scene.open(&peers, address).await;
    let direct = scene.accepted().await;
    assert_eq!(direct.remote_address(), scene.attic.local_address());
    heard(&direct).await;
}

#[tokio::test]
async fn the_direct_way_is_taken_as_soon_as_it_works_and_the_other_one_ends_with_its_last_request() {
    let scene = Scene::begin().await;
    let peers = PeerConnections::new(Arc::clone(&scene.attic));
    let address = long_way(scene.cellar.local_address(), Duration::from_millis(250)).await;
    let stream = scene.open(&peers, address).await;
    let relayed = scene.accepted().await;
    heard(&relayed).await;
    let direct = scene.accepted().await;
    // What is under way stays where it is; what comes goes the other way.
    soon(async {
        while peers.peer(&"cellar".parse().unwrap()).state().last.as_ref().unwrap().way == Way::Relayed {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let _later = scene.open(&peers, address).await;
    heard(&direct).await;
    assert!(relayed.ended().is_none());
    drop(stream);
    soon(relayed.closed()).await;
    assert!(direct.ended().is_none());
}

#[tokio::test]
async fn a_stranger_at_the_address_of_a_node_is_no_hindrance() {
    let scene = Scene::begin().await;
    let now = SystemTime::now();
    // Of another fleet, which is all that stands at this address.
    let authority = Authority::create(&"c5".parse().unwrap(), now).unwrap();
    let identity = Identity::issue(&authority, &Role::Node("cellar".parse().unwrap()), now, DAY).unwrap();
    let stranger = NodeEndpoint::bind(LOOPBACK, &identity, &WireLimits::FLEET, &WireLimits::PEER).unwrap();
    let peers = PeerConnections::new(Arc::clone(&scene.attic));
    let _stream = scene.open(&peers, stranger.local_address()).await;
    heard(&scene.accepted().await).await;
    assert!(!peers.peer(&"cellar".parse().unwrap()).state().direct.is_due(Instant::now()));
}
