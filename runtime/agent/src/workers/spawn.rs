//! Starts one worker process: with nothing but two sockets, in a control group of its own, and told what to give up.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use dunlin_compiled::Platform;
use dunlin_descriptors::Channel;
use dunlin_model::{
    AllocationId, AssignedAllocation, Bytes, Capabilities, Feature, FuelRate, Name, NodeId, SignerKey,
    check_signed,
};
use dunlin_protocol::{WallSetup, WorkerSetup};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::OfferedFolder;
use crate::compiler::Compiler;
use crate::egress::Egress;
use crate::homes::{Home, Homes};
use crate::nursery::Nursery;
use crate::secrets::Secrets;
use crate::wall::{Cgroup, Wall};

/// The memory of a guest as it is written, the whole dump, and the file in which it is passed on.
const DUMP_COPIES: u64 = 3;

/// What all workers of a node have in common.
pub(crate) struct WorkerConfig {
    pub(crate) node: NodeId,
    pub(crate) program: PathBuf,
    pub(crate) homes: Arc<Homes>,
    pub(crate) compiler: Arc<Compiler>,
    pub(crate) platform: Platform,
    pub(crate) wall: Arc<Wall>,
    /// What all guests of this node may have together.
    pub(crate) memory: Bytes,
    /// Folders that guests may be granted.
    pub(crate) folders: BTreeMap<Name, OfferedFolder>,
    /// Certificates of authorities that guests may believe beside those of the public.
    pub(crate) authorities: Vec<u8>,
    /// The secrets that guests may be granted.
    pub(crate) secrets: Arc<Secrets>,
    /// Where guests may connect to.
    pub(crate) egress: Arc<Egress>,
    /// What is switched on though it is young.
    pub(crate) features: BTreeSet<Feature>,
    /// The keys with one of which a component must be signed, for the namespaces that have any here.
    pub(crate) signers: BTreeMap<Name, BTreeSet<SignerKey>>,
    /// How many instances each namespace may have at the same time.
    pub(crate) namespace_concurrency: u32,
    /// The most bytes of a core dump.
    pub(crate) coredump_size: Bytes,
    /// W1: what a worker may need beside the memory of its guests.
    pub(crate) worker_reserve: Bytes,
    /// What one processor burns in a second.
    pub(crate) processor_rate: FuelRate,
    /// How much workers log; as they would by themselves if absent.
    pub(crate) log: Option<String>,
    /// Where they are born, if they may outlive this program.
    pub(crate) nursery: Option<Nursery>,
}

/// A worker process that was just started.
pub(super) struct Spawned {
    pub(super) child: Child,
    pub(super) process: u32,
    pub(super) control: UnixStream,
    pub(super) channel: Channel,
    pub(super) setup: WorkerSetup,
    pub(super) cgroup: Arc<Cgroup>,
}

/// Starts the worker that lives in `home`, which is that of `owner`.
pub(super) fn spawn(config: &WorkerConfig, owner: &Name, home: &Home) -> io::Result<Spawned> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (channel, their_channel) = Channel::pair()?;
    let mut command = Command::new(&config.program);
    // A clean environment: nothing of the agent's reaches guests, and RUST_BACKTRACE costs requests. A process
    // group of its own: Ctrl-C in a terminal ends the agent, which drains before it ends its workers.
    command.arg0("dunlin").arg("worker").env_clear().kill_on_drop(true).process_group(0);
    command
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(their_channel))
        .stderr(Stdio::inherit());
    if let Some(filter) = &config.log {
        command.env("DUNLIN_LOG", filter);
    }
    let child = match &config.nursery {
        Some(nursery) => nursery.spawn(command),
        None => command.spawn(),
    }?;
    let process = child.id().unwrap_or_default();
    // It does nothing before it hears of its setup, so it is in its group in time.
    let cgroup = Arc::new(config.wall.confine(owner.as_str(), process, config.worker_reserve)?);
    let setup = setup(config, config.homes.only_namespace(owner), home);
    Ok(Spawned { child, process, control: UnixStream::from_std(ours)?, channel, setup, cgroup })
}

/// Returns what the worker in `home` is told first; it runs the guests of `namespace`, or of all.
fn setup(config: &WorkerConfig, namespace: Option<Name>, home: &Home) -> WorkerSetup {
    let is_offered =
        |folder: &OfferedFolder| namespace.as_ref().is_none_or(|name| folder.namespaces.contains(name));
    let offered = config.folders.iter().filter(|(_, folder)| is_offered(folder));
    let (mut read, mut write) = (home.readable(), vec![home.scratch()]);
    let mut folders = BTreeMap::new();
    for (name, folder) in offered {
        let OfferedFolder { path, writable, quota, namespaces: _ } = folder;
        if *writable { &mut write } else { &mut read }.push(path.clone());
        let writable = writable.then_some(*quota);
        folders.insert(name.clone(), dunlin_protocol::OfferedFolder { path: path.clone(), writable });
    }
    let wall = WallSetup {
        user: home.user,
        folder: home.folder.clone(),
        read,
        write,
        agent: std::process::id(),
        required: config.wall.is_required(),
    };
    WorkerSetup {
        namespace_concurrency: config.namespace_concurrency,
        coredump_size: config.coredump_size,
        processor_rate: config.processor_rate,
        namespace,
        node: config.node.clone(),
        code_key: home.code_key.0,
        platform: config.platform.0,
        folders,
        scratch: Some(home.scratch()),
        authorities: config.authorities.clone(),
        wall,
    }
}

