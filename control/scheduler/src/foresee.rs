//! Looking ahead: a copy of the cluster is driven on a clock of its own, with agents that obey.
//!
//! It is the same brain that decides, so what is foreseen is what would be decided. What is made up is only the world:
//! an agent that is told to run something says at its next heartbeat that it runs, one that fell silent says nothing,
//! and items of jobs are not run, nor is anything started by a schedule. Nodes that are believed now go on being believed unless they are to be lost, so no
//! heartbeat has to be played for them and the cost grows with what changes.
//!
//! Not here: what is told of it (`course`).

use std::collections::BTreeSet;

use dunlin_model::{
    AllocationReport, AppName, AppSpec, Bytes, DurationMs, Forecast, ForecastEnd, Fuel, NodeId,
    ObservedState, Report, Revision, Timestamp, Want, WorkloadForecast, WorkloadName,
};

use crate::course::Course;
use crate::volatile::Volatile;
use crate::{
    AllocationRecord, AllocationState, Answer, AppRecord, Cluster, Command, Config, NodeRecord, Observation,
    Rejection, Step, ZONE,
};

/// So many steps are taken at most, of which each costs little,
const MAX_STEPS: u32 = 50_000;
/// and so many changes made, of which each costs about ten microseconds.
const MAX_CHANGES: usize = 2_000_000;
/// After so many heartbeats without a word a connection counts as broken.
const SILENT_HEARTBEATS: u64 = 3;

/// A copy of a cluster, and the world that is made up around it.
#[derive(Clone, Debug)]
pub struct Foresight {
    cluster: Cluster,
    now: Timestamp,
    /// Who reports when.
    reports: BTreeSet<(Timestamp, NodeId)>,
    /// Whose connection is noticed to be broken when.
    breaks: BTreeSet<(Timestamp, NodeId)>,
    /// Who says nothing any more.
    silent: BTreeSet<NodeId>,
    course: Course,
    steps: u32,
    changes: usize,
}

impl Foresight {
    /// Begins with a copy of a cluster that is at work. Nodes that are not connected stay as they are.
    pub fn of(mut cluster: Cluster, now: Timestamp) -> Self {
        cluster.volatile.history.keep_all();
        cluster.volatile.rebalancing.stop();
        // Items are not run, so what a schedule starts would only heap up.
        cluster.volatile.calendar.stop();
        let nodes: Vec<NodeId> = cluster.durable.nodes().keys().cloned().collect();
        for node in &nodes {
            // Who is believed stays so: heartbeats are not played.
            cluster.volatile.set_lease(node, None);
        }
        let course = Course::begin(&cluster, now);
        let (reports, breaks, silent) = Default::default();
        let mut foresight = Self { cluster, now, reports, breaks, silent, course, steps: 0, changes: 0 };
        // What is on its way already: they were told, and will say so.
        for node in nodes {
            let is_told =
                |record: &AllocationRecord| record.state == AllocationState::Placed && record.serves();
            if foresight.cluster.durable.on_node(&node).any(is_told) {
                foresight.expect_report(&node, now);
            }
        }
        foresight
    }

    /// Begins with a cluster that was written down: all its nodes that are not lost report at once, and time goes on
    /// until what is written down runs. Only then is it looked at.
    pub fn of_written(mut cluster: Cluster, now: Timestamp, settle: DurationMs) -> Self {
        let nodes: Vec<NodeId> = cluster.durable.nodes().keys().cloned().collect();
        for record in cluster.durable.allocations().values().filter(|record| record.is_live()) {
            cluster.volatile.compiled.runs(record.spec.component, &record.node);
        }
        for node in &nodes {
            cluster.volatile.set_lease(node, None);
            // All are there before anything is placed: the first to report would get it all.
            if cluster.durable.nodes()[node].lost.is_none() {
                let state = cluster.volatile.node(node);
                (state.last_seen, state.connected) = (Some(now), true);
                cluster.refresh_pools(node);
            }
        }
        let course = Course::begin(&cluster, now);
        let (breaks, silent) = Default::default();
        let mut foresight =
            Self { cluster, now, reports: BTreeSet::new(), breaks, silent, course, steps: 0, changes: 0 };
        for node in nodes {
            let is_lost = foresight.cluster.durable.nodes()[&node].lost.is_some();
            if !is_lost {
                foresight.reports.insert((now, node));
            }
        }
        let _ends = foresight.run(settle);
        Self::of(foresight.cluster, foresight.now)
    }

