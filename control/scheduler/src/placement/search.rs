//! The search for nodes for several allocations of one workload, one after the other.
//!
//! Most nodes of a class are alike for the workload and stand in an order already: of them only the first is looked at.
//! Those which differ (they run it already, say) are ranked one by one. So a placement costs a look at each class, not
//! at each node.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{NodeId, Packing, Placement, Resources};

use super::Demand;
use super::filter::judge;
use super::pools::{ClassId, ClassKey, Order, Pools, Room};
use super::relation::Relations;
use crate::{AllocationRecord, Cluster};

/// So many nodes that have the component are looked at before others; more would only make the search longer.
const MAX_LOCAL: usize = 128;

/// How good a node is for a workload, best first: what stands above decides before what stands below.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Whether an allocation of it failed there lately.
    pub(crate) has_failed: bool,
    /// How much there is already where it is to be spread out, in thousandths of an allocation by weight.
    pub(crate) crowd: u64,
    /// How much speaks against the node: the weights of what is preferred, negative.
    pub(crate) dislike: i32,
    /// How many allocations of the workload it has already.
    pub(crate) copies: u32,
    /// Whether it would have to fetch and compile the component.
    pub(crate) is_remote: bool,
    /// How full it is if full nodes come last; how much memory it has left if they come first.
    pub(crate) fill: u64,
    pub(crate) node: NodeId,
}

/// The node of an allocation beside the best of the others.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    /// Its own; absent if it is no member.
    pub(crate) own: Option<Rank>,
    /// The best of all others that have room.
    pub(crate) other: Option<Rank>,
}

/// What is known of a node that differs from others for this workload.
#[derive(Clone, Copy, Debug, Default)]
struct Special {
    has_failed: bool,
    dislike: i32,
    copies: u32,
    is_local: bool,
    /// Whether nothing may be placed there at all.
    is_forbidden: bool,
}

/// A class of nodes that can run the workload.
#[derive(Debug)]
struct Eligible {
    class: ClassId,
    /// How much speaks against all its nodes.
    dislike: i32,
    /// To which count of each spread it adds.
    values: Vec<String>,
    /// Its nodes that differ for this workload. Within the class the crowd is the same, so it is left out.
    special: BTreeSet<Rank>,
    /// Those of the other nodes that run it already, once there is room on none of the rest.
    running: Option<BTreeSet<Rank>>,
    /// How far its other nodes have been looked at: one place for each row of an order.
    seen: BTreeMap<u8, (u64, NodeId)>,
    /// The best of all that has room.
    best: Option<Rank>,
}

/// Over what a workload is spread, and what there is already.
#[derive(Debug)]
struct Crowd {
    over: String,
    weights: BTreeMap<String, u32>,
    counts: BTreeMap<String, u64>,
}

impl Crowd {
    /// Returns how full a value would be with one more, in thousandths of an allocation by weight.
    fn with_one_more(&self, value: &str) -> u64 {
        let count = self.counts.get(value).copied().unwrap_or_default();
        let weight = self.weights.get(value).copied().unwrap_or(1).max(1);
        (count + 1) * 1_000 * 1_000 / u64::from(weight)
    }
}

/// A search for nodes for allocations of one workload.
///
/// As long as it goes on, nothing else may be placed, and nodes must not change.
#[derive(Debug)]
pub(crate) struct Search {
    demand: Demand,
    need: Resources,
    eligible: Vec<Eligible>,
    specials: BTreeMap<NodeId, Special>,
    crowds: Vec<Crowd>,
    /// Whether a placement changes what is near or apart, so that the search begins anew.
    is_of_itself: bool,
    /// Whether only nodes that differ may be taken: it is to be near something on the same node.
    is_bound: bool,
}

impl Search {
    /// Begins a search.
    pub(crate) fn new(cluster: &Cluster, demand: &Demand) -> Self {
        let relations = Relations::of(cluster, &demand.workload, &demand.spec.placement);
        let specials = specials(cluster, demand, &relations);
        Self::begin(cluster, demand, &relations, specials)
    }

