//! What would come of something on a copy of a fleet: one that is at work, or one that is written down.
//!
//! Nothing here touches the fleet itself, and nothing does I/O: the command line uses the same code for a fleet in a
//! file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use dunlin_api::{
    FleetSnapshot, Scale, Simulate, SnapshotAllocation, SnapshotApp, SnapshotNode, SnapshotProfile,
    SnapshotRun,
};
use dunlin_model::{
    AllocationId, AppName, AppSpec, DurationMs, Forecast, Fuel, ItemRange, NamespaceSpec, NodeId, NodeInfo,
    Resources, RunId, SecretId, SecretVersion, Term, Timestamp, Work, WorkloadKind, WorkloadName,
    WorkloadSpec, check_node_resources,
};
use dunlin_scheduler::{
    AllocationRecord, AllocationState, AppRecord, Change, Cluster, Command, Config as Patience, Cordon,
    Foresight, NamespaceRecord, NodeRecord, RangeSet, Rejection, RunRecord, RunState, SecretRecord, View,
};

/// How far it is looked ahead if nobody says otherwise.
pub(crate) const WITHIN: DurationMs = DurationMs(3_600_000);
/// How far it is looked ahead at most.
const MAX_WITHIN: DurationMs = DurationMs(30 * 86_400_000);
/// How long what is drained in a simulation may take to leave its node.
const DRAIN: DurationMs = DurationMs(600_000);
/// The most nodes of a fleet that is written down, and
const MAX_NODES: usize = 100_000;
/// its most allocations.
const MAX_ALLOCATIONS: usize = 2_000_000;

/// Why it cannot be said what would come of something.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The brain refuses what is to be done.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// No node has this label `zone`.
    #[error("no node is in the zone `{0}`")]
    UnknownZone(String),
    /// The workload has no number of allocations.
    #[error("`{0}` has no number of allocations to be changed: it is a job, or runs everywhere")]
    NotScalable(WorkloadName),
    /// The fleet that is written down contradicts itself, or is too large.
    #[error("the fleet that is written down: {0}")]
    Snapshot(String),
}

/// Tells what would come of `wish` on a fleet that is written down.
pub fn simulate_written(snapshot: &FleetSnapshot, wish: Simulate) -> Result<Forecast, SimulateError> {
    let (cluster, now) = written(snapshot, &wish.deploy)?;
    look(Foresight::of_written(cluster, now, WITHIN), wish)
}

/// Tells what would come of `wish`.
pub(crate) fn look(mut foresight: Foresight, wish: Simulate) -> Result<Forecast, SimulateError> {
    let Simulate { lose_nodes, lose_zones, drain_nodes, deploy, scale, load_percent, within_ms } = wish;
    // First, so that nothing is placed where it could not stay.
    for node in drain_nodes {
        foresight.submit(Command::Cordon { node, drain: Some(DRAIN) })?;
    }
    let mut settled: BTreeSet<WorkloadName> = BTreeSet::new();
    for spec in deploy {
        settled.extend(spec.workloads.keys().map(|workload| spec.name.workload(workload)));
        foresight.submit(Command::Deploy { spec, accept: true })?;
    }
    // What is deployed is taken as it is from here on.
    foresight.trust_all()?;
    for Scale { workload, allocations } in scale {
        let mut spec = app(&foresight, &workload)?;
        let service = spec.workloads.get_mut(&workload.workload);
        let service = service.ok_or_else(|| Rejection::UnknownWorkload(workload.clone()))?;
        if !set_allocations(service, |_| allocations) {
            return Err(SimulateError::NotScalable(workload));
        }
        settled.insert(workload);
        foresight.submit(Command::Deploy { spec, accept: true })?;
    }
    for name in load_percent.map(|_| foresight.apps().cloned().collect::<Vec<_>>()).into_iter().flatten() {
        let Some(mut spec) = foresight.spec(&name).cloned() else { continue };
        let percent = load_percent.unwrap_or(100);
        for (workload, spec) in &mut spec.workloads {
            if !settled.contains(&name.workload(workload)) {
                set_allocations(spec, |before| loaded(before, percent));
            }
        }
        foresight.submit(Command::Deploy { spec, accept: true })?;
    }
    for zone in lose_zones {
        let nodes = foresight.zone(&zone);
        if nodes.is_empty() {
            return Err(SimulateError::UnknownZone(zone));
        }
        nodes.iter().try_for_each(|node| foresight.lose(node))?;
    }
    lose_nodes.iter().try_for_each(|node| foresight.lose(node))?;
    Ok(foresight.look(within_ms.unwrap_or(WITHIN).min(MAX_WITHIN)))
}

