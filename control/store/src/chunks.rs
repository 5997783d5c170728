//! Where the chunks of a component end, and what they are.
//!
//! What is in the bytes decides (FastCDC), so a change moves the ends near it and no others: two revisions of a component
//! have most chunks in common, wherever something was put in between.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_model::{Chunk, Digest, MAX_CHUNK};
use fastcdc::v2020::StreamCDC;

use crate::{Components, ComponentsError};

/// How long chunks are, in bytes: shorter ones have more in common, longer ones compress better and need fewer digests.
const USUAL: usize = 64 << 10;
const SHORTEST: usize = 16 << 10;
/// The lists of how many components are remembered.
const REMEMBERED: usize = 64;

/// The lists of the components that were asked for last.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChunkLists(Arc<Mutex<BTreeMap<Digest, Arc<[Chunk]>>>>);

impl Components {
    /// Returns the chunks of which a component consists. The first time it takes as long as reading it.
    pub fn chunks(&self, digest: &Digest) -> Result<Arc<[Chunk]>, ComponentsError> {
        // Held meanwhile: twenty nodes that ask at once have it read once.
        let mut lists = self.lists.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunks) = lists.get(digest) {
            return Ok(Arc::clone(chunks));
        }
        let (file, _) = self.open(digest)?;
        let chunks: Result<Arc<[Chunk]>, ComponentsError> = StreamCDC::new(file, SHORTEST, USUAL, MAX_CHUNK)
            .map(|chunk| {
                let chunk = chunk.map_err(|error| ComponentsError::io(&self.path(digest), error.into()))?;
                let length = chunk.data.len().try_into().expect("no chunk is longer than was asked for");
                Ok(Chunk { digest: Digest::of(&chunk.data), length })
            })
            .collect();
        let chunks = chunks?;
        if lists.len() >= REMEMBERED {
            lists.clear();
        }
        lists.insert(*digest, Arc::clone(&chunks));
        Ok(chunks)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dunlin_model::Bytes;

    use super::*;

    /// Returns bytes of which no chunk is like another.
    fn varied(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let random = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        random.flatten().take(length).collect()
    }

    #[test]
    fn the_chunks_are_the_component_and_a_small_change_changes_few_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let components = Components::open_folder(folder.path(), Bytes(64 << 20), Bytes(0)).unwrap();
        let first = varied(4 << 20);
        let mut second = first.clone();
        second.splice(1 << 20..1 << 20, *b"something that was not there before");
        let [one, two] = [&first, &second].map(|bytes| {
            let chunks = components.chunks(&components.put(bytes).unwrap()).unwrap();
            let mut rest = &bytes[..];
            for chunk in &*chunks {
                let (bytes, after) = rest.split_at(chunk.length as usize);
                assert_eq!(Digest::of(bytes), chunk.digest);
                rest = after;
            }
            assert_eq!(rest, b"");
            chunks.iter().map(|chunk| chunk.digest).collect::<BTreeSet<_>>()
        });
        assert!((30..120).contains(&one.len()), "{}", one.len());
        assert!(two.difference(&one).count() <= 2, "{} chunks are new", two.difference(&one).count());
    }

    #[test]
    fn nothing_has_no_chunks_and_what_is_missing_has_no_list() {
        let folder = tempfile::tempdir().unwrap();
        let components = Components::open_folder(folder.path(), Bytes(1 << 20), Bytes(0)).unwrap();
        assert!(components.chunks(&components.put(b"").unwrap()).unwrap().is_empty());
        let missing = components.chunks(&Digest::of(b"never put"));
        assert!(matches!(missing, Err(ComponentsError::Missing { .. })), "{missing:?}");
    }
}
