//! Durable changes and component bytes.
//!
//! [`Changes`] takes batches of writes and gives them back after any crash; [`Embedded`] does it in one file on this
//! machine, [`Replicated`] in etcd for several coordinators. [`Components`] keeps bytes by their digest in a folder beside it, and in
//! [`Objects`] where several coordinators share them.
//! What the records mean is the scheduler's business: here they are bytes under a key.

mod changes;
mod chunks;
mod components;
mod embedded;
mod etcd;
mod folder;
mod objects;
mod space;

pub use changes::{Changes, CommitError, Each, LoadError, Record, Snapshot, SnapshotError, Table, Write};
pub use components::{Components, ComponentsError, PartialBlob};
pub use embedded::{Embedded, EmbeddedConfig, OpenError, SCHEMA_VERSION};
pub use etcd::{
    Etcd, EtcdError, EtcdLocation, EtcdTls, FollowError, Footprint, LocationError, OpenEtcdError, Reign,
    Replicated, Seen,
};
pub use objects::{Objects, ObjectsError};
pub use space::{NoSpace, RESERVE};
