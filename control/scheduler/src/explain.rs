//! Why a workload is as it is, worked out when somebody asks: nothing here is kept.
//!
//! Where an allocation stands is judged again with its own share taken out, so the reason is that of today; a reason
//! that was kept for each allocation would cost memory for all, and be about a fleet that has changed since.

use std::collections::BTreeSet;
use std::sync::Arc;

use dunlin_model::{
    AllocationExplanation, AllocationId, Decision, ExplainedAllocation, ExplainedWait, Explanation, NodeId,
    Packing, Remedy, RemedyKind, WorkloadKind, WorkloadName, WorkloadSpec,
};

use crate::placement::{Comparison, Demand, Rank, Relations, Search, Survey, lack};
use crate::reconcile::desired;
use crate::record::need;
use crate::turns::Claim;
use crate::view::{held_back, reason};
use crate::{AllocationRecord, AllocationState, Cluster};

/// So many allocations of a workload are explained at once,
const MAX_EXPLAINED: usize = 64;
/// and fewer if that is more work: each costs a look at every class of nodes, and one that stands near or apart from
/// itself one at each other allocation besides.
const MAX_LOOKS: usize = 20_000;

/// With what the nodes of allocations are judged that have the same spec.
pub(crate) struct Judge {
    pub(crate) demand: Demand,
    pub(crate) relations: Relations,
    pub(crate) search: Search,
}

impl Judge {
    pub(crate) fn new(cluster: &Cluster, record: &AllocationRecord) -> Self {
        let demand = Demand::new(cluster, &record.workload, &record.spec);
        let relations = Relations::of(cluster, &record.workload, &record.spec.placement);
        let search = Search::new(cluster, &demand);
        Self { demand, relations, search }
    }
}

impl Cluster {
    /// Says why a workload is as it is; nothing if there is none and nothing is remembered of one.
    ///
    /// It costs a look at each node, and for each of its first allocations one at each class of nodes.
    pub fn explain(&self, workload: &WorkloadName) -> Option<Explanation> {
        let spec = self.durable.specs().get(workload);
        let history = &self.volatile.history;
        let mut records = self.durable.of_workload(workload).peekable();
        if spec.is_none() && records.peek().is_none() && !history.knows(workload) {
            return None;
        }
        let all: Vec<&AllocationRecord> = records.collect();
        let is_of_itself = spec.is_some_and(|spec| {
            let affinities = spec.placement.near.iter().chain(&spec.placement.apart);
            affinities.map(|affinity| &affinity.workload).any(|name| name == workload)
        });
        let looks = self.volatile.pools.classes().len() + if is_of_itself { all.len() } else { 1 };
        let most = (MAX_LOOKS / looks).clamp(1, MAX_EXPLAINED);
        let mut judges = Vec::new();
        let shown: Vec<ExplainedAllocation> =
            all.iter().take(most).map(|record| self.explain_record(record, &mut judges)).collect();
        let running = all.iter().filter(|record| record.state == AllocationState::Running).count();
        let app = self.durable.apps().get(&workload.app_name()).filter(|_| spec.is_some());
        Some(Explanation {
            workload: workload.clone(),
            revision: app.map(|app| app.revision),
            desired: desired(self, workload),
            running: u32::try_from(running).unwrap_or(u32::MAX),
            requires: spec.map(|spec| requires(spec)).unwrap_or_default(),
            allocations: shown,
            more: u32::try_from(all.len().saturating_sub(most)).unwrap_or(u32::MAX),
            waiting: spec.and_then(|spec| self.explain_wait(workload, spec)),
            failures: history.failures(workload).cloned().collect(),
            ended: history.ended(workload).cloned().collect(),
        })
    }

