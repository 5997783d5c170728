//! What the machine says of processes: memory, threads, descriptors, children.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A process that has given back nothing for so long is at rest.
const REST: std::time::Duration = std::time::Duration::from_secs(6);
/// What counts as something.
const REST_STEP: u64 = 256 << 10;

/// What a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Open descriptors, but for the logs of allocations: an agent keeps a number of them open, which is bounded.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Processes that it has started.
    pub children: BTreeSet<u32>,
}

/// Returns the processes that `process` has started.
pub fn children(process: u32) -> BTreeSet<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// Returns what `process` holds.
pub fn read(process: u32) -> Reading {
    let entries =
        |what: &str| fs::read_dir(format!("/proc/{process}/{what}")).into_iter().flatten().flatten();
    let is_log = |path: &Path| path.components().any(|part| part.as_os_str() == "logs");
    let descriptors =
        entries("fd").filter(|entry| fs::read_link(entry.path()).is_ok_and(|path| !is_log(&path)));
    Reading {
        descriptors: descriptors.count(),
        threads: entries("task").count(),
        children: children(process),
    }
}

/// Returns how many bytes of a process are in memory and belong to nobody else.
pub fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|word| word.parse().ok());
    kibibytes.unwrap_or(0_u64) << 10
}

/// Returns how many bytes a process holds when it is at rest: it has had time to give back what it does not use.
pub async fn resident_at_rest(process: u32) -> u64 {
    let (mut least, mut since) = (u64::MAX, std::time::Instant::now());
    while since.elapsed() < REST {
        let now = resident(process);
        if now < least {
            // A few bytes less are no sign that more will follow.
            if least - now > REST_STEP {
                since = std::time::Instant::now();
            }
            least = now;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    least
}

/// Tells whether a process is there and not merely waiting to be reaped.
pub fn is_alive(process: u32) -> bool {
    i32::try_from(process).is_ok_and(dunlin_harness::is_running)
}

/// Waits until `probe` gives a value that is right, for ten seconds at most, and returns the last one.
pub async fn settled<T>(probe: impl Fn() -> T, is_right: impl Fn(&T) -> bool) -> T {
    let started = std::time::Instant::now();
    loop {
        let value = probe();
        if is_right(&value) || started.elapsed().as_secs() >= 10 {
            return value;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