fn app(foresight: &Foresight, workload: &WorkloadName) -> Result<AppSpec, Rejection> {
    let app = workload.app_name();
    foresight.spec(&app).cloned().ok_or(Rejection::UnknownApp(app))
}

/// Gives a service another number of allocations, if it has one.
fn set_allocations(spec: &mut WorkloadSpec, number: impl FnOnce(u32) -> u32) -> bool {
    match &mut spec.kind {
        WorkloadKind::Service(service) if !service.everywhere => {
            service.allocations = number(service.allocations);
            true
        }
        WorkloadKind::Service(_) | WorkloadKind::Job(_) => false,
    }
}

fn loaded(allocations: u32, percent: u32) -> u32 {
    let loaded = u64::from(allocations) * u64::from(percent);
    u32::try_from(loaded.div_ceil(100)).unwrap_or(u32::MAX)
}

/// Writes a fleet down as it is.
pub(crate) fn snapshot(view: &View, patience: Patience) -> FleetSnapshot {
    let nodes = view.nodes.values().filter_map(|node| {
        let info = node.record.info.as_ref()?;
        Some(SnapshotNode {
            node: node.record.id.clone(),
            capacity: info.capacity,
            labels: info.labels.clone(),
            resources: info.resources.clone(),
            batch_overcommit: info.batch_overcommit,
            cordoned: node.record.cordon.is_some(),
            lost: node.record.lost.is_some(),
        })
    });
    let apps = view.apps.values().map(|app| {
        let workloads = app.workloads.iter().map(|(name, workload)| (name.clone(), workload.spec.clone()));
        SnapshotApp {
            revision: app.revision,
            spec: AppSpec { name: app.name.clone(), workloads: workloads.collect() },
        }
    });
    let spec = |workload: &WorkloadName| {
        view.apps.get(&workload.app_name()).is_some_and(|app| app.workloads.contains_key(&workload.workload))
    };
    // What outlives its app is on its way out.
    let staying =
        view.allocations.values().map(|held| &held.record).filter(|record| {
            !matches!(record.state, AllocationState::Draining { .. }) && spec(&record.workload)
        });
    let allocations = staying.map(|record| SnapshotAllocation {
        workload: record.workload.clone(),
        revision: record.revision,
        node: record.node.clone(),
        items: match record.work {
            Work::Serve => 0,
            Work::Items { range, .. } => range.end.saturating_sub(range.start),
        },
    });
    let mut waiting: BTreeMap<WorkloadName, u32> = BTreeMap::new();
    for run in view.runs.values().filter(|run| run.record.is_running() && spec(&run.record.workload)) {
        *waiting.entry(run.record.workload.clone()).or_default() += run.ready + run.backing_off;
    }
    // Of the others nobody has said anything.
    let namespaces = view.namespaces.iter().map(|(name, namespace)| (name.clone(), namespace.spec.clone()));
    let namespaces = namespaces.filter(|(_, spec)| *spec != NamespaceSpec::default());
    FleetSnapshot {
        profile: match patience {
            Patience::LAN => SnapshotProfile::Lan,
            Patience::DARK => SnapshotProfile::Dark,
            _ => SnapshotProfile::Edge,
        },
        nodes: nodes.collect(),
        namespaces: namespaces.collect(),
        apps: apps.collect(),
        allocations: allocations.collect(),
        runs: waiting
            .into_iter()
            .map(|(workload, waiting_items)| SnapshotRun { workload, waiting_items })
            .collect(),
    }
}

/// Returns all secrets that these apps read: what is written down of a fleet has none, and each counts as set.
fn secrets_of<'a>(apps: impl Iterator<Item = &'a AppSpec>, now: Timestamp) -> Vec<Change> {
    let mut ids = BTreeSet::new();
    for app in apps {
        let names = app.workloads.values().flat_map(|workload| &workload.capabilities.secrets);
        let namespace = &app.name.namespace;
        ids.extend(names.map(|name| SecretId { namespace: namespace.clone(), name: name.clone() }));
    }
    let record = |id| SecretRecord {
        id,
        version: SecretVersion(0),
        sealed: Arc::from([]),
        created: now,
        updated: now,
    };
    ids.into_iter().map(|id| Change::Secret(Arc::new(record(id)))).collect()
}