    /// Says why an allocation is where it is, or why it ended; nothing if nobody knows it.
    pub fn explain_allocation(&self, id: AllocationId) -> Option<AllocationExplanation> {
        let history = &self.volatile.history;
        let record = self.durable.allocations().get(&id);
        let ended = history.find(id).filter(|_| record.is_none());
        let workload = record.map(|record| &record.workload).or(ended.map(|(workload, _)| workload))?;
        Some(AllocationExplanation {
            workload: workload.clone(),
            allocation: record.map(|record| self.explain_record(record, &mut Vec::new())),
            ended: ended.map(|(_, ended)| ended.clone()),
            failures: history.failures(workload).filter(|failure| failure.id == id).cloned().collect(),
        })
    }

    /// Explains one allocation; `judges` are kept for others with the same spec.
    fn explain_record(&self, record: &AllocationRecord, judges: &mut Vec<Judge>) -> ExplainedAllocation {
        let known = judges.iter().position(|judge| Arc::ptr_eq(&judge.demand.spec, &record.spec));
        let index = known.unwrap_or_else(|| {
            judges.push(Judge::new(self, record));
            judges.len() - 1
        });
        let (decided_by, other, because) = self.why_there(record, &mut judges[index]);
        ExplainedAllocation {
            id: record.id,
            revision: record.revision,
            node: record.node.clone(),
            placed: record.created,
            state: self.state_of(record),
            decided_by,
            runner_up: other.map(|rank| rank.node),
            because,
        }
    }

    /// Says where an allocation stands, in words.
    fn state_of(&self, record: &AllocationRecord) -> String {
        let observed = self.volatile.observed(record);
        match record.state {
            AllocationState::Lost if self.durable.is_held(record) => {
                "lost with its node, and not replaced yet".to_owned()
            }
            AllocationState::Lost => "lost with its node; it goes on if the node is back first".to_owned(),
            AllocationState::Draining { .. } => "stopping".to_owned(),
            AllocationState::Running => match self.volatile.rebalancing.reason(record) {
                Some(reason) => format!("running until one in its place does: {reason}"),
                None => "running".to_owned(),
            },
            AllocationState::Placed => {
                observed.map_or("placed".to_owned(), |report| report.state.to_string())
            }
        }
    }

    /// Says what decided for the node of an allocation: judged now, as if it were placed again.
    fn why_there(&self, record: &AllocationRecord, judge: &mut Judge) -> (Decision, Option<Rank>, String) {
        let node = &record.node;
        if matches!(&record.spec.kind, WorkloadKind::Service(service) if service.everywhere) {
            return (Decision::Everywhere, None, "it runs on each node that can run it".to_owned());
        }
        if judge.search.is_of_itself() {
            let placement = &record.spec.placement;
            judge.relations = Relations::without(self, &record.workload, placement, Some(record.id));
            judge.search = Search::without(self, &judge.demand, &judge.relations, record);
        }
        let Judge { demand, relations, search } = judge;
        let lack = lack(self, demand, relations, record);
        if let Some(first) = lack.and_then(|lack| lack.obstacles.into_iter().next()) {
            let text = format!("nothing would be placed there today: {node} is {first}");
            return (Decision::NotAgain, None, text);
        }
        let Comparison { own, other } = search.compare(self, relations, record);
        let Some((own, other)) = own.zip(other) else {
            return (Decision::OnlyNode, None, "no other node can take it".to_owned());
        };
        let (decision, text) = decided(demand, &own, &other);
        (decision, Some(other), text)
    }

    /// Says why a workload has fewer allocations than it should, if it has.
    fn explain_wait(&self, workload: &WorkloadName, spec: &Arc<WorkloadSpec>) -> Option<ExplainedWait> {
        let durable = &self.durable;
        let runs = durable.runs().values().filter(|run| run.workload == *workload && run.is_running());
        let waiting_run = runs.rev().find(|run| self.volatile.waiting_runs.contains(&run.id));
        if let Some(run) = waiting_run {
            let queue = self.volatile.queues.get(&run.id);
            return Some(ExplainedWait {
                ready_items: queue.map_or(0, crate::retry::Queue::ready),
                ..self.survey(workload, &run.spec, &Claim::Run(run.id))
            });
        }
        if self.volatile.waiting_services.contains(workload) {
            let claim = Claim::Service(workload.clone());
            let survey = self.survey(workload, spec, &claim);
            return Some(ExplainedWait { missing: self.missing_of(workload), ..survey });
        }
        let held = durable.of_workload(workload).filter(|record| durable.is_held(record)).count();
        (held > 0).then(|| ExplainedWait {
            missing: u32::try_from(held).unwrap_or(u32::MAX),
            ready_items: 0,
            reason: held_back(held),
            nodes: u32::try_from(durable.nodes().values().filter(|node| !node.removed).count())
                .unwrap_or(u32::MAX),
            able: 0,
            filters: Vec::new(),
            remedies: vec![Remedy {
                kind: RemedyKind::Release,
                text: "let the lost nodes come back, or say that they will not: `dunlin node release`"
                    .to_owned(),
                nodes: 0,
            }],
            nearest: None,
        })
    }

