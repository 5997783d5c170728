//! A component that is being fetched: what of it is here already, for this node and for its neighbours.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_model::{Chunk, Digest};
use dunlin_protocol::ChunkPlace;
use tokio::sync::watch;

/// A component that is being fetched.
#[derive(Debug)]
pub(super) struct Gathering {
    chunks: Vec<Chunk>,
    /// How many bytes are before each chunk.
    offsets: Vec<u64>,
    length: u64,
    file: Arc<File>,
    present: watch::Sender<Vec<bool>>,
    /// The numbers of the chunks that this node does not wait for another one of its kind to bring.
    brought_here: Mutex<BTreeSet<usize>>,
}

impl Gathering {
    /// Begins, or goes on with what an earlier try has left in the file at `path`.
    pub(super) fn begin(path: &Path, chunks: Vec<Chunk>) -> io::Result<Self> {
        let mut length = 0;
        let mut offsets = Vec::with_capacity(chunks.len());
        for chunk in &chunks {
            offsets.push(length);
            length += u64::from(chunk.length);
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let has_something = file.metadata()?.len() > 0;
        file.set_len(length)?;
        let present = watch::Sender::new(vec![false; chunks.len()]);
        let gathering =
            Self { chunks, offsets, length, file: Arc::new(file), present, brought_here: Mutex::default() };
        if has_something {
            gathering.look_through();
        }
        Ok(gathering)
    }

    /// Finds out which chunks are in the file: an earlier try was ended at any moment, also by a power cut.
    fn look_through(&self) {
        let is_here = |number: &usize| {
            let chunk = self.chunks[*number];
            read(&self.file, self.place(*number)).is_ok_and(|bytes| Digest::of(&bytes) == chunk.digest)
        };
        let here: Vec<usize> = (0..self.chunks.len()).filter(is_here).collect();
        self.present.send_modify(|present| here.iter().for_each(|number| present[*number] = true));
    }

    pub(super) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Returns how many bytes the component has.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Returns the place of the chunk with this number.
    pub(super) fn place(&self, number: usize) -> ChunkPlace {
        ChunkPlace { offset: self.offsets[number], length: self.chunks[number].length }
    }

    /// Returns the number of the chunk at this place, if there is one.
    pub(super) fn number(&self, place: ChunkPlace) -> Option<usize> {
        let number = self.offsets.binary_search(&place.offset).ok();
        number.filter(|number| self.chunks[*number].length == place.length)
    }

    /// Returns the numbers of the chunks that are not here.
    pub(super) fn missing(&self) -> Vec<usize> {
        let present = self.present.borrow();
        (0..present.len()).filter(|number| !present[*number]).collect()
    }

    /// Takes note that this node brings these chunks.
    pub(super) fn will_bring(&self, numbers: &[usize]) {
        self.brought_here.lock().unwrap_or_else(PoisonError::into_inner).extend(numbers);
    }

    /// Tells whether a chunk is here, or is brought by this node itself. Nobody may wait here for another one: those who wait
    /// for each other would do so for ever.
    pub(super) fn has_or_brings(&self, number: usize) -> bool {
        let is_here = self.present.borrow()[number];
        is_here || self.brought_here.lock().unwrap_or_else(PoisonError::into_inner).contains(&number)
    }

    /// Returns what tells of each chunk whether it is here, and when one has come.
    pub(super) fn presence(&self) -> watch::Receiver<Vec<bool>> {
        self.present.subscribe()
    }

    /// Keeps the chunk with this number, if it is what it should be; tells whether it is.
    pub(super) fn put(&self, number: usize, bytes: &[u8]) -> io::Result<bool> {
        if Digest::of(bytes) != self.chunks[number].digest {
            return Ok(false);
        }
        self.file.write_all_at(bytes, self.offsets[number])?;
        self.present.send_modify(|present| present[number] = true);
        Ok(true)
    }
}

/// Returns the bytes at a place of a file.
pub(super) fn read(file: &File, place: ChunkPlace) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(place.length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, place.offset)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECES: [&[u8]; 3] = [b"one", b"fourteen bytes", b"three"];

    fn chunks() -> Vec<Chunk> {
        let length = |piece: &[u8]| u32::try_from(piece.len()).unwrap();
        PIECES.map(|piece| Chunk { digest: Digest::of(piece), length: length(piece) }).to_vec()
    }

    #[test]
    fn chunks_come_in_any_order_and_what_is_none_of_them_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("component");
        let gathering = Gathering::begin(&path, chunks()).unwrap();
        assert_eq!(gathering.missing(), [0, 1, 2]);
        assert!(gathering.put(2, PIECES[2]).unwrap());
        assert!(!gathering.put(1, b"fourteen lies.").unwrap());
        assert_eq!(gathering.missing(), [0, 1]);
        let place = |offset, length| ChunkPlace { offset, length };
        assert_eq!(gathering.place(2), place(17, 5));
        assert_eq!(gathering.number(place(17, 5)), Some(2));
        assert_eq!((gathering.number(place(17, 6)), gathering.number(place(16, 5))), (None, None));
        assert!(gathering.put(1, PIECES[1]).unwrap() && gathering.put(0, PIECES[0]).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), PIECES.concat());
    }

    #[test]
    fn what_an_earlier_try_has_left_is_used_as_far_as_it_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("component");
        let gathering = Gathering::begin(&path, chunks()).unwrap();
        assert!(gathering.put(0, PIECES[0]).unwrap() && gathering.put(1, PIECES[1]).unwrap());
        gathering.file().write_all_at(b"x", 5).unwrap();
        drop(gathering);
        assert_eq!(Gathering::begin(&path, chunks()).unwrap().missing(), [1, 2]);
    }
}
