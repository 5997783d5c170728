//! What happens while a copy of the cluster is driven ahead, and what of it is told in the end.
//!
//! It watches the changes of each step beside a picture of the allocations as they were before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_model::{
    AllocationChange, AllocationForecast, AllocationId, AppName, DurationMs, EndReason, Forecast,
    ForecastEnd, Moment, MomentKind, NodeId, Revision, Timestamp, WorkloadForecast, WorkloadName,
};

use crate::brake::held_zones;
use crate::reconcile::desired;
use crate::{AllocationRecord, AllocationState, AppRecord, Change, Cluster, Fate, NodeRecord};

/// So many moments are told of one forecast.
const MAX_MOMENTS: usize = 2_000;
/// So many allocations are told of one workload.
const MAX_ALLOCATIONS: usize = 1_000;

/// How many of a service serve, and what there was to say of that.
#[derive(Clone, Debug, Default)]
struct Serving {
    before: u32,
    now: u32,
    fewest: u32,
    /// Since when none does.
    down_since: Option<Timestamp>,
    down: u64,
    /// Since when as many serve as should; absent if fewer do.
    whole_since: Option<Timestamp>,
    was_short: bool,
}

/// What has happened since the beginning.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    start: Timestamp,
    last: Timestamp,
    moments: Vec<Moment>,
    more: u32,
    /// The only app of which moments are told, if not all are.
    only: Option<AppName>,
    /// All allocations as they are now.
    allocations: BTreeMap<AllocationId, Arc<AllocationRecord>>,
    /// Those which something has happened to, as they were in the beginning.
    touched: BTreeMap<AllocationId, Option<Arc<AllocationRecord>>>,
    ended: BTreeMap<AllocationId, (EndReason, String)>,
    services: BTreeMap<WorkloadName, Serving>,
    desired_before: BTreeMap<WorkloadName, u32>,
    waiting_before: BTreeSet<WorkloadName>,
    lost: BTreeSet<NodeId>,
    released: BTreeSet<NodeId>,
    held: BTreeSet<String>,
    /// Revisions that are known to restore an earlier one.
    restored: BTreeSet<(AppName, Revision)>,
}

impl Course {
    /// Begins with a cluster as it is.
    pub(crate) fn begin(cluster: &Cluster, now: Timestamp) -> Self {
        let durable = &cluster.durable;
        let nodes = durable.nodes().values();
        let named = |is: fn(&&NodeRecord) -> bool| {
            nodes.clone().filter(is).map(|record| record.id.clone()).collect::<BTreeSet<_>>()
        };
        let desired_before: BTreeMap<WorkloadName, u32> =
            durable.specs().keys().map(|workload| (workload.clone(), desired(cluster, workload))).collect();
        let mut services: BTreeMap<WorkloadName, Serving> = BTreeMap::new();
        for record in durable.allocations().values().filter(|record| serves(record)) {
            services.entry(record.workload.clone()).or_default().before += 1;
        }
        for (workload, serving) in &mut services {
            let wanted = desired_before.get(workload).copied().unwrap_or_default();
            (serving.now, serving.fewest) = (serving.before, serving.before);
            serving.was_short = serving.before < wanted;
            serving.whole_since = (!serving.was_short).then_some(now);
        }
        Self {
            start: now,
            last: now,
            moments: Vec::new(),
            more: 0,
            only: None,
            allocations: durable.allocations().clone(),
            touched: BTreeMap::new(),
            ended: BTreeMap::new(),
            services,
            desired_before,
            waiting_before: waiting(cluster),
            lost: named(|record| record.lost.is_some()),
            released: named(|record| record.released),
            held: held_zones(durable).into_keys().collect(),
            restored: durable.apps().values().map(|app| (app.name.clone(), app.revision)).collect(),
        }
    }

    /// Tells moments of this app alone.
    pub(crate) fn only(&mut self, app: &AppName) {
        self.only = Some(app.clone());
    }