    /// Says in short why a workload is not as it should be, or could be; nothing if it is.
    pub(crate) fn why_not_whole(&self, workload: &WorkloadName) -> Option<String> {
        let durable = &self.durable;
        let spec = durable.specs().get(workload)?;
        let mut runs = durable.runs().values().filter(|run| run.workload == *workload && run.is_running());
        if let Some(run) = runs.find(|run| self.volatile.waiting_runs.contains(&run.id)) {
            return self.why_run_waits(run);
        }
        if self.volatile.waiting_services.contains(workload) {
            return Some(self.why_service_waits(workload, spec));
        }
        let held = durable.of_workload(workload).filter(|record| durable.is_held(record)).count();
        let troubled = durable.of_workload(workload).filter(|record| record.is_live()).find_map(|record| {
            let told = self.volatile.observed(record).and_then(reason)?;
            Some(format!("{} on {}: {told}", record.id, record.node))
        });
        let held = (held > 0).then(|| held_back(held));
        held.or(troubled).or_else(|| self.why_canaries_wait(workload))
    }

    fn survey(&self, workload: &WorkloadName, spec: &Arc<WorkloadSpec>, claim: &Claim) -> ExplainedWait {
        let demand = Demand::new(self, workload, spec);
        let quota = self.quota_remedy(workload, spec);
        let places: BTreeSet<NodeId> = self.nodes_without(workload).into_iter().collect();
        let only = Some(&places).filter(|places| !places.is_empty());
        let survey = Survey::of(self, &demand, only, &self.kept_for(claim));
        let making_way = self.what_makes_way_for(claim);
        let reason = making_way.unwrap_or_else(|| self.why_waiting(workload, spec));
        ExplainedWait { reason, ..survey.wait(&demand, quota) }
    }

    /// Returns how many allocations a service misses that nothing holds back.
    fn missing_of(&self, workload: &WorkloadName) -> u32 {
        let places = self.nodes_without(workload).len();
        if places > 0 {
            return u32::try_from(places).unwrap_or(u32::MAX);
        }
        let app = self.durable.apps().get(&workload.app_name());
        let tally = self.durable.tally(workload).cloned().unwrap_or_default();
        let current = app.and_then(|app| tally.live.get(&app.revision)).copied().unwrap_or_default();
        let held: u32 = tally.held.values().sum();
        desired(self, workload).saturating_sub(current + held)
    }

    /// Returns how much the quota of a namespace would have to be raised for one more allocation.
    fn quota_remedy(&self, workload: &WorkloadName, spec: &WorkloadSpec) -> Option<Remedy> {
        let namespace = &workload.namespace;
        self.quota_hit(namespace, spec)?;
        let (quota, usage) = (self.durable.namespace(namespace).quota, self.durable.usage(namespace));
        let after = usage.reserved.plus(need(spec));
        let memory = quota.memory.filter(|most| after.memory > *most);
        let rate = quota.fuel_rate.filter(|most| after.fuel_rate > *most);
        let count = quota.allocations.filter(|most| usage.allocations + 1 > *most);
        let flags = memory
            .map(|_| format!(" --memory {}", after.memory))
            .into_iter()
            .chain(rate.map(|_| format!(" --fuel-rate {}", after.fuel_rate)))
            .chain(count.map(|_| format!(" --allocations {}", usage.allocations + 1)));
        let flags: String = flags.collect();
        let text = format!("raise the quota of its namespace: `dunlin namespace set {namespace}{flags}`");
        Some(Remedy { kind: RemedyKind::RaiseQuota, text, nodes: 0 })
    }
}