/// Returns the cluster that is written down, and the moment that it is there.
fn written(snapshot: &FleetSnapshot, wished: &[AppSpec]) -> Result<(Cluster, Timestamp), SimulateError> {
    let now = Timestamp(0);
    let FleetSnapshot { profile, nodes, namespaces, apps, allocations, runs } = snapshot;
    check(snapshot)?;
    let patience = match profile {
        SnapshotProfile::Lan => Patience::LAN,
        SnapshotProfile::Edge => Patience::EDGE,
        SnapshotProfile::Dark => Patience::DARK,
    };
    let mut changes: Vec<Change> = nodes.iter().map(|node| Change::Node(node_record(node, now))).collect();
    for (name, spec) in namespaces {
        // What is written down is judged by nobody's keys and at no moment.
        let (name, spec) = (name.clone(), NamespaceSpec { signers: BTreeSet::new(), ..spec.clone() });
        changes.push(Change::Namespace(NamespaceRecord { name, spec }));
    }
    changes.extend(secrets_of(apps.iter().map(|app| &app.spec).chain(wished), now));
    let mut specs: BTreeMap<WorkloadName, Arc<WorkloadSpec>> = BTreeMap::new();
    for SnapshotApp { revision, spec } in apps {
        for (workload, own) in &spec.workloads {
            specs.insert(spec.name.workload(workload), Arc::new(own.clone()));
        }
        changes.push(Change::App(app_record(spec, *revision, now)));
    }
    let lost: BTreeSet<&NodeId> = nodes.iter().filter(|node| node.lost).map(|node| &node.node).collect();
    let mut jobs: BTreeMap<&WorkloadName, u32> = BTreeMap::new();
    let mut records = Vec::with_capacity(allocations.len());
    let ids: BTreeMap<&WorkloadName, RunId> =
        specs.keys().enumerate().map(|(index, workload)| (workload, RunId::new(index as u64 + 1))).collect();
    for (index, allocation) in allocations.iter().enumerate() {
        let spec = &specs[&allocation.workload];
        let work = match spec.kind {
            WorkloadKind::Service(_) => Work::Serve,
            WorkloadKind::Job(_) => {
                let start = jobs.entry(&allocation.workload).or_default();
                let range = ItemRange { start: *start, end: start.saturating_add(allocation.items.max(1)) };
                *start = range.end;
                let run = ids[&allocation.workload];
                Work::Items { run, range, attempt: 1, combine: false, inputs: false }
            }
        };
        let is_lost = lost.contains(&allocation.node);
        records.push(AllocationRecord {
            id: AllocationId::new(index as u64 + 1),
            workload: allocation.workload.clone(),
            revision: allocation.revision,
            node: allocation.node.clone(),
            spec: Arc::clone(spec),
            state: match work {
                _ if is_lost => AllocationState::Lost,
                Work::Serve => AllocationState::Running,
                Work::Items { .. } => AllocationState::Placed,
            },
            work,
            returned: RangeSet::new(),
            makes_way: None,
            lease: spec.on_partition().is_singleton().then_some(patience.lease),
            created: now,
        });
    }
    for SnapshotRun { workload, waiting_items } in runs {
        let Some((workload, _)) = specs.get_key_value(workload) else { continue };
        *jobs.entry(workload).or_default() += waiting_items;
    }
    let runs = jobs.into_iter().filter(|(_, items)| *items > 0);
    changes.extend(runs.map(|(workload, items)| {
        let app = apps.iter().find(|app| app.spec.name == workload.app_name());
        let revision = app.map(|app| app.revision).unwrap_or_default();
        Change::Run(run_record(ids[workload], workload, revision, &specs[workload], items))
    }));
    changes.extend(records.into_iter().map(|record| Change::Allocation(Arc::new(record))));
    let id = "written".parse().map_err(|error| SimulateError::Snapshot(format!("{error}")))?;
    Ok((Cluster::restore(id, Term(1), patience, changes, now), now))
}

