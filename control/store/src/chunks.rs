//! Where the chunks of a component end, and what they are.
//!
//! What is in the bytes decides (FastCDC), so a change moves the ends near it and no others: two revisions of a component
//! have most chunks in common, wherever something was put in between.

use std::sync::Arc;

use dunlin_model::{Chunk, Digest};
use fastcdc::v2020::StreamCDC;

use crate::{Components, ComponentsError};

/// How long chunks are, in bytes: shorter ones have more in common, longer ones compress better and need fewer digests.
const USUAL: usize = 32 << 10;
const SHORTEST: usize = 8 << 10;
const LONGEST: usize = 128 << 10;
impl Components {
    /// Returns the chunks of which a component consists. It takes as long as reading it.
    pub fn chunks(&self, digest: &Digest) -> Result<Arc<[Chunk]>, ComponentsError> {
        let (file, _) = self.open(digest)?;
        let chunks = StreamCDC::new(file, SHORTEST, USUAL, LONGEST).map(|chunk| {
            let chunk = chunk.map_err(|error| ComponentsError::io(&self.path(digest), error.into()))?;
            let length = chunk.data.len().try_into().expect("no chunk is longer than was asked for");
            Ok(Chunk { digest: Digest::of(&chunk.data), length })
        });
        chunks.collect()
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
        assert!((60..240).contains(&one.len()), "{}", one.len());
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