    /// Takes in the changes of a step; returns the nodes that have something new to run.
    pub(crate) fn take(&mut self, cluster: &Cluster, changes: &[Change], now: Timestamp) -> BTreeSet<NodeId> {
        let mut told = BTreeSet::new();
        for change in changes {
            match change {
                Change::Node(record) => self.node(cluster, record, now),
                Change::Allocation(record) => {
                    self.allocation(cluster, record, now);
                    if record.state == AllocationState::Placed {
                        told.insert(record.node.clone());
                    }
                }
                Change::AllocationDeleted(id) => self.deleted(cluster, *id, now),
                Change::App(app) => {
                    self.last = now;
                    self.taken_back(cluster, app, now);
                    for workload in app.spec.workloads.keys() {
                        self.count(cluster, &app.name.workload(workload), 0, now);
                    }
                }
                // Other records move nothing by themselves.
                _ => {}
            }
        }
        told
    }

    /// Tells of a revision that has failed, and of which the one before was restored.
    fn taken_back(&mut self, cluster: &Cluster, app: &AppRecord, now: Timestamp) {
        let kept = cluster.durable.revisions().get(&app.name).and_then(|kept| kept.last_key_value());
        let (Some(restored), Some((revision, record))) = (app.restores, kept) else { return };
        let Fate::Failed { reason } = &record.fate else { return };
        if self.restored.insert((app.name.clone(), app.revision)) {
            let text = format!(
                "revision {revision} of `{}` is taken back, and revision {restored} restored: {reason}",
                app.name
            );
            let workload = app.spec.workloads.keys().next().map(|name| app.name.workload(name));
            self.tell(MomentKind::TakenBack, text, workload.as_ref(), None, now);
        }
    }

    fn node(&mut self, cluster: &Cluster, record: &NodeRecord, now: Timestamp) {
        let node = &record.id;
        if record.lost.is_some() && self.lost.insert(node.clone()) {
            let text = format!("{node} is lost: it was silent for {}", cluster.config.lease);
            self.tell(MomentKind::NodeLost, text, None, Some(node), now);
            for (zone, held) in held_zones(&cluster.durable) {
                if self.held.insert(zone.clone()) {
                    let zone =
                        if zone.is_empty() { "without a name".to_owned() } else { format!("`{zone}`") };
                    let text = format!(
                        "the zone {zone} is held: {} of its {} nodes are lost, and nothing of it is replaced until \
                         they are back or `dunlin node release` says so",
                        held.lost, held.nodes
                    );
                    self.tell(MomentKind::ZoneHeld, text, None, None, now);
                }
            }
        }
        if record.released && self.released.insert(node.clone()) {
            let text = format!("what {node} ran may be replaced");
            self.tell(MomentKind::NodeReleased, text, None, Some(node), now);
        }
    }

    fn allocation(&mut self, cluster: &Cluster, record: &Arc<AllocationRecord>, now: Timestamp) {
        let before = self.allocations.insert(record.id, Arc::clone(record));
        let state = before.as_ref().map(|before| before.state);
        self.touched.entry(record.id).or_insert_with(|| before.clone());
        let (id, workload, node) = (record.id, &record.workload, &record.node);
        let of = format!("{id} of `{workload}`");
        let is_new_state =
            state.is_none_or(|state| std::mem::discriminant(&state) != std::mem::discriminant(&record.state));
        if is_new_state {
            let (kind, text) = match (record.state, record.serves()) {
                (AllocationState::Placed, _) => (MomentKind::Placed, format!("{of} is placed on {node}")),
                (AllocationState::Running, _) => (MomentKind::Serves, format!("{of} serves on {node}")),
                (AllocationState::Draining { .. }, _) => {
                    (MomentKind::Leaves, format!("{of} leaves the routes on {node}"))
                }
                (AllocationState::Lost, _) => (MomentKind::Lost, format!("{of} is lost with {node}")),
            };
            self.tell(kind, text, Some(workload), Some(node), now);
        }
        let served = before.is_some_and(|before| serves(&before));
        let by = i64::from(serves(record)) - i64::from(served);
        self.count(cluster, workload, by, now);
    }

    fn deleted(&mut self, cluster: &Cluster, id: AllocationId, now: Timestamp) {
        let Some(before) = self.allocations.remove(&id) else { return };
        self.touched.entry(id).or_insert_with(|| Some(Arc::clone(&before)));
        let workload = &before.workload;
        let ended = cluster.volatile.history.ended(workload).find(|ended| ended.id == id);
        let (why, because) =
            ended.map_or((EndReason::Unknown, String::new()), |ended| (ended.why, ended.because.clone()));
        let text = format!("{id} of `{workload}` ends on {}: {because}", before.node);
        self.tell(MomentKind::Ended, text, Some(workload), Some(&before.node), now);
        self.ended.insert(id, (why, because));
        let by = -i64::from(serves(&before));
        self.count(cluster, workload, by, now);
    }

