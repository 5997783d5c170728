//! Files that are believed only if this node wrote them as they are: a MAC of 32 bytes (keyed BLAKE3), then JSON.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::folders;

/// What stands before the JSON.
const MAC: usize = 32;

/// Why a file is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unbelievable {
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    #[error("it is not as this node wrote it")]
    Damaged,
    #[error("it was written by another version")]
    Unknown(#[source] serde_json::Error),
}

/// Returns what is in the file at `path`, if there is one.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, key: &[u8; 32]) -> Result<Option<T>, Unbelievable> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Unbelievable::Unreadable(source)),
    };
    let (mac, text) = bytes.split_first_chunk::<MAC>().ok_or(Unbelievable::Damaged)?;
    // Compared in constant time.
    if blake3::keyed_hash(key, text) != *mac {
        return Err(Unbelievable::Damaged);
    }
    serde_json::from_slice(text).map(Some).map_err(Unbelievable::Unknown)
}

/// Replaces the file at `path`; when this returns, a power cut does not lose it.
pub(crate) fn replace<T: Serialize>(path: &Path, key: &[u8; 32], value: &T) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    let mac = blake3::keyed_hash(key, &text);
    folders::replace(path, &[mac.as_bytes(), &text[..]].concat())
}
