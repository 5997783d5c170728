//! The store in one file on this machine, built on redb.
//!
//! A commit is acknowledged after two synced steps, so the file is whole at every moment. The file is made under
//! another name first, since redb cannot open one whose making was interrupted. A file that is damaged, or that was
//! there and is gone, is refused: an empty store would tell a fleet to stop everything.
//!
//! Not here: copies to other machines, and repair, which is the operator's decision.

use std::any::Any;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use dunlin_model::Bytes;
use dunlin_planted::{Bug, Point, fails, planted};
use redb::{Database, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use crate::changes::{Changes, CommitError, Each, LoadError, Record, Snapshot, SnapshotError, Table, Write};
use crate::folder::{self, Folder, FolderError};
use crate::space::{self, NoSpace, RESERVE};

/// The version of how tables, keys and values are laid out. Any other is refused: what a state of
/// an earlier version holds cannot be read by this one.
pub const SCHEMA_VERSION: u64 = 4;

const FILE: &str = "store.redb";
/// The file while it is made; never one that anybody relies on.
const UNFINISHED: &str = "store.redb.unfinished";
/// Says that there was a store here and how many commits it had at least, so that it is noticed when it is gone, or
/// older than it was: one flipped bit makes redb open the commit before the last one.
const MARKER: &str = "store.created";
/// What the store knows of itself.
const OWN: TableDefinition<'_, &str, u64> = TableDefinition::new("store");
const SCHEMA: &str = "schema";
/// How far a copy has come: see [`Position`].
const INDEX: &str = "index";
const REIGN: &str = "reign";
/// Counts commits, so that it can be told whether one that failed has happened after all.
const COMMITS: &str = "commits";
const CACHE: usize = 64 << 20;
/// How many records one commit of `delete_prefix` deletes: other commits wait for it no longer than for their like.
const DELETE_BATCH: usize = 1_000;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What may be set of an embedded store.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedConfig {
    /// How much free space is left untouched.
    pub reserve: Bytes,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self { reserve: RESERVE }
    }
}

