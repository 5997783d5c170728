//! What guests printed: bounded files on the node, and a live feed for those who follow.
//!
//! Each allocation has one file of JSON lines and the one before it. A line is framed by the host, so a guest can
//! neither forge another's line nor break the file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use dunlin_model::{AllocationId, Bytes, Limits, LogRecord};
use tokio::sync::broadcast;

use crate::dumps::Dumps;
use crate::traps::Traps;

/// What an allocation keeps that nobody has bounded: one of an earlier life of this agent.
const DEFAULT_KEPT: Bytes = Limits::SERVICE.log_kept;
/// How many allocations keep their files.
const MAX_ALLOCATIONS: usize = 256;
/// How many lines a slow follower may lag behind before lines are dropped for it.
const MAX_LAG: usize = 4096;

/// The logs of all allocations of this node.
pub(crate) struct Logs {
    folder: PathBuf,
    open: Mutex<Open>,
    live: broadcast::Sender<LogRecord>,
    traps: Traps,
    dumps: Dumps,
}

#[derive(Default)]
struct Open {
    files: BTreeMap<AllocationId, LogFile>,
    /// How much each allocation keeps.
    kept: BTreeMap<AllocationId, Bytes>,
}

struct LogFile {
    file: File,
    length: u64,
}

impl Logs {
    /// Returns the logs kept in `folder`.
    pub(crate) fn open(folder: PathBuf) -> Self {
        let traps = Traps::open(folder.join("traps"));
        let dumps = Dumps::open(folder.join("coredumps"));
        Self { folder, open: Mutex::default(), live: broadcast::channel(MAX_LAG).0, traps, dumps }
    }

    /// Returns what is known of instances that ended badly.
    pub(crate) fn traps(&self) -> &Traps {
        &self.traps
    }

    /// Returns the core dumps of instances that trapped.
    pub(crate) fn dumps(&self) -> &Dumps {
        &self.dumps
    }

    /// Says how much is kept of an allocation.
    pub(crate) fn bound(&self, allocation: AllocationId, kept: Bytes) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.kept.insert(allocation, kept);
    }

    /// Keeps `records` and passes them on to followers.
    pub(crate) fn keep(&self, records: Vec<LogRecord>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            let allocation = record.instance.allocation;
            if let Err(error) = self.append(&mut open, allocation, &record) {
                // A full disk must not stop guests; the live feed still has the line.
                tracing::warn!(%allocation, error = &error as &dyn std::error::Error, "log line could not be kept");
            }
            let _nobody_follows = self.live.send(record);
        }
    }

    fn append(&self, open: &mut Open, allocation: AllocationId, record: &LogRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        // An allocation keeps two files, of which the older goes when the newer is full.
        let most = open.kept.get(&allocation).copied().unwrap_or(DEFAULT_KEPT).0 / 2;
        if line.len() as u64 > most {
            return Ok(());
        }
        if !open.files.contains_key(&allocation) {
            self.make_room(open)?;
            open.files.insert(allocation, LogFile::open(&self.path(allocation))?);
        }
        let log = open.files.get_mut(&allocation).expect("it was just inserted");
        if log.length + line.len() as u64 > most {
            let path = self.path(allocation);
            fs::rename(&path, path.with_extension("log.1"))?;
            *log = LogFile::open(&path)?;
        }
        log.file.write_all(&line)?;
        log.length += line.len() as u64;
        Ok(())
    }

    /// Removes the files of the allocations that have been silent for longest, and closes what is open of them.
    fn make_room(&self, open: &mut Open) -> io::Result<()> {
        let mut written: Vec<(SystemTime, AllocationId)> = fs::read_dir(&self.folder)?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name();
                let allocation = name.to_str()?.strip_suffix(".log")?.parse().ok()?;
                Some((entry.metadata().ok()?.modified().ok()?, allocation))
            })
            .collect();
        written.sort_unstable();
        let surplus = (written.len() + 1).saturating_sub(MAX_ALLOCATIONS);
        for (_, allocation) in written.iter().take(surplus) {
            open.files.remove(allocation);
            open.kept.remove(allocation);
            let path = self.path(*allocation);
            for file in [path.with_extension("log.1"), path] {
                match fs::remove_file(&file) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Returns the latest `tail` lines of `allocation`, oldest first.
    pub(crate) fn tail(&self, allocation: AllocationId, tail: usize) -> Vec<LogRecord> {
        let path = self.path(allocation);
        let mut lines = std::collections::VecDeque::new();
        for file in [path.with_extension("log.1"), path] {
            let Ok(file) = File::open(file) else { continue };
            // A line cut short by a power loss is skipped, the rest is told.
            let records = BufReader::new(file).lines().map_while(Result::ok);
            for record in records.filter_map(|line| serde_json::from_str::<LogRecord>(&line).ok()) {
                lines.push_back(record);
                if lines.len() > tail {
                    lines.pop_front();
                }
            }
        }
        lines.into()
    }

    /// Returns the feed of all lines from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<LogRecord> {
        self.live.subscribe()
    }

    fn path(&self, allocation: AllocationId) -> PathBuf {
        self.folder.join(format!("{allocation}.log"))
    }
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::{InstanceId, LogSource, Timestamp};

    use super::*;

    fn record(allocation: u64, text: &str) -> LogRecord {
        let instance = InstanceId { allocation: AllocationId::new(allocation), number: 1 };
        LogRecord { at: Timestamp(1), instance, source: LogSource::Stdout, text: text.to_owned() }
    }

    #[test]
    fn the_latest_lines_are_told_oldest_first() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::open(folder.path().to_owned());
        logs.keep((0..10).map(|line| record(1, &line.to_string())).collect());
        let texts: Vec<String> =
            logs.tail(AllocationId::new(1), 3).into_iter().map(|record| record.text).collect();
        assert_eq!(texts, ["7", "8", "9"]);
    }

    #[test]
    fn the_files_of_one_allocation_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::open(folder.path().to_owned());
        let long = "x".repeat(LogRecord::MAX_TEXT);
        logs.bound(AllocationId::new(1), Bytes(1 << 20));
        for _ in 0..3 * (1 << 20) / LogRecord::MAX_TEXT {
            logs.keep(vec![record(1, &long)]);
        }
        let size: u64 =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!((1 << 19..=1 << 20).contains(&size), "{size} bytes are kept of 1 MiB");
        logs.bound(AllocationId::new(2), Bytes(0));
        logs.keep(vec![record(2, "a line")]);
        assert!(logs.tail(AllocationId::new(2), 1).is_empty());
    }

    #[test]
    fn the_oldest_allocations_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::open(folder.path().to_owned());
        for allocation in 0..MAX_ALLOCATIONS as u64 + 5 {
            logs.keep(vec![record(allocation, "line")]);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), MAX_ALLOCATIONS);
        assert!(logs.tail(AllocationId::new(0), 1).is_empty());
    }
}
