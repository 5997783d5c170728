//! What is known only from what agents said lately. A coordinator that starts again hears it again.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{
    AllocationId, AllocationReport, AppName, DurationMs, Generation, Name, NodeId, Route, RouteTable, RunId,
    Term, Timestamp, WorkloadName, WorkloadSpec,
};

use crate::baking::Baking;
use crate::called::Called;
use crate::dirty::Dirty;
use crate::durable::Durable;
use crate::failures::Failures;
use crate::history::History;
use crate::judge::Doings;
use crate::lookup::Lookup;
use crate::placement::{Compiled, Copies, Pools};
use crate::planted::{Bug, planted};
use crate::rebalance::Rebalancing;
use crate::retry::Queue;
use crate::routes::{route_table, routes_of};
use crate::run::leased;
use crate::schedule::Calendar;
use crate::timers::Timers;
use crate::turns::Claim;
use crate::upgrade::UpgradeTimer;
use crate::{AllocationRecord, Config, NodeRecord, RunRecord};

/// What is not kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volatile {
    /// Every member, also those that were never heard.
    pub(crate) nodes: Lookup<NodeId, NodeState>,
    /// Who is believed until when, soonest first.
    lease_ends: BTreeSet<(Timestamp, NodeId)>,
    /// Who is to be sent its assignment though that may not have changed.
    pub(crate) behind: BTreeSet<NodeId>,
    /// The queue of each run that goes on.
    pub(crate) queues: BTreeMap<RunId, Queue>,
    /// When a queue may have items whose wait is over, soonest first.
    pub(crate) retries: BTreeSet<(Timestamp, RunId)>,
    /// Services that have fewer allocations than they should, since there is no room.
    pub(crate) waiting_services: BTreeSet<WorkloadName>,
    /// Runs that have fewer allocations than they could, since there is no room.
    pub(crate) waiting_runs: BTreeSet<RunId>,
    /// Those among them which want to be near others, or apart from them: services, and runs with their numbers.
    pub(crate) waiting_for_others: BTreeSet<(WorkloadName, Option<RunId>)>,
    /// Agents that do not obey, as they have obeyed this later term.
    pub(crate) fenced: BTreeMap<NodeId, Term>,
    /// Nodes on which something makes way, and for whom.
    pub(crate) kept: BTreeMap<NodeId, Claim>,
    /// Those among them on which nothing makes way, and until when each is kept at most.
    pub(crate) awaited: Timers<NodeId>,
    /// For whom nothing was found that could make way, and until when it is not looked again.
    pub(crate) in_vain: BTreeMap<Claim, Timestamp>,
    /// The same by time, soonest first.
    pub(crate) in_vain_ends: BTreeSet<(Timestamp, Claim)>,
    /// When it is looked how the rollouts of apps go.
    pub(crate) rollouts: Timers<AppName>,
    /// How the revision before did which an app is leaving, as last seen.
    pub(crate) before: BTreeMap<AppName, BTreeMap<Name, Doings>>,
    /// Where components have run lately.
    pub(crate) compiled: Compiled,
    /// Where workloads failed lately.
    pub(crate) failures: Failures,
    /// When scheduled jobs are due.
    pub(crate) calendar: Calendar,
    /// What the rollouts would go back to.
    pub(crate) baking: Baking,
    /// What moves to better nodes.
    pub(crate) rebalancing: Rebalancing,
    /// What has ended lately, and what failed.
    pub(crate) history: History,
    /// The nodes as placement sees them.
    pub(crate) pools: Pools,
    /// How many allocations the workloads have on them.
    pub(crate) copies: Copies,
    /// What every ingress must know.
    pub(crate) routes: RouteTable,
    /// Which services are in there though they may have no routes.
    pub(crate) called: Called,
    /// The routes in there by workload.
    pub(crate) routes_of: BTreeMap<WorkloadName, Vec<Route>>,
    /// When requests go no longer to a node that stays silent, if that is before its lease ends.
    pub(crate) routed: Timers<NodeId>,
    /// Nodes that are believed and have been silent for so long that no requests go to them.
    pub(crate) silent: BTreeSet<NodeId>,
    /// When this coordinator was started.
    pub(crate) started: Timestamp,
    /// Singletons' allocations that were ended and that their nodes may still run, by the moment they do not any more.
    pub(crate) leaving_ends: Timers<(NodeId, AllocationId)>,
    /// The same of those which are lost.
    pub(crate) lost_leases: Timers<AllocationId>,
    /// Counts the changes of `routes`.
    pub(crate) routes_version: u64,
    /// When it is looked whether another lost node may be released; absent if only when one is lost or comes back.
    pub(crate) next_release: Option<Timestamp>,
    /// Whether the operator wants all lost nodes to be released.
    pub(crate) release_all: bool,
    /// Nodes that were lost again and again, by the moment they are trusted again.
    pub(crate) set_aside: BTreeSet<(Timestamp, NodeId)>,
    /// When it is looked how the upgrade goes.
    pub(crate) upgrade: UpgradeTimer,
    /// Whether an id was given out in this step.
    pub(crate) has_counted: bool,
    /// What has changed and was not yet thought through.
    pub(crate) dirty: Dirty,
    /// Since when.
    pub(crate) dirty_since: Timestamp,
}

