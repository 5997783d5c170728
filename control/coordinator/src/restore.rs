//! Backups read back: checked, or made into the state folder of a coordinator.
//!
//! A folder is made beside the one that is wanted, and gets its name when it is whole and durable; nothing is there
//! before. What a backup holds is not trusted: its members have known names and bounded sizes, and each has the sum that
//! stands at its end.
//!
//! Not here: how a backup is written, and what is in it (`backup`).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Seek};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dunlin_model::{Bytes, Digest, Term};
use dunlin_scheduler::{Change, RecoveryReason, RecoveryRecord};
use dunlin_store::{Changes, Components, Embedded, SCHEMA_VERSION, Table, Write};
use dunlin_transport::Authority;
use sha2::{Digest as _, Sha256};

use crate::backup::{ABOUT, ADMIN_TOKEN, About, FORMAT, SUMS, Summed};
use crate::kept::Specs;
use crate::process::{MAX_BLOB, write_private};
use crate::records;

/// The most bytes of a member that is read into memory.
const MAX_MEMBER: u64 = 256 << 20;
/// So many records are committed together.
const BATCH: usize = 10_000;
/// And so many bytes of them at most, about.
const BATCH_BYTES: usize = 16 << 20;

/// What a backup holds.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What it says of itself.
    pub about: About,
    /// How many records of each table.
    pub records: BTreeMap<&'static str, u64>,
    /// How many components and inputs.
    pub blobs: u64,
    /// How many bytes it has, all together.
    pub bytes: u64,
}