/// Refuses a fleet that contradicts itself.
fn check(snapshot: &FleetSnapshot) -> Result<(), SimulateError> {
    let FleetSnapshot { profile: _, nodes, namespaces, apps, allocations, runs } = snapshot;
    let wrong = |text: String| Err(SimulateError::Snapshot(text));
    if nodes.len() > MAX_NODES || allocations.len() > MAX_ALLOCATIONS {
        return wrong(format!("it has more than {MAX_NODES} nodes or {MAX_ALLOCATIONS} allocations"));
    }
    let mut names = BTreeSet::new();
    for node in nodes {
        if !names.insert(&node.node) {
            return wrong(format!("there are two nodes `{}`", node.node));
        }
        if let Some(error) = check_node_resources(&node.resources).into_iter().next() {
            return wrong(format!("node `{}`: {error}", node.node));
        }
    }
    for (name, spec) in namespaces {
        if let Some(error) = spec.check().into_iter().next() {
            return wrong(format!("namespace `{name}`: {error}"));
        }
    }
    let mut workloads: BTreeMap<AppName, &AppSpec> = BTreeMap::new();
    for SnapshotApp { revision: _, spec } in apps {
        if workloads.insert(spec.name.clone(), spec).is_some() {
            return wrong(format!("there are two apps `{}`", spec.name));
        }
        if let Some(error) = spec.check().into_iter().next() {
            return wrong(format!("app `{}`: {error}", spec.name));
        }
    }
    let is_known = |workload: &WorkloadName| {
        workloads
            .get(&workload.app_name())
            .is_some_and(|spec| spec.workloads.contains_key(&workload.workload))
    };
    let named = allocations.iter().map(|it| &it.workload).chain(runs.iter().map(|it| &it.workload));
    if let Some(unknown) = named.into_iter().find(|workload| !is_known(workload)) {
        return wrong(format!("no app has the workload `{unknown}`"));
    }
    match allocations.iter().find(|it| !names.contains(&it.node)) {
        Some(unknown) => wrong(format!("there is no node `{}`", unknown.node)),
        None => Ok(()),
    }
}

fn node_record(node: &SnapshotNode, now: Timestamp) -> NodeRecord {
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let SnapshotNode { node, capacity, labels, resources, batch_overcommit, cordoned, lost } = node;
    let capacity: Resources = *capacity;
    NodeRecord {
        info: Some(NodeInfo {
            capacity,
            labels: labels.clone(),
            ingress: nowhere,
            peer: nowhere,
            version: String::new(),
            resources: resources.clone(),
            batch_overcommit: *batch_overcommit,
            clock_unset: false,
            program: None,
        }),
        lost: lost.then_some(now),
        cordon: cordoned.then_some(Cordon { since: now, drain: None }),
        ..NodeRecord::joined(node.clone(), [0; 32], now)
    }
}

fn app_record(spec: &AppSpec, revision: dunlin_model::Revision, now: Timestamp) -> AppRecord {
    let (name, spec) = (spec.name.clone(), spec.clone());
    AppRecord { name, revision, spec, deployed: now, restores: None, rollout: None, stopped: false }
}

