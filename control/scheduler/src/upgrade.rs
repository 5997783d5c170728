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

    fn take(&mut self, now: Timestamp) -> bool {
        let is_due = self.is_due || self.next.is_some_and(|next| next <= now);
        if is_due {
            *self = Self::default();
        }
        is_due
    }
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
    /// How many were told since the ring began.
    of_ring: usize,
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
    /// Returns what it says to a node with this program, if it is for such ones.
    fn order(&self, report: &ProgramReport) -> Option<ProgramOrder> {
        let program = self.programs.get(&report.architecture);
        let is_for_it = program.is_some() || self.programs.is_empty();
        is_for_it.then(|| ProgramOrder { number: self.number, program: program.cloned() })
    }

    /// Tells whether a node is what this upgrade wanted.
    pub fn is_done_on(&self, node: &NodeRecord) -> bool {
        let report = node.info.as_ref().and_then(|info| info.program.as_ref());
        report.is_some_and(|report| report.tried == self.number && report.failed.is_none())
    }

    /// Tells whether a node takes programs from the fleet, and this one has one for it.
    pub fn is_for(&self, node: &NodeRecord) -> bool {
        let report = node.info.as_ref().and_then(|info| info.program.as_ref());
        !node.revoked && report.is_some_and(|report| self.order(report).is_some())
    }

    fn percent(&self) -> usize {
        self.plan.rings.get(self.ring).map_or(100, |percent| usize::from(*percent))
    }
}

impl Cluster {
    /// Returns what a node is to become, if it was told.
    pub(crate) fn program_of(&self, node: &NodeId) -> Option<ProgramOrder> {
        let record = self.durable.nodes().get(node)?;
        let upgrade = self
            .durable
            .upgrade()
            .filter(|it| record.upgrade.is_some_and(|told| told.number == it.number))?;
        upgrade.order(record.info.as_ref()?.program.as_ref()?)
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
        let former = before.map(|before| match before.state {
            UpgradeState::Done => before.programs.clone(),
            UpgradeState::Running | UpgradeState::Stopped { .. } => before.former.clone(),
        });
        self.begin_upgrade(step, (programs, former.unwrap_or_default()), plan, now)
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
        self.begin_upgrade(step, (record.programs, record.former), record.plan, now)
    }

    /// Lets all go back to what was before, in one ring.
    pub(crate) fn revert_upgrade(&mut self, step: &mut Step, now: Timestamp) -> Result<Answer, Rejection> {
        let record = self.durable.upgrade();
        let record = record.ok_or(Rejection::NoUpgrade("there was no upgrade"))?.clone();
        let plan = UpgradePlan { rings: vec![100], ..record.plan };
        self.begin_upgrade(step, (record.former, record.programs), plan, now)
    }

    fn begin_upgrade(
        &mut self,
        step: &mut Step,
        (programs, former): (BTreeMap<Architecture, Program>, BTreeMap<Architecture, Program>),
        plan: UpgradePlan,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        plan.check().map_err(|reason| Rejection::InvalidUpgrade { reason })?;
        // Also beyond what nodes have tried that this store does not know of, as it is an old one.
        let reports = self.durable.nodes().values().filter_map(|node| node.info.as_ref()?.program.as_ref());
        let tried = reports.map(|report| report.tried).max().unwrap_or_default();
        let last = self.durable.upgrade().map_or(0, |upgrade| upgrade.number);
        let record = UpgradeRecord {
            number: last.max(tried).saturating_add(1),
            programs,
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
            let Some(record) = self.durable.upgrade().cloned() else { return };
            let stand = self.stand(&record, now);
            for id in &stand.ended {
                let node = self.durable.nodes()[id].clone();
                let upgrade = node.upgrade.map(|told| NodeUpgrade { ended: true, ..told });
                self.change(step, Change::Node(NodeRecord { upgrade, ..node }), now);
            }
            match &record.state {
                UpgradeState::Stopped { .. } => {}
                UpgradeState::Done => self.tell(step, &record, &stand, stand.nodes, now),
                UpgradeState::Running => self.go_on(step, record, stand, now),
            }
        }
    }

