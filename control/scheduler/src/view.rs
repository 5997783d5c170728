//! A picture of everything, for questions: taken after a commit, read without the brain.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_model::{
    AllocationId, AllocationReport, AppName, ClusterId, Generation, Name, NamespaceSpec, NodeId,
    ObservedState, Resources, Revision, RouteTable, RunId, SecretId, Term, Timestamp, WorkloadName,
    WorkloadSpec,
};
use serde::Serialize;

use crate::brake::{Held, held_zones};
use crate::placement::{Demand, Unplaceable};
use crate::reconcile::desired;
use crate::record::need;
use crate::turns::Claim;
use crate::{
    AllocationRecord, AllocationState, AppRecord, Cluster, Due, NodeRecord, PendingRecord, RecoveryRecord,
    RevisionRecord, RolloutRecord, RunRecord, RunState, SecretRecord, TokenRecord, UpgradeRecord, Usage,
};

/// A picture of everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct View {
    /// The fleet.
    pub cluster: ClusterId,
    /// The coordinator's term.
    pub term: Term,
    /// Why nothing is decided, if that is so.
    pub recovery: Option<RecoveryRecord>,
    /// All apps.
    pub apps: BTreeMap<AppName, AppView>,
    /// All allocations, those on their way out included.
    pub allocations: BTreeMap<AllocationId, AllocationView>,
    /// All members.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// The namespaces of which an operator has said something, or which have something.
    pub namespaces: BTreeMap<Name, NamespaceView>,
    /// The zones whose lost nodes are not replaced, as many were lost at once.
    pub held_zones: BTreeMap<String, Held>,
    /// All runs, those that have ended included.
    pub runs: BTreeMap<RunId, RunView>,
    /// The machines that wait to become nodes.
    pub pending: BTreeMap<NodeId, PendingRecord>,
    /// All secrets, sealed; they are not part of what is written down of a fleet.
    #[serde(skip)]
    pub secrets: BTreeMap<SecretId, Arc<SecretRecord>>,
    /// The last upgrade of the fleet's agents.
    #[serde(skip)]
    pub upgrade: Option<UpgradeRecord>,
    /// All join tokens.
    pub tokens: BTreeMap<String, TokenView>,
    /// What every ingress is told.
    pub routes: RouteTable,
}

/// An app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AppView {
    /// Its full name.
    pub name: AppName,
    /// Its newest revision.
    pub revision: Revision,
    /// When that was deployed.
    pub deployed: Timestamp,
    /// The revision which the newest one restores, if it does.
    pub restores: Option<Revision>,
    /// Whether this revision is that it is stopped.
    pub stopped: bool,
    /// The passage to the newest revision, as long as it goes on or has failed.
    pub rollout: Option<RolloutRecord>,
    /// The earlier revisions that are kept, oldest first.
    pub revisions: Vec<Arc<RevisionRecord>>,
    /// Its workloads.
    pub workloads: BTreeMap<Name, WorkloadView>,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkloadView {
    /// Its full name.
    pub name: WorkloadName,
    /// Its spec in the newest revision.
    pub spec: WorkloadSpec,
    /// How many allocations should serve; zero for a job.
    pub desired: u32,
    /// How many of any revision serve.
    pub running: u32,
    /// How many of the newest revision serve; less than `running` while a rollout goes on.
    pub current: u32,
    /// Why it is not as it should be.
    pub waiting: Option<String>,
    /// When it is run next by itself.
    pub next_run: Option<Timestamp>,
    /// What was done when that was the last time.
    pub last_due: Option<Due>,
}

