//! The users of worker processes: a number for each, out of a range that the operator sets, kept for ever.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::folders;
use crate::settings::WorkerUids;

/// Which users were given to whom.
#[derive(Debug)]
pub(crate) struct Users {
    path: PathBuf,
    range: WorkerUids,
    given: Mutex<BTreeMap<String, u32>>,
}

impl Users {
    /// Returns those in the file `path`, as far as they are in `range`. What is not as it was written, or was
    /// written by an earlier build, is `InvalidData`.
    pub(crate) fn open(path: PathBuf, range: WorkerUids) -> io::Result<Self> {
        let mut given: BTreeMap<String, u32> = match std::fs::read(&path) {
            Ok(bytes) => from_bytes(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        given.retain(|_, user| range.contains(*user));
        Ok(Self { path, range, given: Mutex::new(given) })
    }

    /// Returns the user of `owner`, which is nobody else's.
    pub(crate) fn of(&self, owner: &str) -> io::Result<u32> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(user) = given.get(owner) {
            return Ok(*user);
        }
        let user = self.free(owner, &given).ok_or_else(|| {
            io::Error::other(format!("all {} numbers of `worker_uids` are in use", self.range.count))
        })?;
        given.insert(owner.to_owned(), user);
        // Kept before it is used: files will belong to that user.
        folders::replace(&self.path, &to_bytes(&given)?)?;
        Ok(user)
    }

    /// Begins at a number derived from the name, so that other nodes mostly choose the same.
    fn free(&self, owner: &str, given: &BTreeMap<String, u32>) -> Option<u32> {
        let WorkerUids { start, count } = self.range;
        let hash = Sha256::digest(owner);
        let first = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]).checked_rem(count)?;
        let numbers = (first..count).chain(0..first).map(|offset| start + offset);
        numbers.into_iter().find(|number| !given.values().any(|user| user == number))
    }
}

/// The table as it is kept: another number would let one in where another is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// The SHA-256 of the rest.
    sum: String,
    users: BTreeMap<String, u32>,
}

fn sum(users: &BTreeMap<String, u32>) -> io::Result<String> {
    Ok(hex::encode(Sha256::digest(serde_json::to_vec(users)?)))
}

fn to_bytes(users: &BTreeMap<String, u32>) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&Kept { sum: sum(users)?, users: users.clone() })?)
}

fn from_bytes(bytes: &[u8]) -> io::Result<BTreeMap<String, u32>> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is not as it was written");
    let kept: Kept = serde_json::from_slice(bytes).map_err(|_| damaged())?;
    if sum(&kept.users)? == kept.sum { Ok(kept.users) } else { Err(damaged()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_one_user_for_ever_and_nobody_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let open =
            |count| Users::open(folder.path().join("users.json"), WorkerUids { start: 1000, count }).unwrap();
        let users = open(3);
        let three = ["a", "b", "c"].map(|owner| users.of(owner).unwrap());
        assert!(three.iter().all(|user| (1000..1003).contains(user)), "{three:?}");
        assert!(three[0] != three[1] && three[0] != three[2] && three[1] != three[2], "{three:?}");
        assert!(users.of("d").unwrap_err().to_string().contains("worker_uids"));
        assert_eq!(["a", "b", "c"].map(|owner| open(3).of(owner).unwrap()), three);
        // One that is not as it was is no table.
        let path = folder.path().join("users.json");
        let whole = std::fs::read(&path).unwrap();
        for byte in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            let error = Users::open(path.clone(), WorkerUids { start: 1000, count: 3 }).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        std::fs::write(&path, whole).unwrap();
        assert!(open(0).of("a").is_err(), "who was given a number out of the range needs another");
    }
}