    fn begin(
        cluster: &Cluster,
        demand: &Demand,
        relations: &Relations,
        specials: BTreeMap<NodeId, Special>,
    ) -> Self {
        let placement = &demand.spec.placement;
        let affinities = placement.near.iter().chain(&placement.apart);
        let mut search = Self {
            need: demand.need(),
            eligible: Vec::new(),
            crowds: crowds(cluster, demand),
            specials,
            is_of_itself: affinities.map(|affinity| &affinity.workload).any(|name| *name == demand.workload),
            is_bound: false,
            demand: demand.clone(),
        };
        let only = relations.only();
        search.is_bound = only.is_some();
        for (id, class) in cluster.volatile.pools.classes() {
            let may_fit = class.order(demand.is_batch()).may_fit(&search.need);
            if !may_fit || judge(&class.key, demand).is_err() || relations.forbids(&class.key) {
                continue;
            }
            search.eligible.push(Eligible {
                class: *id,
                dislike: -liked(demand, &class.key) - relations.preference(&class.key),
                values: search.crowds.iter().map(|crowd| value(&class.key, &crowd.over)).collect(),
                special: BTreeSet::new(),
                running: None,
                seen: BTreeMap::new(),
                best: None,
            });
        }
        search.rank_specials(cluster, only.as_ref());
        for index in 0..search.eligible.len() {
            search.look(cluster, index);
        }
        search
    }

    /// Returns what beginning it costs, in placements.
    pub(crate) fn cost(cluster: &Cluster) -> u32 {
        1 + u32::try_from(cluster.volatile.pools.classes().len() / 16).unwrap_or(u32::MAX)
    }

    /// Returns the best node, if there is room on any.
    pub(crate) fn best(&self) -> Option<NodeId> {
        self.best_rank().map(|rank| rank.node)
    }

    /// Tells whether a placement of the workload changes what it is near or apart from.
    pub(crate) fn is_of_itself(&self) -> bool {
        self.is_of_itself
    }

    /// Judges the node of an allocation of what is demanded as if it were placed now, and all others beside it. The
    /// search is as before then.
    ///
    /// It must be one that has just begun, and for what stands near or apart from itself one of its own, begun
    /// [`without`](Self::without) the allocation.
    pub(crate) fn compare(
        &mut self,
        cluster: &Cluster,
        relations: &Relations,
        record: &AllocationRecord,
    ) -> Comparison {
        let pools = &cluster.volatile.pools;
        let Some((class, room)) = pools.node(&record.node) else {
            return Comparison { own: None, other: self.best_rank() };
        };
        let key = &pools.classes()[class].key;
        let place = self.eligible.iter().position(|eligible| eligible.class == *class);
        let special = self.specials.get(&record.node).copied().unwrap_or_else(|| Special {
            copies: copies_on(cluster, &self.demand, &record.node),
            ..Special::default()
        });
        // It is taken out, and put back in the end.
        let taken = place.and_then(|index| {
            let own = rank(&self.demand, self.eligible[index].dislike, special, room, &record.node);
            self.eligible[index].special.take(&own)
        });
        self.crowd(key, record, -1);
        if let Some(index) = place {
            self.look(cluster, index);
            if let Some(running) = &mut self.eligible[index].running {
                running.retain(|rank| rank.node != record.node);
                self.look(cluster, index);
            }
        }
        let other = self.best_rank();
        let crowd = self.crowds.iter().map(|crowd| crowd.with_one_more(&value(key, &crowd.over))).sum();
        let copies = special.copies.saturating_sub(u32::from(record.is_live()));
        // That it has run there is no reason to have placed it there, unless another one runs there too.
        let mut there = cluster.durable.on_node(&record.node).filter(|other| other.id != record.id);
        let is_shared = there.any(|other| other.spec.component == record.spec.component);
        let is_local = is_shared || other.as_ref().is_some_and(|other| !other.is_remote);
        let mut room = room.clone();
        if record.is_assigned() {
            room.reserved = room.reserved.minus(record.resources());
        }
        let dislike = -liked(&self.demand, key) - relations.preference(key);
        let special = Special { copies, is_local, ..special };
        let own = Rank { crowd, ..rank(&self.demand, dislike, special, &room, &record.node) };
        self.crowd(key, record, 1);
        if let Some(index) = place {
            self.eligible[index].special.extend(taken);
            self.eligible[index].running = None;
            self.look(cluster, index);
        }
        Comparison { own: Some(own), other }
    }

