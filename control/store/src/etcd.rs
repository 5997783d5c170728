//! The store in etcd, for several coordinators of which one is in charge.
//!
//! etcd holds a log: each batch of writes is one entry, or a few for a large batch. Each coordinator keeps a copy of
//! all records in its own folder, an [`Embedded`] one, and brings it up to date from the log; so questions cost etcd
//! nothing, and who takes over has everything at hand already. From time to time the one in charge writes a
//! checkpoint and deletes the log before it. So there are few keys, and none is large, however large the fleet:
//!
//! | Key, behind the prefix | What |
//! | --- | --- |
//! | `leader` | who is in charge: bound to a lease, gone when that ends |
//! | `fleet` | the fleet's authority and its administrator's token |
//! | `log/NUMBER` | a batch of writes, or a piece of one |
//! | `checkpoint` | which segments make all records of one moment |
//! | `segment/HASH/NUMBER` | some of the records, or a piece of them |
//!
//! Every write is a transaction on the condition that `leader` is still what this coordinator put there. A coordinator
//! that was paused, or cut off, can so write nothing once another one is in charge: its word is void before anybody
//! has heard it. (`leader` is made anew by each one, and etcd numbers what is made: that number is compared.)
//!
//! | File | What |
//! | --- | --- |
//! | `location` | where etcd is |
//! | `client`, `message` | how it is spoken to |
//! | `entry` | batches as pieces |
//! | `follow` | the copy brought up to date |
//! | `reign` | who is in charge |
//! | `checkpoint` | all records as segments |
//! | `replicated` | [`Changes`](crate::Changes) of the one in charge |

mod checkpoint;
mod client;
mod entry;
mod follow;
mod location;
mod message;
mod reign;
mod replicated;
mod room;

use std::path::Path;
use std::sync::{Arc, Mutex};

use self::client::Client;
pub use self::client::EtcdError;
use self::follow::Way;
pub use self::follow::{FollowError, Seen};
pub use self::location::{EtcdLocation, EtcdTls, LocationError};
use self::message::{
    Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, Request, RequestOp, TxnRequest,
    TxnResponse,
};
pub use self::reign::Reign;
pub use self::replicated::Replicated;
use crate::changes::Changes;
use crate::embedded::{Embedded, OpenError};

/// Why a store in etcd could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenEtcdError {
    /// It would be spoken to in the clear.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// It cannot be spoken to.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// The copy in the own folder cannot be used.
    #[error(transparent)]
    Copy(#[from] OpenError),
}

/// A fleet's state in etcd, and the copy of it in a folder. Its methods block; they must not be called in a task.
pub struct Etcd {
    shared: Shared,
    copy: Embedded,
    /// How far the log was read, beyond what makes whole batches.
    way: Mutex<Way>,
}

impl Etcd {
    /// Opens the copy in `folder`, and makes it if it is not there. Nothing is sent yet.
    pub fn open(location: EtcdLocation, folder: &Path) -> Result<Self, OpenEtcdError> {
        location.check()?;
        let copy = Embedded::open_copy(folder)?;
        let client = Client::new(&location)?;
        Ok(Self { shared: Shared { client, keys: Keys { location } }, copy, way: Mutex::default() })
    }

    /// Returns the copy, as it was brought up to date last.
    pub fn copy(&self) -> &dyn Changes {
        &self.copy
    }

    /// Returns what coordinators of this fleet have in common beside its state, if somebody has put it down.
    pub fn known_fleet(&self) -> Result<Option<Vec<u8>>, EtcdError> {
        let key = self.shared.keys.fleet();
        let found = self.shared.read(RangeRequest { key, ..RangeRequest::default() })?;
        Ok(found.into_iter().next().map(|found| found.value))
    }

    /// The same; if nobody has put it down yet, and nothing else is there either, it is `own` from now on.
    pub fn fleet(&self, own: Vec<u8>) -> Result<Vec<u8>, EtcdError> {
        if let Some(known) = self.known_fleet()? {
            return Ok(known);
        }
        let keys = &self.shared.keys;
        let is_new = vec![
            Compare::absent(keys.fleet()),
            Compare::absent(keys.log(1)),
            Compare::absent(keys.checkpoint()),
        ];
        let put = PutRequest { key: keys.fleet(), value: own, lease: 0 };
        // Whether it was this one, an earlier attempt of it or another coordinator, it is there now.
        self.shared.client.transact(&TxnRequest {
            compare: is_new,
            success: vec![Request::Put(put).into()],
            failure: Vec::new(),
        })?;
        self.known_fleet()?.ok_or(EtcdError::Unfinished)
    }

    /// Puts down what coordinators of this fleet have in common, when its records are there. There must be none yet.
    pub fn set_fleet(&self, value: &[u8]) -> Result<(), EtcdError> {
        let key = self.shared.keys.fleet();
        let put = PutRequest { key: key.clone(), value: value.to_vec(), lease: 0 };
        self.shared.client.transact(&TxnRequest {
            compare: vec![Compare::absent(key)],
            success: vec![Request::Put(put).into()],
            failure: Vec::new(),
        })?;
        if self.known_fleet()?.as_deref() == Some(value) { Ok(()) } else { Err(EtcdError::Deposed) }
    }

