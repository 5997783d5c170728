//! The wire on loopback: who is let in, who is not, and what streams carry.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dunlin_model::{Digest, NodeId};
use dunlin_protocol::{MAX_FRAME, StreamReply, StreamRequest};
use dunlin_transport::{
    Authority, CloseCode, ConnectError, Connection, ConnectionEnded, Identity, Incoming, NodeEndpoint,
    PeerRefusal, ReceiveError, Role, Server, WireLimits,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const DAY: Duration = Duration::from_secs(86_400);

/// Waits with a limit, so that a broken test fails instead of hanging.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it takes too long")
}

fn authority(cluster: &str) -> Authority {
    Authority::create(&cluster.parse().unwrap(), SystemTime::now()).unwrap()
}

fn node_role(node: &str) -> Role {
    Role::Node(node.parse().unwrap())
}

fn identity(authority: &Authority, role: &Role) -> Identity {
    Identity::issue(authority, role, SystemTime::now(), DAY).unwrap()
}

fn coordinator(authority: &Authority) -> Server {
    let identity = identity(authority, &Role::Coordinator("main".parse().unwrap()));
    Server::bind(LOOPBACK, &identity, &WireLimits::FLEET).unwrap()
}

fn node(authority: &Authority, node: &str) -> NodeEndpoint {
    node_with(&identity(authority, &node_role(node)))
}

fn node_with(identity: &Identity) -> NodeEndpoint {
    NodeEndpoint::bind(LOOPBACK, identity, &WireLimits::FLEET, &WireLimits::PEER).unwrap()
}

/// Returns both ends of a connection between a node and a coordinator, and what keeps it alive.
async fn connected() -> (Connection, Connection, (Server, NodeEndpoint)) {
    let authority = authority("c4");
    let server = coordinator(&authority);
    let node = node(&authority, "node-1");
    let dialed = soon(node.connect_coordinator(server.local_address())).await.unwrap();
    let Some(Incoming::Fleet(_, accepted)) = soon(server.accept()).await else { panic!("no node came") };
    (dialed, accepted, (server, node))
}

#[tokio::test]
async fn both_sides_of_a_fleet_connection_know_each_other() {
    let authority = authority("c4");
    let server = coordinator(&authority);
    let node = node(&authority, "node-1");
    let dialed = soon(node.connect_coordinator(server.local_address())).await.unwrap();
    assert_eq!(dialed.peer().unwrap().to_string(), "coordinator main of fleet c4");
    let Some(Incoming::Fleet(name, accepted)) = soon(server.accept()).await else { panic!("no node came") };
    assert_eq!(name.to_string(), "node-1");
    assert_eq!(accepted.peer().unwrap().to_string(), "node node-1 of fleet c4");
    assert_eq!(accepted.remote_address(), node.local_address());
}

#[tokio::test]
async fn both_sides_of_a_peer_connection_know_each_other() {
    let authority = authority("c4");
    let (one, other) = (node(&authority, "node-1"), node(&authority, "node-2"));
    let to: NodeId = "node-2".parse().unwrap();
    let dialed = soon(one.connect_peer(other.local_address(), &to)).await.unwrap();
    assert_eq!(dialed.peer().unwrap().role, node_role("node-2"));
    let (from, _) = soon(other.accept_peer()).await.unwrap();
    assert_eq!(from.to_string(), "node-1");
}

#[tokio::test]
async fn a_node_of_another_authority_is_refused_by_both_sides() {
    // The same name of the fleet: only the key tells them apart.
    let (ours, theirs) = (authority("c4"), authority("c4"));
    let server = coordinator(&ours);
    let stranger = node(&theirs, "node-1");
    let error = soon(stranger.connect_coordinator(server.local_address())).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::WrongPeer { source: PeerRefusal::OtherAuthority, .. }),
        "{error:?}"
    );
    // One that believes the coordinator, but has a certificate of its own making: key and certificate of the other
    // fleet beside the authority of ours.
    let folder = tempfile::tempdir().unwrap();
    identity(&theirs, &node_role("node-1")).save(folder.path()).unwrap();
    let path = folder.path().join(Identity::FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    let (text, _sum) = text.split_once("# SHA-256 ").unwrap();
    let forged = text.replace(&theirs.certificate_pem(), &ours.certificate_pem());
    assert_ne!(text, forged);
    std::fs::write(&path, forged).unwrap();
    let forger = node_with(&Identity::load(folder.path()).unwrap());
    let error = soon(forger.connect_coordinator(server.local_address())).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::NotAccepted { source: ConnectionEnded::Refused { .. }, .. }),
        "{error:?}"
    );
    // The loop goes on.
    soon(node(&ours, "node-2").connect_coordinator(server.local_address())).await.unwrap();
    let Some(Incoming::Fleet(name, _)) = soon(server.accept()).await else { panic!("no node came") };
    assert_eq!(name.to_string(), "node-2");
}

