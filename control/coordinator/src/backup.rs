//! Backups: one file with all that a coordinator has, written while it works.
//!
//! It is a tar archive, so that any tool can list it and take things out:
//!
//! | Member | What |
//! | --- | --- |
//! | `backup.json` | [`About`] it: always the first |
//! | `authority.pem`, `admin.token` | who the fleet is, with the private key, and who may command it |
//! | `store/TABLE/NUMBER` | records of a table, each as length of the key, key, length of the value, value; lengths are four bytes, big-endian |
//! | `components/HEX`, `inputs/HEX` | bytes by their SHA-256 |
//! | `SHA256SUMS` | the sums of all others, as `sha256sum -c` reads them: always the last, so that none is complete without it |
//!
//! The records are all of one moment. Components are written down after them: what a record names was there before it.
//!
//! Not here: how it is read back (`restore`).

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use dunlin_model::{ClusterId, Timestamp};
use dunlin_planted::{Point, fails};
use dunlin_store::{Changes, Components, SCHEMA_VERSION, Snapshot, SnapshotError, Table};
use dunlin_transport::Authority;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::session::Desk;

/// The version of how a backup is laid out. Any other is refused.
pub(crate) const FORMAT: u32 = 1;
/// The member that says what it is.
pub(crate) const ABOUT: &str = "backup.json";
/// The member that has the sums of all others.
pub(crate) const SUMS: &str = "SHA256SUMS";
/// The file with the administrator's token.
pub(crate) const ADMIN_TOKEN: &str = "admin.token";
/// About so many bytes of records share a member, unless a single one has more.
const MEMBER: usize = 1 << 20;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// How it is laid out.
    pub format: u32,
    /// The version of the program that wrote it.
    pub program: String,
    /// The schema of the store.
    pub schema: u64,
    /// Which fleet it is of.
    pub cluster: ClusterId,
    /// When it was taken, by the coordinator's clock.
    pub taken: Timestamp,
}

/// Of what a backup is taken.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) cluster: ClusterId,
    pub(crate) state: PathBuf,
    pub(crate) store: Arc<dyn Changes>,
    pub(crate) components: Arc<Components>,
    pub(crate) inputs: Arc<Components>,
}

impl Source {
    /// Returns all that a coordinator has whose state folder this is.
    pub(crate) fn of(desk: &Desk, state: PathBuf) -> Self {
        Self {
            cluster: desk.cluster.clone(),
            state,
            store: Arc::clone(&desk.store),
            components: Arc::clone(&desk.components),
            inputs: Arc::clone(desk.inputs.blobs()),
        }
    }

    /// Writes all of it. It blocks, and takes as long as `output` does.
    pub(crate) fn write(&self, now: Timestamp, output: impl Write) -> anyhow::Result<()> {
        let mut archive = Archive::new(output, now);
        let about = About {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            schema: SCHEMA_VERSION,
            cluster: self.cluster.clone(),
            taken: now,
        };
        archive.add(ABOUT, &serde_json::to_vec_pretty(&about)?)?;
        for name in [Authority::FILE, ADMIN_TOKEN] {
            let path = self.state.join(name);
            let bytes = std::fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
            archive.add(name, &bytes)?;
        }
        self.store.snapshot(&mut |snapshot| archive.add_records(snapshot))?;
        for (folder, blobs) in [("components", &self.components), ("inputs", &self.inputs)] {
            for digest in blobs.all()? {
                let (file, length) = blobs.open(&digest)?;
                archive.add_file(&format!("{folder}/{}", digest.hex()), file, length)?;
            }
        }
        archive.finish()?;
        Ok(())
    }
}

/// A backup that is being written.
struct Archive<W: Write> {
    tar: tar::Builder<W>,
    sums: String,
    /// In seconds since 1970.
    time: u64,
}

impl<W: Write> Archive<W> {
    fn new(output: W, now: Timestamp) -> Self {
        Self { tar: tar::Builder::new(output), sums: String::new(), time: now.0 / 1_000 }
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.add_file(name, bytes, bytes.len() as u64)
    }

    /// Adds what a file holds, which must be so many bytes.
    fn add_file(&mut self, name: &str, content: impl Read, length: u64) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(length);
        // There is a private key in it.
        header.set_mode(0o600);
        header.set_mtime(self.time);
        let mut content = Summed { content: content.take(length), hash: Sha256::new(), length: 0 };
        self.tar.append_data(&mut header, Path::new(name), &mut content)?;
        if content.length != length {
            let message = format!("{name} had {length} bytes and now has {}", content.length);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        self.sums.push_str(&format!("{}  {name}\n", hex::encode(content.hash.finalize())));
        Ok(())
    }

    fn add_records(&mut self, snapshot: &dyn Snapshot) -> Result<(), SnapshotError> {
        for table in Table::ALL {
            let (mut number, mut records) = (0, Vec::new());
            snapshot.each(table, &mut |key, value| {
                if !records.is_empty() && records.len() + key.len() + value.len() > MEMBER {
                    self.add(&member(table, number), &std::mem::take(&mut records))?;
                    number += 1;
                }
                for part in [key, value] {
                    let length = u32::try_from(part.len()).map_err(io::Error::other)?;
                    records.extend_from_slice(&length.to_be_bytes());
                    records.extend_from_slice(part);
                }
                Ok(())
            })?;
            if !records.is_empty() {
                self.add(&member(table, number), &records)?;
            }
            fails(Point::BackupMid)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        let sums = std::mem::take(&mut self.sums);
        self.add(SUMS, sums.as_bytes())?;
        self.tar.into_inner()?.flush()
    }
}

/// Returns the name of a member with records.
fn member(table: Table, number: u32) -> String {
    format!("store/{}/{number:06}", table.name())
}

/// Content that is summed up while it is read.
pub(crate) struct Summed<R> {
    pub(crate) content: R,
    pub(crate) hash: Sha256,
    pub(crate) length: u64,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.length += count as u64;
        Ok(count)
    }
}
