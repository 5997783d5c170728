//! What is known of instances that ended badly: bounded files on the node, which outlive worker and agent.
//!
//! Each workload has one file of JSON lines. When it is full it is written anew with the latest records alone.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use dunlin_model::{AllocationId, CoreDump, InstanceId, Revision, TrapRecord, WorkloadName};
use dunlin_protocol::TrapQuery;

use crate::folders::replace;

/// How many records of a workload are kept, and how many bytes of them.
const KEPT: usize = 50;
const KEPT_BYTES: usize = 1 << 20;
/// How many workloads keep their records.
const MAX_WORKLOADS: usize = 256;
/// How many records, and how many bytes of them, answer one question.
const MAX_TOLD: usize = 1000;
const MAX_TOLD_BYTES: usize = 8 << 20;
/// How a file's name ends.
const EXTENSION: &str = ".traps";

/// The traps of all workloads of this node.
pub(crate) struct Traps {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whose allocations these are: workers are not believed.
    owners: BTreeMap<AllocationId, (WorkloadName, Revision)>,
    /// How many records, and how many bytes, are in the files that were written to.
    lengths: BTreeMap<WorkloadName, (usize, usize)>,
    /// What became of the core dump of the latest.
    last_dump: Option<(InstanceId, CoreDump)>,
}

impl Traps {
    /// Returns the traps kept in `folder`.
    pub(crate) fn open(folder: PathBuf) -> Self {
        Self { folder, state: Mutex::default() }
    }

    /// Says whose an allocation is.
    pub(crate) fn started(&self, allocation: AllocationId, workload: &WorkloadName, revision: Revision) {
        self.state().owners.insert(allocation, (workload.clone(), revision));
    }

    /// Says that nothing more will come of an allocation.
    pub(crate) fn stopped(&self, allocation: AllocationId) {
        self.state().owners.remove(&allocation);
    }