/// Why a backup could not be used. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreBackupError {
    /// There is something already.
    #[error("{folder} is there already")]
    Taken {
        /// The folder.
        folder: PathBuf,
    },
    /// It is no backup, or not all of it.
    #[error("it is no whole backup: {0}")]
    Malformed(String),
    /// Another program wrote it.
    #[error(
        "it has format {format} and schema {schema} (Dunlin {program}), and this program knows {FORMAT} and {SCHEMA_VERSION}"
    )]
    OtherVersion {
        /// Its format.
        format: u32,
        /// The schema of its store.
        schema: u64,
        /// The version of the program that wrote it.
        program: String,
    },
    /// It could not be read.
    #[error("it could not be read")]
    Read(#[from] io::Error),
    /// What it holds could not be written.
    #[error("could not write {path}")]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Reads all of a backup and compares each sum.
pub fn check_backup(backup: impl Read) -> Result<Restored, RestoreBackupError> {
    read(backup, &mut |_| Ok(()))
}

/// Makes the folder `state` from a backup. It must not be there, or be empty. The backup is checked as a whole first.
pub fn restore_backup(mut backup: impl Read + Seek, state: &Path) -> Result<Restored, RestoreBackupError> {
    check_backup(&mut backup)?;
    backup.rewind()?;
    let taken = || RestoreBackupError::Taken { folder: state.to_owned() };
    let failed = |source: io::Error| unwritten(state, source);
    match fs::read_dir(state).map(|mut entries| entries.next()) {
        Ok(Some(_)) => return Err(taken()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(None) | Err(_) => {}
    }
    let parent = state.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed)?;
    // Readable by its owner alone, and gone again if this fails.
    let folder = tempfile::Builder::new().prefix(".dunlin-restore-").tempdir_in(parent).map_err(failed)?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).map_err(failed)?;
    let mut target = Target::make(folder.path())?;
    let restored = read(backup, &mut |member| target.take(member))?;
    target.finish(&restored.about)?;
    drop(target);
    match fs::remove_dir(state) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Err(taken()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    fs::rename(folder.path(), state).map_err(failed)?;
    // It has another name now, and stays.
    let _moved = folder.keep();
    fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
    Ok(restored)
}

/// One member of a backup.
enum Member<'a> {
    /// A file of the state folder.
    File(&'static str, Vec<u8>),
    /// A record.
    Record(Table, &'a [u8], &'a [u8]),
    /// Bytes of this digest, in this folder.
    Blob(&'static str, Digest, &'a mut dyn Read),
}

type Taking<'a> = &'a mut dyn FnMut(Member<'_>) -> Result<(), RestoreBackupError>;

/// Reads a backup from its beginning to its end, and compares each sum.
fn read(backup: impl Read, take: Taking<'_>) -> Result<Restored, RestoreBackupError> {
    let mut archive = tar::Archive::new(backup);
    let mut sums = String::new();
    let mut restored: Option<Restored> = None;
    let mut is_complete = false;
    for entry in archive.entries()? {
        let mut entry = entry.map_err(unreadable)?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let size = entry.size();
        if is_complete || entry.header().entry_type() != tar::EntryType::Regular {
            return Err(malformed(format!("`{name}` does not belong there")));
        }
        if name == SUMS {
            let found = in_memory(&name, size, &mut entry)?;
            is_complete = found == sums.as_bytes();
            if !is_complete {
                return Err(malformed("its bytes are not those that were written".to_owned()));
            }
            continue;
        }
        let mut content = Summed { content: entry, hash: Sha256::new(), length: 0 };
        match &mut restored {
            None => restored = Some(begin(&name, size, &mut content)?),
            Some(restored) => take_member(&name, size, &mut content, restored, take)?,
        }
        let restored = restored.as_mut().expect("it was just made");
        restored.bytes += size;
        sums.push_str(&format!("{}  {name}\n", hex::encode(content.hash.finalize())));
    }
    let restored = restored.filter(|_| is_complete);
    restored.ok_or_else(|| malformed(format!("it ends before its `{SUMS}`")))
}

/// Reads the first member.
fn begin(name: &str, size: u64, content: &mut impl Read) -> Result<Restored, RestoreBackupError> {
    if name != ABOUT {
        return Err(malformed(format!("it begins with `{name}`, not with `{ABOUT}`")));
    }
    let about: About = serde_json::from_slice(&in_memory(name, size, content)?)
        .map_err(|error| malformed(format!("`{ABOUT}`: {error}")))?;
    if (about.format, about.schema) != (FORMAT, SCHEMA_VERSION) {
        let About { format, schema, program, .. } = about;
        return Err(RestoreBackupError::OtherVersion { format, schema, program });
    }
    Ok(Restored { about, records: BTreeMap::new(), blobs: 0, bytes: 0 })
}

fn take_member(
    name: &str,
    size: u64,
    content: &mut impl Read,
    restored: &mut Restored,
    take: Taking<'_>,
) -> Result<(), RestoreBackupError> {
    let unknown = || malformed(format!("`{name}` is nothing that a backup holds"));
    let (folder, rest) = name.split_once('/').unwrap_or(("", name));
    match folder {
        "" => {
            let file = [Authority::FILE, ADMIN_TOKEN].into_iter().find(|file| *file == rest);
            take(Member::File(file.ok_or_else(unknown)?, in_memory(name, size, content)?))
        }
        "store" => {
            let (table, _) = rest.split_once('/').ok_or_else(unknown)?;
            let table = Table::ALL.into_iter().find(|it| it.name() == table).ok_or_else(unknown)?;
            let bytes = in_memory(name, size, content)?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let broken = || malformed(format!("`{name}` ends within a record"));
                let key = part(&mut rest).ok_or_else(broken)?;
                let value = part(&mut rest).ok_or_else(broken)?;
                *restored.records.entry(table.name()).or_default() += 1;
                take(Member::Record(table, key, value))?;
            }
            Ok(())
        }
        "components" | "inputs" => {
            let folder = if folder == "inputs" { "inputs" } else { "components" };
            let digest = format!("sha256:{rest}").parse().map_err(|_| unknown())?;
            restored.blobs += 1;
            let mut content = Summed { content, hash: Sha256::new(), length: 0 };
            take(Member::Blob(folder, digest, &mut content))?;
            io::copy(&mut content, &mut io::sink()).map_err(unreadable)?;
            match Digest::from_sha256(content.hash.finalize().into()) {
                found if found == digest => Ok(()),
                found => Err(malformed(format!("`{name}` has the bytes of {found}"))),
            }
        }
        _ => Err(unknown()),
    }
}

/// Takes one key or value off what is left of a member.
fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (part, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

fn in_memory(name: &str, size: u64, content: &mut impl Read) -> Result<Vec<u8>, RestoreBackupError> {
    if size > MAX_MEMBER {
        return Err(malformed(format!("`{name}` has {size} bytes, and {MAX_MEMBER} are the most")));
    }
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// What the archive's reader says of an archive that is none, or not whole, has no code of the system.
fn unreadable(error: io::Error) -> RestoreBackupError {
    match error.raw_os_error() {
        Some(_) => error.into(),
        None => malformed(error.to_string()),
    }
}

fn malformed(what: String) -> RestoreBackupError {
    RestoreBackupError::Malformed(what)
}

fn unwritten(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RestoreBackupError {
    RestoreBackupError::Write { path: path.to_owned(), source: source.into() }
}

/// A state folder that is being made.
struct Target {
    folder: PathBuf,
    store: Embedded,
    writes: Vec<Write>,
    /// How many bytes these have.
    waiting: usize,
    components: Components,
    inputs: Components,
}

impl Target {
    fn make(folder: &Path) -> Result<Self, RestoreBackupError> {
        let blobs = |name: &str| {
            let path = folder.join(name);
            Components::open_folder(&path, MAX_BLOB, Bytes(0)).map_err(|error| unwritten(&path, error))
        };
        let path = folder.join("store");
        let store = Embedded::open(&path).map_err(|error| unwritten(&path, error))?;
        Ok(Self {
            folder: folder.to_owned(),
            store,
            writes: Vec::new(),
            waiting: 0,
            components: blobs("components")?,
            inputs: blobs("inputs")?,
        })
    }

    fn take(&mut self, member: Member<'_>) -> Result<(), RestoreBackupError> {
        match member {
            Member::File(name, bytes) => {
                let path = self.folder.join(name);
                write_private(&path, &bytes).map_err(|error| unwritten(&path, error))
            }
            Member::Record(table, key, value) => {
                self.writes.push(Write { table, key: key.to_vec(), value: Some(value.to_vec()) });
                self.waiting += key.len() + value.len();
                if self.writes.len() < BATCH && self.waiting < BATCH_BYTES { Ok(()) } else { self.commit() }
            }
            Member::Blob(folder, digest, content) => {
                let blobs = if folder == "inputs" { &self.inputs } else { &self.components };
                let failed = |error| unwritten(&blobs.path(&digest), error);
                let mut blob = blobs.begin().map_err(failed)?;
                let mut buffer = vec![0; 64 << 10];
                loop {
                    match content.read(&mut buffer).map_err(unreadable)? {
                        0 => break,
                        count => blob.write(&buffer[..count]).map_err(failed)?,
                    }
                }
                blob.finish(Some(digest)).map_err(failed)?;
                Ok(())
            }
        }
    }

    fn commit(&mut self) -> Result<(), RestoreBackupError> {
        let writes = std::mem::take(&mut self.writes);
        self.waiting = 0;
        self.store.commit(&writes).map_err(|error| unwritten(&self.folder.join("store"), error))
    }

    /// Lets the coordinator that is started on it decide nothing at first: the fleet may be further than the backup.
    fn finish(&mut self, about: &About) -> Result<(), RestoreBackupError> {
        let recovery = RecoveryRecord {
            since: about.taken,
            reason: RecoveryReason::Restored { taken: about.taken },
            highest_term: Term(0),
            confirmed: false,
        };
        self.writes.extend(records::writes(&[Change::Recovery(recovery)], &mut Specs::default()));
        self.commit()?;
        for name in [Authority::FILE, ADMIN_TOKEN] {
            if !self.folder.join(name).exists() {
                return Err(malformed(format!("it has no `{name}`")));
            }
        }
        Ok(())
    }
}
