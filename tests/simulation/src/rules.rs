//! The rules which every commit must keep, whatever the cluster believes of itself.
//!
//! They are read off the records before and after, and from what the world knows: who is connected, who was heard when.
//! Nothing of the brain's own code is used, so a mistake there is not made here again.
//!
//! Not here: what holds of items and runs (`rules_of_runs`), and what must hold at the end only (`liveness`).

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{AllocationId, DurationMs, NodeId, Timestamp, WorkloadKind, WorkloadName, WorkloadSpec};
use dunlin_scheduler::{AllocationRecord, AllocationState, Change, Command, Config, NodeRecord};

use crate::liveness::may_run_on;
use crate::store::{Before, Store};

/// What the world knows beside the records.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) now: Timestamp,
    /// When the coordinator was started.
    pub(crate) booted: Timestamp,
    pub(crate) config: Config,
    /// Of which command this is the commit, if of one.
    pub(crate) command: Option<&'a Command>,
    /// Who can be spoken to.
    pub(crate) connected: &'a BTreeMap<NodeId, u64>,
    /// When each node was last heard by this coordinator.
    pub(crate) heard: &'a BTreeMap<NodeId, Timestamp>,
    /// The allocations of which the report in hand says that they do not run.
    pub(crate) silent: &'a BTreeSet<AllocationId>,
    /// When a node was last released, unless the operator has spoken since.
    pub(crate) last_release: Option<Timestamp>,
}

/// A commit that was just made.
#[derive(Debug)]
pub(crate) struct Commit<'a> {
    pub(crate) changes: &'a [Change],
    pub(crate) before: &'a Before,
    pub(crate) after: &'a Store,
    /// Allocations which were not there before.
    pub(crate) placed: &'a BTreeSet<AllocationId>,
    pub(crate) facts: &'a Facts<'a>,
}

/// Nodes lost within so long of each other are lost together.
const TOGETHER: DurationMs = DurationMs(120_000);
/// So many losses,
const FLAPPING_LOSSES: usize = 3;
/// within so long of each other, set a node aside for as long.
const FLAPPING_TIME: DurationMs = DurationMs(600_000);

