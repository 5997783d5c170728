//! A node that fetches, a coordinator, and a neighbour that does not do as it should.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use dunlin_protocol::{Neighbour, PackedChunk, StreamReply};
use dunlin_transport::{
    Authority, Connection, FromPeer, Identity, Incoming, NodeEndpoint, Role, Server, Stream, WireLimits,
};
use tokio::time::timeout;

use super::*;
use crate::link::{LinkSlot, link};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const DAY: Duration = Duration::from_secs(86_400);
const CHUNK: usize = 50_000;

/// Waits with a limit, so that a broken test fails instead of hanging.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("it takes too long")
}

fn component() -> Vec<u8> {
    (0..CHUNK * 6).map(|place| u8::try_from(place / 7 % 251).unwrap()).collect()
}

fn chunks(component: &[u8]) -> Vec<Chunk> {
    let chunk = |bytes: &[u8]| Chunk { digest: Digest::of(bytes), length: bytes.len().try_into().unwrap() };
    component.chunks(CHUNK).map(chunk).collect()
}

/// What the neighbour does with what it is asked for.
#[derive(Clone, Copy, Debug)]
enum Neighbourly {
    /// It gives other bytes.
    Lies,
    /// It gives the first chunk, and nothing more.
    Stops,
    /// It gives what nobody can decompress.
    Raves,
    /// It gives other bytes once, and then says nothing.
    LiesOnce,
    /// It says that it has none.
    Declines,
    /// It gives it.
    Gives,
}

/// A node whose neighbour behaves so.
struct Scene {
    components: Arc<Components>,
    folder: tempfile::TempDir,
    /// How many chunks the coordinator was asked for.
    asked: Arc<AtomicU64>,
    _slot: LinkSlot,
}

impl Scene {
    async fn begin(neighbourly: Neighbourly, size: Bytes) -> Self {
        let now = SystemTime::now();
        let authority = Authority::create(&"c4".parse().unwrap(), now).unwrap();
        let role = Role::Coordinator("main".parse().unwrap());
        let identity = Identity::issue(&authority, &role, now, DAY).unwrap();
        let server = Server::bind(LOOPBACK, &identity, &WireLimits::FLEET).unwrap();
        let [attic, cellar] = ["attic", "cellar"].map(|name| {
            let role = Role::Node(name.parse().unwrap());
            let identity = Identity::issue(&authority, &role, now, DAY).unwrap();
            Arc::new(NodeEndpoint::bind(LOOPBACK, &identity, &WireLimits::FLEET, &WireLimits::PEER).unwrap())
        });
        let neighbour = Neighbour {
            node: "cellar".parse().unwrap(),
            address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), cellar.local_address().port()),
            has_all: true,
        };
        let address = server.local_address();
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            let Some(Incoming::Fleet(_, connection)) = server.accept().await else { return };
            while let Ok(stream) = connection.accept().await {
                answer(stream, neighbour.clone(), &counted).await;
            }
        });
        tokio::spawn(async move {
            let (_, connection) = cellar.accept_peer().await.unwrap();
            give(&connection, neighbourly).await;
        });
        let connection = soon(attic.connect_coordinator(address)).await.unwrap();
        let (link, slot) = link();
        slot.connect(connection);
        let folder = tempfile::tempdir().unwrap();
        let peers = Arc::new(PeerConnections::new(attic));
        let components =
            Components::new(folder.path().to_owned(), &"attic".parse().unwrap(), &link, peers, size);
        Self { components, folder, asked, _slot: slot }
    }
}