    /// Begins a search as if there were no allocation `except`, which is to be compared.
    pub(crate) fn without(
        cluster: &Cluster,
        demand: &Demand,
        relations: &Relations,
        except: &AllocationRecord,
    ) -> Self {
        let mut specials = specials(cluster, demand, relations);
        // The comparison takes it out of the copies; only what it says of itself is left out here.
        if let Some(own) = specials.get_mut(&except.node) {
            own.is_forbidden = true;
        }
        Self::begin(cluster, demand, relations, specials)
    }

    /// Counts an allocation of a class in or out of what is to be spread.
    fn crowd(&mut self, class: &ClassKey, record: &AllocationRecord, by: i64) {
        for crowd in self.crowds.iter_mut().filter(|_| record.is_live()) {
            if let Some(count) = crowd.counts.get_mut(&value(class, &crowd.over)) {
                *count = count.saturating_add_signed(by);
            }
        }
    }

    fn best_rank(&self) -> Option<Rank> {
        let ranks = self.eligible.iter().filter_map(|eligible| {
            let crowd = self.crowds.iter().zip(&eligible.values);
            let crowd = crowd.map(|(crowd, value)| crowd.with_one_more(value)).sum();
            eligible.best.as_ref().map(|rank| Rank { crowd, ..rank.clone() })
        });
        ranks.min()
    }

    /// Takes note that an allocation was placed on `node`.
    pub(crate) fn placed(&mut self, cluster: &Cluster, node: &NodeId) {
        if self.is_of_itself {
            *self = Self::new(cluster, &self.demand.clone());
            return;
        }
        let pools = &cluster.volatile.pools;
        let Some((class, room)) = pools.node(node) else { return };
        let Some(index) = self.eligible.iter().position(|eligible| eligible.class == *class) else { return };
        let eligible = &mut self.eligible[index];
        for (crowd, value) in self.crowds.iter_mut().zip(&eligible.values) {
            *crowd.counts.entry(value.clone()).or_default() += 1;
        }
        if let Some(special) = self.specials.get_mut(node) {
            if let Some(before) = eligible.best.take() {
                eligible.special.remove(&before);
            }
            special.copies += 1;
            special.is_local = true;
            eligible.special.insert(rank(&self.demand, eligible.dislike, *special, room, node));
        } else if let Some(running) = &mut eligible.running {
            if let Some(before) = eligible.best.take() {
                running.remove(&before);
            }
            let in_class =
                cluster.volatile.copies.in_class(&self.demand.workload, self.demand.revision, *class);
            let copies = in_class.map_or(0, |in_class| in_class.on(node));
            let special = Special { copies, is_local: true, ..Special::default() };
            running.insert(rank(&self.demand, eligible.dislike, special, room, node));
        }
        self.look(cluster, index);
    }

    /// Puts the nodes that differ into their classes; with `only`, no others count.
    fn rank_specials(&mut self, cluster: &Cluster, only: Option<&BTreeSet<&NodeId>>) {
        let places: BTreeMap<ClassId, usize> =
            self.eligible.iter().enumerate().map(|(index, eligible)| (eligible.class, index)).collect();
        for (node, special) in &self.specials {
            let Some((class, room)) = cluster.volatile.pools.node(node) else { continue };
            let Some(index) = places.get(class) else { continue };
            let is_allowed = !special.is_forbidden && only.is_none_or(|only| only.contains(node));
            if is_allowed {
                let eligible = &mut self.eligible[*index];
                eligible.special.insert(rank(&self.demand, eligible.dislike, *special, room, node));
            }
        }
    }

    /// Finds the best of one class that has room.
    fn look(&mut self, cluster: &Cluster, index: usize) {
        let pools = &cluster.volatile.pools;
        let special = first_that_fits(&mut self.eligible[index].special, pools, &self.demand);
        let other = match self.demand.packing {
            _ if self.is_bound => None,
            Packing::Spread => {
                self.look_at_the_rest(cluster, index).or_else(|| self.look_at_those_running(cluster, index))
            }
            Packing::Pack => {
                let running = self.look_at_those_running(cluster, index);
                running.into_iter().chain(self.look_at_the_rest(cluster, index)).min()
            }
        };
        self.eligible[index].best = special.into_iter().chain(other).min();
    }

