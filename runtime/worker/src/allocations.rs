//! The allocations this worker has: those being loaded and those loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_engine::{Engine, Item, Job, LoadError, Service, Usage, check_environment};
use dunlin_host::Access;
use dunlin_model::{AllocationId, AssignedAllocation, ItemRange, NodeId, SecretName, SecretValue, Work};
use dunlin_protocol::{Account, FromWorker};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::attached::Attached;
use crate::control::Agent;
use crate::health::{check, health};
use crate::items::Items;
use crate::kept::Kept;
use crate::log_queue::LogQueue;
use crate::resident::Resident;

/// How long a request or an item may go on after its allocation was stopped.
const GRACE: Duration = Duration::from_secs(5);
/// How long after something was started memory is given back that was only needed for that.
const STARTED: Duration = Duration::from_secs(2);
/// How often use is told.
const USAGE_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Allocations {
    engine: Engine,
    access: Access,
    node: NodeId,
    agent: Agent,
    logs: Arc<LogQueue>,
    items: Arc<Items>,
    attached: Attached,
    slots: Mutex<BTreeMap<AllocationId, Slot>>,
    /// Told of each allocation that was loaded.
    started: Notify,
}

enum Slot {
    Starting(AbortHandle),
    Running { running: Running, told: Usage, checks: AbortHandle },
}

#[derive(Clone)]
enum Running {
    Service(Service),
    Job(Job),
}

impl Running {
    fn usage(&self) -> Usage {
        match self {
            Self::Service(service) => service.usage(),
            Self::Job(job) => job.usage(),
        }
    }

    async fn stop(&self, grace: Duration) {
        match self {
            Self::Service(service) => service.stop(grace).await,
            Self::Job(job) => job.stop(grace).await,
        }
    }
}

impl Allocations {
    pub(crate) fn new(
        engine: Engine,
        access: Access,
        node: NodeId,
        agent: Agent,
        logs: Arc<LogQueue>,
    ) -> Self {
        let items = Arc::new(Items::new(node.clone()));
        let (attached, slots) = (Attached::default(), Mutex::default());
        Self { engine, access, node, agent, logs, items, attached, slots, started: Notify::new() }
    }

    pub(crate) fn service(&self, id: AllocationId) -> Option<Service> {
        match self.slots().get(&id)? {
            Slot::Running { running: Running::Service(service), .. } => Some(service.clone()),
            Slot::Running { running: Running::Job(_), .. } | Slot::Starting(_) => None,
        }
    }

    /// Tells whether this allocation is a service that takes requests.
    pub(crate) fn serves(&self, id: AllocationId) -> bool {
        matches!(self.slots().get(&id), Some(Slot::Running { running: Running::Service(_), .. }))
    }

    fn job(&self, id: AllocationId) -> Option<Job> {
        match self.slots().get(&id)? {
            Slot::Running { running: Running::Job(job), .. } => Some(job.clone()),
            Slot::Running { running: Running::Service(_), .. } | Slot::Starting(_) => None,
        }
    }

    /// Begins to load an allocation. To be asked again for one that is here does no harm.
    pub(crate) fn start(
        self: &Arc<Self>,
        allocation: AssignedAllocation,
        compiled: PathBuf,
        secrets: BTreeMap<SecretName, SecretValue>,
    ) {
        let id = allocation.id;
        let mut slots = self.slots();
        match slots.get(&id) {
            Some(Slot::Starting(_)) => return,
            Some(Slot::Running { .. }) => {
                let agent = self.agent.clone();
                tokio::spawn(async move { agent.send(FromWorker::Started { allocation: id }).await });
                return;
            }
            None => {}
        }
        self.access.give_secrets(id, secrets);
        let this = self.clone();
        // The slots stay locked until the task is in them, so that it cannot be done before.
        let task = tokio::spawn(async move {
            let loaded = this.load(&allocation, &compiled).await;
            let message = this.loaded(id, loaded);
            if let Some(message) = message {
                this.agent.send(message).await;
            }
            if let (Some(spec), Some(service)) = (health(&allocation), this.service(id)) {
                check(&service, spec, id, &this.agent).await;
            }
        });
        slots.insert(id, Slot::Starting(task.abort_handle()));
    }

    async fn load(&self, allocation: &AssignedAllocation, compiled: &Path) -> Result<Running, LoadError> {
        check_environment(allocation)?;
        let loaded = self.engine.load_for(compiled, &allocation.spec).await?;
        let sink = self.logs.clone();
        match allocation.work {
            Work::Serve => {
                Service::new(&loaded, allocation, &self.node, sink, &self.access).await.map(Running::Service)
            }
            Work::Items { .. } => {
                Job::new(&loaded, allocation, &self.node, sink, &self.access).await.map(Running::Job)
            }
        }
    }