    /// Hands a user's wish to the copy.
    pub fn submit(&mut self, command: Command) -> Result<Answer, Rejection> {
        let (answer, step) = self.cluster.submit(command, self.now)?;
        self.take(step);
        Ok(answer)
    }

    /// Asks for no signatures from now on: what is deployed already is deployed again as it is, in another number.
    pub fn trust_all(&mut self) -> Result<(), Rejection> {
        let namespaces = self.cluster.durable.namespaces().clone();
        for (namespace, mut spec) in namespaces {
            if !spec.signers.is_empty() {
                spec.signers.clear();
                self.submit(Command::SetNamespace { namespace, spec })?;
            }
        }
        Ok(())
    }

    /// Lets a node fall silent from now on.
    pub fn lose(&mut self, node: &NodeId) -> Result<(), Rejection> {
        let record = self.cluster.durable.nodes().get(node);
        let record = record.ok_or_else(|| Rejection::UnknownNode(node.clone()))?;
        if record.lost.is_some() || record.info.is_none() || !self.silent.insert(node.clone()) {
            return Ok(());
        }
        let Config { lease, heartbeat, .. } = self.cluster.config;
        self.cluster.volatile.set_lease(node, Some(self.now.plus(lease)));
        self.breaks.insert((self.now.plus(DurationMs(heartbeat.0 * SILENT_HEARTBEATS)), node.clone()));
        self.reports.retain(|(_, other)| other != node);
        Ok(())
    }

    /// Returns the nodes of a zone: those with this label `zone`.
    pub fn zone(&self, zone: &str) -> Vec<NodeId> {
        let label = |record: &NodeRecord| Some(record.info.as_ref()?.labels.get(ZONE)? == zone);
        let nodes = self.cluster.durable.nodes().values();
        nodes.filter(|record| label(record) == Some(true)).map(|record| record.id.clone()).collect()
    }

    /// Returns what was asked for of an app.
    pub fn spec(&self, app: &AppName) -> Option<&AppSpec> {
        self.cluster.durable.apps().get(app).map(|app| &app.spec)
    }

    /// Returns the apps there are.
    pub fn apps(&self) -> impl Iterator<Item = &AppName> {
        self.cluster.durable.apps().keys()
    }

    /// Lets time pass until nothing changes any more, for so long at most, and tells what came of it since the
    /// beginning.
    pub fn look(mut self, within: DurationMs) -> Forecast {
        let ends = self.run(within);
        self.course.told(&self.cluster, self.now, ends)
    }

    fn run(&mut self, within: DurationMs) -> ForecastEnd {
        let end = self.now.plus(within);
        loop {
            let report = self.reports.first().map(|(due, _)| *due);
            let broken = self.breaks.first().map(|(due, _)| *due);
            let deadline = self.cluster.next_deadline();
            let Some(next) = [report, broken, deadline].into_iter().flatten().min() else {
                return ForecastEnd::Settled;
            };
            if next > end {
                self.now = end;
                return ForecastEnd::Time;
            }
            if self.steps == MAX_STEPS || self.changes > MAX_CHANGES {
                return ForecastEnd::Effort;
            }
            self.steps += 1;
            self.now = self.now.max(next);
            let step = if deadline.is_some_and(|deadline| deadline <= self.now) {
                self.cluster.tick(self.now)
            } else if broken == Some(next) {
                let Some((_, node)) = self.breaks.pop_first() else { continue };
                self.cluster.observe(Observation::Disconnected { node }, self.now)
            } else {
                let Some((_, node)) = self.reports.pop_first() else { continue };
                self.report(node)
            };
            self.take(step);
        }
    }

    /// Takes note of what was decided, and lets those react who are told something.
    fn take(&mut self, step: Step) {
        self.changes += step.changes.len();
        for node in self.course.take(&self.cluster, &step.changes, self.now) {
            let due = self.now.plus(self.cluster.config.heartbeat);
            self.expect_report(&node, due);
        }
    }

