//! The secrets of this node's allocations: fetched from the coordinator, sealed on disk so that the node can serve again
//! without it, and given to workers.
//!
//! Each is a file of its own: eight bytes that say which value it is, and the value sealed with a key that follows from
//! the node's own. Values that were asked for are kept in memory as well, as long as an allocation is granted them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_model::{
    AssignedAllocation, MAX_SECRET, SecretId, SecretName, SecretValue, SecretValueError, SecretVersion,
};
use dunlin_protocol::StreamRequest;
use dunlin_sealed::{SealingKey, UnsealError};
use dunlin_supervisor::Event;
use dunlin_transport::Connection;
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use crate::folders;
use crate::link::Link;

/// How long the coordinator may take to send one.
const FETCH_TIME: Duration = Duration::from_secs(10);

/// The secrets of this node's allocations.
pub(crate) struct Secrets {
    folder: PathBuf,
    key: SealingKey,
    held: Mutex<Held>,
    /// Of two values of one secret the one that is asked for last must stay.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    /// What this node may have.
    granted: BTreeSet<SecretId>,
    /// What of it is in memory.
    known: BTreeMap<SecretId, (SecretVersion, SecretValue)>,
}

/// Why a secret was not fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    /// The coordinator does not give it.
    #[error("{0:#}")]
    Coordinator(anyhow::Error),
    /// What came is no value.
    #[error("what the coordinator sent is no value of a secret: {0}")]
    Value(#[from] SecretValueError),
    /// It is not text.
    #[error("what the coordinator sent is no value of a secret: it is not UTF-8")]
    NotText,
    /// It was taken away meanwhile.
    #[error("no allocation of this node reads it any more")]
    NotGranted,
    /// The coordinator is connected and says nothing more.
    #[error("the coordinator did not send it within {FETCH_TIME:?}")]
    TooLate,
    /// There is no coordinator.
    #[error("{0:#}")]
    Alone(anyhow::Error),
}

/// Why a file of a secret cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error(transparent)]
    Sealed(#[from] UnsealError),
    #[error("it is damaged")]
    Damaged,
}