    /// Counts those of a service that serve, and notes when none does.
    fn count(&mut self, cluster: &Cluster, workload: &WorkloadName, by: i64, now: Timestamp) {
        let wanted = desired(cluster, workload);
        let serving = self.services.entry(workload.clone()).or_default();
        let before = serving.now;
        serving.now = u32::try_from(i64::from(before) + by).unwrap_or_default();
        serving.fewest = serving.fewest.min(serving.now);
        if serving.now < wanted {
            serving.was_short = true;
            serving.whole_since = None;
        } else if serving.whole_since.is_none() {
            serving.whole_since = Some(now);
        }
        if serving.now == 0 && before > 0 && wanted > 0 {
            serving.down_since = Some(now);
            let text = format!("nothing of `{workload}` serves");
            self.tell(MomentKind::Down, text, Some(workload), None, now);
        } else if serving.now > 0
            && let Some(since) = serving.down_since.take()
        {
            let time = now.since(since);
            serving.down += time.0;
            let text = format!("`{workload}` serves again, after {time}");
            self.tell(MomentKind::Up, text, Some(workload), None, now);
        }
    }

    fn tell(
        &mut self,
        kind: MomentKind,
        text: String,
        workload: Option<&WorkloadName>,
        node: Option<&NodeId>,
        now: Timestamp,
    ) {
        if self.only.as_ref().is_some_and(|app| workload.is_none_or(|name| name.app_name() != *app)) {
            return;
        }
        self.last = now;
        if self.moments.len() < MAX_MOMENTS {
            self.moments.push(Moment {
                after_ms: now.since(self.start),
                kind,
                text,
                workload: workload.cloned(),
                node: node.cloned(),
            });
        } else {
            self.more += 1;
        }
    }

    /// Tells what came of it.
    pub(crate) fn told(&self, cluster: &Cluster, now: Timestamp, ends: ForecastEnd) -> Forecast {
        let mut by_workload: BTreeMap<WorkloadName, Vec<AllocationId>> = BTreeMap::new();
        for (id, before) in &self.touched {
            if let Some(record) = self.allocations.get(id).or(before.as_ref()) {
                by_workload.entry(record.workload.clone()).or_default().push(*id);
            }
        }
        let waiting = waiting(cluster);
        // What waits is told though it did so before: whoever asks may not know.
        for workload in waiting.union(&self.waiting_before) {
            by_workload.entry(workload.clone()).or_default();
        }
        let specs = cluster.durable.specs();
        let all: BTreeSet<&WorkloadName> = specs.keys().chain(self.desired_before.keys()).collect();
        for workload in &all {
            let before = self.desired_before.get(*workload);
            if specs.contains_key(*workload) != before.is_some()
                || before.is_some_and(|before| *before != desired(cluster, workload))
            {
                by_workload.entry((*workload).clone()).or_default();
            }
        }
        let untouched = all.len().saturating_sub(by_workload.len());
        let told = by_workload.iter().map(|(workload, ids)| self.workload(cluster, workload, ids, now));
        Forecast {
            ends,
            took_ms: self.last.since(self.start),
            moments: self.moments.clone(),
            more: self.more,
            workloads: told.collect(),
            untouched: u32::try_from(untouched).unwrap_or(u32::MAX),
            held_zones: held_zones(&cluster.durable).into_keys().collect(),
        }
    }