#[tokio::test]
async fn a_node_cannot_pose_as_coordinator() {
    let authority = authority("c4");
    let impostor =
        Server::bind(LOOPBACK, &identity(&authority, &node_role("node-2")), &WireLimits::FLEET).unwrap();
    let node = node(&authority, "node-1");
    let error = soon(node.connect_coordinator(impostor.local_address())).await.unwrap_err();
    let ConnectError::WrongPeer { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "it is node node-2 of fleet c4, not a coordinator of fleet c4");
}

#[tokio::test]
async fn a_coordinator_is_no_node() {
    let authority = authority("c4");
    let server = coordinator(&authority);
    let posing = node_with(&identity(&authority, &Role::Coordinator("main".parse().unwrap())));
    let error = soon(posing.connect_coordinator(server.local_address())).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::NotAccepted { source: ConnectionEnded::Refused { .. }, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_node_with_another_name_is_refused() {
    let authority = authority("c4");
    let (one, other) = (node(&authority, "node-1"), node(&authority, "node-2"));
    let wanted: NodeId = "node-3".parse().unwrap();
    let error = soon(one.connect_peer(other.local_address(), &wanted)).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::WrongPeer { source: PeerRefusal::OtherMember { .. }, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_both_sides() {
    let authority = authority("c4");
    let long_ago = SystemTime::now() - 121 * DAY;
    let server = coordinator(&authority);
    let old_node = Identity::issue(&authority, &node_role("node-1"), long_ago, 30 * DAY).unwrap();
    let error = soon(node_with(&old_node).connect_coordinator(server.local_address())).await.unwrap_err();
    let ConnectError::NotAccepted { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(
        source.to_string(),
        "the other side refused: this side's certificate has expired or is not valid yet"
    );

    let role = Role::Coordinator("main".parse().unwrap());
    let old = Identity::issue(&authority, &role, long_ago, 30 * DAY).unwrap();
    let old_server = Server::bind(LOOPBACK, &old, &WireLimits::FLEET).unwrap();
    let node = node(&authority, "node-1");
    let error = soon(node.connect_coordinator(old_server.local_address())).await.unwrap_err();
    assert!(matches!(error, ConnectError::WrongPeer { source: PeerRefusal::Expired, .. }), "{error:?}");
}

#[tokio::test]
async fn who_comes_late_is_let_in_to_renew_by_the_coordinator_and_by_no_node() {
    let authority = authority("c4");
    let server = coordinator(&authority);
    let name: NodeId = "node-1".parse().unwrap();
    let issued = SystemTime::now() - 119 * DAY;
    let late = Identity::issue(&authority, &node_role("node-1"), issued, 30 * DAY).unwrap();
    let node = node_with(&late);
    let dialed = soon(node.connect_coordinator(server.local_address())).await.unwrap();
    let Some(Incoming::Late(found, accepted)) = soon(server.accept()).await else {
        panic!("nobody came late")
    };
    assert_eq!((found, accepted.peer_key_hash().is_some()), (name, true));

    let request = late.renewal().unwrap();
    let signing_request = request.signing_request().to_vec();
    let role = node_role("node-1");
    let certificate = authority.issue(&signing_request, &role, SystemTime::now(), 30 * DAY).unwrap();
    let renewed = late.renewed(request, certificate.to_vec()).unwrap();
    assert!(renewed.renew_at() > SystemTime::now() + 14 * DAY, "{:?}", renewed.renew_at());
    node.replace_identity(&renewed).unwrap();
    drop(dialed);
    let dialed = soon(node.connect_coordinator(server.local_address())).await.unwrap();
    let Some(Incoming::Fleet(_, again)) = soon(server.accept()).await else { panic!("no node came") };
    assert_eq!(again.peer_key_hash(), accepted.peer_key_hash(), "it is the same machine");
    drop(dialed);

    let other = self::node(&authority, "node-2");
    let error = soon(node_with(&late).connect_peer(other.local_address(), &"node-2".parse().unwrap())).await;
    assert!(matches!(error, Err(ConnectError::NotAccepted { .. })), "{error:?}");
    let stranger = Identity::issue(&self::authority("c4"), &node_role("node-1"), issued, 30 * DAY).unwrap();
    let error = soon(node_with(&stranger).connect_coordinator(server.local_address())).await;
    assert!(error.is_err(), "{error:?}");
}

#[tokio::test]
async fn who_has_no_clock_believes_what_was_made_later_than_all_that_it_knows() {
    // Seen from these certificates, the clock of this machine is years behind.
    let authority = authority("c4");
    let later = SystemTime::now() + 1000 * DAY;
    let of = |name: &str, made: SystemTime| {
        node_with(&Identity::issue(&authority, &node_role(name), made, 30 * DAY).unwrap())
    };
    let role = Role::Coordinator("main".parse().unwrap());
    let coordinator = Identity::issue(&authority, &role, later + 3 * DAY, 30 * DAY).unwrap();
    let server = Server::bind(LOOPBACK, &coordinator, &WireLimits::FLEET).unwrap();
    let (one, other) = (of("node-1", later), of("node-2", later + 10 * DAY));
    let dialed = soon(one.connect_coordinator(server.local_address())).await.unwrap();
    let Some(Incoming::Fleet(..)) = soon(server.accept()).await else { panic!("no node came") };
    drop(dialed);
    soon(one.connect_peer(other.local_address(), &"node-2".parse().unwrap())).await.unwrap();
    soon(other.connect_peer(one.local_address(), &"node-1".parse().unwrap())).await.unwrap();
    assert!(one.identity().has_no_clock());
    let renewal = one.identity().renewal().unwrap();
    let signing_request = renewal.signing_request().to_vec();
    let made = later + 20 * DAY;
    let certificate = authority.issue(&signing_request, &node_role("node-1"), made, 30 * DAY).unwrap();
    let renewed = one.identity().renewed(renewal, certificate.to_vec()).unwrap();
    assert!(renewed.renew_at() > made);

    // What had ended by then is still not believed, nor does who has a clock believe what has not begun.
    let ended = of("node-3", later - 60 * DAY);
    let refused = soon(one.connect_peer(ended.local_address(), &"node-3".parse().unwrap())).await;
    assert!(matches!(refused, Err(ConnectError::WrongPeer { .. })), "{refused:?}");
    let with_clock = node(&authority, "node-4");
    let refused = soon(with_clock.connect_coordinator(server.local_address())).await;
    assert!(matches!(refused, Err(ConnectError::WrongPeer { .. })), "{refused:?}");
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let authority = authority("c4");
    let (one, other) = (node(&authority, "node-1"), node(&authority, "node-2"));
    // A node's endpoint speaks the protocol of peers, not of the fleet.
    let error = soon(one.connect_coordinator(other.local_address())).await.unwrap_err();
    let ConnectError::NotAccepted { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "the other side refused: it does not speak this protocol");
}

#[tokio::test]
async fn nobody_there_is_told_within_the_time() {
    let silent = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let authority = authority("c4");
    let node = node(&authority, "node-1");
    let wanted: NodeId = "node-2".parse().unwrap();
    // The dialing side of peers gives up after its idle time of 3 s.
    let error = soon(node.connect_peer(silent.local_addr().unwrap(), &wanted)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn garbage_does_not_stop_the_accept_loop() {
    let authority = authority("c4");
    let server = coordinator(&authority);
    let socket = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    for number in 0..2000_u32 {
        // Long headers of the known version among them, so that some reach the decoder of packets.
        let mut datagram = number.to_be_bytes().repeat(300);
        if number % 2 == 0 {
            datagram[..5].copy_from_slice(&[0xc0, 0, 0, 0, 1]);
        }
        socket.send_to(&datagram, server.local_address()).unwrap();
    }
    let node = node(&authority, "node-1");
    soon(node.connect_coordinator(server.local_address())).await.unwrap();
    assert!(matches!(soon(server.accept()).await, Some(Incoming::Fleet(..))));
}

#[tokio::test]
async fn many_connections_at_once_are_all_accepted() {
    let authority = authority("c4");
    let server = coordinator(&authority);
    // More than the number above which addresses must be proven.
    let identity = identity(&authority, &node_role("node-1"));
    let nodes: Vec<_> = (0..100).map(|_| Arc::new(node_with(&identity))).collect();
    let dialing: Vec<_> = nodes
        .iter()
        .map(|node| {
            let (node, address) = (Arc::clone(node), server.local_address());
            tokio::spawn(async move { node.connect_coordinator(address).await })
        })
        .collect();
    let mut accepted = Vec::new();
    for _ in 0..dialing.len() {
        accepted.push(soon(server.accept()).await.unwrap());
    }
    for dialed in dialing {
        soon(dialed).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_replaced_identity_is_shown_to_who_comes_next() {
    let authority = authority("c4");
    let server = coordinator(&authority);
    let role = Role::Coordinator("second".parse().unwrap());
    server.replace_identity(&identity(&authority, &role)).unwrap();
    let node = node(&authority, "node-1");
    let dialed = soon(node.connect_coordinator(server.local_address())).await.unwrap();
    assert_eq!(dialed.peer().unwrap().role, role);
    node.replace_identity(&identity(&authority, &node_role("node-9"))).unwrap();
    soon(node.connect_coordinator(server.local_address())).await.unwrap();
    for expected in ["node-1", "node-9"] {
        let Some(Incoming::Fleet(name, _)) = soon(server.accept()).await else { panic!("no node came") };
        assert_eq!(name.to_string(), expected);
    }
}

#[tokio::test]
async fn requests_and_replies_pass_both_ways() {
    let (dialed, accepted, _keep) = connected().await;
    let request = StreamRequest::Component { digest: Digest::of(b"component") };
    for (from, to) in [(&dialed, &accepted), (&accepted, &dialed)] {
        let mut asking = soon(from.open(&request)).await.unwrap();
        let mut answering = soon(to.accept()).await.unwrap();
        assert_eq!(soon(answering.receive_request()).await.unwrap(), request);
        let reply = StreamReply::Ok { length: Some(5), name: None };
        soon(answering.send_message(&reply)).await.unwrap();
        soon(answering.write_all(b"bytes")).await.unwrap();
        answering.finish();
        assert_eq!(soon(asking.receive_message()).await.unwrap(), Some(reply));
        let mut bytes = Vec::new();
        soon(asking.read_to_end(&mut bytes)).await.unwrap();
        assert_eq!(bytes, b"bytes");
        assert!(matches!(
            soon(asking.receive_message::<StreamReply>()).await,
            Ok(None) | Err(ReceiveError::EndedHere)
        ));
    }
}

#[tokio::test]
async fn a_request_of_an_unknown_kind_is_answered() {
    let (dialed, accepted, _keep) = connected().await;
    let mut asking = soon(dialed.open_raw()).await.unwrap();
    soon(asking.send_message(&"telepathy")).await.unwrap();
    let mut answering = soon(accepted.accept()).await.unwrap();
    let error = soon(answering.receive_request()).await.unwrap_err();
    assert!(matches!(error, ReceiveError::UnknownRequest), "{error:?}");
    let reply = soon(asking.receive_message::<StreamReply>()).await.unwrap();
    assert!(matches!(reply, Some(StreamReply::Error { .. })), "{reply:?}");
}

#[tokio::test]
async fn a_message_of_an_unknown_kind_is_skipped() {
    let (dialed, accepted, _keep) = connected().await;
    let mut sending = soon(dialed.open_raw()).await.unwrap();
    soon(sending.send_message(&"telepathy")).await.unwrap();
    soon(sending.send_message(&StreamReply::Ok { length: None, name: None })).await.unwrap();
    sending.finish();
    let mut receiving = soon(accepted.accept()).await.unwrap();
    let received = soon(receiving.receive_message::<StreamReply>()).await.unwrap();
    assert_eq!(received, Some(StreamReply::Ok { length: None, name: None }));
    assert_eq!(soon(receiving.receive_message::<StreamReply>()).await.unwrap(), None);
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_its_stream_only() {
    let (dialed, accepted, _keep) = connected().await;
    let mut bad = soon(dialed.open_raw()).await.unwrap();
    let over = u32::try_from(MAX_FRAME).unwrap() + 1;
    soon(bad.write_all(&over.to_be_bytes())).await.unwrap();
    let mut receiving = soon(accepted.accept()).await.unwrap();
    let error = soon(receiving.receive_message::<StreamReply>()).await.unwrap_err();
    assert!(matches!(error, ReceiveError::Frame(_)), "{error:?}");

    let mut good = soon(dialed.open_raw()).await.unwrap();
    let largest = StreamReply::Error { message: "x".repeat(MAX_FRAME - 100) };
    let (sent, received) = tokio::join!(
        soon(async {
            good.send_message(&largest).await.unwrap();
            good.finish();
        }),
        soon(async { accepted.accept().await.unwrap().receive_message::<StreamReply>().await.unwrap() }),
    );
    let () = sent;
    assert!(received == Some(largest));
}

#[tokio::test]
async fn a_stream_dropped_before_its_end_is_no_end() {
    let (dialed, accepted, _keep) = connected().await;
    let mut sending = soon(dialed.open_raw()).await.unwrap();
    soon(sending.write_all(&[0, 0, 0, 9, 1, 2])).await.unwrap();
    let mut receiving = soon(accepted.accept()).await.unwrap();
    drop(sending);
    let error = soon(receiving.receive_message::<StreamReply>()).await.unwrap_err();
    assert!(matches!(error, ReceiveError::Reset { .. }), "{error:?}");
}

#[tokio::test]
async fn waiting_for_a_message_can_be_given_up_without_loss() {
    let (dialed, accepted, _keep) = connected().await;
    let mut sending = soon(dialed.open_raw()).await.unwrap();
    let message = StreamReply::Error { message: "slowly".into() };
    let frame = dunlin_protocol::encode(&message).unwrap();
    soon(sending.write_all(&frame[..1])).await.unwrap();
    let mut receiving = soon(accepted.accept()).await.unwrap();
    for byte in &frame[1..] {
        let waited =
            tokio::time::timeout(Duration::from_millis(1), receiving.receive_message::<StreamReply>()).await;
        assert!(waited.is_err());
        soon(sending.write_all(&[*byte])).await.unwrap();
    }
    assert_eq!(soon(receiving.receive_message()).await.unwrap(), Some(message));
}

#[tokio::test]
async fn a_stream_carries_ten_mebibytes_both_ways() {
    let (dialed, accepted, _keep) = connected().await;
    let bytes: Arc<Vec<u8>> = Arc::new((0..10_u32 << 20).map(|at| u8::try_from(at % 251).unwrap()).collect());
    let echo = tokio::spawn(async move {
        let (mut send, mut receive) = accepted.accept().await.unwrap().split();
        tokio::io::copy(&mut receive, &mut send).await.unwrap();
        send.shutdown().await.unwrap();
        send.delivered().await.unwrap();
    });
    let (mut send, mut receive) = soon(dialed.open_raw()).await.unwrap().split();
    let sent = Arc::clone(&bytes);
    let sending = tokio::spawn(async move {
        send.write_all(&sent).await.unwrap();
        send.finish();
    });
    let mut received = Vec::new();
    soon(receive.read_to_end(&mut received)).await.unwrap();
    assert!(received == *bytes, "{} bytes came back", received.len());
    soon(sending).await.unwrap();
    soon(echo).await.unwrap();
}

#[tokio::test]
async fn the_other_side_learns_why_a_connection_was_closed() {
    let (dialed, accepted, _keep) = connected().await;
    assert_eq!(dialed.ended(), None);
    accepted.close(CloseCode::REPLACED, "a newer connection came");
    let ended = soon(dialed.closed()).await;
    let reason = "a newer connection came".to_owned();
    assert_eq!(ended, ConnectionEnded::Closed { code: CloseCode::REPLACED.0.into(), reason });
    assert_eq!(soon(accepted.closed()).await, ConnectionEnded::ClosedHere);
}

#[tokio::test]
async fn a_closed_server_accepts_nothing_more() {
    let (dialed, accepted, (server, _node)) = connected().await;
    soon(server.close("the coordinator is ending")).await;
    assert!(soon(server.accept()).await.is_none());
    assert!(matches!(soon(dialed.closed()).await, ConnectionEnded::Closed { .. }));
    assert_eq!(soon(accepted.closed()).await, ConnectionEnded::ClosedHere);
}