fn run_record(
    id: RunId,
    workload: &WorkloadName,
    revision: dunlin_model::Revision,
    spec: &Arc<WorkloadSpec>,
    items: u32,
) -> RunRecord {
    RunRecord {
        id,
        workload: workload.clone(),
        revision,
        spec: Arc::clone(spec),
        items,
        inputs: None,
        state: RunState::Running,
        recorded: RangeSet::new(),
        succeeded: 0,
        failed: 0,
        tried: BTreeMap::new(),
        fuel: Fuel(0),
        created: Timestamp(0),
        ended: None,
        after: Vec::new(),
        reads_outputs: false,
        began: None,
        due: None,
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::{Bytes, FuelRate, Manifest, MomentKind, Revision};

    use super::*;

    fn spec(app: &str, allocations: u32) -> AppSpec {
        let text =
            format!("app.name = \"{app}\"\n[service.web]\ncomponent = \"w\"\nallocations = {allocations}\n");
        let manifest = Manifest::parse(&text).unwrap();
        let digest = dunlin_model::Digest::of(b"w");
        let workloads =
            manifest.workloads.iter().map(|(name, workload)| (name.clone(), workload.spec(digest)));
        AppSpec { name: manifest.app_name(), workloads: workloads.collect() }
    }

    fn node(name: &str, zone: &str) -> SnapshotNode {
        SnapshotNode {
            node: name.parse().unwrap(),
            capacity: Resources { memory: Bytes(1 << 30), fuel_rate: FuelRate(1_000_000_000) },
            labels: BTreeMap::from([("zone".to_owned(), zone.to_owned())]),
            resources: BTreeMap::new(),
            batch_overcommit: Default::default(),
            cordoned: false,
            lost: false,
        }
    }

    fn fleet() -> FleetSnapshot {
        FleetSnapshot {
            profile: SnapshotProfile::Lan,
            nodes: vec![node("a", "a"), node("b", "b"), node("c", "b")],
            apps: vec![SnapshotApp { revision: Revision(3), spec: spec("shop", 3) }],
            ..FleetSnapshot::default()
        }
    }

    #[test]
    fn what_is_written_down_is_placed_first_and_then_something_happens_to_it() {
        let wish = Simulate { lose_nodes: vec!["a".parse().unwrap()], ..Simulate::default() };
        let told = simulate_written(&fleet(), wish).unwrap();
        let shop = &told.workloads[0];
        assert_eq!((shop.serving_before, shop.serving, shop.moved), (3, 3, 1), "{told:?}");
        assert_eq!(told.moments[0].kind, MomentKind::NodeLost);
    }

    #[test]
    fn load_counts_for_what_nothing_else_was_said_of() {
        let wish = Simulate { deploy: vec![spec("new", 1)], load_percent: Some(150), ..Simulate::default() };
        let told = simulate_written(&fleet(), wish).unwrap();
        let desired: Vec<u32> = told.workloads.iter().map(|it| it.desired).collect();
        assert_eq!(desired, [1, 5], "{told:?}");
    }

    #[test]
    fn what_is_written_down_has_all_the_secrets_that_it_reads() {
        let mut fleet = fleet();
        let mut new = spec("new", 1);
        for spec in [&mut fleet.apps[0].spec, &mut new] {
            let web = spec.workloads.values_mut().next().unwrap();
            web.capabilities.secrets.insert("KEY".parse().unwrap());
        }
        let wish = Simulate { deploy: vec![new], load_percent: Some(200), ..Simulate::default() };
        let told = simulate_written(&fleet, wish).unwrap();
        let desired: Vec<u32> = told.workloads.iter().map(|it| it.desired).collect();
        assert_eq!(desired, [1, 6], "{told:?}");
    }

    #[test]
    fn a_fleet_is_written_down_with_what_is_where_and_read_back() {
        let mut written_down = fleet();
        written_down.nodes[2].cordoned = true;
        let place = |node: &str| SnapshotAllocation {
            workload: "default/shop/web".parse().unwrap(),
            revision: Revision(3),
            node: node.parse().unwrap(),
            items: 0,
        };
        written_down.allocations = vec![place("b"), place("b"), place("c")];
        let (cluster, _) = written(&written_down, &[]).unwrap();
        assert_eq!(snapshot(&cluster.view(), Patience::LAN), written_down);
    }

    #[test]
    fn a_fleet_that_contradicts_itself_is_refused() {
        let told = |change: fn(&mut FleetSnapshot), wish: Simulate| {
            let mut fleet = fleet();
            change(&mut fleet);
            simulate_written(&fleet, wish).unwrap_err().to_string()
        };
        assert!(
            told(|fleet| fleet.nodes[1] = fleet.nodes[0].clone(), Simulate::default())
                .contains("two nodes `a`")
        );
        assert!(
            told(|fleet| fleet.apps.extend(fleet.apps.clone()), Simulate::default()).contains("two apps")
        );
        let run = |fleet: &mut FleetSnapshot| {
            let workload = "default/shop/none".parse().unwrap();
            fleet.runs.push(SnapshotRun { workload, waiting_items: 1 });
        };
        assert!(told(run, Simulate::default()).contains("no app has the workload `default/shop/none`"));
        let zone = Simulate { lose_zones: vec!["z".to_owned()], ..Simulate::default() };
        assert_eq!(told(|_| {}, zone), "no node is in the zone `z`");
    }
}