    /// Takes away what coordinators have in common, so that none takes what is left for a fleet. Fails if this one is not
    /// in charge.
    pub fn forget_fleet(&self, reign: &Reign) -> Result<(), EtcdError> {
        let key = self.shared.keys.fleet();
        let deletion = DeleteRangeRequest { key, range_end: Vec::new() };
        let condition = reign.condition(&self.shared.keys);
        self.shared.change(&[condition], vec![Request::DeleteRange(deletion).into()]).map(drop)
    }

    /// Tells whether there is a fleet here already, or anything of one.
    pub fn is_empty(&self) -> Result<bool, EtcdError> {
        let all = self.shared.keys.location.key("");
        let range = RangeRequest {
            range_end: Keys::end_of(all.clone()),
            key: all,
            limit: 1,
            keys_only: true,
            ..RangeRequest::default()
        };
        Ok(self.shared.read(range)?.is_empty())
    }

    /// Returns how much this fleet takes of etcd.
    pub fn footprint(&self) -> Result<Footprint, EtcdError> {
        let mut footprint = Footprint::default();
        let all = self.shared.keys.location.key("");
        let mut from = all.clone();
        loop {
            let range_end = Keys::end_of(all.clone());
            let found = self.shared.read(RangeRequest {
                key: from,
                range_end,
                limit: 50,
                ..RangeRequest::default()
            })?;
            let Some(last) = found.last() else { return Ok(footprint) };
            from = [last.key.as_slice(), &[0]].concat();
            for found in &found {
                let size = found.value.len() as u64;
                footprint.keys += 1;
                footprint.bytes += size;
                footprint.largest = footprint.largest.max(size);
            }
        }
    }

    /// Tries to be in charge: `me` is what others read of the one who is. Nobody may be.
    pub fn campaign(self: &Arc<Self>, me: &[u8]) -> Result<Option<Arc<Reign>>, EtcdError> {
        Reign::begin(self, me)
    }

    /// Returns the store of the one in charge: everything of those before is in it.
    pub fn lead(self: Arc<Self>, reign: Arc<Reign>) -> Result<Replicated, FollowError> {
        Replicated::begin(self, reign)
    }
}

/// How much a fleet takes of etcd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// How many keys.
    pub keys: u64,
    /// How many bytes all values have.
    pub bytes: u64,
    /// How many bytes the largest value has.
    pub largest: u64,
}

/// How etcd is spoken to, and the names of the keys.
struct Shared {
    client: Client,
    keys: Keys,
}

impl Shared {
    /// Returns what is in a range, at most what one answer holds.
    fn read(&self, range: RangeRequest) -> Result<Vec<KeyValue>, EtcdError> {
        let success = vec![Request::Range(range).into()];
        let answer = self.client.transact(&TxnRequest { success, ..TxnRequest::default() })?;
        Ok(answer.ranges().flatten().collect())
    }

    /// Makes a change on these conditions; it must be one that may happen twice. Returns the revision.
    fn change(&self, conditions: &[Compare], success: Vec<RequestOp>) -> Result<i64, EtcdError> {
        let request = TxnRequest { compare: conditions.to_vec(), success, failure: Vec::new() };
        let answer: TxnResponse = self.client.transact(&request)?;
        if !answer.succeeded {
            return Err(EtcdError::Deposed);
        }
        Ok(answer.revision())
    }
}

/// The names of the keys.
struct Keys {
    location: EtcdLocation,
}

impl Keys {
    fn leader(&self) -> Vec<u8> {
        self.location.key("leader")
    }

    fn fleet(&self) -> Vec<u8> {
        self.location.key("fleet")
    }

    fn checkpoint(&self) -> Vec<u8> {
        self.location.key("checkpoint")
    }

    /// An entry of the log. They are sorted as they are numbered.
    fn log(&self, index: u64) -> Vec<u8> {
        self.location.key(&format!("log/{index:020}"))
    }

    fn log_end(&self) -> Vec<u8> {
        Self::end_of(self.location.key("log/"))
    }

    fn segments(&self) -> Vec<u8> {
        self.location.key("segment/")
    }

    /// What the keys of a segment's pieces begin with.
    fn segment(&self, name: &[u8]) -> Vec<u8> {
        self.location.key(&format!("segment/{}/", hex::encode(name)))
    }

    fn segment_piece(&self, name: &[u8], piece: usize) -> Vec<u8> {
        self.location.key(&format!("segment/{}/{piece:04}", hex::encode(name)))
    }

    /// Where the range of keys ends that begin with `prefix`, which ends with a slash.
    fn end_of(mut prefix: Vec<u8>) -> Vec<u8> {
        if let Some(last) = prefix.last_mut() {
            *last += 1;
        }
        prefix
    }
}
