//! Control groups: limits on the memory and the threads of a whole worker process, kept by the kernel.
//!
//! The agent makes its groups below the one it runs in, one for each worker. Version 2 wants a group with groups
//! below it to have no processes of its own, so there the agent first moves into a group beside those of its workers.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dunlin_model::Bytes;
use dunlin_protocol::{WallFinding, WallPart, WallState};
use nix::unistd::{AccessFlags, access};
use sha2::{Digest as _, Sha256};

/// The most threads of one worker: those that compute, and those that wait for disks.
const MAX_THREADS: u32 = 1024;

/// How the folder of an agent's groups begins.
const FOLDER: &str = "dunlin-";

/// The control groups of one agent.
#[derive(Debug)]
pub(crate) struct Cgroups {
    memory: Result<Hierarchy, String>,
    processes: Result<Hierarchy, String>,
    made: AtomicU64,
}

/// The agent's folder of groups in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    folder: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "cgroup v1",
            Self::V2 => "cgroup v2",
        })
    }
}

/// Where a controller is, and in which group of it this process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    group: PathBuf,
    version: Version,
}

impl Cgroups {
    /// Finds the hierarchies in which this process may make groups, and takes a folder in each. `state` tells this
    /// agent from others on the machine; what a killed one left is removed.
    pub(crate) fn open(state: &Path) -> Self {
        let hash = Sha256::digest(state.as_os_str().as_encoded_bytes());
        let name = format!("{FOLDER}{}", hex::encode(&hash[..6]));
        let places = places();
        let open = |controller| hierarchy(&places, controller, &name);
        // Numbers that no earlier program of this process had: a worker that outlives it is still in its group.
        let first = getrandom::u32().unwrap_or_default();
        Self { memory: open("memory"), processes: open("pids"), made: AtomicU64::new(u64::from(first)) }
    }

    /// Returns what was found of both parts.
    pub(crate) fn findings(&self) -> [WallFinding; 2] {
        let found = |part, hierarchy: &Result<Hierarchy, String>| {
            let state = match hierarchy {
                Ok(hierarchy) => WallState::Present(hierarchy.version.to_string()),
                Err(reason) => WallState::Missing(reason.clone()),
            };
            WallFinding { part, state }
        };
        [found(WallPart::Memory, &self.memory), found(WallPart::Processes, &self.processes)]
    }

    /// Makes a group called after `owner` and moves `process` into it.
    pub(crate) fn confine(&self, owner: &str, process: u32, memory: Bytes) -> io::Result<Cgroup> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("{owner}.{}.{number}", std::process::id());
        let mut group = Cgroup::none();
        for (hierarchy, is_memory) in [(&self.memory, true), (&self.processes, false)] {
            let Ok(Hierarchy { folder, version }) = hierarchy else { continue };
            let folder = folder.join(&name);
            if !group.folders.contains(&folder) {
                // Also the one above, which another agent may have taken for one that was left.
                fs::create_dir_all(&folder)?;
                // From here on, dropping the group removes it.
                group.folders.push(folder.clone());
            }
            if is_memory {
                group.memory = Some(Hierarchy { folder: folder.clone(), version: *version });
                group.limit_memory(memory)?;
                if *version == Version::V2 {
                    // Threads of one process die together anyway; this makes the kernel say so.
                    write(&folder.join("memory.oom.group"), "1")?;
                }
            } else {
                write(&folder.join("pids.max"), &MAX_THREADS.to_string())?;
            }
            write(&folder.join("cgroup.procs"), &process.to_string())?;
        }
        Ok(group)
    }

    /// Removes the folders, once no worker is left.
    pub(crate) fn remove(&self) {
        for hierarchy in [&self.memory, &self.processes].into_iter().flatten() {
            // Who takes longer to end leaves it to the next agent.
            let _in_use = fs::remove_dir(&hierarchy.folder);
        }
    }
}

/// The groups of one worker. Removed when it is dropped, which must be after the worker is gone.
#[derive(Debug)]
pub(crate) struct Cgroup {
    memory: Option<Hierarchy>,
    folders: Vec<PathBuf>,
}

impl Cgroup {
    /// Returns no group at all.
    pub(crate) fn none() -> Self {
        Self { memory: None, folders: Vec::new() }
    }