/// An allocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AllocationView {
    /// What was decided.
    pub record: Arc<AllocationRecord>,
    /// What its agent last said.
    pub observed: Option<AllocationReport>,
    /// Why it does not run, if its agent says so.
    pub reason: Option<String>,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeStatus {
    /// Its lease goes on.
    Alive,
    /// Its lease is over.
    Lost,
    /// It has joined and not reported since.
    NeverSeen,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeView {
    /// What is kept of it.
    pub record: NodeRecord,
    /// How it is.
    pub status: NodeStatus,
    /// Whether it can be spoken to.
    pub connected: bool,
    /// When its lease ends.
    pub lease_end: Option<Timestamp>,
    /// When it last reported to this coordinator.
    pub last_seen: Option<Timestamp>,
    /// What guests may use on it.
    pub capacity: Option<Resources>,
    /// What its allocations reserve.
    pub reserved: Resources,
    /// Until when nothing new goes there, as it was lost again and again.
    pub set_aside_until: Option<Timestamp>,
    /// The assignment it is to act on.
    pub due: Generation,
    /// The assignment it acts on.
    pub reported: Option<(Term, Generation)>,
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NamespaceView {
    /// What it may have.
    pub spec: NamespaceSpec,
    /// What its allocations have.
    pub usage: Usage,
    /// How many items of its runs have no record yet.
    pub open_items: u64,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunView {
    /// What is kept of it.
    pub record: RunRecord,
    /// How many items allocations work on.
    pub leased: u32,
    /// How many items could be worked on.
    pub ready: u32,
    /// How many items wait after a failure.
    pub backing_off: u32,
    /// Why fewer are worked on than could be.
    pub waiting: Option<String>,
}

/// A join token, without its secret's hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenView {
    /// Its public part.
    pub id: String,
    /// Until when it can be used.
    pub expires: Timestamp,
    /// How many more nodes may join with it.
    pub uses_left: u32,
    /// When it was made.
    pub created: Timestamp,
}

impl Cluster {
    /// Returns a picture of everything.
    pub fn view(&self) -> View {
        let durable = &self.durable;
        let apps = durable.apps().values().map(|app| (app.name.clone(), self.view_app(app)));
        let allocations = durable.allocations().values().map(|record| {
            let observed = self.volatile.observed(record).cloned();
            let preempted = record.makes_way.as_deref().map(crate::MakesWay::reason);
            let reason = preempted.or_else(|| observed.as_ref().and_then(reason));
            (record.id, AllocationView { record: Arc::clone(record), observed, reason })
        });
        let nodes = durable.nodes().values().filter(|record| !record.removed);
        let nodes = nodes.map(|record| (record.id.clone(), self.view_node(record)));
        let runs = durable.runs().values().map(|run| (run.id, self.view_run(run)));
        let tokens = durable.tokens().values().map(|token| (token.id.clone(), view_token(token)));
        View {
            cluster: self.id.clone(),
            term: self.term,
            recovery: durable.recovery().cloned(),
            apps: apps.collect(),
            allocations: allocations.collect(),
            nodes: nodes.collect(),
            namespaces: self.view_namespaces(),
            held_zones: held_zones(durable),
            runs: runs.collect(),
            pending: self.durable.pending().clone(),
            secrets: self.durable.secrets().clone(),
            upgrade: self.durable.upgrade().cloned(),
            tokens: tokens.collect(),
            routes: self.volatile.routes.clone(),
        }
    }

    fn view_namespaces(&self) -> BTreeMap<Name, NamespaceView> {
        let mut namespaces: BTreeMap<Name, NamespaceView> = BTreeMap::new();
        for (name, spec) in self.durable.namespaces() {
            namespaces.entry(name.clone()).or_default().spec = spec.clone();
        }
        for (name, usage) in self.durable.usages() {
            namespaces.entry(name.clone()).or_default().usage = *usage;
        }
        for run in self.durable.runs().values().filter(|run| run.is_open()) {
            let namespace = namespaces.entry(run.workload.namespace.clone()).or_default();
            namespace.open_items += u64::from(run.items.saturating_sub(run.recorded.len()));
        }
        namespaces
    }

    fn view_app(&self, app: &AppRecord) -> AppView {
        let workloads = app.spec.workloads.iter();
        let revisions = self.durable.revisions().get(&app.name).into_iter().flat_map(|kept| kept.values());
        AppView {
            name: app.name.clone(),
            revision: app.revision,
            deployed: app.deployed,
            restores: app.restores,
            stopped: app.stopped,
            rollout: app.rollout.clone(),
            revisions: revisions.cloned().collect(),
            workloads: workloads
                .map(|(name, spec)| (name.clone(), self.view_workload(app, name, spec)))
                .collect(),
        }
    }

    fn view_workload(&self, app: &AppRecord, name: &Name, spec: &WorkloadSpec) -> WorkloadView {
        let full = app.name.workload(name);
        let (mut running, mut current, mut troubled) = (0, 0, None);
        for record in self.durable.of_workload(&full).filter(|record| record.serves()) {
            if record.state == AllocationState::Running {
                running += 1;
                current += u32::from(record.revision == app.revision);
            } else if record.is_live() && troubled.is_none() {
                let told = self.volatile.observed(record).and_then(reason);
                troubled = told.map(|told| format!("{} on {}: {told}", record.id, record.node));
            }
        }
        let desired = desired(self, &full);
        let waits = self.volatile.waiting_services.contains(&full);
        let spec_now = waits.then(|| self.durable.specs().get(&full)).flatten();
        let unplaceable = spec_now.map(|spec| self.why_service_waits(&full, spec));
        let held = self.durable.of_workload(&full).filter(|record| self.durable.is_held(record)).count();
        let held = (held > 0).then(|| held_back(held));
        let waiting = unplaceable.or(held).or(troubled);
        let next_run = self.volatile.calendar.next_of(&full);
        let last_due = self.durable.schedules().get(&full).and_then(|record| record.last.clone());
        let spec = spec.clone();
        WorkloadView { name: full, spec, desired, running, current, waiting, next_run, last_due }
    }

    /// Says why nothing more of a workload is placed.
    pub(crate) fn why_waiting(&self, workload: &WorkloadName, spec: &Arc<WorkloadSpec>) -> String {
        if let Some(reason) = self.why_halted(workload) {
            return reason;
        }
        match self.quota_hit(&workload.namespace, spec) {
            Some(hit) => format!("the namespace `{}` has what it may have: {hit}", workload.namespace),
            None => match self.nodes_without(workload).as_slice() {
                [] => Unplaceable::count(self, &Demand::new(self, workload, spec)).to_string(),
                nodes => {
                    let need = need(spec);
                    let shown = nodes.iter().take(SHOWN_NODES).map(ToString::to_string).collect::<Vec<_>>();
                    let more = if nodes.len() > SHOWN_NODES { " and others" } else { "" };
                    format!(
                        "no room for {} and a fuel rate of {} on {}{more}",
                        need.memory,
                        need.fuel_rate,
                        shown.join(", ")
                    )
                }
            },
        }
    }

    /// Says why a service has fewer allocations than it should.
    pub(crate) fn why_service_waits(&self, workload: &WorkloadName, spec: &Arc<WorkloadSpec>) -> String {
        if let Some(reason) = self.why_singleton_waits(workload) {
            return reason;
        }
        let made = self.what_makes_way_for(&Claim::Service(workload.clone()));
        made.unwrap_or_else(|| self.why_waiting(workload, spec))
    }

    /// Says why a run has fewer allocations than it could have.
    pub(crate) fn why_run_waits(&self, run: &RunRecord) -> Option<String> {
        let own: Vec<_> = self.durable.of_run(run.id).map(|record| record.makes_way.as_deref()).collect();
        let making_way: Vec<_> = own.iter().copied().flatten().collect();
        let (count, all) = (making_way.len(), own.len());
        let why = (count > 0).then(|| crate::MakesWay::reason_of(making_way));
        let preempted = why.map(|why| format!("{count} of {all} allocations {why}"));
        let waits = self.volatile.waiting_runs.contains(&run.id);
        let waiting = waits.then(|| {
            let made = self.what_makes_way_for(&Claim::Run(run.id));
            made.unwrap_or_else(|| self.why_waiting(&run.workload, &run.spec))
        });
        preempted.or(waiting)
    }

    fn view_node(&self, record: &NodeRecord) -> NodeView {
        let state = self.volatile.nodes.get(&record.id);
        let status = match (record.lost, &record.info) {
            (Some(_), _) => NodeStatus::Lost,
            (None, Some(_)) => NodeStatus::Alive,
            (None, None) => NodeStatus::NeverSeen,
        };
        NodeView {
            status,
            connected: state.is_some_and(|state| state.connected),
            lease_end: state.and_then(|state| state.lease),
            last_seen: state.and_then(|state| state.last_seen),
            capacity: record.info.as_ref().map(|info| info.capacity),
            reserved: self.durable.reserved(&record.id),
            set_aside_until: record
                .set_aside_until()
                .filter(|_| state.is_some_and(|state| state.is_set_aside)),
            due: self.due(&record.id),
            reported: state.and_then(|state| state.reported),
            record: record.clone(),
        }
    }

    fn view_run(&self, run: &RunRecord) -> RunView {
        let queue = self.volatile.queues.get(&run.id);
        let live = self.durable.of_run(run.id).filter(|record| record.is_live());
        RunView {
            record: run.clone(),
            leased: live.map(|record| self.outstanding(record).len()).sum(),
            ready: queue.map_or(0, crate::retry::Queue::ready),
            backing_off: queue.map_or(0, crate::retry::Queue::waiting),
            waiting: if run.state == RunState::Waiting {
                let runs: Vec<String> = self.waits_for(run).iter().map(ToString::to_string).collect();
                Some(format!("it comes after {}", runs.join(" and ")))
            } else {
                self.why_run_waits(run)
            },
        }
    }
}

fn view_token(token: &TokenRecord) -> TokenView {
    let TokenRecord { id, expires, uses_left, created, .. } = token;
    TokenView { id: id.clone(), expires: *expires, uses_left: *uses_left, created: *created }
}

/// So many nodes are named when a service that runs everywhere misses on some.
const SHOWN_NODES: usize = 3;

/// Says that allocations of lost nodes are not replaced yet.
pub(crate) fn held_back(allocations: usize) -> String {
    let what = if allocations == 1 {
        "1 allocation is".to_owned()
    } else {
        format!("{allocations} allocations are")
    };
    format!(
        "{what} on lost nodes and not replaced yet: that is done for one node at a time, and for none of a zone that \
         has lost many at once until they are back or `dunlin node release` says so"
    )
}

/// Returns why an allocation does not run, if its agent says so.
pub(crate) fn reason(report: &AllocationReport) -> Option<String> {
    match &report.state {
        ObservedState::BackingOff { .. }
        | ObservedState::Unhealthy { .. }
        | ObservedState::Stopped { .. }
        | ObservedState::Refused { .. } => Some(report.state.to_string()),
        ObservedState::Fetching
        | ObservedState::Starting
        | ObservedState::Running
        | ObservedState::Finished => None,
    }
}
