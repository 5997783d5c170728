//! The components on this node's disk: fetched once, known by their digest, checked before they are used.
//!
//! A component comes in chunks, each compressed and checked by itself: from the components that are here already, from
//! neighbours, and what none of those has from the coordinator. What has come stays when a fetch is broken off, and the next
//! one goes on from there.

mod fetching;
mod gathering;
mod giving;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use dunlin_model::{Bytes, Chunk, Digest, NodeId};
use dunlin_planted::{Point, fails};
use dunlin_protocol::{ChunkList, ChunkPlace, StreamRequest, decode, encode};
use dunlin_supervisor::Event;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use self::fetching::Fetch;
use self::gathering::Gathering;
use crate::folders::replace;
use crate::link::{Declined, Link};
use crate::peers::PeerConnections;

/// How many are fetched at a time. Each has its pieces in memory meanwhile, on this side and on the wire.
const FETCHES: usize = 4;
/// How many chunks are asked for at a time from the coordinator, for all components together: its connection has 16 streams
/// for all that is asked.
const ASKINGS: usize = 8;
/// How many chunks are given to others at a time.
const GIVINGS: usize = 16;
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
    askings: Semaphore,
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

impl Components {
    /// Returns the components kept in `folder`, of which none has more bytes than `size`; what is missing is fetched
    /// through `link`, and from `peers` of this `node`.
    pub(crate) fn new(
        folder: PathBuf,
        node: &NodeId,
        link: &Link,
        peers: Arc<PeerConnections>,
        size: Bytes,
    ) -> Arc<Self> {
        let [turns, askings, givings] = [FETCHES, ASKINGS, GIVINGS].map(Semaphore::new);
        let (node, link, under_way) = (node.clone(), link.clone(), watch::Sender::default());
        Arc::new(Self { folder, node, link, peers, size, turns, askings, givings, under_way })
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
            // One of an earlier build has no such list; any other declines to give the whole too.
            Err(error) if error.is::<Declined>() => return self.download_whole(digest, path).await,
            Err(error) => return Err(FetchError::Coordinator(error)),
        };
        let length: u64 = list.chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        if length > self.size.0 {
            return Err(FetchError::TooLarge(self.size));
        }
        let (chunks, begun_at) = (list.chunks.clone(), partial.clone());
        let gathering = Arc::new(blocking(move || Gathering::begin(&begun_at, chunks)).await?);
        let mut shown = None;
        let show = || shown = Some(UnderWay::show(&self.under_way, digest, &gathering));
        Fetch::new(self, digest, &gathering, &list.neighbours).run(show).await?;
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

    /// Keeps of which chunks a component consists, for later ones that have some of them too.
    async fn remember(&self, path: &Path, chunks: Vec<Chunk>) {
        let path = path.with_extension(LIST);
        let writing = blocking(move || {
            let list = ChunkList { chunks, neighbours: Vec::new() };
            replace(&path, &encode(&list).map_err(io::Error::other)?)
        });
        if let Err(error) = writing.await {
            tracing::warn!(%error, "it cannot be kept of what a component consists; later ones come whole");
        }
    }

    /// Brings all of it in one piece. What has come of its chunks stays until then.
    async fn download_whole(&self, digest: Digest, path: &Path) -> Result<(), FetchError> {
        let request = StreamRequest::Component { digest };
        let (stream, _) = self.link.fetch(&request).await.map_err(FetchError::Coordinator)?;
        let partial = path.with_extension("whole");
        let mut file = tokio::fs::File::create(&partial).await?;
        // One byte more than allowed tells a large one from one that is too large.
        let length = tokio::io::copy(&mut stream.take(self.size.0 + 1), &mut file).await?;
        file.sync_all().await?;
        let received = hash(&partial).await?;
        let checked = if length > self.size.0 {
            Err(FetchError::TooLarge(self.size))
        } else if received != digest {
            Err(FetchError::WrongDigest { asked: digest, received })
        } else {
            Ok(())
        };
        match checked {
            Ok(()) => tokio::fs::rename(&partial, path).await?,
            Err(_) => tokio::fs::remove_file(&partial).await?,
        }
        checked
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
            let Some(numbers) = wanted.get(&chunk.digest) else { continue };
            let Ok(bytes) = gathering::read(&file, place) else { continue };
            // What the disk has damaged may be whole in another component.
            let mut is_whole = true;
            for number in numbers {
                is_whole &= gathering.put(*number, &bytes)?;
            }
            if is_whole {
                wanted.remove(&chunk.digest);
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
