//! What agents say: leases are renewed, states are taken over, items are recorded.

use dunlin_model::{AllocationReport, ItemReport, NodeId, ObservedState, Outcome, Report, Timestamp, Work};

use crate::planted::{Bug, planted};
use crate::{Action, AllocationState, Change, Cluster, Step};

impl Cluster {
    /// Takes over what a node says of itself.
    pub(crate) fn observe_report(&mut self, step: &mut Step, node: &NodeId, report: Report, now: Timestamp) {
        let Some(record) = self.durable.nodes().get(node) else { return };
        if report.cluster != self.id || record.revoked || !self.may_act_on(node, &report) {
            return;
        }
        let was_lost = record.lost.is_some();
        let is_news = record.info.as_ref() != Some(&report.info);

        if is_news || was_lost || !planted(Bug::RenewLeaseForNewsOnly) {
            self.volatile.set_lease(node, Some(now.plus(self.config.lease)));
        }
        self.route_to(node, now);
        let state = self.volatile.node(node);
        let unheard = state.last_seen.is_none() || !state.connected;
        state.last_seen = Some(now);
        state.connected = true;
        state.reported = Some((report.term, report.generation));
        if (report.term, report.generation) < (self.term, self.due(node)) {
            self.volatile.behind.insert(node.clone());
        }
        if unheard {
            self.look_at_upgrade_of(node);
            self.refresh_pools(node);
        }
        self.forget_what_has_left(step, node, &report, now);
        if is_news {
            let mut record = self.durable.nodes()[node].clone();
            record.info = Some(report.info);
            self.change(step, Change::Node(record), now);
        }

        let (all_told, sent) = (report.items.is_empty(), report.sent);
        self.observe_items(step, node, report.items, now);
        if was_lost {
            self.welcome_back(step, node, now);
        }
        for allocation in self.news(node, report.allocations) {
            self.observe_allocation(step, node, allocation, all_told, now);
        }
        self.answer(step, node, sent);
    }

    /// Remembers what a node says of its allocations, and returns what of that may change something: what it has not
    /// said before, and all of it if the brain has decided something for the node since.
    fn news(&mut self, node: &NodeId, mut reports: Vec<AllocationReport>) -> Vec<AllocationReport> {
        reports.sort_by_key(|report| report.id);
        let state = self.volatile.node(node);
        let must_be_heard = std::mem::take(&mut state.must_be_heard);
        let mut known = state.reports.iter().peekable();
        let is_news = |report: &&AllocationReport| {
            while known.next_if(|known| known.id < report.id).is_some() {}
            // What has finished counts when all its items are told, which this may be the first report to do.
            must_be_heard || report.state == ObservedState::Finished || known.peek() != Some(report)
        };
        let news = reports.iter().filter(is_news).cloned().collect();
        state.reports = reports;
        news
    }

    /// Tells whether a report can come from an agent that obeys this coordinator and none after it.
    fn may_act_on(&self, node: &NodeId, report: &Report) -> bool {
        (report.term, report.generation) <= (self.term, self.due(node))
    }

    fn observe_items(&mut self, step: &mut Step, node: &NodeId, items: Vec<ItemReport>, now: Timestamp) {
        if items.is_empty() {
            return;
        }
        let told = items.iter().map(|item| (item.allocation, item.item)).collect();
        self.record_items(step, node, items, now);
        if !planted(Bug::ForgetToAcknowledge) {
            step.actions.push(Action::Recorded { node: node.clone(), items: told });
        }
    }

    /// Takes over how one allocation is. `all_told` says that the node has no items which are not recorded.
    fn observe_allocation(
        &mut self,
        step: &mut Step,
        node: &NodeId,
        report: AllocationReport,
        all_told: bool,
        now: Timestamp,
    ) {
        let Some(record) = self.durable.allocations().get(&report.id) else { return };
        if record.node != *node || record.state == AllocationState::Lost {
            return;
        }
        let (id, state) = (report.id, report.state.clone());
        if let ObservedState::BackingOff { .. }
        | ObservedState::Unhealthy { .. }
        | ObservedState::Refused { .. } = state
        {
            // What an earlier revision does says nothing of the newest one.
            let newest = self.durable.apps().get(&record.workload.app_name()).map(|app| app.revision);
            if !record.serves() || newest == Some(record.revision) {
                self.volatile.failures.note(&record.workload, node, now);
            }
            self.volatile.history.failed(record, &state, now);
        }
        if record.serves() {
            let has_changed = (record.state == AllocationState::Running) != (state == ObservedState::Running);
            self.look_at_rollout(&record.workload.app_name(), has_changed, now);
        }
        let Some(record) = self.durable.allocations().get(&id) else { return };
        match (&record.work, record.state) {
            (Work::Serve, AllocationState::Placed) if state == ObservedState::Running => {
                self.volatile.compiled.runs(record.spec.component, node);
                self.set_state(step, id, AllocationState::Running, now);
            }
            (Work::Serve, AllocationState::Running)
                if state != ObservedState::Running && !planted(Bug::RouteToUnwell) =>
            {
                self.set_state(step, id, AllocationState::Placed, now);
            }
            (Work::Serve, _) => {}
            (Work::Items { .. }, _) => match state {
                ObservedState::Refused { reason } => {
                    self.fail_outstanding(step, id, &Outcome::NotStarted { reason }, now);
                }
                // Items that it was told to forget, or that were tried in vain, are no longer its own.
                ObservedState::Finished if all_told => self.give_back(step, id, now),
                ObservedState::Fetching
                | ObservedState::Starting
                | ObservedState::Running
                | ObservedState::BackingOff { .. }
                | ObservedState::Unhealthy { .. }
                | ObservedState::Stopped { .. }
                | ObservedState::Finished => {}
            },
        }
    }

    /// A node can be spoken to: it is told everything again.
    pub(crate) fn observe_connected(&mut self, node: &NodeId, now: Timestamp) {
        if self.durable.nodes().get(node).is_some_and(|record| !record.revoked) {
            self.volatile.node(node).connected = true;
            self.volatile.behind.insert(node.clone());
            self.volatile.dirty_since = now;
            self.look_at_upgrade_of(node);
            self.refresh_pools(node);
        }
    }

    /// A node cannot be spoken to. Its lease goes on.
    pub(crate) fn observe_disconnected(&mut self, node: &NodeId) {
        if let Some(state) = self.volatile.nodes.get_mut(node) {
            state.connected = false;
            self.refresh_pools(node);
        }
    }
}
