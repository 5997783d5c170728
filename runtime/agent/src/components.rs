//! The components on this node's disk: fetched once, known by their digest, checked before they are used.
//!
//! A component comes in chunks, each compressed and checked by itself: from the components that are here already, from
//! neighbours, and what none of those has from the coordinator. What has come stays when a fetch is broken off, and the next
//! one goes on from there.

mod gathering;
mod giving;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use dunlin_model::{Bytes, Chunk, Digest, NodeId};
use dunlin_planted::{Point, fails};
use dunlin_protocol::{
    ChunkList, ChunkPlace, Neighbour, PackedChunk, StreamReply, StreamRequest, decode, encode,
};
use dunlin_supervisor::Event;
use dunlin_transport::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::{self, FuturesUnordered};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{sleep, timeout};

use self::gathering::Gathering;
use self::plan::{Plan, Source};
use crate::link::Link;
use crate::peers::PeerConnections;

/// How many are fetched at a time. Each has its pieces in memory meanwhile, on this side and on the wire.
const FETCHES: usize = 4;
/// How many chunks are asked for at a time from the same source,
const ASKED: usize = 8;
/// and from the coordinator by each of those that fetch together.
const ASKED_TOGETHER: usize = 2;
/// How many chunks are given to others at a time.
const GIVINGS: usize = 16;
/// How long a neighbour may take to say whether it gives.
const NEIGHBOUR_TIME: Duration = Duration::from_secs(20);
/// How long no chunk at all may come before neighbours are not waited for any more.
const STALL: Duration = Duration::from_secs(60);
/// The ending of the file with the chunks of a component, beside it.
const LIST: &str = "chunks";

/// The components on this node's disk.
pub(crate) struct Components {
    folder: PathBuf,
    node: NodeId,
    link: Link,
    peers: Arc<PeerConnections>,
    /// C1: the most bytes of one.
    size: Bytes,
    turns: Semaphore,
    givings: Semaphore,
    /// Those that are being fetched.
    under_way: watch::Sender<BTreeMap<Digest, Arc<Gathering>>>,
}

/// Why a component was not fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    /// The coordinator does not give it.
    #[error("{0:#}")]
    Coordinator(anyhow::Error),
    /// It came, but not as it should.
    #[error("asked for component {asked} but received {received}")]
    WrongDigest { asked: Digest, received: Digest },
    /// It is larger than a component may be.
    #[error("limit `component_size` is {0}, observed more")]
    TooLarge(Bytes),
    /// It cannot be kept.
    #[error("could not keep it on disk: {0}")]
    Disk(#[from] io::Error),
}

/// From where the bytes of a component came. What came from others is counted as it travelled.
#[derive(Debug, Default)]
struct Came {
    from_coordinator: AtomicU64,
    from_neighbours: AtomicU64,
}

impl Came {
    fn count(&self, source: Source, bytes: usize) {
        let counter = match source {
            Source::Coordinator => &self.from_coordinator,
            Source::Neighbour(_) => &self.from_neighbours,
        };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// One fetch: what it brings, and from where it may.
#[derive(Clone, Copy)]
struct Fetch<'a> {
    digest: Digest,
    gathering: &'a Arc<Gathering>,
    neighbours: &'a [Neighbour],
    came: &'a Came,
}

/// What has become of the asking of one source.
struct Taken {
    source: Source,
    asked: Vec<usize>,
    result: Result<(), TakeError>,
}

impl Components {
    /// Returns the components kept in `folder`, of which none has more bytes than `size`; what is missing is fetched
    /// through `link`, and from `peers` of this `node`.
    pub(crate) fn new(
        folder: PathBuf,
        node: NodeId,
        link: Link,
        peers: Arc<PeerConnections>,
        size: Bytes,
    ) -> Self {
        let (turns, givings) = (Semaphore::new(FETCHES), Semaphore::new(GIVINGS));
        Self { folder, node, link, peers, size, turns, givings, under_way: watch::Sender::default() }
    }

    /// Returns the file of a component that was fetched.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}.wasm", digest.hex()))
    }

    /// Has the component on disk, checked, or says why not.
    pub(crate) async fn fetch(&self, digest: Digest) -> Event {
        let path = self.path(&digest);
        let turn = self.turn().await;
        if matches!(hash(&path).await, Ok(found) if found == digest) {
            return Event::Fetched { digest };
        }
        drop(turn);
        match self.download(digest, &path).await {
            Ok(()) => Event::Fetched { digest },
            Err(error) => Event::FetchFailed { digest, reason: error.to_string() },
        }
    }