    /// Finds the best of those nodes of a class that are alike for the workload.
    fn look_at_the_rest(&mut self, cluster: &Cluster, index: usize) -> Option<Rank> {
        let Self { demand, need, eligible, specials, .. } = self;
        let eligible = &mut eligible[index];
        if eligible.running.is_some() && demand.packing == Packing::Spread {
            return None;
        }
        let pools = &cluster.volatile.pools;
        let running = cluster.volatile.copies.in_class(&demand.workload, demand.revision, eligible.class);
        let order = pools.classes()[&eligible.class].order(demand.is_batch());
        let may_be_taken = |node: &NodeId| {
            running.is_none_or(|running| running.on(node) == 0)
                && !specials.contains_key(node)
                && pools.fits(node, demand)
        };
        let node = match demand.packing {
            Packing::Spread => emptiest(order, &mut eligible.seen, may_be_taken),
            Packing::Pack => tightest(order, need, &mut eligible.seen, may_be_taken),
        };
        let node = node?;
        let (_, room) = pools.node(&node)?;
        Some(rank(demand, eligible.dislike, Special::default(), room, &node))
    }

    /// Finds the best of those nodes of a class that run the workload already: they come after all others of it, unless the
    /// namespace packs.
    fn look_at_those_running(&mut self, cluster: &Cluster, index: usize) -> Option<Rank> {
        let Self { demand, eligible, specials, .. } = self;
        let eligible = &mut eligible[index];
        let pools = &cluster.volatile.pools;
        let running = eligible.running.get_or_insert_with(|| {
            let running = cluster.volatile.copies.in_class(&demand.workload, demand.revision, eligible.class);
            let nodes = running.into_iter().flat_map(|running| &running.nodes);
            let others = nodes.filter(|(node, _)| !specials.contains_key(*node));
            let ranks = others.filter_map(|(node, copies)| {
                let is_local = cluster.volatile.compiled.has(node, &demand.spec.component);
                let special = Special { copies: *copies, is_local, ..Special::default() };
                let (_, room) = pools.node(node)?;
                Some(rank(demand, eligible.dislike, special, room, node))
            });
            ranks.collect()
        });
        first_that_fits(running, pools, demand)
    }
}

/// Returns the first that has room, and forgets those before it: in a search room only gets less.
fn first_that_fits(ranks: &mut BTreeSet<Rank>, pools: &Pools, demand: &Demand) -> Option<Rank> {
    while let Some(first) = ranks.first() {
        if pools.fits(&first.node, demand) {
            return Some(first.clone());
        }
        ranks.pop_first();
    }
    None
}

/// Returns how much of what is preferred holds on the nodes of a class.
fn liked(demand: &Demand, class: &ClassKey) -> i32 {
    let preferred = demand.spec.placement.prefer.iter().filter(|it| it.expression.matches(&class.labels));
    preferred.map(|preference| i32::from(preference.weight)).sum()
}

/// Returns the rank of a node, without the crowd.
fn rank(demand: &Demand, dislike: i32, special: Special, room: &Room, node: &NodeId) -> Rank {
    let Special { has_failed, dislike: own, copies, is_local, is_forbidden: _ } = special;
    // Who packs has few nodes rather than few of each service on a node.
    let (copies, fill) = match demand.packing {
        Packing::Spread => (copies, room.reserved_share()),
        Packing::Pack => (0, room.free(demand.is_batch()).memory.0),
    };
    let dislike = dislike + own;
    Rank { has_failed, crowd: 0, dislike, copies, is_remote: !is_local, fill, node: node.clone() }
}

/// Returns the emptiest node that may be taken, and remembers how far it has looked.
fn emptiest(
    order: &Order,
    seen: &mut BTreeMap<u8, (u64, NodeId)>,
    may_be_taken: impl Fn(&NodeId) -> bool,
) -> Option<NodeId> {
    let mut last = None;
    let found = first(order.emptiest(seen.get(&0)), may_be_taken, |place| last = Some(place));
    if let Some(last) = last {
        seen.insert(0, last);
    }
    found.map(|(_, node)| node)
}

