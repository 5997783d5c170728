//! Reports of items that no coordinator has recorded yet, kept on disk: a node that loses power while its coordinator is
//! out of reach need not run them again.
//!
//! The file is a row of entries, each a MAC of 32 bytes (keyed BLAKE3) over what follows: a frame as on the wire, with
//! the reports that were added together. Nothing is read beyond an entry that is not as it was written: the last one may
//! have been cut by a power cut, and what else is wrong there is not worth to be believed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};

use dunlin_model::ItemReport;
use dunlin_protocol::{decode, encode, frame_length};

use crate::folders;

/// What stands before each frame.
const MAC: usize = 32;
/// How many reports an entry has at most: a frame is bounded.
const ENTRY: usize = 16;

/// A handle for who has reports to be kept.
pub(crate) struct Keeper {
    wanted: Sender<Wanted>,
}

enum Wanted {
    Keep {
        reports: Vec<ItemReport>,
        in_place: bool,
    },
    /// To be told when all before it is done, whether the last of it has succeeded.
    Done(Sender<bool>),
}

impl Keeper {
    /// Has reports kept, beside those that are there or in their place.
    pub(crate) fn keep(&self, reports: Vec<ItemReport>, in_place: bool) {
        // The thread ends by a panic only; then they are in memory alone, as on a full disk.
        let _gone = self.wanted.send(Wanted::Keep { reports, in_place });
    }

    /// Waits until all is written that was to be kept; tells whether the last of it was.
    pub(crate) fn flush(&self) -> bool {
        let (done, wait) = channel();
        self.wanted.send(Wanted::Done(done)).is_ok() && wait.recv() == Ok(true)
    }
}

/// Where the reports are kept.
#[derive(Clone)]
pub(crate) struct KeptItems {
    path: PathBuf,
    key: [u8; 32],
}

impl KeptItems {
    /// Returns the keeper of the file at `path`, authenticated by a key of this node.
    pub(crate) fn at(path: PathBuf, node_key: &[u8; 32]) -> Self {
        Self { path, key: blake3::derive_key("dunlin 2026-11-29 kept items", node_key) }
    }

