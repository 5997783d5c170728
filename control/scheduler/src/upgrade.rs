//! Upgrades: which agents are to become another program, and when.
//!
//! It goes ring by ring. A ring is over when all of its nodes are the new program and have been well for a while; then the
//! next one begins. The first trouble stops it: no further node is told. What was told stays so, as what a node is to become
//! is known by the number of the upgrade alone; a node that could not become it has gone back by itself.
//!
//! Who comes when it is over is told too.

use std::collections::BTreeMap;

use dunlin_model::{
    Architecture, DurationMs, NodeId, Program, ProgramOrder, ProgramReport, Timestamp, UpgradePlan,
};

use crate::durable::Durable;
use crate::planted::{Bug, planted};
use crate::{
    AllocationState, Answer, Change, Cluster, NodeRecord, NodeUpgrade, Rejection, Step, UpgradeRecord,
    UpgradeState,
};

/// When it is looked how the upgrade goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct UpgradeTimer {
    /// Whether something has happened that may let it go on.
    pub(crate) is_due: bool,
    /// When time alone does.
    next: Option<Timestamp>,
}

impl UpgradeTimer {
    /// Returns one that is due.
    pub(crate) fn now() -> Self {
        Self { is_due: true, next: None }
    }

    /// Returns when to look, if something happened last at `since`.
    pub(crate) fn due(&self, since: Timestamp) -> Option<Timestamp> {
        if self.is_due { Some(since) } else { self.next }
    }

    /// Notes a change that may let it go on.
    pub(crate) fn mark(&mut self, before: &Durable, change: &Change) {
        self.is_due |= match change {
            Change::Upgrade(_) => true,
            Change::Node(node) => {
                let known = before.nodes().get(&node.id);
                let told = |node: &NodeRecord| (node.lost.is_some(), node.revoked, node.upgrade);
                let is_other =
                    |known: &NodeRecord| told(known) != told(node) || report_of(known) != report_of(node);
                before.upgrade().is_some() && known.is_none_or(is_other)
            }
            _ => false,
        };
    }

    fn take(&mut self, now: Timestamp) -> bool {
        let is_due = self.is_due || self.next.is_some_and(|next| next <= now);
        if is_due {
            *self = Self::default();
        }
        is_due
    }
}

/// By how much the number of an upgrade may be beyond what this store knows.
const MOST_UNKNOWN: u64 = 1 << 32;
/// When it is looked again whether what a node is to run runs there.
const LOOK_AGAIN: DurationMs = DurationMs(5_000);

/// What an upgrade is to bring, and how.
struct Wanted {
    programs: BTreeMap<Architecture, Program>,
    or_installed: bool,
    former: BTreeMap<Architecture, Program>,
    plan: UpgradePlan,
}

/// How the nodes stand that an upgrade is for.
#[derive(Debug, Default)]
struct Stand {
    /// How many there are.
    nodes: usize,
    /// How many of them have it.
    done: usize,
    /// How many were told, and have neither become it nor failed.
    at_work: usize,
    /// Those that were told since the ring began.
    of_ring: Vec<NodeId>,
    /// Those that can be told.
    untold: Vec<NodeId>,
    /// Those that were told and have now said what came of it.
    ended: Vec<NodeId>,
    /// What went wrong first.
    trouble: Option<String>,
    /// When the next one takes too long.
    overdue: Option<Timestamp>,
}

impl UpgradeRecord {
    /// Returns what a node is to become, if it was told.
    pub(crate) fn order(&self, node: &NodeRecord) -> Option<ProgramOrder> {
        let report = report_of(node).filter(|_| self.has_told(node))?;
        let program = self.programs.get(&report.architecture).cloned();
        self.is_for_one(report).then_some(ProgramOrder { number: self.number, program })
    }

    fn is_for_one(&self, report: &ProgramReport) -> bool {
        self.or_installed || self.programs.contains_key(&report.architecture)
    }

    /// Tells whether a node is what this upgrade wanted.
    pub fn is_done_on(&self, node: &NodeRecord) -> bool {
        report_of(node).is_some_and(|report| report.tried == self.number && report.failed.is_none())
    }

    /// Tells whether a node takes programs from the fleet, and this one has one for it.
    pub fn is_for(&self, node: &NodeRecord) -> bool {
        !node.revoked && report_of(node).is_some_and(|report| self.is_for_one(report))
    }