    /// Sets how much memory the worker may have, with its swap.
    pub(crate) fn limit_memory(&self, memory: Bytes) -> io::Result<()> {
        let Some(Hierarchy { folder, version }) = &self.memory else { return Ok(()) };
        let bytes = memory.0.to_string();
        match version {
            Version::V1 => {
                let (limit, with_swap) =
                    (folder.join("memory.limit_in_bytes"), folder.join("memory.memsw.limit_in_bytes"));
                if !with_swap.exists() {
                    return write(&limit, &bytes);
                }
                // The limit with swap may never be the lower one, so it is raised first and lowered last.
                let _is_lower = write(&with_swap, &bytes);
                write(&limit, &bytes)?;
                write(&with_swap, &bytes)
            }
            Version::V2 => {
                let swap = folder.join("memory.swap.max");
                if swap.exists() {
                    write(&swap, "0")?;
                }
                write(&folder.join("memory.max"), &bytes)
            }
        }
    }

    /// Returns how often the kernel has ended something in this group for want of memory.
    pub(crate) fn memory_kills(&self) -> u64 {
        let Some(Hierarchy { folder, version }) = &self.memory else { return 0 };
        let file = match version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        count.unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for folder in &self.folders {
            if let Err(error) = fs::remove_dir(folder) {
                tracing::debug!(%error, folder = %folder.display(), "a control group could not be removed");
            }
        }
    }
}

/// Finds out, changing nothing, what [`Cgroups::open`] would find.
pub(super) fn look() -> [WallFinding; 2] {
    let places = places();
    let found = |part, controller: &str| {
        let state = match places.get(controller) {
            None => WallState::Missing(no_controller(controller)),
            Some(place) if access(&place.group, AccessFlags::W_OK).is_err() => {
                WallState::Missing(not_ours(place))
            }
            Some(place) => WallState::Present(place.version.to_string()),
        };
        WallFinding { part, state }
    };
    [found(WallPart::Memory, "memory"), found(WallPart::Processes, "pids")]
}

fn hierarchy(places: &BTreeMap<String, Place>, controller: &str, name: &str) -> Result<Hierarchy, String> {
    let place = places.get(controller).ok_or_else(|| no_controller(controller))?;
    // A process that becomes another program is where it moved before.
    let place = match place.group.parent() {
        Some(above) if place.group.ends_with(own_group(name)) => {
            &Place { group: above.to_owned(), ..place.clone() }
        }
        _ => place,
    };
    let folder = place.group.join(name);
    let refused = |error: io::Error| format!("{}: {error}", not_ours(place));
    if place.version == Version::V1 {
        clear_all(&place.group);
    }
    match fs::create_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => clear(&folder),
        other => other.map_err(refused)?,
    }
    if place.version == Version::V2 {
        delegate(&place.group, &folder).map_err(refused)?;
    }
    Ok(Hierarchy { folder, version: place.version })
}

/// Returns how the group is called into which the agent with the folder `name` moves where it may not stay.
fn own_group(name: &str) -> String {
    format!("{name}.agent")
}

/// Removes what killed agents left, also those with another state folder.
fn clear_all(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(FOLDER.as_bytes()) {
            clear(&entry.path());
            let _in_use = fs::remove_dir(entry.path());
        }
    }
}

/// Removes the groups in `folder` whose agent is gone.
fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // `owner.agent.number`: a group without a process may be one that was just made.
        let agent = name.rsplit('.').nth(1);
        let own = std::process::id().to_string();
        // This process may have been another program before, whose groups these are then.
        let is_gone = |agent: &str| agent == own || !Path::new("/proc").join(agent).exists();
        if agent.is_some_and(is_gone) {
            // Whoever is still in it dies with its agent, and its group is found next time.
            let _in_use = fs::remove_dir(entry.path());
        }
    }
}

/// Passes the controllers of `group` on to `folder` and to what will be below it.
fn delegate(group: &Path, folder: &Path) -> io::Result<()> {
    const CONTROLLERS: &str = "+memory +pids";
    let control = group.join("cgroup.subtree_control");
    let passed = match write(&control, CONTROLLERS) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let own = group.join(own_group(&folder.file_name().unwrap_or_default().to_string_lossy()));
            match fs::create_dir(&own) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
            let process = std::process::id().to_string();
            write(&own.join("cgroup.procs"), &process)?;
            write(&control, CONTROLLERS).inspect_err(|_| {
                // Others are in that group as well, so nothing is won: back to where we came from.
                let _stays = write(&group.join("cgroup.procs"), &process).and_then(|()| fs::remove_dir(&own));
            })
        }
        other => other,
    };
    passed?;
    write(&folder.join("cgroup.subtree_control"), CONTROLLERS)
}

fn no_controller(controller: &str) -> String {
    format!("no control group of version 1 or 2 has the controller `{controller}` here")
}