    fn loaded(&self, allocation: AllocationId, loaded: Result<Running, LoadError>) -> Option<FromWorker> {
        let mut slots = self.slots();
        // It may have been stopped meanwhile.
        let Some(Slot::Starting(checks)) = slots.remove(&allocation) else { return None };
        match loaded {
            Ok(running) => {
                self.started.notify_one();
                slots.insert(allocation, Slot::Running { running, told: Usage::default(), checks });
                Some(FromWorker::Started { allocation })
            }
            Err(error) => {
                self.access.take_secrets(allocation).wipe();
                let refused = matches!(error, LoadError::Refused(_));
                Some(FromWorker::NotStarted { allocation, reason: error.to_string(), refused })
            }
        }
    }

    /// Lets an allocation see these secrets from now on; one that is not here sees none.
    pub(crate) fn change_secrets(&self, id: AllocationId, secrets: BTreeMap<SecretName, SecretValue>) {
        // Locked meanwhile: what is stopped by then must not get any.
        let slots = self.slots();
        if slots.contains_key(&id) {
            self.access.change_secrets(id, secrets);
        }
    }

    /// Stops an allocation, and breaks off what it is at if that must be `at_once`; one that is not here is stopped already.
    pub(crate) async fn stop(&self, id: AllocationId, at_once: bool) {
        let (slot, secrets) = {
            let mut slots = self.slots();
            (slots.remove(&id), self.access.take_secrets(id))
        };
        self.items.stop(id);
        match slot {
            None => {}
            Some(Slot::Starting(task)) => task.abort(),
            Some(Slot::Running { running, told, checks }) => {
                checks.abort();
                running.stop(if at_once { Duration::ZERO } else { GRACE }).await;
                self.items.finished(id, &self.agent, &self.logs).await;
                let usage = running.usage();
                if usage != told {
                    self.agent.send(usage_message(id, usage)).await;
                }
            }
        }
        // What was still under way may have asked for them until now.
        secrets.wipe();
        self.logs.flush(&self.agent).await;
        self.agent.send(FromWorker::Stopped { allocation: id }).await;
    }

    /// Runs an item and tells how it ended.
    pub(crate) async fn run_item(&self, allocation: AllocationId, item: Item) {
        self.items.run_one(allocation, self.job(allocation), item).await;
    }

    /// Runs the first item with the streams that are passed for it, and tells how it ended.
    pub(crate) async fn run_attached(&self, allocation: AllocationId, arguments: Vec<String>) {
        self.items.run_attached(allocation, self.job(allocation), arguments, &self.attached).await;
    }

    /// Returns the streams that were passed.
    pub(crate) fn attached(&self) -> &Attached {
        &self.attached
    }

    /// Begins to run items that have no input.
    pub(crate) fn run_items(&self, allocation: AllocationId, range: ItemRange) {
        self.items.run_range(allocation, self.job(allocation), range);
    }

    /// Tells how items ended, for ever.
    pub(crate) async fn tell_items(&self) {
        self.items.pump(&self.agent, &self.logs).await;
    }

    /// Gives back the memory that was only needed to start: the process, and then whatever is loaded. For ever.
    pub(crate) async fn let_go(&self, resident: &Resident) {
        loop {
            tokio::time::sleep(STARTED).await;
            resident.let_go();
            self.started.notified().await;
        }
    }

    /// Tells what was used, and gives back what is `kept`, once a second, for ever.
    pub(crate) async fn tell_usage(&self, mut kept: Kept) {
        loop {
            tokio::time::sleep(USAGE_INTERVAL).await;
            self.engine.drop_idle_code();
            kept.look(&self.engine);
            let mut messages = Vec::new();
            for (id, slot) in self.slots().iter_mut() {
                if let Slot::Running { running, told, .. } = slot {
                    let usage = running.usage();
                    if usage != *told {
                        *told = usage.clone();
                        messages.push(usage_message(*id, usage));
                    }
                }
            }
            for message in messages {
                self.agent.send(message).await;
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<AllocationId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn usage_message(allocation: AllocationId, usage: Usage) -> FromWorker {
    let Usage { fuel, memory, instances, failed, wall, host, outcomes, limit_hits, log_dropped } = usage;
    let outcomes = outcomes.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    let account = Account { wall_ms: wall.0, failed, host, outcomes, limit_hits, log_dropped };
    FromWorker::Usage { allocation, fuel, memory, instances, account }
}