/// How far a copy of what is elsewhere has come: up to which entry of its log, and who wrote that one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) index: u64,
    pub(crate) reign: u64,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store in {folder} is in use by the process with pid {pid}; stop that first")]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The other process.
        pid: String,
    },
    /// Its file is not as it was written.
    #[error(
        "the store {file} is damaged; move the state folder away and make it anew from a backup with `dunlin restore`, \
         or start with an empty folder to give up all it held"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What was found.
        #[source]
        source: Cause,
    },
    /// Its file is gone.
    #[error(
        "the store {file} is missing although there was one; move the state folder away and make it anew from a \
         backup with `dunlin restore`, or start with an empty folder to give up all it held"
    )]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// A later program wrote it.
    #[error(
        "the store {file} has schema {found} and this program knows up to {SCHEMA_VERSION}; use a newer program"
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its schema.
        found: u64,
    },
    /// An earlier program wrote it.
    #[error(
        "the store {file} has schema {found} and this program knows only {SCHEMA_VERSION}; use the program that \
         wrote it, or start with an empty folder to give up all it held"
    )]
    Older {
        /// The file.
        file: PathBuf,
        /// Its schema.
        found: u64,
    },
    /// The disk has no room to make it.
    #[error("could not make the store in {folder}: the storage is full")]
    StorageFull {
        /// The folder.
        folder: PathBuf,
        /// How full.
        #[source]
        source: NoSpace,
    },
    /// The disk failed.
    #[error("could not open the store in {folder}")]
    Io {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// A store in one file on this machine.
pub struct Embedded {
    folder: Folder,
    config: EmbeddedConfig,
    /// Taken for writing only to open the file anew.
    database: RwLock<Option<Database>>,
    /// Held during each commit, so that commits queue here.
    commits: Mutex<Commits>,
}

/// How many commits there were.
struct Commits {
    count: u64,
    /// A copy has none: what it lacks is had from where it was copied.
    marker: Option<fs::File>,
}

impl Commits {
    /// Notes the commit that has just become durable. The note itself is not synced: after a loss of power it may
    /// lag behind, which does no harm, but it can never be ahead.
    fn advance(&mut self, count: u64) {
        self.count = count;
        let Some(marker) = &self.marker else { return };
        if let Err(error) = marker.write_all_at(format!("{count:020}").as_bytes(), 0) {
            tracing::warn!(%error, "could not note the number of commits");
        }
    }
}

impl Embedded {
    /// Opens the store in `folder`, and makes it if there never was one.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_with(folder, EmbeddedConfig::default())
    }

    /// Opens the store in `folder` with another reserve than the default one.
    pub fn open_with(folder: &Path, config: EmbeddedConfig) -> Result<Self, OpenError> {
        let held = Folder::take(folder).map_err(|error| match error {
            FolderError::InUse { pid } => OpenError::InUse { folder: folder.to_owned(), pid },
            FolderError::Io(source) => io_error(folder, source),
        })?;
        make_if_new(folder, config.reserve)?;
        let file = folder.join(FILE);
        let damaged = |source| OpenError::Damaged { file: file.clone(), source };
        let (database, schema, commits) = guarded(|| open_file(&file)).map_err(damaged)?;
        if schema > SCHEMA_VERSION {
            return Err(OpenError::Newer { file, found: schema });
        }
        if schema == 0 {
            return Err(damaged("it has no schema version".into()));
        }
        if schema < SCHEMA_VERSION {
            return Err(OpenError::Older { file, found: schema });
        }
        let (noted, marker) = read_marker(&folder.join(MARKER)).map_err(damaged)?;
        if noted > commits {
            return Err(damaged(format!("it has {commits} commits and should have {noted}").into()));
        }
        let mut commits = Commits { count: commits, marker: Some(marker) };
        commits.advance(commits.count);
        let database = RwLock::new(Some(database));
        Ok(Self { folder: held, config, database, commits: Mutex::new(commits) })
    }

    /// Opens a copy of what is elsewhere, in `folder`. Whatever is wrong with it, it is made anew, and empty.
    pub(crate) fn open_copy(folder: &Path) -> Result<Self, OpenError> {
        let held = Folder::take(folder).map_err(|error| match error {
            FolderError::InUse { pid } => OpenError::InUse { folder: folder.to_owned(), pid },
            FolderError::Io(source) => io_error(folder, source),
        })?;
        let file = folder.join(FILE);
        let opened = guarded(|| open_file(&file)).ok().filter(|(_, schema, _)| *schema == SCHEMA_VERSION);
        let (database, _, count) = match opened {
            Some(opened) => opened,
            None => {
                let failed = |source| OpenError::Io { folder: folder.to_owned(), source };
                remove_if_there(&file).map_err(|error| failed(error.into()))?;
                guarded(|| make(&file)).map_err(failed)?;
                guarded(|| open_file(&file)).map_err(failed)?
            }
        };
        let database = RwLock::new(Some(database));
        // It has no reserve of its own: what it is a copy of was accepted already.
        let config = EmbeddedConfig { reserve: Bytes(0) };
        let commits = Mutex::new(Commits { count, marker: None });
        Ok(Self { folder: held, config, database, commits })
    }

    /// Makes a copy come so far. Unless it is `durable` it may be forgotten with the process, as a whole with its
    /// position.
    pub(crate) fn commit_at(
        &self,
        writes: &[Write],
        position: Position,
        durable: bool,
    ) -> Result<(), CommitError> {
        self.with_transaction(durable, |transaction| {
            put_all(transaction, writes)?;
            put_position(transaction, position)
        })
    }

    /// Empties a copy.
    pub(crate) fn clear(&self) -> Result<(), CommitError> {
        self.with_transaction(true, |transaction| {
            for table in Table::ALL {
                transaction.delete_table(definition(table))?;
                transaction.open_table(definition(table))?;
            }
            put_position(transaction, Position::default())
        })
    }

    /// Returns how far a copy has come.
    pub(crate) fn position(&self) -> Result<Position, LoadError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let position = guarded(|| position(&database.as_ref().ok_or("the store is closed")?.begin_read()?));
        position.map_err(|source| LoadError { table: "store", source })
    }

    /// As [`Changes::snapshot`], and tells how far the copy had come.
    pub(crate) fn snapshot_at(
        &self,
        reading: &mut dyn FnMut(&dyn Snapshot, Position) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        // Held to the end: the file cannot be opened anew while somebody reads it.
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let begun = guarded(|| {
            let transaction = database.as_ref().ok_or("the store is closed")?.begin_read()?;
            let position = position(&transaction)?;
            Ok((transaction, position))
        });
        let (transaction, position) = begun.map_err(|source| LoadError { table: "all", source })?;
        reading(&Moment(transaction), position)
    }

    fn with_transaction(
        &self,
        durable: bool,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<(), Cause>,
    ) -> Result<(), CommitError> {
        let _one_at_a_time = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(|| CommitError::Io("the store is closed".into()))?;
        let done = guarded(|| {
            let mut transaction = begin(database)?;
            if !durable {
                transaction.set_two_phase_commit(false);
                transaction.set_durability(redb::Durability::None)?;
            }
            work(&transaction)?;
            transaction.commit()?;
            Ok(())
        });
        done.map_err(CommitError::Io)
    }

    fn write(&self, writes: &[Write]) -> Result<(), CommitError> {
        if writes.is_empty() {
            return Ok(());
        }
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        if writes.iter().any(|write| write.value.is_some()) {
            space::check(self.folder.path(), self.config.reserve)
                .map_err(|error| CommitError::Io(error.into()))?
                .map_err(CommitError::StorageFull)?;
        }
        let number = commits.count + 1;
        let written = {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let database = database.as_ref().ok_or_else(|| CommitError::Io("the store is closed".into()))?;
            guarded(|| write_all(database, writes, number))
        };
        match written {
            Ok(()) => {}
            Err(error) => match full(&error) {
                Some(full) => self.recover(number, full)?,
                None => return Err(CommitError::Io(error)),
            },
        }
        commits.advance(number);
        Ok(())
    }

    /// Opens the file anew after a commit found no room, since redb trusts nothing after a failed write, and tells
    /// whether the commit has happened after all.
    fn recover(&self, number: u64, full: NoSpace) -> Result<(), CommitError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        drop(database.take());
        let file = self.folder.path().join(FILE);
        let (opened, _, commits) = guarded(|| open_file(&file)).map_err(CommitError::Io)?;
        *database = Some(opened);
        if commits == number { Ok(()) } else { Err(CommitError::StorageFull(full)) }
    }

    fn read<T>(
        &self,
        table: Table,
        reading: impl FnOnce(&dyn Reader) -> Result<T, Cause>,
    ) -> Result<T, LoadError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        guarded(|| {
            let database = database.as_ref().ok_or("the store is closed")?;
            let opened = database.begin_read()?.open_table(definition(table))?;
            reading(&opened)
        })
        .map_err(|source| LoadError { table: table.name(), source })
    }
}