    fn has_told(&self, node: &NodeRecord) -> bool {
        node.upgrade.is_some_and(|told| told.number == self.number)
    }

    fn percent(&self) -> usize {
        self.plan.rings.get(self.ring).map_or(100, |percent| usize::from(*percent))
    }
}

/// Returns what a node says of its program, if it takes some from the fleet.
fn report_of(node: &NodeRecord) -> Option<&ProgramReport> {
    node.info.as_ref()?.program.as_ref()
}

impl Cluster {
    /// Returns what a node is to become, if it was told.
    pub(crate) fn program_of(&self, node: &NodeId) -> Option<ProgramOrder> {
        self.durable.upgrade()?.order(self.durable.nodes().get(node)?)
    }

    /// Looks at the upgrade again, as a node can be spoken to, if it may be its turn.
    pub(crate) fn look_at_upgrade_of(&mut self, node: &NodeId) {
        let is_untold = |upgrade: &UpgradeRecord| {
            let record = self.durable.nodes().get(node);
            record.is_some_and(|record| upgrade.is_for(record) && !upgrade.has_told(record))
        };
        if self.durable.upgrade().is_some_and(is_untold) {
            self.volatile.upgrade.is_due = true;
        }
    }

    /// Begins an upgrade in the place of one that is over or was stopped.
    pub(crate) fn start_upgrade(
        &mut self,
        step: &mut Step,
        programs: BTreeMap<Architecture, Program>,
        plan: UpgradePlan,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        let before = self.durable.upgrade();
        if let Some(UpgradeRecord { number, state: UpgradeState::Running, .. }) = before {
            let reason = format!("upgrade {number} goes on: stop it first, or wait for its end");
            return Err(Rejection::InvalidUpgrade { reason });
        }
        if programs.is_empty() {
            return Err(Rejection::InvalidUpgrade { reason: "there is no program in it".to_owned() });
        }
        // What was stopped half way is nothing to go back to.
        let had = before.map(|before| match before.state {
            UpgradeState::Done => before.programs.clone(),
            UpgradeState::Running | UpgradeState::Stopped { .. } => before.former.clone(),
        });
        let had = had.unwrap_or_default();
        // Those for other processors stay what they are, and so stay part of what there is to go back to.
        let wanted: BTreeMap<_, _> = had.clone().into_iter().chain(programs).collect();
        let former = match before {
            Some(before) if wanted == had => before.former.clone(),
            _ => had,
        };
        self.begin_upgrade(step, Wanted { programs: wanted, or_installed: false, former, plan }, now)
    }

    /// Has no further node told.
    pub(crate) fn stop_upgrade(&mut self, step: &mut Step, now: Timestamp) -> Result<Answer, Rejection> {
        let running = self.durable.upgrade().filter(|upgrade| upgrade.state == UpgradeState::Running);
        let record = running.ok_or(Rejection::NoUpgrade("no upgrade goes on"))?.clone();
        let number = record.number;
        let state = UpgradeState::Stopped { reason: "an operator stopped it".to_owned() };
        self.change(step, Change::Upgrade(UpgradeRecord { state, ..record }), now);
        Ok(Answer::Upgrade(number))
    }

    /// Begins again with what was stopped: under another number, so that those try again that have failed.
    pub(crate) fn resume_upgrade(&mut self, step: &mut Step, now: Timestamp) -> Result<Answer, Rejection> {
        let is_stopped = |upgrade: &&UpgradeRecord| matches!(upgrade.state, UpgradeState::Stopped { .. });
        let record = self.durable.upgrade().filter(is_stopped);
        let record = record.ok_or(Rejection::NoUpgrade("no upgrade was stopped"))?.clone();
        let UpgradeRecord { programs, or_installed, former, plan, .. } = record;
        self.begin_upgrade(step, Wanted { programs, or_installed, former, plan }, now)
    }

    /// Lets all go back to what was before, in one ring.
    pub(crate) fn revert_upgrade(&mut self, step: &mut Step, now: Timestamp) -> Result<Answer, Rejection> {
        let record = self.durable.upgrade();
        let record = record.ok_or(Rejection::NoUpgrade("there was no upgrade"))?.clone();
        let plan = UpgradePlan { rings: vec![100], ..record.plan };
        // Once more leads there too, and not forth again.
        let (programs, former) = (record.former.clone(), record.former);
        self.begin_upgrade(step, Wanted { programs, or_installed: true, former, plan }, now)
    }