    /// Keeps `trap`, of an allocation that was started.
    pub(crate) fn keep(&self, trap: TrapRecord) {
        let mut state = self.state();
        let Some((workload, revision)) = state.owners.get(&trap.instance.allocation).cloned() else { return };
        let trap = TrapRecord { workload, revision, ..trap.bounded() };
        state.last_dump = trap.coredump.clone().map(|dump| (trap.instance, dump));
        if let Err(error) = self.append(&mut state, &trap) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(instance = %trap.instance, error, "record of a trap could not be kept");
        }
    }

    /// Returns what became of the core dump of the latest trap, if it was to have one.
    pub(crate) fn last_dump(&self) -> Option<(InstanceId, CoreDump)> {
        self.state().last_dump.clone()
    }

    fn append(&self, state: &mut State, trap: &TrapRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(trap)?;
        line.push(b'\n');
        let path = self.path(&trap.workload);
        if !state.lengths.contains_key(&trap.workload) {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            if !path.exists() {
                self.make_room(state)?;
            }
            let lines = self.lines(&trap.workload);
            state.lengths.insert(trap.workload.clone(), (lines.len(), lines.iter().map(String::len).sum()));
        }
        let length = state.lengths.get_mut(&trap.workload).expect("it was just inserted");
        *length = (length.0 + 1, length.1 + line.len());
        if length.0 <= 2 * KEPT && length.1 <= 2 * KEPT_BYTES {
            return OpenOptions::new().create(true).append(true).mode(0o600).open(path)?.write_all(&line);
        }
        let mut lines: Vec<Vec<u8>> =
            self.lines(&trap.workload).into_iter().map(String::into_bytes).collect();
        lines.push(line);
        let mut bytes = 0;
        let fits = |line: &&Vec<u8>| {
            bytes += line.len() + 1;
            bytes <= KEPT_BYTES
        };
        let kept = lines.iter().rev().take(KEPT).take_while(fits).count();
        let mut whole = Vec::new();
        for line in &lines[lines.len() - kept..] {
            whole.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
            whole.push(b'\n');
        }
        *length = (kept, whole.len());
        replace(&path, &whole)
    }

    /// Removes the files of the workloads that had no trap for longest.
    fn make_room(&self, state: &mut State) -> io::Result<()> {
        let mut written: Vec<(SystemTime, PathBuf)> = fs::read_dir(&self.folder)?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                entry.file_name().to_str()?.strip_suffix(EXTENSION)?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
            })
            .collect();
        written.sort_unstable();
        let surplus = (written.len() + 1).saturating_sub(MAX_WORKLOADS);
        for (_, path) in written.iter().take(surplus) {
            fs::remove_file(path)?;
        }
        if surplus > 0 {
            state.lengths.clear();
        }
        Ok(())
    }

    /// Returns the records that `query` wants, of each workload the latest, oldest first.
    pub(crate) fn find(&self, query: &TrapQuery) -> Vec<TrapRecord> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let workloads = entries.filter_map(|entry| workload(entry.ok()?.file_name().to_str()?));
        let mut found: Vec<TrapRecord> = Vec::new();
        for workload in workloads.filter(|workload| query.is_of(workload)) {
            // A line cut short by a power loss is skipped, the rest is told.
            let records =
                self.lines(&workload).into_iter().filter_map(|line| serde_json::from_str(&line).ok());
            let records: Vec<TrapRecord> =
                records.filter(|trap: &TrapRecord| trap.workload == workload && query.wants(trap)).collect();
            let surplus = records.len().saturating_sub(KEPT);
            found.extend(records.into_iter().skip(surplus));
        }
        found.sort_by_key(|trap| (trap.at, trap.instance));
        let most = usize::try_from(query.tail).unwrap_or(usize::MAX).min(MAX_TOLD);
        let mut bytes = 0;
        let fits = |trap: &&TrapRecord| {
            bytes += serde_json::to_vec(trap).map_or(0, |json| json.len());
            bytes <= MAX_TOLD_BYTES
        };
        let told = found.iter().rev().take(most).take_while(fits).count();
        found.split_off(found.len() - told)
    }

    fn lines(&self, workload: &WorkloadName) -> Vec<String> {
        let Ok(file) = File::open(self.path(workload)) else { return Vec::new() };
        BufReader::new(file).lines().map_while(Result::ok).collect()
    }

    fn path(&self, workload: &WorkloadName) -> PathBuf {
        // Names have no dots.
        let WorkloadName { namespace, app, workload } = workload;
        self.folder.join(format!("{namespace}.{app}.{workload}{EXTENSION}"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whose file this is.
fn workload(file: &str) -> Option<WorkloadName> {
    file.strip_suffix(EXTENSION)?.replace('.', "/").parse().ok()
}

#[cfg(test)]
mod tests {
    use dunlin_model::{Bytes, DurationMs, Fuel, HostCalls, Outcome, Timestamp};

    use super::*;

    const ALLOCATION: AllocationId = AllocationId::new(1);

    fn trap(number: u64) -> TrapRecord {
        TrapRecord {
            at: Timestamp(number),
            instance: InstanceId { allocation: ALLOCATION, number },
            workload: "forged/by/worker".parse().unwrap(),
            revision: Revision(9),
            outcome: Outcome::Trapped { reason: "unreachable".to_owned() },
            fuel: Fuel(1),
            memory: Bytes(2),
            wall: DurationMs(3),
            host: HostCalls::default(),
            frames: Vec::new(),
            host_calls: Vec::new(),
            stderr: Vec::new(),
            missed: 0,
            coredump: None,
        }
    }

    fn traps(folder: &std::path::Path) -> Traps {
        let traps = Traps::open(folder.to_owned());
        traps.started(ALLOCATION, &"default/shop/cart".parse().unwrap(), Revision(4));
        traps
    }

    fn all() -> TrapQuery {
        TrapQuery { tail: 1000, ..TrapQuery::default() }
    }

    fn numbers(found: &[TrapRecord]) -> Vec<u64> {
        found.iter().map(|trap| trap.instance.number).collect()
    }

    #[test]
    fn the_latest_records_are_kept_also_by_the_next_agent_and_a_worker_cannot_say_whose_they_are() {
        let folder = tempfile::tempdir().unwrap();
        traps(folder.path()).keep(trap(0));
        for number in 1..230 {
            // Each is an agent of its own.
            traps(folder.path()).keep(trap(number));
        }
        let later = Traps::open(folder.path().to_owned());
        let found = later.find(&all());
        assert_eq!(numbers(&found), (180..230).collect::<Vec<_>>());
        assert_eq!(found[0].workload.to_string(), "default/shop/cart");
        assert_eq!(found[0].revision, Revision(4));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        later.keep(trap(1000));
        assert_eq!(later.find(&all()).len(), 50, "what was not started here is not believed");
    }

    #[test]
    fn a_question_finds_what_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let traps = traps(folder.path());
        traps.started(AllocationId::new(2), &"default/shop/pay".parse().unwrap(), Revision(4));
        for number in 1..4 {
            traps.keep(trap(number));
            let instance = InstanceId { allocation: AllocationId::new(2), number };
            traps.keep(TrapRecord { instance, ..trap(number) });
        }
        let count = |query: TrapQuery| traps.find(&query).len();
        assert_eq!(count(all()), 6);
        assert_eq!(count(TrapQuery { tail: 2, ..all() }), 2);
        assert_eq!(count(TrapQuery { workload: Some("pay".parse().unwrap()), ..all() }), 3);
        assert_eq!(count(TrapQuery { namespace: Some("other".parse().unwrap()), ..all() }), 0);
        assert_eq!(count(TrapQuery { allocation: Some(ALLOCATION), ..all() }), 3);
        assert_eq!(count(TrapQuery { allocation: Some(ALLOCATION), instance: Some(3), ..all() }), 1);
        fs::write(folder.path().join("default.shop.pay.traps"), b"{\"cut").unwrap();
        assert_eq!(count(all()), 3, "a line that is cut short harms no other");
    }

    #[test]
    fn what_is_kept_is_bounded_however_large_the_records_are() {
        let folder = tempfile::tempdir().unwrap();
        let traps = traps(folder.path());
        for number in 0..300 {
            let stderr = vec!["\u{1}".repeat(TrapRecord::MAX_LINE); TrapRecord::MAX_LINES];
            traps.keep(TrapRecord { stderr, ..trap(number) });
        }
        let size: u64 =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!((1..=2 << 20).contains(&size), "{size} bytes are kept");
        assert_eq!(numbers(&traps.find(&all())).last(), Some(&299));
    }

    #[test]
    fn the_workloads_that_had_none_for_longest_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let traps = traps(folder.path());
        for number in 0..MAX_WORKLOADS as u64 + 5 {
            let allocation = AllocationId::new(number);
            traps.started(allocation, &format!("default/shop/w{number}").parse().unwrap(), Revision(1));
            traps.keep(TrapRecord { instance: InstanceId { allocation, number }, ..trap(number) });
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), MAX_WORKLOADS);
    }
}
