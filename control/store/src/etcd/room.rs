//! How full a member of etcd is, and what follows from it.
//!
//! A member's quota counts its whole file. What was deleted leaves holes in the file, which are filled again; only
//! defragmenting makes the file smaller, and the member answers nothing meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dunlin_model::Bytes;

use super::message::StatusResponse;

/// How many hundredths of its quota a member may use before wishes are refused. That is long before the quota is
/// reached, since then it would take no checkpoint either, which alone makes room.
const FULL: u64 = 80;
/// A member that is full is defragmented if it uses no more hundredths than this afterwards: there must be some room then.
const ROOMY: u64 = 75;
/// A member may be defragmented for so much of the time, as one part of so many.
const PART: u32 = 10;

/// The file of one member.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    size: u64,
    used: u64,
    quota: u64,
}

impl File {
    pub(super) fn new(status: &StatusResponse, quota: Bytes) -> Self {
        let bytes = |size: i64| u64::try_from(size).unwrap_or_default();
        Self { size: bytes(status.db_size), used: bytes(status.db_size_in_use), quota: quota.0 }
    }

    /// Tells whether more may be written.
    pub(super) fn has_room(self) -> bool {
        self.size < self.quota / 100 * FULL
    }

    /// Tells whether defragmenting is worth that the member answers nothing for a while: it gives back half of a large
    /// file, or is what gives room to a full one.
    pub(super) fn is_sparse(self) -> bool {
        let is_large = self.size > self.quota / 2;
        let is_mostly_holes = self.used < self.size / 2;
        let gets_room = !self.has_room() && self.used <= self.quota / 100 * ROOMY;
        is_large && is_mostly_holes || gets_room
    }
}

/// When each member was defragmented last.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// When it ended, and how long it took.
    last: BTreeMap<usize, (Instant, Duration)>,
}

impl Attempts {
    /// Tells whether a member may be silent again: most of the time it must not be, also if nothing comes of it.
    pub(super) fn may_begin(&self, member: usize, now: Instant) -> bool {
        self.last.get(&member).is_none_or(|(ended, took)| now.duration_since(*ended) >= *took * PART)
    }

    /// Notes an attempt.
    pub(super) fn ended(&mut self, member: usize, began: Instant, now: Instant) {
        self.last.insert(member, (now, now.duration_since(began)));
    }
}

impl std::fmt::Display for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (size, used, quota) = (Bytes(self.size), Bytes(self.used), Bytes(self.quota));
        write!(f, "{used} in use of a file of {size}, with a quota of {quota}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64, used: u64) -> File {
        File { size, used, quota: 100_000 }
    }

    #[test]
    fn defragmenting_gives_back_half_of_a_large_file_or_room_to_a_full_one() {
        for (size, used, has_room, is_sparse) in [
            // Small: what it would give back is little.
            (40_000, 100, true, false),
            (60_000, 29_000, true, true),
            (60_000, 31_000, true, false),
            (80_000, 39_000, false, true),
            // Without defragmenting it would stay full for ever, though there is room.
            (80_000, 41_000, false, true),
            (128_000, 66_000, false, true),
            (80_000, 75_000, false, true),
            // It would be full again at once.
            (80_000, 76_000, false, false),
        ] {
            let file = file(size, used);
            assert_eq!((file.has_room(), file.is_sparse()), (has_room, is_sparse), "{file}");
        }
    }

    #[test]
    fn a_member_is_not_defragmented_most_of_the_time() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let mut attempts = Attempts::default();
        assert!(attempts.may_begin(0, began));
        let ended = began + second * 5;
        attempts.ended(0, began, ended);
        assert!(!attempts.may_begin(0, ended + second * 49));
        assert!(attempts.may_begin(1, ended));
        assert!(attempts.may_begin(0, ended + second * 50));
    }
}