/// Returns the node with the least memory left that may be taken, and remembers how far it has looked.
fn tightest(
    order: &Order,
    need: &Resources,
    seen: &mut BTreeMap<u8, (u64, NodeId)>,
    may_be_taken: impl Fn(&NodeId) -> bool,
) -> Option<NodeId> {
    let mut best: Option<(u64, NodeId)> = None;
    for row in order.rows(need).collect::<Vec<_>>() {
        let mut last = None;
        let places = order.tightest(row, need, seen.get(&row));
        let found = first(places, &may_be_taken, |place| last = Some(place));
        if let Some(last) = last {
            seen.insert(row, last);
        }
        best = best.into_iter().chain(found).min();
    }
    best.map(|(_, node)| node)
}

/// Returns the first node of an order that may be taken, and tells the last place before it.
fn first<'a>(
    places: impl Iterator<Item = &'a (u64, NodeId)>,
    may_be_taken: impl Fn(&NodeId) -> bool,
    tell_last: impl FnOnce((u64, NodeId)),
) -> Option<(u64, NodeId)> {
    let mut last = None;
    let mut found = None;
    for place in places {
        if may_be_taken(&place.1) {
            found = Some(place.clone());
            break;
        }
        last = Some(place);
    }
    if let Some(last) = last {
        tell_last(last.clone());
    }
    found
}

/// Returns the nodes that differ for a workload, beside those which only run it already.
fn specials(cluster: &Cluster, demand: &Demand, relations: &Relations) -> BTreeMap<NodeId, Special> {
    let mut specials: BTreeMap<NodeId, Special> = BTreeMap::new();
    let copies = |node: &NodeId| copies_on(cluster, demand, node);
    let component = &demand.spec.component;
    for node in cluster.volatile.compiled.nodes(component).take(MAX_LOCAL) {
        if copies(node) == 0 {
            specials.entry(node.clone()).or_default();
        }
    }
    for node in cluster.volatile.failures.nodes(&demand.workload) {
        specials.entry(node.clone()).or_default().has_failed = true;
    }
    for (node, liking) in relations.preferred_nodes() {
        specials.entry(node.clone()).or_default().dislike = -liking;
    }
    for node in relations.forbidden_nodes() {
        specials.entry(node.clone()).or_default().is_forbidden = true;
    }
    for node in relations.only().into_iter().flatten() {
        specials.entry(node.clone()).or_default();
    }
    for (node, special) in &mut specials {
        special.copies = copies(node);
        special.is_local = cluster.volatile.compiled.has(node, component);
    }
    specials
}

/// Returns how many allocations of the workload are on a node.
fn copies_on(cluster: &Cluster, demand: &Demand, node: &NodeId) -> u32 {
    let Some((class, _)) = cluster.volatile.pools.node(node) else { return 0 };
    cluster
        .volatile
        .copies
        .in_class(&demand.workload, demand.revision, *class)
        .map_or(0, |in_class| in_class.on(node))
}

/// Returns over what a workload is spread. Each node is not among it: that is done anyway.
fn crowds(cluster: &Cluster, demand: &Demand) -> Vec<Crowd> {
    let spreads = demand.spec.placement.spread.iter().filter(|spread| spread.over != Placement::EACH_NODE);
    let mut crowds: Vec<Crowd> = spreads
        .map(|spread| Crowd {
            over: spread.over.clone(),
            weights: spread.weights.clone(),
            counts: BTreeMap::new(),
        })
        .collect();
    if crowds.is_empty() {
        return crowds;
    }
    for (class, in_class) in cluster.volatile.copies.of(&demand.workload, demand.revision) {
        let key = &cluster.volatile.pools.classes()[&class].key;
        for crowd in &mut crowds {
            *crowd.counts.entry(value(key, &crowd.over)).or_default() += u64::from(in_class.total);
        }
    }
    crowds
}

/// Returns the value of a label of a class. Nodes without it are together as if that were a value.
fn value(class: &ClassKey, label: &str) -> String {
    class.labels.get(label).cloned().unwrap_or_default()
}