/// Returns what a node must fulfil, as it is written in the manifest.
fn requires(spec: &WorkloadSpec) -> Vec<String> {
    let WorkloadSpec { node_labels, placement, limits, .. } = spec;
    let labels = node_labels.iter().map(|(key, value)| format!("{key}={value}"));
    let conditions = placement.require.iter().map(ToString::to_string);
    let relation = |word: &str, affinity: &dunlin_model::Affinity| {
        let over = &affinity.over;
        format!("{word} {} over {over}", affinity.workload)
    };
    let near = placement.near.iter().filter(|it| it.required).map(|it| relation("near", it));
    let apart = placement.apart.iter().filter(|it| it.required).map(|it| relation("apart from", it));
    let countable = placement.resources.iter().map(|(name, count)| format!("{count} {name}"));
    let room = [format!("{} of memory", limits.memory), format!("a fuel rate of {}", limits.fuel_rate)];
    labels.chain(conditions).chain(near).chain(apart).chain(countable).chain(room).collect()
}

/// Returns what decides between a node and the best of the others, and says so.
fn decided(demand: &Demand, own: &Rank, other: &Rank) -> (Decision, String) {
    let (first, second) = if own < other { (own, other) } else { (other, own) };
    let (decision, text) = difference(demand, first, second);
    if own < other {
        return (decision, text);
    }
    let text = format!(
        "today {} would be taken: {text}; what runs is moved only if it is clearly better there, one allocation in five minutes",
        first.node
    );
    (Decision::Elsewhere, text)
}

/// Says what makes a node go before another.
pub(crate) fn difference(demand: &Demand, first: &Rank, second: &Rank) -> (Decision, String) {
    let (node, other) = (&first.node, &second.node);
    if first.has_failed != second.has_failed {
        return (Decision::Failures, format!("it failed lately on {other}, and not on {node}"));
    }
    if first.crowd != second.crowd {
        let over = demand.spec.placement.spread.iter().map(|spread| spread.over.as_str());
        let over: Vec<&str> = over.filter(|over| *over != dunlin_model::Placement::EACH_NODE).collect();
        let text = format!("spread over {}, it is less full there than on {other}", over.join(" and "));
        return (Decision::Spread, text);
    }
    if first.dislike != second.dislike {
        let (own, others) = (-first.dislike, -second.dislike);
        let text = format!("more of what it prefers holds on {node} ({own}) than on {other} ({others})");
        return (Decision::Preference, text);
    }
    if first.copies != second.copies {
        let text = format!(
            "{node} has fewer of its allocations beside it ({}) than {other} ({})",
            first.copies, second.copies
        );
        return (Decision::Copies, text);
    }
    if first.is_remote != second.is_remote {
        let text = format!("its component has run on {node}; {other} would have to fetch and compile it");
        return (Decision::Compiled, text);
    }
    if first.fill != second.fill {
        return (Decision::Packing, packing(demand.packing, first, second));
    }
    (Decision::Name, format!("{node} and {other} are equal, and the lower name goes first"))
}

fn packing(packing: Packing, first: &Rank, second: &Rank) -> String {
    let (node, other) = (&first.node, &second.node);
    match packing {
        Packing::Spread => {
            // Shares are in millionths.
            let share = |fill: u64| format!("{}.{} %", fill / 10_000, fill % 10_000 / 1_000);
            let (own, others) = (share(first.fill), share(second.fill));
            format!("{node} is emptier ({own} reserved) than {other} ({others})")
        }
        Packing::Pack => {
            let left = |fill: u64| dunlin_model::Bytes(fill);
            let (own, others) = (left(first.fill), left(second.fill));
            format!("{node} is fuller ({own} left) than {other} ({others}), and the namespace packs")
        }
    }
}