/// What is known of one node beside its record.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeState {
    /// Until when it is believed; absent if it is lost or was never heard.
    pub(crate) lease: Option<Timestamp>,
    /// When it last reported to this coordinator.
    pub(crate) last_seen: Option<Timestamp>,
    /// Whether it can be spoken to.
    pub(crate) connected: bool,
    /// The assignment it acts on, as it last said.
    pub(crate) reported: Option<(Term, Generation)>,
    /// Whether it gets nothing new for a while, as it was lost again and again.
    pub(crate) is_set_aside: bool,
    /// Whether something makes way on it, and it gets nothing else until then.
    pub(crate) is_kept: bool,
    /// What it last said of its allocations, by id.
    pub(crate) reports: Vec<AllocationReport>,
    /// Whether what it says counts though it has said the same before: an allocation on it has changed since.
    pub(crate) must_be_heard: bool,
    /// How often what it is to run has changed under this coordinator.
    pub(crate) changes: u64,
}

impl Volatile {
    /// Returns what a coordinator knows that has just been started: everybody is believed for a while.
    pub(crate) fn restore(durable: &Durable, config: &Config, now: Timestamp) -> Self {
        let start_grace = if planted(Bug::SkipStartGrace) { config.lease } else { config.start_grace };
        let grace = now.plus(config.lease.max(start_grace));
        let running = durable.runs().values().filter(|run| run.is_running());
        let queues = running.map(|run| (run.id, Queue::restore(run, &leased(durable, run))));
        let mut volatile = Self {
            queues: queues.collect(),
            routes: route_table(durable, &BTreeSet::new()),
            called: Called::restore(durable),
            routes_of: routes_of(durable),
            calendar: Calendar::restore(durable),
            baking: Baking::restore(durable),
            rebalancing: Rebalancing::begin(now),
            dirty: Dirty::everything(durable),
            dirty_since: now,
            upgrade: UpgradeTimer::now(),
            next_release: (!planted(Bug::RestoreForgetsUnreleased)).then_some(now),
            ..Self::default()
        };
        for record in durable.nodes().values() {
            volatile.node(&record.id);
            volatile.set_aside(record, now);
            let makes_way = durable.on_node(&record.id).find_map(|it| it.makes_way.as_deref());
            if let Some(makes_way) = makes_way {
                let service = || Claim::Service(makes_way.workload.clone());
                let claim = makes_way.run.map_or_else(service, Claim::Run);
                volatile.kept.insert(record.id.clone(), claim);
                volatile.node(&record.id).is_kept = true;
            }
            if record.info.is_some() && record.lost.is_none() && !planted(Bug::ForgetLease) {
                volatile.set_lease(&record.id, Some(grace));
                if let Some(routed) = config.routed {
                    volatile.routed.set(&record.id, now.plus(routed));
                }
            }
            let Self { pools, nodes, .. } = &mut volatile;
            pools.refresh(record, nodes.or_default(&record.id), durable.room(&record.id));
        }
        for app in durable.apps().values().filter(|app| app.rollout.is_some()) {
            volatile.rollouts.set(&app.name, now);
        }
        volatile.restore_leases(durable, now);
        volatile.copies = copies(durable, &volatile.pools);
        volatile
    }