/// Returns which folder is granted to the guests of an allocation though it is not offered to their namespace. A
/// worker of all namespaces has the folders of all, and does not see that.
pub(super) fn not_offered(config: &WorkerConfig, allocation: &AssignedAllocation) -> Option<Name> {
    let is_offered = |name: &Name| {
        let folder = config.folders.get(name);
        folder.is_none_or(|folder| folder.namespaces.contains(&allocation.workload.namespace))
    };
    let mut grants = allocation.spec.capabilities.folders.values();
    grants.find(|grant| !is_offered(&grant.folder)).map(|grant| grant.folder.clone())
}

/// Returns why an allocation is not started here that needs what is switched off on this node.
pub(super) fn switched_off(config: &WorkerConfig, allocation: &AssignedAllocation) -> Option<String> {
    let is_missing =
        |feature: &Feature| allocation.spec.needs(*feature) && !config.features.contains(feature);
    let feature = Feature::ALL.into_iter().find(is_missing)?.name();
    Some(format!(
        "its component needs {feature}, which is switched off on this node; its operator can write \
         `features = [\"{feature}\"]` in the node's config file"
    ))
}

/// Returns why an allocation is not started here that runs what nobody signed whom the operator of this node trusts with
/// its namespace. That holds whatever the coordinator has found of it.
pub(super) fn untrusted(config: &WorkerConfig, allocation: &AssignedAllocation) -> Option<String> {
    let AssignedAllocation { workload, spec, .. } = allocation;
    let signers = config.signers.get(&workload.namespace)?;
    let why = check_signed(spec.signed.as_deref(), signers, spec.component, workload).err()?;
    Some(format!(
        "this node runs only signed components in namespace `{}`, as `[signers]` of its config file says: {why}",
        workload.namespace
    ))
}

/// Returns why an allocation can be started nowhere: there are no files and no sockets for components of WASI 0.3.
pub(super) fn ungrantable(allocation: &AssignedAllocation) -> Option<String> {
    let Capabilities { folders, scratch, sockets, .. } = &allocation.spec.capabilities;
    let is_granted_any = !folders.is_empty() || scratch.is_some() || !sockets.is_empty();
    let is_refused = is_granted_any && allocation.spec.needs(Feature::Wasi03);
    is_refused.then(|| "a component of WASI 0.3 can have neither folders nor scratch nor sockets".to_owned())
}

/// What decides how much memory a worker process may have, besides its guests.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// What all guests of the node may have together.
    pub(super) guests: Bytes,
    /// What the process may have for itself.
    pub(super) reserve: Bytes,
    /// How large a core dump may be.
    pub(super) dump: Bytes,
}

/// The guests of one worker, as far as its process is concerned.
#[derive(Default)]
pub(super) struct Guests(BTreeMap<AllocationId, Guest>);

struct Guest {
    namespace: Name,
    /// What its instances may hold together.
    memory: Bytes,
    /// Whether core dumps are made of them.
    dumps: bool,
}

impl Guests {
    pub(super) fn insert(&mut self, allocation: &AssignedAllocation) {
        let limits = &allocation.spec.limits;
        let memory = Bytes(limits.memory.0.saturating_mul(u64::from(limits.concurrency.max(1))));
        let namespace = allocation.workload.namespace.clone();
        self.0.insert(allocation.id, Guest { namespace, memory, dumps: allocation.spec.coredump });
    }

    pub(super) fn remove(&mut self, allocation: AllocationId) {
        self.0.remove(&allocation);
    }

    /// Tells whether there are guests of `namespace` among them.
    pub(super) fn are_of(&self, namespace: &Name) -> bool {
        self.0.values().any(|guest| guest.namespace == *namespace)
    }

    /// Returns the namespaces whose guests they are, each once.
    pub(super) fn namespaces(&self) -> Vec<Name> {
        let mut namespaces: Vec<Name> = self.0.values().map(|guest| guest.namespace.clone()).collect();
        namespaces.sort();
        namespaces.dedup();
        namespaces
    }

    /// W1: how much memory their process may have, within `bounds`. An
    /// allocation may hold its memory limit once for each of its instances, and nobody more than the node has.
    /// While a core dump is made it is in memory up to [`DUMP_COPIES`] times.
    pub(super) fn process_memory(&self, bounds: Bounds) -> Bytes {
        let guests = self.0.values().fold(0_u64, |sum, guest| sum.saturating_add(guest.memory.0));
        let has_dumps = self.0.values().any(|guest| guest.dumps);
        let dump = if has_dumps { bounds.dump.0.saturating_mul(DUMP_COPIES) } else { 0 };
        Bytes(guests.min(bounds.guests.0).saturating_add(bounds.reserve.0).saturating_add(dump))
    }

    /// Tells whether core dumps are made of the instances of this allocation.
    pub(super) fn has_dumps(&self, allocation: AllocationId) -> bool {
        self.0.get(&allocation).is_some_and(|guest| guest.dumps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(memory: u64, dumps: bool) -> Guest {
        Guest { namespace: "default".parse().unwrap(), memory: Bytes(memory), dumps }
    }

    #[test]
    fn a_worker_may_have_what_its_guests_may_and_the_reserve_of_the_nodes_config() {
        let bounds = Bounds { guests: Bytes(1000), reserve: Bytes(7), dump: Bytes(20) };
        let of = |guests: Vec<Guest>| {
            let ids = (1..).map(AllocationId::new);
            Guests(ids.zip(guests).collect()).process_memory(bounds).0
        };
        assert_eq!(of(vec![]), 7);
        assert_eq!(of(vec![guest(100, false), guest(200, false)]), 307);
        assert_eq!(of(vec![guest(100, true), guest(200, false)]), 367);
        assert_eq!(of(vec![guest(5000, false)]), 1007);
    }
}
