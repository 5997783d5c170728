//! The components on this node's disk: fetched once, known by their digest, checked before they are used.

use std::io;
use std::path::{Path, PathBuf};

use dunlin_model::{Bytes, Digest};
use dunlin_planted::{Point, fails};
use dunlin_protocol::StreamRequest;
use dunlin_supervisor::Event;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::link::Link;

/// How many are fetched at a time. Each has its pieces in memory meanwhile, on this side and on the wire.
const FETCHES: usize = 4;

/// The components on this node's disk.
pub(crate) struct Components {
    folder: PathBuf,
    link: Link,
    /// C1: the most bytes of one.
    size: Bytes,
    turns: Semaphore,
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
    /// through `link`.
    pub(crate) fn new(folder: PathBuf, link: Link, size: Bytes) -> Self {
        Self { folder, link, size, turns: Semaphore::new(FETCHES) }
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
        let request = StreamRequest::Component { digest };
        let (stream, _) = self.link.fetch(&request).await.map_err(FetchError::Coordinator)?;
        // One file for each digest: the supervisor never asks for the same one twice at once.
        let partial = path.with_extension("partial");
        let mut file = tokio::fs::File::create(&partial).await?;
        let (mut hash, mut length) = (Sha256::new(), 0);
        let mut stream = stream.take(self.size.0 + 1);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                break;
            }
            fails(Point::PullMidStream)?;
            length += count as u64;
            hash.update(&buffer[..count]);
            file.write_all(&buffer[..count]).await?;
        }
        fails(Point::PullBeforeVerify)?;
        let received = Digest::from_sha256(hash.finalize().into());
        let checked = if length > self.size.0 {
            Err(FetchError::TooLarge(self.size))
        } else if received != digest {
            Err(FetchError::WrongDigest { asked: digest, received })
        } else {
            Ok(())
        };
        if let Err(error) = checked {
            tokio::fs::remove_file(&partial).await?;
            return Err(error);
        }
        file.sync_all().await?;
        fails(Point::PullBeforeRename)?;
        tokio::fs::rename(&partial, path).await?;
        Ok(())
    }
}

/// Returns the digest of a file, of which no more than a piece is in memory at a time.
async fn hash(path: &Path) -> io::Result<Digest> {
    let path = path.to_owned();
    let hashing = tokio::task::spawn_blocking(move || {
        let mut hash = Sha256::new();
        io::copy(&mut std::fs::File::open(path)?, &mut hash)?;
        Ok(Digest::from_sha256(hash.finalize().into()))
    });
    hashing.await.map_err(io::Error::other).flatten()
}