    /// Lets a node report once more by `due`, if it can.
    fn expect_report(&mut self, node: &NodeId, due: Timestamp) {
        let is_heard = self.cluster.volatile.nodes.get(node).is_some_and(|state| state.connected);
        let is_lost = self.cluster.durable.nodes().get(node).is_none_or(|record| record.lost.is_some());
        if is_heard && !is_lost && !self.silent.contains(node) {
            self.reports.insert((due, node.clone()));
        }
    }

    /// Lets a node say that it runs all that it is to run.
    fn report(&mut self, node: NodeId) -> Step {
        let Cluster { id, term, durable, volatile, .. } = &self.cluster;
        let Some(info) = durable.nodes().get(&node).and_then(|record| record.info.clone()) else {
            return Step::default();
        };
        let assigned = durable.on_node(&node).filter(|record| record.is_assigned());
        let report = Report {
            cluster: id.clone(),
            term: *term,
            generation: self.cluster.due(&node),
            info,
            sent: Timestamp::default(),
            allocations: assigned.map(|record| said(volatile, record)).collect(),
            items: Vec::new(),
        };
        let step = self.cluster.observe(Observation::Report { node: node.clone(), report }, self.now);
        self.cluster.volatile.set_lease(&node, None);
        step
    }
}

impl Cluster {
    /// Returns how patient it is.
    pub const fn patience(&self) -> Config {
        self.config
    }
}

/// What a deploy would bring about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The app as it is; absent if it is new.
    pub before: Option<AppRecord>,
    /// Its revision then.
    pub revision: Revision,
    /// Whether it is a new one.
    pub changed: bool,
    /// What it wants that the app as it is has not.
    pub wants: Vec<Want>,
    /// Whether these have to be accepted.
    pub asks: bool,
    /// What would come of it.
    pub forecast: Forecast,
}

/// Looks what a deploy would bring about, beside what comes without it.
pub fn plan(
    cluster: Cluster,
    now: Timestamp,
    spec: AppSpec,
    within: DurationMs,
) -> Result<Planned, Rejection> {
    let app = spec.name.clone();
    let before = cluster.durable.apps().get(&app).cloned();
    let asks = cluster.asks(&app.namespace);
    let without = Foresight::of(cluster.clone(), now);
    let mut with = Foresight::of(cluster, now);
    with.course.only(&app);
    // Who looks has accepted nothing yet, and is told what would have to be.
    let (revision, changed, wants) = match with.submit(Command::Deploy { spec, accept: true })? {
        Answer::Deployed { revision, changed, wants } => (revision, changed, wants),
        other => unreachable!("a deploy is answered with {other:?}"),
    };
    if !changed {
        return Ok(Planned { before, revision, changed, wants, asks, forecast: Forecast::default() });
    }
    let (mut forecast, without) = (with.look(within), without.look(within));
    let all = forecast.workloads.len();
    let by_name = |name: &WorkloadName| without.workloads.iter().find(|other| other.workload == *name);
    forecast.workloads.retain(|told| {
        told.workload.app_name() == app || by_name(&told.workload).is_none_or(|other| is_other(told, other))
    });
    let left_out = all - forecast.workloads.len();
    forecast.untouched = forecast.untouched.saturating_add(u32::try_from(left_out).unwrap_or(u32::MAX));
    Ok(Planned { before, revision, changed, wants, asks, forecast })
}

/// Tells whether a workload fares otherwise.
fn is_other(one: &WorkloadForecast, other: &WorkloadForecast) -> bool {
    let fares = |told: &WorkloadForecast| {
        (told.serving, told.fewest, told.waiting.is_some(), told.moved, told.ended, told.lost)
    };
    fares(one) != fares(other)
}

/// Returns what a node says of an allocation: that it runs, or what it said before if that was a failure.
fn said(volatile: &Volatile, record: &AllocationRecord) -> AllocationReport {
    let known = volatile.observed(record).cloned();
    let mut report = known.unwrap_or(AllocationReport {
        id: record.id,
        state: ObservedState::Running,
        restarts: 0,
        fuel: Fuel(0),
        memory: Bytes(0),
        instances: 0,
        failed: 0,
    });
    match report.state {
        ObservedState::Fetching | ObservedState::Starting | ObservedState::Finished => {
            report.state = ObservedState::Running;
        }
        ObservedState::Running
        | ObservedState::BackingOff { .. }
        | ObservedState::Unhealthy { .. }
        | ObservedState::Stopped { .. }
        | ObservedState::Refused { .. } => {}
    }
    report
}