    fn go_on(&mut self, step: &mut Step, record: UpgradeRecord, stand: Stand, now: Timestamp) {
        if let Some(reason) = stand.trouble.filter(|_| !planted(Bug::UpgradeGoesOn)) {
            let state = UpgradeState::Stopped { reason };
            self.change(step, Change::Upgrade(UpgradeRecord { state, ..record }), now);
            return;
        }
        let target = (stand.nodes * record.percent()).div_ceil(100).max(1);
        if stand.done < target || stand.at_work > 0 {
            let stand = Stand { trouble: None, ..stand };
            self.tell(step, &record, &stand, target, now);
            self.volatile.upgrade.next = stand.overdue.filter(|overdue| *overdue > now);
            if record.whole_since.is_some() {
                // A node has come that belongs to the ring.
                self.change(step, Change::Upgrade(UpgradeRecord { whole_since: None, ..record }), now);
            }
            return;
        }
        // Nobody is watched in a ring for which nobody was told.
        let is_watched = stand.of_ring > 0 && record.plan.bake > DurationMs(0);
        let over = record.whole_since.map(|since| since.plus(record.plan.bake));
        if is_watched && !over.is_some_and(|over| over <= now) {
            match over {
                Some(over) => self.volatile.upgrade.next = Some(over),
                None => self.change(
                    step,
                    Change::Upgrade(UpgradeRecord { whole_since: Some(now), ..record }),
                    now,
                ),
            }
            return;
        }
        let ring = record.ring + 1;
        let record = if ring < record.plan.rings.len() {
            UpgradeRecord { ring, ring_since: now, whole_since: None, ..record }
        } else {
            UpgradeRecord { state: UpgradeState::Done, ..record }
        };
        self.change(step, Change::Upgrade(record), now);
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
        for (id, node) in self.durable.nodes().iter().filter(|(_, node)| record.is_for(node)) {
            let told = node.upgrade.filter(|told| told.number == record.number);
            let Some(told) = told else {
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
            stand.of_ring += usize::from(is_of_ring);
            let overdue = told.told.plus(record.plan.patience);
            let has_said = has_tried(record, node);
            if has_said && !told.ended {
                stand.ended.push(id.clone());
            }
            let trouble = if let Some(reason) = failure(record, node) {
                Some(format!("{id}: {reason}"))
            } else if has_said || told.ended {
                stand.done += 1;
                self.trouble_after(record, node, told, now).filter(|_| is_of_ring)
            } else {
                stand.at_work += 1;
                stand.overdue = stand.overdue.into_iter().chain([overdue]).min();
                let patience = record.plan.patience;
                let is_late = overdue <= now;
                is_late.then(|| format!("{id} has not become it, nor said why, within {patience}"))
            };
            stand.trouble = stand.trouble.or(trouble);
        }
        stand
    }

    /// Returns what is wrong with a node that has become it.
    fn trouble_after(
        &self,
        record: &UpgradeRecord,
        node: &NodeRecord,
        told: NodeUpgrade,
        now: Timestamp,
    ) -> Option<String> {
        let id = &node.id;
        if node.lost.is_some() {
            return Some(format!("{id} became it, and was lost then"));
        }
        let is_over = record.whole_since.is_some_and(|since| since.plus(record.plan.bake) <= now);
        let unwell = self.unwell(id);
        (is_over && unwell > told.unwell).then(|| {
            let bake = record.plan.bake;
            format!(
                "{unwell} allocations on {id} do not serve {bake} after it became it, against {} before",
                told.unwell
            )
        })
    }

    /// Returns how many allocations of a node should serve and do not.
    fn unwell(&self, node: &NodeId) -> u32 {
        let services = self.durable.on_node(node).filter(|record| record.serves());
        let unwell = services.filter(|record| record.state == AllocationState::Placed).count();
        u32::try_from(unwell).unwrap_or(u32::MAX)
    }
}

/// Tells whether a node has said what came of this upgrade.
fn has_tried(record: &UpgradeRecord, node: &NodeRecord) -> bool {
    let report = node.info.as_ref().and_then(|info| info.program.as_ref());
    report.is_some_and(|report| report.tried == record.number)
}

/// Returns why a node could not become what it was to become, if it says so.
fn failure<'a>(record: &UpgradeRecord, node: &'a NodeRecord) -> Option<&'a str> {
    let report = node.info.as_ref()?.program.as_ref()?;
    report.failed.as_deref().filter(|_| report.tried == record.number)
}