    fn begin_upgrade(
        &mut self,
        step: &mut Step,
        wanted: Wanted,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        let Wanted { programs, or_installed, former, plan } = wanted;
        plan.check().map_err(|reason| Rejection::InvalidUpgrade { reason })?;
        let last = self.durable.upgrade().map_or(0, |upgrade| upgrade.number);
        // Also beyond what nodes have tried that this store does not know of, as it is an old one. Who says something
        // that cannot be is not believed.
        let members = self.durable.nodes().values().filter(|node| !node.revoked);
        let tried = members.filter_map(report_of).map(|report| report.tried);
        let tried =
            tried.filter(|tried| *tried < last.saturating_add(MOST_UNKNOWN)).max().unwrap_or_default();
        let record = UpgradeRecord {
            number: last.max(tried).saturating_add(1),
            programs,
            or_installed,
            former,
            plan,
            started: now,
            ring: 0,
            ring_since: now,
            whole_since: None,
            state: UpgradeState::Running,
        };
        if !self.durable.nodes().values().any(|node| record.is_for(node)) {
            let reason = "no node takes these programs: a node's config must name the key they are signed with, as in \
                          `[upgrade] keys = [\"RW...\"]`, and there must be a program for its architecture";
            return Err(Rejection::InvalidUpgrade { reason: reason.to_owned() });
        }
        let number = record.number;
        self.change(step, Change::Upgrade(record), now);
        Ok(Answer::Upgrade(number))
    }

    /// Lets the upgrade go as far as it can now.
    pub(crate) fn advance_upgrade(&mut self, step: &mut Step, now: Timestamp) {
        while self.volatile.upgrade.take(now) {
            let record = self.durable.upgrade();
            let Some(record) = record.filter(|it| !matches!(it.state, UpgradeState::Stopped { .. })).cloned()
            else {
                return;
            };
            let stand = self.stand(&record, now);
            for id in &stand.ended {
                let node = self.durable.nodes()[id].clone();
                let upgrade = node.upgrade.map(|told| NodeUpgrade { ended: true, ..told });
                self.change(step, Change::Node(NodeRecord { upgrade, ..node }), now);
            }
            if record.state == UpgradeState::Running {
                self.go_on(step, record, stand, now);
            } else {
                self.tell(step, &record, &stand, stand.nodes, now);
                self.volatile.upgrade.next = stand.overdue;
            }
        }
    }

    fn go_on(&mut self, step: &mut Step, record: UpgradeRecord, stand: Stand, now: Timestamp) {
        if let Some(reason) = stand.trouble.clone().filter(|_| !planted(Bug::UpgradeGoesOn)) {
            self.stop_for(step, record, reason, now);
            return;
        }
        let target = (stand.nodes * record.percent()).div_ceil(100).max(1);
        if stand.done < target || stand.at_work > 0 {
            self.tell(step, &record, &stand, target, now);
            self.volatile.upgrade.next = stand.overdue;
            if record.whole_since.is_some() {
                // A node has come that belongs to the ring.
                self.change(step, Change::Upgrade(UpgradeRecord { whole_since: None, ..record }), now);
            }
            return;
        }
        // Nobody is watched in a ring for which nobody was told.
        if !stand.of_ring.is_empty() {
            let Some(since) = record.whole_since else {
                let whole = UpgradeRecord { whole_since: Some(now), ..record };
                self.change(step, Change::Upgrade(whole), now);
                return;
            };
            let over = since.plus(record.plan.bake);
            if over > now {
                self.volatile.upgrade.next = Some(over);
                return;
            }
            if let Some(reason) = self.is_worse(&stand.of_ring, record.plan.bake) {
                // What was placed there a moment ago needs its time.
                if over.plus(record.plan.patience) > now {
                    self.volatile.upgrade.next = Some(now.plus(LOOK_AGAIN));
                } else {
                    self.stop_for(step, record, reason, now);
                }
                return;
            }
        }
        let ring = record.ring + 1;
        let record = if ring < record.plan.rings.len() {
            UpgradeRecord { ring, ring_since: now, whole_since: None, ..record }
        } else {
            UpgradeRecord { state: UpgradeState::Done, ..record }
        };
        self.change(step, Change::Upgrade(record), now);
    }

