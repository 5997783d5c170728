//! Two nodes that reach each other only through a third party.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dunlin_model::NodeId;
use dunlin_protocol::{Relayed, StreamReply, StreamRequest};
use dunlin_transport::{
    Authority, CloseCode, ConnectError, Connection, Identity, Incoming, NodeEndpoint, Relay, Role, Server,
    WireLimits,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const DAY: Duration = Duration::from_secs(86_400);

/// Waits with a limit, so that a broken test fails instead of hanging.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it takes too long")
}

/// A coordinator that relays for whoever connects.
struct Middle {
    relay: Arc<Relay>,
    authority: Authority,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Middle {
    fn start() -> Self {
        let authority = Authority::create(&"c4".parse().unwrap(), SystemTime::now()).unwrap();
        let role = Role::Coordinator("main".parse().unwrap());
        let identity = Identity::issue(&authority, &role, SystemTime::now(), DAY).unwrap();
        let server = Server::bind(LOOPBACK, &identity, &WireLimits::FLEET).unwrap();
        let address = server.local_address();
        let relay = Arc::new(Relay::default());
        let passing = Arc::clone(&relay);
        let serving = tokio::spawn(async move {
            while let Some(Incoming::Fleet(node, connection)) = server.accept().await {
                let relay = Arc::clone(&passing);
                tokio::spawn(async move {
                    while let Ok(mut stream) = connection.accept().await {
                        let (node, relay) = (node.clone(), Arc::clone(&relay));
                        assert_eq!(stream.receive_request().await.unwrap(), StreamRequest::Relay);
                        tokio::spawn(async move { relay.carry(&node, stream).await });
                    }
                });
            }
        });
        Self { relay, authority, address, serving }
    }

    async fn node(&self, name: &str) -> Arc<NodeEndpoint> {
        let role = Role::Node(name.parse().unwrap());
        let identity = Identity::issue(&self.authority, &role, SystemTime::now(), DAY).unwrap();
        let node = NodeEndpoint::bind(LOOPBACK, &identity, &WireLimits::FLEET, &WireLimits::PEER).unwrap();
        Arc::new(node)
    }

    /// Has this node relayed for; returns the connection on which it is.
    async fn joined(&self, node: &Arc<NodeEndpoint>) -> Connection {
        let connection = soon(node.connect_coordinator(self.address)).await.unwrap();
        let (relayed, through) = (Arc::clone(node), connection.clone());
        tokio::spawn(async move { relayed.relay_through(&through).await });
        has_relay(node, true).await;
        connection
    }
}

/// Waits until `node` has a relay, or none.
async fn has_relay(node: &NodeEndpoint, wanted: bool) {
    soon(async {
        while node.has_relay() != wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Answers each stream with what came on it.
fn echo(node: Arc<NodeEndpoint>) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some((_, connection)) = node.accept_peer().await {
            tokio::spawn(async move {
                while let Ok(stream) = connection.accept().await {
                    tokio::spawn(async move {
                        let (mut send, mut receive) = stream.split();
                        let copied = tokio::io::copy(&mut receive, &mut send).await;
                        send.finish();
                        let _ended = send.delivered().await;
                        copied
                    });
                }
            });
        }
    })
}

async fn ask(connection: &Connection, question: &[u8]) -> Vec<u8> {
    let (mut send, mut receive) = connection.open_raw().await.unwrap().split();
    let asking = async {
        send.write_all(question).await.unwrap();
        send.finish();
    };
    let mut answer = Vec::new();
    let (read, ()) = tokio::join!(receive.read_to_end(&mut answer), asking);
    read.unwrap();
    answer
}

#[tokio::test]
async fn nodes_reach_each_other_through_a_relay_and_know_whom() {
    let middle = Middle::start();
    let (attic, cellar) = (middle.node("attic").await, middle.node("cellar").await);
    let (_one, _other) = (middle.joined(&attic).await, middle.joined(&cellar).await);
    let _echo = echo(Arc::clone(&cellar));
    let connection = soon(attic.connect_relayed(&"cellar".parse().unwrap())).await.unwrap();
    assert_eq!(connection.peer().unwrap().to_string(), "node cellar of fleet c4");
    assert_eq!(middle.relay.heard_by(&"cellar".parse().unwrap()), ["attic".parse().unwrap()]);
    assert_eq!(middle.relay.heard_by(&"garage".parse().unwrap()), []);
    assert_eq!(soon(ask(&connection, b"are you there?")).await, b"are you there?");
    // Far more than may wait at a relay: what is lost is sent again.
    let much: Vec<u8> = (0..4_000_000_u32).map(|at| (at % 251) as u8).collect();
    assert!(soon(ask(&connection, &much)).await == much);
}

#[tokio::test]
async fn a_connection_outlives_its_relay() {
    let middle = Middle::start();
    let (attic, cellar) = (middle.node("attic").await, middle.node("cellar").await);
    let (_one, through) = (middle.joined(&attic).await, middle.joined(&cellar).await);
    let _echo = echo(Arc::clone(&cellar));
    let connection = soon(attic.connect_relayed(&"cellar".parse().unwrap())).await.unwrap();
    assert_eq!(soon(ask(&connection, b"before")).await, b"before");
    through.close(CloseCode::DONE, "");
    has_relay(&cellar, false).await;
    let asking = soon(ask(&connection, b"meanwhile"));
    let (answer, _through) = tokio::join!(asking, middle.joined(&cellar));
    assert_eq!(answer, b"meanwhile");
}

#[tokio::test]
async fn without_a_relay_nobody_is_dialed() {
    let middle = Middle::start();
    let attic = middle.node("attic").await;
    let cellar: NodeId = "cellar".parse().unwrap();
    assert!(!attic.has_relay());
    let error = soon(attic.connect_relayed(&cellar)).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoRelay { .. }), "{error:?}");
    let through = middle.joined(&attic).await;
    through.close(CloseCode::DONE, "");
    middle.serving.abort();
    has_relay(&attic, false).await;
}