fn not_ours(place: &Place) -> String {
    format!("this process may not divide its group of {}, {}", place.version, place.group.display())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)
}

fn places() -> BTreeMap<String, Place> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let controllers = |group: &Path| fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    find_places(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"), controllers)
}

/// Returns for each controller where this process is in it, from what `/proc` says of groups and mounts.
fn find_places(groups: &str, mounts: &str, controllers: impl Fn(&Path) -> String) -> BTreeMap<String, Place> {
    let mut places = BTreeMap::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(names), Some(path)) = (fields.next(), fields.next()) else { continue };
        if names.is_empty() {
            if let Some(group) = mounted(mounts, "cgroup2", "", path) {
                for controller in controllers(&group).split_whitespace() {
                    let place = Place { group: group.clone(), version: Version::V2 };
                    places.entry(controller.to_owned()).or_insert(place);
                }
            }
            continue;
        }
        for controller in names.split(',') {
            if let Some(group) = mounted(mounts, "cgroup", controller, path) {
                places.insert(controller.to_owned(), Place { group, version: Version::V1 });
            }
        }
    }
    places
}

/// Returns where the group `path` of a hierarchy is mounted.
fn mounted(mounts: &str, kind: &str, controller: &str, path: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let is_it = after.next()? == kind
            && (controller.is_empty() || after.nth(1)?.split(',').any(|option| option == controller));
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        // In a container, the mount may begin at the group itself.
        let below = Path::new(path).strip_prefix(root).ok()?;
        is_it.then(|| Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        40 31 0:37 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_group_of_version_1_is_found() {
        let groups = "4:memory:/a/b\n2:cpu,cpuacct:/\n0::/\n";
        let places = find_places(groups, MOUNTS, |_| String::new());
        assert_eq!(places["memory"].group, Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(places["cpuacct"].group, Path::new("/sys/fs/cgroup/cpu,cpuacct/"));
        assert_eq!(places.len(), 3, "{places:?}");
    }

    #[test]
    fn a_group_of_version_2_is_found_with_what_it_may_pass_on() {
        let groups = "0::/system.slice/dunlin.service\n";
        let places = find_places(groups, MOUNTS, |_| "cpu memory pids\n".to_owned());
        let group = PathBuf::from("/sys/fs/cgroup/unified/system.slice/dunlin.service");
        assert_eq!(places["pids"], Place { group, version: Version::V2 });
    }

    #[test]
    fn a_group_that_is_mounted_itself_is_found() {
        let mounts = "35 31 0:32 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let places = find_places("4:memory:/docker/1\n", mounts, |_| String::new());
        assert_eq!(places["memory"].group, Path::new("/sys/fs/cgroup/memory"));
        assert!(find_places("4:memory:/docker/2\n", mounts, |_| String::new()).is_empty());
    }

    #[test]
    fn where_there_is_none_that_is_said() {
        let reason = hierarchy(&BTreeMap::new(), "memory", "dunlin-0").unwrap_err();
        assert_eq!(reason, "no control group of version 1 or 2 has the controller `memory` here");
    }

    /// Only where this process may divide a control group: as root on most machines.
    #[test]
    fn the_kernel_ends_who_takes_more_memory_than_its_group_has() {
        let folder = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::open(folder.path());
        if cgroups.memory.is_err() {
            assert!(cgroups.findings()[0].is_missing(), "and that is said");
            return;
        }
        let start = |program: &str, arguments: &[&str]| {
            let mut command = std::process::Command::new(program);
            command.args(arguments).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
            let child = command.spawn().unwrap();
            let group = cgroups.confine("test", child.id(), Bytes(16 << 20)).unwrap();
            (child, group)
        };
        // The one keeps all of an endless line, the other waits for its input to end.
        let (mut hog, hogs) = start("tail", &["/dev/zero"]);
        let (mut other, others) = start("cat", &[]);
        let status = hog.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        assert_eq!((hogs.memory_kills(), others.memory_kills()), (1, 0));
        assert_eq!(other.try_wait().unwrap(), None);
        others.limit_memory(Bytes(32 << 20)).unwrap();
        others.limit_memory(Bytes(16 << 20)).unwrap();
        drop(other.stdin.take());
        assert!(other.wait().unwrap().success());
        let left = hogs.folders.iter().chain(&others.folders).cloned().collect::<Vec<_>>();
        drop((hogs, others));
        assert!(left.iter().all(|folder| !folder.exists()), "{left:?}");
        cgroups.remove();
    }
}