    /// Returns all that can be believed, and forgets the rest: what is added comes after it.
    pub(crate) fn load(&self) -> Vec<ItemReport> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::error!(file = %self.path.display(), %error, "kept reports of items cannot be read");
                return Vec::new();
            }
        };
        let (mut reports, mut rest) = (Vec::new(), &bytes[..]);
        while let Some((entry, after)) = self.entry(rest) {
            reports.extend(entry);
            rest = after;
        }
        if !rest.is_empty() {
            tracing::warn!(
                file = %self.path.display(), bytes = rest.len(),
                "the last of the kept reports of items are not as they were written; what is lost of them is run again"
            );
            if let Err(error) = self.replace(&reports) {
                tracing::error!(file = %self.path.display(), %error, "kept reports of items cannot be written");
            }
        }
        reports
    }

    /// Writes what it is told to, in that order, on a thread of its own: what is to stop must not wait for a slow disk.
    pub(crate) fn start(self) -> io::Result<Keeper> {
        let (wanted, waiting) = channel();
        std::thread::Builder::new().name("kept items".to_owned()).spawn(move || {
            let mut is_kept = true;
            for wanted in waiting {
                let (reports, in_place) = match wanted {
                    Wanted::Keep { reports, in_place } => (reports, in_place),
                    Wanted::Done(done) => {
                        let _gone = done.send(is_kept);
                        continue;
                    }
                };
                let kept = if in_place { self.replace(&reports) } else { self.add(&reports) };
                is_kept = kept.is_ok();
                if let Err(error) = kept {
                    tracing::error!(
                        %error,
                        items = reports.len(),
                        "reports of items cannot be kept on this node's disk; what is lost of them is run again"
                    );
                }
            }
        })?;
        Ok(Keeper { wanted })
    }

    /// Returns the first entry, and what comes after it.
    fn entry<'a>(&self, bytes: &'a [u8]) -> Option<(Vec<ItemReport>, &'a [u8])> {
        let (mac, rest) = bytes.split_first_chunk::<MAC>()?;
        let (prefix, body) = rest.split_first_chunk::<4>()?;
        let length = frame_length(*prefix).ok()?;
        let body = body.get(..length)?;
        // Compared in constant time.
        if self.mac(&rest[..4 + length]) != *mac {
            return None;
        }
        Some((decode(body).ok()?, &rest[4 + length..]))
    }

    /// Adds reports; when this returns, a power cut does not lose them.
    fn add(&self, reports: &[ItemReport]) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        let before = file.metadata()?.len();
        let written = file.write_all(&self.entries(reports)?).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // Half an entry would hide what is added after it.
            file.set_len(before)?;
            return Err(error);
        }
        match self.path.parent().filter(|_| before == 0) {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Puts reports in the place of all that are there.
    fn replace(&self, reports: &[ItemReport]) -> io::Result<()> {
        folders::replace(&self.path, &self.entries(reports)?)
    }

    fn entries(&self, reports: &[ItemReport]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for entry in reports.chunks(ENTRY) {
            let frame = encode(&entry).map_err(io::Error::other)?;
            bytes.extend(self.mac(&frame).as_bytes());
            bytes.extend(frame);
        }
        Ok(bytes)
    }

    fn mac(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.key, bytes)
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::{AllocationId, Bytes, DurationMs, Fuel, ItemRecord, Outcome, RunId};

    use super::*;

    fn report(item: u32) -> ItemReport {
        let record = ItemRecord {
            outcome: Outcome::Completed,
            node: "node-1".parse().unwrap(),
            attempt: 1,
            fuel: Fuel(7),
            memory: Bytes(65_536),
            wall: DurationMs(3),
            host: Default::default(),
            output: format!("item {item}"),
            output_cut: false,
        };
        ItemReport { allocation: AllocationId::new(1), run: RunId::new(2), item, record }
    }

    fn items(kept: &KeptItems) -> Vec<u32> {
        kept.load().iter().map(|report| report.item).collect()
    }

    #[test]
    fn reports_are_there_again_and_those_that_were_replaced_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptItems::at(folder.path().join("items"), &[7; 32]);
        assert_eq!(kept.load(), Vec::new());
        kept.add(&[report(1), report(2)]).unwrap();
        kept.add(&(3..300).map(report).collect::<Vec<_>>()).unwrap();
        assert_eq!(kept.load(), (1..300).map(report).collect::<Vec<_>>());
        kept.replace(&[report(9)]).unwrap();
        kept.add(&[report(10)]).unwrap();
        assert_eq!(items(&kept), [9, 10]);
        kept.replace(&[]).unwrap();
        assert_eq!(kept.load(), Vec::new());
    }

    #[test]
    fn what_was_cut_or_damaged_is_not_believed_and_what_was_before_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptItems::at(folder.path().join("items"), &[7; 32]);
        for item in 0..3 {
            kept.add(&[report(item)]).unwrap();
        }
        let whole = std::fs::read(&kept.path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&kept.path, &whole[..length]).unwrap();
            let found = items(&kept);
            assert_eq!(found, (0..u32::try_from(found.len()).unwrap()).collect::<Vec<_>>());
            assert!(found.len() < 3);
        }
        for byte in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1;
            std::fs::write(&kept.path, flipped).unwrap();
            let found = items(&kept);
            assert!(found.len() < 3 && found.iter().copied().eq(0..u32::try_from(found.len()).unwrap()));
        }
        // What is added after a cut is found.
        std::fs::write(&kept.path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(items(&kept), [0, 1]);
        kept.add(&[report(5)]).unwrap();
        assert_eq!(items(&kept), [0, 1, 5]);
        std::fs::write(&kept.path, whole).unwrap();
        let other = KeptItems { key: [1; 32], ..kept };
        assert_eq!(other.load(), Vec::new());
    }
}