    fn stop_for(&mut self, step: &mut Step, record: UpgradeRecord, reason: String, now: Timestamp) {
        let state = UpgradeState::Stopped { reason };
        self.change(step, Change::Upgrade(UpgradeRecord { state, ..record }), now);
    }

    /// Tells as many nodes as may become it now, until so many have it.
    fn tell(
        &mut self,
        step: &mut Step,
        record: &UpgradeRecord,
        stand: &Stand,
        target: usize,
        now: Timestamp,
    ) {
        let at_once = if planted(Bug::UpgradeAllAtOnce) { usize::MAX } else { record.plan.at_once as usize };
        let room = at_once.saturating_sub(stand.at_work);
        let missing = target.saturating_sub(stand.done + stand.at_work);
        for node in stand.untold.iter().take(room.min(missing)) {
            let told =
                NodeUpgrade { number: record.number, told: now, unwell: self.unwell(node), ended: false };
            let node = NodeRecord { upgrade: Some(told), ..self.durable.nodes()[node].clone() };
            self.change(step, Change::Node(node), now);
        }
    }

    fn stand(&self, record: &UpgradeRecord, now: Timestamp) -> Stand {
        let mut stand = Stand::default();
        let is_running = record.state == UpgradeState::Running;
        let nodes = self.durable.nodes().iter().filter(|(_, node)| !node.revoked);
        for (id, node) in nodes.filter(|(_, node)| record.is_for(node) || record.has_told(node)) {
            let Some(told) = node.upgrade.filter(|told| told.number == record.number) else {
                // Who is not there is waited for by nobody.
                if node.lost.is_none() {
                    stand.nodes += 1;
                    if self.listens(id) {
                        stand.untold.push(id.clone());
                    }
                }
                continue;
            };
            stand.nodes += 1;
            let is_of_ring = told.told >= record.ring_since;
            if is_of_ring {
                stand.of_ring.push(id.clone());
            }
            let has_said = report_of(node).is_some_and(|report| report.tried == record.number);
            if has_said && !told.ended {
                stand.ended.push(id.clone());
            }
            let overdue = told.told.plus(record.plan.patience);
            let trouble = if let Some(reason) = failure(record, node) {
                Some(reason.to_owned())
            } else if report_of(node).is_none() {
                Some("it takes no programs any more".to_owned())
            } else if has_said || told.ended {
                stand.done += 1;
                (is_of_ring && node.lost.is_some()).then(|| "it became it, and was lost then".to_owned())
            } else if is_running || (overdue > now && node.lost.is_none()) {
                stand.at_work += 1;
                if overdue > now {
                    stand.overdue = stand.overdue.into_iter().chain([overdue]).min();
                }
                let patience = record.plan.patience;
                (overdue <= now).then(|| format!("it has not become it, nor said why, within {patience}"))
            } else {
                // When it is over, nobody waits for who is not there.
                None
            };
            stand.trouble = stand.trouble.or_else(|| Some(format!("{id}: {}", trouble?)));
        }
        stand
    }

    /// Returns what is worse on one of these nodes than before it was told, if anything is.
    fn is_worse(&self, nodes: &[NodeId], bake: DurationMs) -> Option<String> {
        nodes.iter().find_map(|id| {
            let (before, now) = (self.durable.nodes().get(id)?.upgrade?.unwell, self.unwell(id));
            let reason = || {
                format!(
                    "{id}: {now} allocations do not serve {bake} after it became it, against {before} before"
                )
            };
            (now > before).then(reason)
        })
    }

    /// Returns how many allocations of a node should serve and do not.
    fn unwell(&self, node: &NodeId) -> u32 {
        let services = self.durable.on_node(node).filter(|record| record.serves());
        let unwell = services.filter(|record| record.state == AllocationState::Placed).count();
        u32::try_from(unwell).unwrap_or(u32::MAX)
    }
}

/// Returns why a node could not become what it was to become, if it says so.
fn failure<'a>(record: &UpgradeRecord, node: &'a NodeRecord) -> Option<&'a str> {
    let report = report_of(node)?;
    report.failed.as_deref().filter(|_| report.tried == record.number)
}