/// Answers as a coordinator.
async fn answer(mut stream: Stream, neighbour: Neighbour, asked: &AtomicU64) {
    let component = component();
    let request = stream.receive_request().await.unwrap();
    stream.send_message(&StreamReply::Ok { length: None, name: None }).await.unwrap();
    match request {
        StreamRequest::ChunkList { .. } => {
            let list = ChunkList { chunks: chunks(&component), neighbours: vec![neighbour] };
            stream.send_message(&list).await.unwrap();
        }
        StreamRequest::Chunk { place, .. } => {
            asked.fetch_add(1, Ordering::Relaxed);
            stream.send_message(&PackedChunk::of(chunk_at(&component, place))).await.unwrap();
        }
        other => panic!("the coordinator was asked for {other:?}"),
    }
    stream.finish();
    stream.send.delivered().await.unwrap();
}

fn chunk_at(component: &[u8], place: ChunkPlace) -> &[u8] {
    let offset = usize::try_from(place.offset).unwrap();
    &component[offset..offset + usize::try_from(place.length).unwrap()]
}

/// Answers as the neighbour.
async fn give(connection: &Connection, neighbourly: Neighbourly) {
    let (component, mut silent) = (component(), Vec::new());
    while let Ok(stream) = connection.accept().await {
        let Ok(FromPeer::Request(StreamRequest::Chunk { place, .. }, mut stream)) =
            stream.receive_from_peer().await
        else {
            panic!("it was asked for something else")
        };
        let chunk = match neighbourly {
            Neighbourly::Gives => PackedChunk::of(chunk_at(&component, place)),
            Neighbourly::Stops if place.offset == 0 => PackedChunk::of(chunk_at(&component, place)),
            // What is dropped is reset.
            Neighbourly::Stops => continue,
            Neighbourly::LiesOnce if place.offset > 0 => {
                silent.push(stream);
                continue;
            }
            Neighbourly::Declines => {
                let message = "none is here".to_owned();
                stream.send_message(&StreamReply::Error { message }).await.unwrap();
                stream.finish();
                continue;
            }
            Neighbourly::Lies | Neighbourly::LiesOnce => PackedChunk::Plain(vec![7; place.length as usize]),
            Neighbourly::Raves => PackedChunk::Zstd(vec![7; 100]),
        };
        stream.send_message(&StreamReply::Ok { length: None, name: None }).await.unwrap();
        // Who has seen enough wants no more.
        let _ = stream.send_message(&chunk).await;
        stream.finish();
    }
}

#[tokio::test]
async fn what_a_neighbour_gives_wrongly_or_not_at_all_comes_from_the_coordinator() {
    for (neighbourly, asked) in [
        (Neighbourly::Gives, 0..=0), // They are asked for at the same time, and the first failure may come before the first chunk.
        (Neighbourly::Stops, 5..=6),
        (Neighbourly::Lies, 6..=6),
        (Neighbourly::Raves, 6..=6),
        (Neighbourly::LiesOnce, 6..=6),
        (Neighbourly::Declines, 6..=6),
    ] {
        let scene = Scene::begin(neighbourly, Bytes(1 << 20)).await;
        let digest = Digest::of(&component());
        let event = soon(scene.components.fetch(digest)).await;
        assert!(matches!(event, Event::Fetched { .. }), "{neighbourly:?}: {event:?}");
        assert_eq!(std::fs::read(scene.components.path(&digest)).unwrap(), component());
        let count = scene.asked.load(Ordering::Relaxed);
        assert!(asked.contains(&count), "{neighbourly:?}: {count}");
        let files = std::fs::read_dir(scene.folder.path()).unwrap().count();
        assert_eq!(files, 2, "the component and of what it consists");
    }
}

#[tokio::test]
async fn a_component_that_is_too_large_is_refused_before_any_of_it_comes() {
    let scene = Scene::begin(Neighbourly::Gives, Bytes(100_000)).await;
    let event = soon(scene.components.fetch(Digest::of(&component()))).await;
    let Event::FetchFailed { reason, .. } = event else { panic!("{event:?}") };
    assert_eq!(reason, "limit `component_size` is 100000B, observed more");
    assert_eq!(std::fs::read_dir(scene.folder.path()).unwrap().count(), 0);
}