    fn workload(
        &self,
        cluster: &Cluster,
        workload: &WorkloadName,
        ids: &[AllocationId],
        now: Timestamp,
    ) -> WorkloadForecast {
        let serving = self.services.get(workload).cloned().unwrap_or_default();
        let down = serving.down + serving.down_since.map_or(0, |since| now.since(since).0);
        let whole = serving.whole_since.filter(|_| serving.was_short);
        let mut allocations = self.allocations_of(cluster, ids);
        let touched: BTreeSet<AllocationId> = allocations.iter().filter_map(|it| it.id).collect();
        let still = cluster.durable.of_workload(workload).filter(|record| record.is_live());
        let began = |id: &AllocationId| self.touched.get(id).is_none_or(Option::is_some);
        allocations
            .extend(still.filter(|record| began(&record.id) && !touched.contains(&record.id)).map(kept));
        let count = |change| {
            let same = allocations.iter().filter(|it| it.change == change).count();
            u32::try_from(same).unwrap_or(u32::MAX)
        };
        let [kept, started, moved, replaced, ended, lost] = [
            AllocationChange::Kept,
            AllocationChange::Started,
            AllocationChange::Moved,
            AllocationChange::Replaced,
            AllocationChange::Ended,
            AllocationChange::Lost,
        ]
        .map(count);
        let more = u32::try_from(allocations.len().saturating_sub(MAX_ALLOCATIONS)).unwrap_or(u32::MAX);
        allocations.truncate(MAX_ALLOCATIONS);
        WorkloadForecast {
            workload: workload.clone(),
            desired_before: self.desired_before.get(workload).copied().unwrap_or_default(),
            serving_before: serving.before,
            desired: desired(cluster, workload),
            serving: serving.now,
            fewest: serving.fewest,
            down_ms: DurationMs(down),
            down_since_ms: serving.down_since.map(|since| since.since(self.start)),
            whole_after_ms: whole.map(|whole| whole.since(self.start)),
            waiting: cluster.why_not_whole(workload),
            allocations,
            more,
            kept,
            started,
            moved,
            replaced,
            ended,
            lost,
        }
    }

    /// Returns what became of those which something has happened to, those that end beside those in their place.
    fn allocations_of(&self, cluster: &Cluster, ids: &[AllocationId]) -> Vec<AllocationForecast> {
        let (mut gone, mut new, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for id in ids {
            let before = self.touched[id].as_ref();
            let after = self
                .allocations
                .get(id)
                .filter(|record| !matches!(record.state, AllocationState::Draining { .. }));
            match (before, after) {
                (None, Some(after)) if after.is_live() => new.push(after),
                (None, _) => {}
                (Some(before), None) if matches!(before.state, AllocationState::Draining { .. }) => {}
                (Some(before), None) => gone.push(before),
                (Some(before), Some(after)) => {
                    let is_newly_lost =
                        after.state == AllocationState::Lost && before.state != AllocationState::Lost;
                    // The items of a lost node that was released are leased to others.
                    if is_newly_lost && !after.serves() && !cluster.durable.is_held(after) {
                        gone.push(before);
                    } else if is_newly_lost {
                        told.push(AllocationForecast { change: AllocationChange::Lost, ..kept(after) });
                    }
                }
            }
        }
        for before in gone {
            let (why, because) = self.ended.get(&before.id).cloned().unwrap_or_else(|| {
                (EndReason::NodeLost, format!("{} was lost, and its items are for others", before.node))
            });
            let change = match why {
                EndReason::Replaced => Some(AllocationChange::Replaced),
                EndReason::NodeLost | EndReason::Drained | EndReason::Preempted => {
                    Some(AllocationChange::Moved)
                }
                _ => None,
            };
            let place = new.iter().position(|after| after.node == before.node);
            let place = change.and_then(|change| Some((change, place.or((!new.is_empty()).then_some(0))?)));
            let to = place.map(|(_, index)| new.remove(index).node.clone());
            told.push(AllocationForecast {
                change: place.map_or(AllocationChange::Ended, |(change, _)| change),
                to,
                why: Some(why),
                because: Some(because),
                ..kept(before)
            });
        }
        told.sort_by_key(|it| it.change);
        told.extend(new.into_iter().map(|after| AllocationForecast {
            change: AllocationChange::Started,
            id: None,
            from: None,
            to: Some(after.node.clone()),
            why: None,
            because: None,
        }));
        told
    }
}

fn kept(record: &AllocationRecord) -> AllocationForecast {
    AllocationForecast {
        change: AllocationChange::Kept,
        id: Some(record.id),
        from: Some(record.node.clone()),
        to: None,
        why: None,
        because: None,
    }
}

/// Tells whether an allocation is counted among those that serve.
fn serves(record: &AllocationRecord) -> bool {
    record.serves() && record.state == AllocationState::Running
}

/// Returns the workloads that wait for room.
fn waiting(cluster: &Cluster) -> BTreeSet<WorkloadName> {
    let volatile = &cluster.volatile;
    let runs = volatile.waiting_runs.iter().filter_map(|run| cluster.durable.runs().get(run));
    volatile.waiting_services.iter().cloned().chain(runs.map(|run| run.workload.clone())).collect()
}