    async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("the semaphore is never closed")
    }

    async fn download(&self, digest: Digest, path: &Path) -> Result<(), FetchError> {
        // Without a coordinator all fail together, not four by four.
        self.link.connected().await.map_err(FetchError::Coordinator)?;
        let _turn = self.turn().await;
        // One file for each digest: the supervisor never asks for the same one twice at once.
        let partial = path.with_extension("partial");
        let list = match self.list(digest).await {
            Ok(list) => list,
            // One of an earlier build has no such list; any other says the same again.
            Err(error) => {
                tracing::debug!(%digest, error = &*error as &dyn std::error::Error, "no list of chunks");
                self.download_whole(digest, &partial).await?;
                return Ok(tokio::fs::rename(&partial, path).await?);
            }
        };
        let length: u64 = list.chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        if length > self.size.0 {
            return Err(FetchError::TooLarge(self.size));
        }
        let (chunks, begun_at) = (list.chunks.clone(), partial.clone());
        let gathering = Arc::new(blocking(move || Gathering::begin(&begun_at, chunks)).await?);
        let _shown = UnderWay::show(&self.under_way, digest, &gathering);
        self.gather(digest, &gathering, &list.neighbours).await?;
        fails(Point::PullBeforeVerify)?;
        let received = hash(&partial).await?;
        if received != digest {
            tokio::fs::remove_file(&partial).await?;
            return Err(FetchError::WrongDigest { asked: digest, received });
        }
        let file = Arc::clone(gathering.file());
        blocking(move || file.sync_all()).await?;
        self.remember(path, list.chunks).await;
        fails(Point::PullBeforeRename)?;
        Ok(tokio::fs::rename(&partial, path).await?)
    }

    async fn list(&self, digest: Digest) -> anyhow::Result<ChunkList> {
        let (mut stream, _) = self.link.fetch(&StreamRequest::ChunkList { digest }).await?;
        stream.receive_message().await?.context("the coordinator ended the stream")
    }

    /// Brings all chunks that are not here, from whoever has them.
    async fn gather(
        &self,
        digest: Digest,
        gathering: &Arc<Gathering>,
        neighbours: &[Neighbour],
    ) -> Result<(), FetchError> {
        let (began, came) = (Instant::now(), Came::default());
        let (folder, filled) = (self.folder.clone(), Arc::clone(gathering));
        blocking(move || take_from_disk(&folder, &filled)).await?;
        let missing = gathering.missing();
        let lacking: u64 = missing.iter().map(|number| u64::from(gathering.place(*number).length)).sum();
        let fetch = Fetch { digest, gathering, neighbours, came: &came };
        let chunks = gathering.chunks();
        let mut plan = Plan { here: &self.node, chunks, neighbours, failed: BTreeSet::new() };
        let take = |(source, numbers)| self.take(fetch, source, numbers);
        let mut taking: FuturesUnordered<_> = plan.sources(&missing).into_iter().map(take).collect();
        let mut presence = gathering.presence();
        loop {
            let is_patient = plan.failed.len() == neighbours.len();
            let taken = tokio::select! {
                taken = taking.next() => taken,
                _ = presence.changed() => continue,
                () = sleep(STALL), if !is_patient => {
                    // Whatever keeps them from giving, the coordinator is there.
                    plan.failed.extend(0..neighbours.len());
                    taking = plan.sources(&gathering.missing()).into_iter().map(take).collect();
                    continue;
                }
            };
            let Some(taken) = taken else { break };
            let error = match taken.result {
                Ok(()) => continue,
                Err(TakeError::Disk(error)) => return Err(error.into()),
                Err(TakeError::Source(error)) => error,
            };
            let Source::Neighbour(number) = taken.source else { return Err(FetchError::Coordinator(error)) };
            let neighbour = &neighbours[number].node;
            tracing::debug!(%digest, %neighbour, error = &*error as &dyn std::error::Error, "neighbour gave not all");
            plan.failed.insert(number);
            let missing = gathering.missing();
            let asked = taken.asked.into_iter().filter(|number| missing.binary_search(number).is_ok());
            taking.extend(plan.sources(&asked.collect::<Vec<_>>()).into_iter().map(take));
        }
        tracing::info!(
            component = %digest,
            bytes = gathering.length(),
            here_before = gathering.length() - lacking,
            from_neighbours = came.from_neighbours.load(Ordering::Relaxed),
            from_coordinator = came.from_coordinator.load(Ordering::Relaxed),
            milliseconds = began.elapsed().as_millis(),
            "component fetched"
        );
        Ok(())
    }

    async fn take(&self, fetch: Fetch<'_>, source: Source, asked: Vec<usize>) -> Taken {
        let is_shared =
            source == Source::Coordinator && fetch.neighbours.iter().any(|neighbour| !neighbour.has_all);
        let mut taking = stream::iter(asked.clone())
            .map(|number| self.take_one(fetch, source, number))
            .buffer_unordered(if is_shared { ASKED_TOGETHER } else { ASKED });
        let mut result = Ok(());
        while let (Ok(()), Some(taken)) = (&result, taking.next().await) {
            result = taken;
        }
        drop(taking);
        Taken { source, asked, result }
    }

    async fn take_one(&self, fetch: Fetch<'_>, source: Source, number: usize) -> Result<(), TakeError> {
        let Fetch { digest, gathering, came, .. } = fetch;
        let request = StreamRequest::Chunk { digest, place: gathering.place(number) };
        let mut stream = self.open(fetch.neighbours, source, &request).await?;
        let packed = stream.receive_message::<PackedChunk>().await.map_err(anyhow::Error::from)?;
        let packed = packed.context("the stream ended where a chunk was due")?;
        came.count(source, packed.size());
        let gathering = Arc::clone(gathering);
        let putting = blocking(move || {
            fails(Point::PullMidStream)?;
            // Damaged or another one is the same.
            packed.unpack().map_or(Ok(false), |chunk| gathering.put(number, &chunk))
        });
        if putting.await.map_err(TakeError::Disk)? {
            return Ok(());
        }
        Err(TakeError::Source(anyhow::anyhow!("what came is not chunk {number} of component {digest}")))
    }

    /// Asks a source, and hears whether it gives.
    async fn open(
        &self,
        neighbours: &[Neighbour],
        source: Source,
        request: &StreamRequest,
    ) -> anyhow::Result<Stream> {
        let Source::Neighbour(number) = source else { return Ok(self.link.fetch(request).await?.0) };
        let Neighbour { node, address, .. } = &neighbours[number];
        let asking = timeout(NEIGHBOUR_TIME, self.peers.ask(node, *address, request));
        let mut stream = asking.await.context("the node does not answer")??;
        stream.finish();
        // It comes when the chunk is there.
        match stream.receive_message().await?.context("the node ended the stream")? {
            StreamReply::Ok { .. } => Ok(stream),
            StreamReply::Error { message } => bail!(message),
        }
    }

    /// Keeps of which chunks a component consists, for later ones that have some of them too.
    async fn remember(&self, path: &Path, chunks: Vec<Chunk>) {
        let list = encode(&ChunkList { chunks, neighbours: Vec::new() }).map_err(io::Error::other);
        let written = match list {
            Ok(list) => tokio::fs::write(path.with_extension(LIST), list).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "it cannot be kept of what a component consists; later ones come whole");
        }
    }

    /// Brings all of it in one piece.
    async fn download_whole(&self, digest: Digest, partial: &Path) -> Result<(), FetchError> {
        let request = StreamRequest::Component { digest };
        let (stream, _) = self.link.fetch(&request).await.map_err(FetchError::Coordinator)?;
        let mut file = tokio::fs::File::create(partial).await?;
        // One byte more than allowed tells a large one from one that is too large.
        let length = tokio::io::copy(&mut stream.take(self.size.0 + 1), &mut file).await?;
        file.sync_all().await?;
        let received = hash(partial).await?;
        let checked = if length > self.size.0 {
            Err(FetchError::TooLarge(self.size))
        } else if received != digest {
            Err(FetchError::WrongDigest { asked: digest, received })
        } else {
            Ok(())
        };
        if checked.is_err() {
            tokio::fs::remove_file(partial).await?;
        }
        checked
    }
}