impl Commit<'_> {
    /// Tells which rule is broken, if any is.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.check_placed()?;
        self.check_capacity()?;
        self.check_runs()?;
        self.check_leases()?;
        self.check_releases()?;
        self.check_drains()?;
        self.check_ends()?;
        self.check_silent()?;
        self.check_lost_everywhere()?;
        self.check_preemption()?;
        self.touched_workloads().iter().try_for_each(|workload| self.check_service(workload))
    }

    /// Nobody is taken for lost before the lease is over, or before there was time to report after a start of the
    /// coordinator; and everybody is then.
    fn check_leases(&self) -> Result<(), String> {
        let Facts { now, booted, config, heard, .. } = self.facts;
        let end = |node: &NodeId| match heard.get(node) {
            Some(heard) => heard.plus(config.lease),
            None => booted.plus(config.lease.max(config.start_grace)),
        };
        for change in self.changes {
            let Change::Node(record) = change else { continue };
            let was_lost = self.before.nodes.get(&record.id).is_some_and(|before| before.lost.is_some());
            if record.lost.is_some() && !was_lost && *now < end(&record.id) {
                return Err(format!("{} is lost before its lease is over", record.id));
            }
        }
        let believed = self.after.nodes.values().filter(|it| it.info.is_some() && it.lost.is_none());
        match believed.map(|record| &record.id).find(|node| end(node) <= *now) {
            Some(node) => Err(format!("{node} is believed though its lease is over")),
            None => Ok(()),
        }
    }

    /// Lost nodes are released one at a time, and none of a zone of which many were lost together; unless the operator
    /// says so.
    fn check_releases(&self) -> Result<(), String> {
        let Facts { now, config, last_release, .. } = self.facts;
        let released = self.newly_released();
        if released.is_empty() || self.facts.command == Some(&Command::ReleaseBrake) {
            return Ok(());
        }
        let is_too_soon = last_release.is_some_and(|last| now.since(last) < config.release_pause);
        if released.len() > 1 || is_too_soon {
            return Err(format!("{} is released too soon after another", released[0].id));
        }
        let zone = |record: &NodeRecord| record.info.as_ref().and_then(|it| it.labels.get("zone").cloned());
        let own = zone(released[0]);
        let neighbours = self.after.nodes.values().filter(|it| it.info.is_some() && zone(it) == own);
        let neighbours: Vec<&NodeRecord> = neighbours.collect();
        let losses: Vec<Timestamp> = neighbours.iter().filter_map(|it| it.lost).collect();
        let together = |first: &Timestamp| {
            losses.iter().filter(|loss| *loss >= first && loss.since(*first) <= TOGETHER).count()
        };
        let most = losses.iter().map(together).max().unwrap_or_default();
        if most >= 3 && most * 100 > neighbours.len() * 30 {
            return Err(format!(
                "{} is released, but {most} of its zone were lost at once, of {}",
                released[0].id,
                neighbours.len()
            ));
        }
        Ok(())
    }

    /// Returns how many nodes are lost that were not.
    pub(crate) fn newly_lost(&self) -> u64 {
        let is_new = |change: &&Change| match change {
            Change::Node(record) => {
                let before = self.before.nodes.get(&record.id);
                record.lost.is_some() && before.is_some_and(|before| before.lost.is_none())
            }
            _ => false,
        };
        self.changes.iter().filter(is_new).count() as u64
    }

    /// Returns how many allocations make way that did not.
    pub(crate) fn newly_preempted(&self) -> u64 {
        let makes_way = |change: &&Change| match change {
            Change::Allocation(record) => {
                let before = self.before.allocations.get(&record.id);
                record.makes_way.is_some() && before.is_some_and(|before| before.makes_way.is_none())
            }
            _ => false,
        };
        self.changes.iter().filter(makes_way).count() as u64
    }

    /// Returns the nodes of which from now on may be replaced what they ran.
    pub(crate) fn newly_released(&self) -> Vec<&NodeRecord> {
        let nodes = self.changes.iter().filter_map(|change| match change {
            Change::Node(record) => Some(record),
            _ => None,
        });
        let is_new = |record: &&NodeRecord| {
            let was = self.before.nodes.get(&record.id).is_some_and(|it| it.released && it.lost.is_some());
            record.released && record.lost.is_some() && !was
        };
        nodes.filter(is_new).collect()
    }

    /// A drain is over at its deadline, and then nothing is on the node that is not on its way out.
    fn check_drains(&self) -> Result<(), String> {
        let now = self.facts.now;
        let until = |node: &NodeRecord| node.cordon.and_then(|cordon| cordon.drain);
        let late = self.after.nodes.values().find(|node| until(node).is_some_and(|until| until <= now));
        if let Some(node) = late {
            return Err(format!("{} is drained beyond the deadline", node.id));
        }
        if matches!(self.facts.command, Some(Command::Cordon { .. })) {
            return Ok(());
        }
        for (id, before) in &self.before.nodes {
            let after = &self.after.nodes[id];
            if until(before).is_some() && after.cordon.is_some_and(|cordon| cordon.drain.is_none()) {
                let mut left = self.after.allocations.values().filter(|record| record.node == *id);
                if let Some(record) = left.find(|it| !matches!(it.state, AllocationState::Draining { .. })) {
                    return Err(format!("{} is still on {id}, which was drained", record.id));
                }
            }
        }
        Ok(())
    }

    /// What answers requests leaves the routes first and is ended then, not before its time.
    fn check_ends(&self) -> Result<(), String> {
        for (id, before) in &self.before.allocations {
            if self.after.allocations.contains_key(id) || !before.serves() {
                continue;
            }
            let is_lost = self.after.nodes[&before.node].lost.is_some();
            match before.state {
                AllocationState::Running if !is_lost && !self.facts.silent.contains(id) => {
                    return Err(format!("{id} is ended while requests go to it"));
                }
                AllocationState::Draining { until } if until > self.facts.now && !is_lost => {
                    return Err(format!("{id} is ended before it has drained"));
                }
                AllocationState::Draining { .. }
                | AllocationState::Placed
                | AllocationState::Running
                | AllocationState::Lost => {}
            }
        }
        Ok(())
    }

    /// Of what runs everywhere nothing is forgotten on a node that is lost and may be back.
    fn check_lost_everywhere(&self) -> Result<(), String> {
        let gone = self.before.allocations.values().filter(|it| !self.after.allocations.contains_key(&it.id));
        let mut lost = gone.filter(|it| it.serves() && it.state == AllocationState::Lost);
        let is_wanted = |record: &AllocationRecord| {
            let node = &self.after.nodes[&record.node];
            let info = node.info.as_ref().filter(|_| node.lost.is_some() && node.cordon.is_none());
            let spec = self.spec(&record.workload).filter(|spec| match &spec.kind {
                WorkloadKind::Service(service) => service.everywhere && service.allocations > 0,
                WorkloadKind::Job(_) => false,
            });
            info.zip(spec).is_some_and(|(info, spec)| may_run_on(&info.labels, &info.resources, spec))
        };
        match lost.find(|record| self.facts.command.is_none() && is_wanted(record)) {
            Some(record) => Err(format!("{} is forgotten, and {} may be back", record.id, record.node)),
            None => Ok(()),
        }
    }

    /// What says that it is not well, or does not run, is taken out of the routes at once.
    fn check_silent(&self) -> Result<(), String> {
        let told = self.facts.silent.iter().filter_map(|id| self.after.allocations.get(id));
        match told.filter(|record| record.state == AllocationState::Running).map(|record| record.id).next() {
            Some(id) => Err(format!("requests go to {id}, which says that it does not run")),
            None => Ok(()),
        }
    }

    /// Returns the workloads of which something has changed.
    fn touched_workloads(&self) -> BTreeSet<WorkloadName> {
        let allocations = self.changes.iter().filter_map(|change| match change {
            Change::Allocation(record) => Some(&record.workload),
            Change::AllocationDeleted(id) => self.before.allocations.get(id).map(|it| &it.workload),
            _ => None,
        });
        let mut touched: BTreeSet<WorkloadName> = allocations.cloned().collect();
        for change in self.changes {
            let (Change::App(dunlin_scheduler::AppRecord { name, .. }) | Change::AppDeleted(name)) = change
            else {
                continue;
            };
            let apps = self.before.apps.get(name).into_iter().chain(self.after.apps.get(name));
            touched.extend(apps.flat_map(|app| app.spec.workloads.keys()).map(|short| name.workload(short)));
        }
        touched
    }

    /// A service has no more allocations than it may, and what answers is ended only when enough others answer.
    fn check_service(&self, workload: &WorkloadName) -> Result<(), String> {
        let service = match self.spec(workload).map(|spec| &spec.kind) {
            Some(WorkloadKind::Service(service)) => Some(service),
            Some(WorkloadKind::Job(_)) | None => None,
        };
        let desired = service.map_or(0, |service| service.allocations) as usize;
        let own = || self.after.allocations.values().filter(|it| it.workload == *workload && it.serves());
        let counting = || own().filter(|record| record.is_live() || self.is_held(record));
        if service.is_some_and(|service| service.everywhere) {
            let mut on_node: BTreeMap<&NodeId, usize> = BTreeMap::new();
            counting().for_each(|record| *on_node.entry(&record.node).or_default() += 1);
            return match on_node.iter().find(|(_, count)| **count > 2 || desired == 0) {
                Some((node, count)) => Err(format!("{workload} has {count} allocations on {node}")),
                None => Ok(()),
            };
        }
        let most = self.most_of(workload, desired);
        if counting().count() > most {
            return Err(format!("{workload} has {} allocations of {desired}", counting().count()));
        }
        let is_due = |node: &NodeId| {
            let before = self.before.nodes.get(node).or_else(|| self.after.nodes.get(node));
            let until = before.and_then(|node| node.cordon).and_then(|cordon| cordon.drain);
            until.is_some_and(|until| until <= self.facts.now)
        };
        let ended = self.before.allocations.values().find(|before| {
            let after = self.after.allocations.get(&before.id).map(|after| after.state);
            before.workload == *workload
                && before.serves()
                && before.state == AllocationState::Running
                && matches!(after, None | Some(AllocationState::Draining { .. }))
                && !is_due(&before.node)
                && !self.facts.silent.contains(&before.id)
                && self.after.nodes[&before.node].lost.is_none()
        });
        let answering = counting().filter(|record| record.state != AllocationState::Placed).count();
        let may_lack = service.map_or(0, |it| it.rollout.max_unavailable.of_down(it.allocations)) as usize;
        match ended {
            Some(record) if answering + may_lack < desired => {
                Err(format!("{} is ended, and then {answering} of {desired} of {workload} answer", record.id))
            }
            _ => Ok(()),
        }
    }

    /// Returns how many allocations a service may have: as many more than it should as a rollout may, or one that leaves
    /// its node; and its canaries besides as long as they are in doubt, of which some may leave their nodes too.
    fn most_of(&self, workload: &WorkloadName, desired: usize) -> usize {
        let app = self.after.apps.get(&workload.app_name());
        let Some(WorkloadKind::Service(service)) = self.spec(workload).map(|spec| &spec.kind) else {
            return 0;
        };
        let of = |amount: dunlin_model::Amount| amount.of_up(service.allocations) as usize;
        let surge = of(service.rollout.max_surge).max(1);
        let canaries = service.rollout.canary.map_or(0, of);
        match app.and_then(|app| app.rollout.as_ref()) {
            // Of what has failed some stay that do not answer.
            Some(rollout) if rollout.failed.is_some() => desired + 2 * surge,
            Some(rollout) if !rollout.promoted => desired + canaries + 2 * surge,
            Some(_) | None if desired == 0 => 0,
            Some(_) | None => desired + surge,
        }
    }

    /// Returns what the newest revision says of a workload.
    pub(crate) fn spec(&self, workload: &WorkloadName) -> Option<&WorkloadSpec> {
        self.after.apps.get(&workload.app_name())?.spec.workloads.get(&workload.workload)
    }

    /// Returns what the revision says of a workload which a rollout leaves, if it may still be returned to.
    pub(crate) fn spec_before(&self, workload: &WorkloadName) -> Option<&WorkloadSpec> {
        let app = workload.app_name();
        let from = self.after.apps.get(&app)?.rollout.as_ref()?.from?;
        self.after.revision(&app, from)?.spec.workloads.get(&workload.workload)
    }

    /// Tells whether an allocation of a lost node still counts.
    pub(crate) fn is_held(&self, record: &AllocationRecord) -> bool {
        record.state == AllocationState::Lost && !self.after.nodes[&record.node].released
    }

    /// Tells until when a node is given nothing new, as it was lost again and again.
    pub(crate) fn set_aside_until(node: &NodeRecord) -> Option<Timestamp> {
        let last = node.losses.len().checked_sub(FLAPPING_LOSSES).map(|first| &node.losses[first..])?;
        let (first, last) = (last.first()?, last.last()?);
        (last.since(*first) <= FLAPPING_TIME).then(|| last.plus(FLAPPING_TIME))
    }
}