impl Secrets {
    /// Returns the secrets kept in `folder`, sealed with a key that follows from the node's.
    pub(crate) fn new(folder: PathBuf, node_key: &[u8; 32]) -> Self {
        let key = SealingKey::derived("dunlin 2026-11-29 secrets of a node", node_key);
        Self { folder, key, held: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Has this value on the node, or says why not.
    pub(crate) async fn fetch(&self, secret: SecretId, version: SecretVersion, link: &Link) -> Event {
        let present = self.present(&secret);
        if present == Some(version) {
            return Event::SecretFetched { secret, version };
        }
        match self.download(&secret, version, link).await {
            Ok(()) => Event::SecretFetched { secret, version },
            Err(error) => {
                tracing::warn!(%secret, %error, "secret not fetched; will retry");
                let is_alone = matches!(error, FetchError::Alone(_));
                Event::SecretNotFetched { present, is_alone, reason: error.to_string(), secret, version }
            }
        }
    }

    /// Returns the secrets that an allocation is granted, as far as they are here.
    pub(crate) fn of(&self, allocation: &AssignedAllocation) -> BTreeMap<SecretName, SecretValue> {
        let held = self.held();
        let granted = allocation.secrets();
        granted.filter_map(|id| held.known.get(&id).map(|(_, value)| (id.name, value.clone()))).collect()
    }

    /// Keeps these secrets and wipes all others.
    pub(crate) fn keep(&self, secrets: BTreeSet<SecretId>) {
        let mut held = self.held();
        held.known.retain(|id, _| secrets.contains(id));
        let names: BTreeSet<String> = secrets.iter().map(file_name).collect();
        if let Err(error) = remove_others(&self.folder, &names) {
            let folder = self.folder.display();
            tracing::error!(%error, %folder, "secrets that no allocation reads could not be removed");
        }
        held.granted = secrets;
    }

    /// Returns which value of a secret is here, if this node may have it. What is on disk is taken into memory.
    fn present(&self, secret: &SecretId) -> Option<SecretVersion> {
        let Held { granted, known } = &mut *self.held();
        if !granted.contains(secret) {
            return None;
        }
        if let Some((version, _)) = known.get(secret) {
            return Some(*version);
        }
        match self.read(secret) {
            Ok(found) => {
                let (version, value) = found?;
                known.insert(secret.clone(), (version, value));
                Some(version)
            }
            Err(error) => {
                tracing::warn!(%secret, %error, "the secret on this node's disk cannot be used; it is fetched again");
                None
            }
        }
    }

    fn read(&self, secret: &SecretId) -> Result<Option<(SecretVersion, SecretValue)>, Unusable> {
        let bytes = match std::fs::read(self.path(secret)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (version, sealed) = bytes.split_first_chunk().ok_or(Unusable::Damaged)?;
        let version = SecretVersion(u64::from_be_bytes(*version));
        let value = self.key.unseal(&owner(secret, version), sealed)?;
        let value = value_of(value).map_err(|_| Unusable::Damaged)?;
        Ok(Some((version, value)))
    }

    async fn download(
        &self,
        secret: &SecretId,
        version: SecretVersion,
        link: &Link,
    ) -> Result<(), FetchError> {
        // Without a coordinator all fail together, not one after the other.
        let connection = link.connected().await.map_err(FetchError::Alone)?;
        let _turn = self.turn.lock().await;
        let received = tokio::time::timeout(FETCH_TIME, receive(&connection, secret, version));
        let value = received.await.map_err(|_late| FetchError::TooLate)??;
        let sealed = self.key.seal(&owner(secret, version), value.expose().as_bytes());
        let (path, bytes) = (self.path(secret), [&version.0.to_be_bytes()[..], &sealed].concat());
        let writing = tokio::task::spawn_blocking(move || folders::replace(&path, &bytes));
        let written = writing.await.map_err(io::Error::other).flatten();
        let mut held = self.held();
        if !held.granted.contains(secret) {
            let _not_there = std::fs::remove_file(self.path(secret));
            return Err(FetchError::NotGranted);
        }
        // What is here is of use, though a start without the coordinator would be one without it.
        if let Err(error) = written {
            tracing::error!(%secret, %error, "secret cannot be kept on this node's disk; it is in use all the same");
        }
        held.known.insert(secret.clone(), (version, value));
        Ok(())
    }

    fn path(&self, secret: &SecretId) -> PathBuf {
        self.folder.join(file_name(secret))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(
    connection: &Connection,
    secret: &SecretId,
    version: SecretVersion,
) -> Result<SecretValue, FetchError> {
    let request = StreamRequest::Secret { secret: secret.clone(), version };
    let (stream, _) = Link::fetch_on(connection, &request).await.map_err(FetchError::Coordinator)?;
    // Room from the start, so that no copy of a part of it stays behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET + 1));
    let read = stream.take(MAX_SECRET as u64 + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| FetchError::Coordinator(error.into()))?;
    value_of(bytes)
}

fn value_of(mut bytes: Zeroizing<Vec<u8>>) -> Result<SecretValue, FetchError> {
    let text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        FetchError::NotText
    })?;
    Ok(SecretValue::new(Zeroizing::new(text))?)
}

/// A namespace has no dot in its name, so no two secrets have one file; and none ends as one does that is being written.
fn file_name(secret: &SecretId) -> String {
    format!("{}.{}.sealed", secret.namespace, secret.name)
}

fn owner(secret: &SecretId, version: SecretVersion) -> String {
    format!("{secret}/{version}")
}

/// Removes all files of a folder but these, and those that are about to become one of these.
fn remove_others(folder: &Path, names: &BTreeSet<String>) -> io::Result<()> {
    let mut result = Ok(());
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let becomes = path.with_extension("sealed");
        let is_wanted =
            becomes.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.contains(name));
        if !is_wanted
            && let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            result = Err(error);
        }
    }
    result
}