/// Why chunks were not taken.
enum TakeError {
    /// From that source they cannot be had.
    Source(anyhow::Error),
    /// They cannot be kept.
    Disk(io::Error),
}

impl From<anyhow::Error> for TakeError {
    fn from(error: anyhow::Error) -> Self {
        Self::Source(error)
    }
}

/// Shows to others that a component is being fetched, as long as this lives.
struct UnderWay<'a> {
    all: &'a watch::Sender<BTreeMap<Digest, Arc<Gathering>>>,
    digest: Digest,
}

impl<'a> UnderWay<'a> {
    fn show(
        all: &'a watch::Sender<BTreeMap<Digest, Arc<Gathering>>>,
        digest: Digest,
        gathering: &Arc<Gathering>,
    ) -> Self {
        all.send_modify(|all| drop(all.insert(digest, Arc::clone(gathering))));
        Self { all, digest }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.all.send_modify(|all| drop(all.remove(&self.digest)));
    }
}

/// Takes chunks that are in other components here: most of those of the revision before.
fn take_from_disk(folder: &Path, gathering: &Gathering) -> io::Result<()> {
    let mut wanted: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
    for number in gathering.missing() {
        wanted.entry(gathering.chunks()[number].digest).or_default().push(number);
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if wanted.is_empty() || path.extension().is_none_or(|extension| extension != LIST) {
            continue;
        }
        // One that cannot be read is of no use, and no harm.
        let list = std::fs::read(&path).ok().and_then(|list| decode::<ChunkList>(list.get(4..)?).ok());
        let (Some(list), Ok(file)) = (list, std::fs::File::open(path.with_extension("wasm"))) else {
            continue;
        };
        let mut offset = 0;
        for chunk in list.chunks {
            let place = ChunkPlace { offset, length: chunk.length };
            offset += u64::from(chunk.length);
            let Some(numbers) = wanted.remove(&chunk.digest) else { continue };
            let Ok(bytes) = gathering::read(&file, place) else { continue };
            for number in numbers {
                gathering.put(number, &bytes)?;
            }
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten()
}

/// Returns the digest of a file, of which no more than a piece is in memory at a time.
async fn hash(path: &Path) -> io::Result<Digest> {
    let path = path.to_owned();
    blocking(move || {
        let mut hash = Sha256::new();
        io::copy(&mut std::fs::File::open(path)?, &mut hash)?;
        Ok(Digest::from_sha256(hash.finalize().into()))
    })
    .await
}
