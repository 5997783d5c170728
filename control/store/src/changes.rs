//! What a store of durable changes promises, whatever it is built on.

use crate::space::NoSpace;

/// A part of the store with keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Single values: the fleet's identity, the term, counters.
    Meta,
    /// Apps in their newest revision.
    Apps,
    /// Earlier revisions of apps.
    Revisions,
    /// Nodes that have joined.
    Nodes,
    /// Namespaces of which an operator has said something.
    Namespaces,
    /// Allocations.
    Allocations,
    /// Runs of jobs.
    Runs,
    /// The records of a run's items.
    Items,
    /// Tokens.
    Tokens,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Meta,
        Self::Apps,
        Self::Revisions,
        Self::Nodes,
        Self::Namespaces,
        Self::Allocations,
        Self::Runs,
        Self::Items,
        Self::Tokens,
    ];

    /// Returns the name alone.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Apps => "apps",
            Self::Revisions => "revisions",
            Self::Nodes => "nodes",
            Self::Namespaces => "namespaces",
            Self::Allocations => "allocations",
            Self::Runs => "runs",
            Self::Items => "items",
            Self::Tokens => "tokens",
        }
    }
}

/// One change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub table: Table,
    /// Of which record.
    pub key: Vec<u8>,
    /// What it is from now on; nothing deletes it.
    pub value: Option<Vec<u8>>,
}

/// A record: its key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// Durable records, changed in batches that happen wholly or not at all.
pub trait Changes: Send + Sync {
    /// Makes all `writes` durable, in their order, as one. They may be relied on when this returns.
    fn commit(&self, writes: &[Write]) -> Result<(), CommitError>;

    /// Tells whether what was decided may still be said: another coordinator may be in charge by now, and nothing of
    /// this one may reach anybody then, not even what needs no commit.
    fn is_in_charge(&self) -> bool {
        true
    }

    /// Tells whether there is room for more than deletions.
    ///
    /// A brain cannot take back what it has decided, so a wish is refused by this before it is decided.
    fn has_room(&self) -> bool;

    /// Returns the record under `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LoadError>;

    /// Returns up to `limit` records whose key begins with `prefix` and lies after `after`, ordered by key.
    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Record>, LoadError>;

    /// Returns all records of a table, ordered by key.
    fn load(&self, table: Table) -> Result<Vec<Record>, LoadError> {
        self.range(table, &[], None, usize::MAX)
    }

    /// Lets `reading` see all tables as they are at one moment, whatever is committed meanwhile.
    ///
    /// It may take long. A commit that finds the disk full waits for it.
    fn snapshot(
        &self,
        reading: &mut dyn FnMut(&dyn Snapshot) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError>;

    /// Deletes all records whose key begins with `prefix` and returns how many they were.
    ///
    /// A large number goes in several commits, so a crash may leave a part of them: delete again.
    fn delete_prefix(&self, table: Table, prefix: &[u8]) -> Result<u64, CommitError>;
}

/// What is called with the key and the value of a record.
pub type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> std::io::Result<()>;

/// All tables as they were at one moment.
pub trait Snapshot {
    /// Calls `each` with the key and the value of every record of a table, ordered by key, until it fails.
    fn each(&self, table: Table, each: Each<'_>) -> Result<(), SnapshotError>;
}

/// Why a snapshot was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Who reads it takes no more.
    #[error("could not pass on what the store holds")]
    Write(#[from] std::io::Error),
}

/// Why a batch was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// There is no room. Nothing of the batch was written; what was there can be read, and deleted.
    #[error("could not commit: the storage is full")]
    StorageFull(#[source] NoSpace),
    /// Another coordinator is in charge, or may be: nothing may be done any more. Whether the batch was written is not
    /// known. The process must end and start again.
    #[error("could not commit: this coordinator is not in charge any more")]
    Deposed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The disk failed, and what it holds is not known. The process must end and start again.
    #[error("could not commit")]
    Io(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
#[error("could not read table `{table}`")]
pub struct LoadError {
    /// Which.
    pub table: &'static str,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}