impl Changes for Embedded {
    fn commit(&self, writes: &[Write]) -> Result<(), CommitError> {
        self.write(writes)
    }

    fn has_room(&self) -> bool {
        // What cannot be asked is left to the commit, which tells.
        !matches!(space::check(self.folder.path(), self.config.reserve), Ok(Err(_)))
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LoadError> {
        self.read(table, |records| records.one(key))
    }

    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, LoadError> {
        self.read(table, |records| records.some(prefix, after, limit))
    }

    fn snapshot(
        &self,
        reading: &mut dyn FnMut(&dyn Snapshot) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        self.snapshot_at(&mut |snapshot, _| reading(snapshot))
    }

    fn delete_prefix(&self, table: Table, prefix: &[u8]) -> Result<u64, CommitError> {
        let mut deleted = 0;
        loop {
            let keys = self
                .read(table, |records| records.keys(prefix, DELETE_BATCH))
                .map_err(|error| CommitError::Io(error.into()))?;
            let count = keys.len();
            let writes: Vec<Write> = keys.into_iter().map(|key| Write { table, key, value: None }).collect();
            self.write(&writes)?;
            deleted += count as u64;
            if count < DELETE_BATCH {
                return Ok(deleted);
            }
        }
    }
}

/// The file as it was at one moment.
struct Moment(redb::ReadTransaction);

impl Snapshot for Moment {
    fn each(&self, table: Table, each: Each<'_>) -> Result<(), SnapshotError> {
        let failed = |source| LoadError { table: table.name(), source };
        let mut taken = Ok(());
        guarded(|| {
            for record in self.0.open_table(definition(table))?.iter()? {
                let (key, value) = record?;
                taken = each(key.value(), value.value());
                if taken.is_err() {
                    break;
                }
            }
            Ok(())
        })
        .map_err(failed)?;
        taken.map_err(SnapshotError::Write)
    }
}

/// A table that is open for reading.
trait Reader {
    fn one(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Cause>;
    fn some(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Record>, Cause>;
    fn keys(&self, prefix: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Cause>;
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Reader for T {
    fn one(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Cause> {
        Ok(self.get(key)?.map(|value| value.value().to_vec()))
    }

    fn some(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Record>, Cause> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let start = match after {
            Some(after) if after >= prefix => Excluded(after),
            Some(_) | None => Included(prefix),
        };
        let mut records = Vec::new();
        for record in self.range::<&[u8]>((start, Unbounded))? {
            let (key, value) = record?;
            if records.len() == limit || !key.value().starts_with(prefix) {
                break;
            }
            records.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(records)
    }

    fn keys(&self, prefix: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Cause> {
        let mut keys = Vec::new();
        for record in self.range::<&[u8]>(prefix..)?.take(limit) {
            let (key, _) = record?;
            if !key.value().starts_with(prefix) {
                break;
            }
            keys.push(key.value().to_vec());
        }
        Ok(keys)
    }
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

fn io_error(folder: &Path, source: impl Into<Cause>) -> OpenError {
    OpenError::Io { folder: folder.to_owned(), source: source.into() }
}

/// Makes the file if there never was one; removes what is left of an interrupted attempt.
fn make_if_new(folder: &Path, reserve: Bytes) -> Result<(), OpenError> {
    let (file, unfinished, marker) = (folder.join(FILE), folder.join(UNFINISHED), folder.join(MARKER));
    let failed = |source: Cause| match full(&source) {
        Some(source) => OpenError::StorageFull { folder: folder.to_owned(), source },
        None => OpenError::Io { folder: folder.to_owned(), source },
    };
    remove_if_there(&unfinished).map_err(|error| failed(error.into()))?;
    if !file.try_exists().map_err(|error| failed(error.into()))? {
        if marker.try_exists().map_err(|error| failed(error.into()))? {
            return Err(OpenError::Missing { file });
        }
        space::check(folder, reserve)
            .map_err(|error| failed(error.into()))?
            .map_err(|source| OpenError::StorageFull { folder: folder.to_owned(), source })?;
        guarded(|| make(&unfinished)).map_err(failed)?;
        fails(Point::StoreCreateRename).map_err(|error| failed(error.into()))?;
        fs::rename(&unfinished, &file).map_err(|error| failed(error.into()))?;
        folder::sync(folder).map_err(|error| failed(error.into()))?;
    }
    if !marker.try_exists().map_err(|error| failed(error.into()))? {
        fs::File::create(&marker).map_err(|error| failed(error.into()))?;
        folder::sync(folder).map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// Returns the least number of commits that the store must have, and the file that says so.
fn read_marker(path: &Path) -> Result<(u64, fs::File), Cause> {
    let text = fs::read(path)?;
    // It is empty if its making was interrupted, and may be senseless after a loss of power, since it is not synced.
    let noted = str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok((noted, fs::File::options().write(true).open(path)?))
}

fn remove_if_there(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes an empty store, closed and synced.
fn make(file: &Path) -> Result<(), Cause> {
    let database = redb::Builder::new().set_cache_size(CACHE).create(file)?;
    let transaction = begin(&database)?;
    {
        let mut own = transaction.open_table(OWN)?;
        own.insert(SCHEMA, SCHEMA_VERSION)?;
        own.insert(COMMITS, 0)?;
        // A table exists from its first opening for writing on; readers may rely on all of them.
        for table in Table::ALL {
            transaction.open_table(definition(table))?;
        }
    }
    transaction.commit()?;
    database.close()?;
    fs::File::open(file)?.sync_all()?;
    Ok(())
}

/// Opens the file, with its schema version and its number of commits.
fn open_file(file: &Path) -> Result<(Database, u64, u64), Cause> {
    if fs::metadata(file)?.len() == 0 {
        return Err("it has no bytes".into());
    }
    // Every page is compared with its checksum, since redb may trust, or stumble over, what it has not checked.
    let database = redb::Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).open(file)?;
    let (schema, commits) = {
        let transaction = database.begin_read()?;
        let own = transaction.open_table(OWN)?;
        let value = |key: &str| -> Result<u64, Cause> { Ok(own.get(key)?.map_or(0, |value| value.value())) };
        let (schema, commits) = (value(SCHEMA)?, value(COMMITS)?);
        // Another schema has other tables, and is refused for what it is.
        if schema == SCHEMA_VERSION {
            for table in Table::ALL {
                transaction.open_table(definition(table))?;
            }
        }
        (schema, commits)
    };
    Ok((database, schema, commits))
}

fn begin(database: &Database) -> Result<redb::WriteTransaction, Cause> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(redb::Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    if planted(Bug::CommitWithoutSync) {
        transaction.set_quick_repair(false);
        transaction.set_two_phase_commit(false);
        transaction.set_durability(redb::Durability::None)?;
    }
    Ok(transaction)
}

fn write_all(database: &Database, writes: &[Write], number: u64) -> Result<(), Cause> {
    fails(Point::StoreBegin)?;
    let transaction = begin(database)?;
    put_all(&transaction, writes)?;
    transaction.open_table(OWN)?.insert(COMMITS, number)?;
    fails(Point::StoreBeforeCommit)?;
    transaction.commit()?;
    Ok(fails(Point::StoreAfterCommit)?)
}

fn put_all(transaction: &redb::WriteTransaction, writes: &[Write]) -> Result<(), Cause> {
    for table in Table::ALL {
        let mut of_table = writes.iter().filter(|write| write.table == table).peekable();
        if of_table.peek().is_none() {
            continue;
        }
        let mut opened = transaction.open_table(definition(table))?;
        for write in of_table {
            match &write.value {
                Some(value) => drop(opened.insert(write.key.as_slice(), value.as_slice())?),
                None => drop(opened.remove(write.key.as_slice())?),
            }
        }
    }
    Ok(())
}

fn put_position(transaction: &redb::WriteTransaction, position: Position) -> Result<(), Cause> {
    let mut own = transaction.open_table(OWN)?;
    own.insert(INDEX, position.index)?;
    own.insert(REIGN, position.reign)?;
    Ok(())
}

fn position(transaction: &redb::ReadTransaction) -> Result<Position, Cause> {
    let own = transaction.open_table(OWN)?;
    let value = |key: &str| -> Result<u64, Cause> { Ok(own.get(key)?.map_or(0, |value| value.value())) };
    Ok(Position { index: value(INDEX)?, reign: value(REIGN)? })
}

/// Runs what may panic on a damaged file, and makes an error of the panic.
fn guarded<T>(work: impl FnOnce() -> Result<T, Cause>) -> Result<T, Cause> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panic_text(&*panic).into()))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("its contents make no sense: {}", text.unwrap_or("unknown reason"))
}

/// Returns the want of room that an error comes from, if it does.
fn full(error: &Cause) -> Option<NoSpace> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(error) = cause {
        let found = error.downcast_ref::<io::Error>().or_else(|| storage_error(error));
        if let Some(found) = found.filter(|found| space::is_full(found)) {
            let code = found.raw_os_error().unwrap_or_default();
            return Some(NoSpace::Refused(io::Error::from_raw_os_error(code)));
        }
        cause = error.source();
    }
    None
}

/// Returns the operating system's error within one of redb's, which do not all name their source.
fn storage_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let storage = if let Some(error) = error.downcast_ref::<StorageError>() {
        error
    } else if let Some(redb::CommitError::Storage(error)) = error.downcast_ref() {
        error
    } else if let Some(redb::TableError::Storage(error)) = error.downcast_ref() {
        error
    } else if let Some(redb::TransactionError::Storage(error)) = error.downcast_ref() {
        error
    } else if let Some(redb::DatabaseError::Storage(error)) = error.downcast_ref() {
        error
    } else {
        return None;
    };
    match storage {
        StorageError::Io(error) => Some(error),
        _ => None,
    }
}