    /// Returns the last word of its node on an allocation.
    pub(crate) fn observed(&self, record: &AllocationRecord) -> Option<&AllocationReport> {
        let reports = &self.nodes.get(&record.node)?.reports;
        reports.binary_search_by_key(&record.id, |report| report.id).ok().map(|index| &reports[index])
    }

    /// Returns what is known of a member.
    pub(crate) fn node(&mut self, node: &NodeId) -> &mut NodeState {
        self.nodes.or_default(node)
    }

    /// Takes note that a service waits for room, or does no longer.
    pub(crate) fn set_waiting(&mut self, workload: &WorkloadName, spec: Option<&WorkloadSpec>) {
        match spec {
            Some(_) => self.waiting_services.insert(workload.clone()),
            None => self.waiting_services.remove(workload),
        };
        self.set_waiting_for_others((workload.clone(), None), spec);
    }

    /// Takes note that a run waits for room, or does no longer.
    pub(crate) fn set_run_waiting(&mut self, run: &RunRecord, is_waiting: bool) {
        if is_waiting {
            self.waiting_runs.insert(run.id);
        } else {
            self.waiting_runs.remove(&run.id);
        }
        self.set_waiting_for_others((run.workload.clone(), Some(run.id)), is_waiting.then_some(&*run.spec));
    }

    fn set_waiting_for_others(&mut self, who: (WorkloadName, Option<RunId>), spec: Option<&WorkloadSpec>) {
        let is_related =
            |spec: &&WorkloadSpec| !spec.placement.near.is_empty() || !spec.placement.apart.is_empty();
        if spec.filter(is_related).is_some() {
            self.waiting_for_others.insert(who);
        } else {
            self.waiting_for_others.remove(&who);
        }
    }

    /// Gives a node nothing new for a while if it was lost again and again.
    pub(crate) fn set_aside(&mut self, record: &NodeRecord, now: Timestamp) {
        if let Some(until) = record.set_aside_until().filter(|until| *until > now) {
            self.node(&record.id).is_set_aside = true;
            self.set_aside.insert((until, record.id.clone()));
        }
    }

    /// Lets it be looked again whether a lost node may be released, `wait` after another was lost or one is back: others
    /// may follow.
    pub(crate) fn may_release(&mut self, now: Timestamp, wait: DurationMs) {
        // The operator's word is for what is lost now: it waits for nobody else.
        if !self.release_all && self.next_release.is_none_or(|next| next <= now) {
            self.next_release = Some(now.plus(wait));
        }
    }

    /// Believes a node until then, or not at all.
    pub(crate) fn set_lease(&mut self, node: &NodeId, until: Option<Timestamp>) {
        let state = self.nodes.or_default(node);
        if let Some(before) = std::mem::replace(&mut state.lease, until) {
            self.lease_ends.remove(&(before, node.clone()));
        }
        if let Some(until) = until {
            self.lease_ends.insert((until, node.clone()));
        }
    }

    /// Returns when the first lease ends, and whose it is.
    pub(crate) fn first_lease_end(&self) -> Option<&(Timestamp, NodeId)> {
        self.lease_ends.first()
    }
}

/// Counts the allocations on the nodes.
pub(crate) fn copies(durable: &Durable, pools: &Pools) -> Copies {
    let mut copies = Copies::default();
    for record in durable.allocations().values().filter(|record| record.is_live()) {
        if let Some(class) = pools.counting_class(&record.node) {
            copies.add(record, class);
        }
    }
    copies
}
