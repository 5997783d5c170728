//! Chunks of a file, as they are sent.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use dunlin_protocol::{ChunkPlace, PackedChunk};

use crate::{SendError, SendHalf};

/// Why a chunk could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// The file could not be read there.
    #[error("could not read the component")]
    Read(#[from] io::Error),
    /// The other side is gone, or wants no more.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl SendHalf {
    /// Sends the bytes at `place` of `file`, compressed.
    pub async fn send_chunk(&mut self, file: &Arc<File>, place: ChunkPlace) -> Result<(), ChunkError> {
        let file = Arc::clone(file);
        let reading = tokio::task::spawn_blocking(move || {
            let ChunkPlace { offset, length } = place;
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0).min(dunlin_model::MAX_CHUNK)];
            file.read_exact_at(&mut bytes, offset)?;
            Ok::<_, io::Error>(PackedChunk::of(&bytes))
        });
        let chunk = reading.await.map_err(io::Error::other)??;
        Ok(self.send_message(&chunk).await?)
    }
}