#[tokio::test]
async fn a_node_that_is_not_there_is_given_up() {
    let middle = Middle::start();
    let attic = middle.node("attic").await;
    let _through = middle.joined(&attic).await;
    let error = soon(attic.connect_relayed(&"cellar".parse().unwrap())).await.unwrap_err();
    assert!(matches!(error, ConnectError::Absent { .. }), "{error:?}");
}

#[tokio::test]
async fn a_relay_says_who_has_sent_a_packet_and_not_the_packet() {
    let middle = Middle::start();
    let nodes = [middle.node("attic").await, middle.node("cellar").await];
    let mut streams = Vec::new();
    for node in &nodes {
        let connection = soon(node.connect_coordinator(middle.address)).await.unwrap();
        let mut stream = soon(connection.open(&StreamRequest::Relay)).await.unwrap();
        let answer = soon(stream.receive_message::<StreamReply>()).await.unwrap();
        assert!(matches!(answer, Some(StreamReply::Ok { .. })));
        streams.push((stream, connection));
    }
    let [(from, _), (to, _)] = &mut streams[..] else { panic!("there are two") };
    let cellar: NodeId = "cellar".parse().unwrap();
    // One to itself, one to nobody, and one to the other.
    for node in ["attic", "garage", "cellar"] {
        let packet = Relayed::encode(&node.parse().unwrap(), node.as_bytes()).unwrap();
        from.send.send_bytes(&packet).await.unwrap();
    }
    let mut received = vec![0; 3 + 5 + 6];
    soon(to.receive.read_exact(&mut received)).await.unwrap();
    let (relayed, _) = Relayed::decode(&received).unwrap().unwrap();
    assert_eq!((relayed.node, relayed.packet), ("attic".parse().unwrap(), &b"cellar"[..]));
    // What is no packet ends the stream of who has sent it, and of nobody else.
    from.send.send_bytes(&[0xff; 64]).await.unwrap();
    let mut rest = Vec::new();
    soon(from.receive.read_to_end(&mut rest)).await.unwrap_err();
    to.send.send_bytes(&Relayed::encode(&cellar, b"own").unwrap()).await.unwrap();
    let mut received = vec![0; 3 + 6 + 3];
    soon(to.receive.read_exact(&mut received)).await.unwrap();
}

#[tokio::test]
async fn a_node_has_one_stream_for_its_packets() {
    let middle = Middle::start();
    let attic = middle.node("attic").await;
    let connection = soon(attic.connect_coordinator(middle.address)).await.unwrap();
    let [first, second] = [(); 2].map(|()| {
        let (attic, connection) = (Arc::clone(&attic), connection.clone());
        async move { attic.relay_through(&connection).await }
    });
    let first = tokio::spawn(first);
    has_relay(&attic, true).await;
    let second = tokio::spawn(second);
    soon(first).await.unwrap();
    has_relay(&attic, true).await;
    assert!(!second.is_finished());
}
