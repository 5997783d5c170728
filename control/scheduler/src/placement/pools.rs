//! The nodes as placement sees them: classes of nodes that differ only in their room, each in order of that.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, LazyLock};

use dunlin_model::{Bytes, FuelRate, NodeId, Overcommit, Resources};

use super::Demand;
use crate::lookup::Lookup;
use crate::planted::{Bug, planted};
use crate::volatile::NodeState;
use crate::{AllocationRecord, NodeRecord};

/// Whether a node may be given something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It may.
    Open,
    /// Something makes way on it for somebody, and nobody else gets anything there until then.
    Kept,
    /// It was lost again and again, and is left alone for a while.
    SetAside,
    /// An operator has said so.
    Cordoned,
    /// It is believed until its lease is over and keeps what it has, but what is new could not even be told to it.
    Disconnected,
    /// It has not told this coordinator what it has.
    Unheard,
    /// Its lease is over.
    Lost,
}

/// What the nodes of a class have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassKey {
    pub(crate) standing: Standing,
    pub(crate) labels: BTreeMap<String, String>,
    /// The countable resources they declare.
    pub(crate) resources: BTreeSet<String>,
    /// How much more than it has batch work may reserve on one of them.
    pub(crate) overcommit: Overcommit,
}

/// The first of all names.
static FIRST: LazyLock<NodeId> = LazyLock::new(|| "0".parse().expect("it is a name"));

/// Names a class as long as it has nodes.
pub(crate) type ClassId = u32;

/// What a node has and what of it is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) capacity: Resources,
    pub(crate) overcommit: Overcommit,
    pub(crate) reserved: Resources,
    /// What is left of its countable resources.
    pub(crate) countable: Arc<BTreeMap<String, u32>>,
}

impl Room {
    /// Returns what is free for services, or for batch work.
    pub(crate) fn free(&self, is_batch: bool) -> Resources {
        let capacity = if is_batch || planted(Bug::OvercommitServices) {
            self.overcommit.of(self.capacity)
        } else {
            self.capacity
        };
        capacity.minus(self.reserved)
    }

    /// Tells whether something may fit that did not before.
    fn has_more_than(&self, before: &Self) -> bool {
        !before.free(true).holds(&self.free(true))
            || !before.free(false).holds(&self.free(false))
            || self.countable.iter().any(|(name, count)| before.countable.get(name) < Some(count))
    }

    /// Tells whether an allocation of what is demanded fits.
    pub(crate) fn fits(&self, demand: &Demand) -> bool {
        let countable = &demand.spec.placement.resources;
        (planted(Bug::PlaceOverCapacity) || self.free(demand.is_batch()).holds(&demand.need()))
            && (planted(Bug::CountResourceNot)
                || countable.iter().all(|(name, count)| self.countable.get(name) >= Some(count)))
    }

    /// Returns the room that there is without an allocation.
    pub(crate) fn without(&self, record: &AllocationRecord) -> Self {
        let mut room = self.clone();
        room.reserved = room.reserved.minus(record.resources());
        for (name, count) in &record.spec.placement.resources {
            *Arc::make_mut(&mut room.countable).entry(name.clone()).or_default() += count;
        }
        room
    }

    /// Returns the room that there is with an allocation that was left out.
    pub(crate) fn with(&self, record: &AllocationRecord) -> Self {
        let mut room = self.clone();
        room.reserved = room.reserved.plus(record.resources());
        for (name, count) in &record.spec.placement.resources {
            let left = Arc::make_mut(&mut room.countable).entry(name.clone()).or_default();
            *left = left.saturating_sub(*count);
        }
        room
    }

    /// Returns which share is reserved, in millionths: of memory or of computing, whichever is scarcer.
    pub(crate) fn reserved_share(&self) -> u64 {
        let share = |reserved: u64, capacity: u64| {
            u64::try_from(u128::from(reserved) * 1_000_000 / u128::from(capacity.max(1))).unwrap_or(u64::MAX)
        };
        let Self { reserved, capacity, .. } = self;
        share(reserved.memory.0, capacity.memory.0).max(share(reserved.fuel_rate.0, capacity.fuel_rate.0))
    }
}

/// Nodes in order of their room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    /// By reserved share, emptiest first.
    by_share: BTreeSet<(u64, NodeId)>,
    /// By free computing, coarsely, then by free memory: what is left of one is of no use without the other.
    by_room: BTreeMap<u8, BTreeSet<(u64, NodeId)>>,
}

/// Nodes which differ only in their room.
#[derive(Clone, Debug)]
pub(crate) struct Class {
    pub(crate) key: ClassKey,
    /// As services see them.
    order: Order,
    /// As batch work sees them, where that is not the same.
    batch: Option<Order>,
}

/// All nodes by class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pools {
    classes: BTreeMap<ClassId, Class>,
    by_key: BTreeMap<ClassKey, ClassId>,
    nodes: Lookup<NodeId, (ClassId, Room)>,
    last_class: ClassId,
    /// What all nodes have together that may be given something new.
    total: Resources,
}

impl Pools {
    /// Takes in how a node is now; tells whether something may fit on it that did not before.
    pub(crate) fn refresh(&mut self, record: &NodeRecord, state: &NodeState, room: Room) -> bool {
        let standing = match (&record.lost, &record.info, state.last_seen) {
            (Some(_), ..) => Standing::Lost,
            (None, Some(_), Some(_)) if record.cordon.is_some() && !planted(Bug::IgnoreCordon) => {
                Standing::Cordoned
            }
            (None, Some(_), Some(_)) if !state.connected && !planted(Bug::PlaceOnDisconnected) => {
                Standing::Disconnected
            }
            (None, Some(_), Some(_)) if state.is_set_aside && !planted(Bug::IgnoreFlapping) => {
                Standing::SetAside
            }
            (None, Some(_), Some(_)) if state.is_kept => Standing::Kept,
            (None, Some(_), Some(_)) => Standing::Open,
            (None, ..) => Standing::Unheard,
        };
        let info = record.info.as_ref();
        let key = ClassKey {
            standing,
            labels: info.map(|info| info.labels.clone()).unwrap_or_default(),
            resources: info.map(|info| info.resources.keys().cloned().collect()).unwrap_or_default(),
            overcommit: room.overcommit,
        };
        if let Some((class, _)) = self.nodes.get(&record.id)
            && self.classes[class].key == key
        {
            return self.set_room(&record.id, room);
        }
        self.remove(&record.id);
        if standing == Standing::Open {
            self.total = self.total.plus(room.capacity);
        }
        let class = self.class(key);
        self.classes.get_mut(&class).expect("it was just found or made").insert(&record.id, &room);
        self.nodes.insert(record.id.clone(), (class, room));
        standing == Standing::Open
    }

    /// Takes in what is reserved on a node now; tells whether something may fit on it that did not before.
    pub(crate) fn set_room(&mut self, node: &NodeId, room: Room) -> bool {
        let Some((class, known)) = self.nodes.get_mut(node) else { return false };
        if *known == room {
            return false;
        }
        let before = std::mem::replace(known, room);
        let after = &*known;
        let class = self.classes.get_mut(class).expect("a node has a class");
        let is_open = class.key.standing == Standing::Open;
        if is_open && before.capacity != after.capacity {
            self.total = self.total.minus(before.capacity).plus(after.capacity);
        }
        class.remove(node, &before);
        class.insert(node, after);
        is_open && after.has_more_than(&before)
    }

    fn remove(&mut self, node: &NodeId) {
        let Some((id, room)) = self.nodes.remove(node) else { return };
        let class = self.classes.get_mut(&id).expect("a node has a class");
        class.remove(node, &room);
        if class.key.standing == Standing::Open {
            self.total = self.total.minus(room.capacity);
        }
        if class.order.by_share.is_empty() {
            self.by_key.remove(&class.key);
            self.classes.remove(&id);
        }
    }

    fn class(&mut self, key: ClassKey) -> ClassId {
        if let Some(known) = self.by_key.get(&key) {
            return *known;
        }
        self.last_class += 1;
        let batch = (key.overcommit != Overcommit::NONE).then(Order::default);
        let class = Class { key: key.clone(), order: Order::default(), batch };
        self.by_key.insert(key, self.last_class);
        self.classes.insert(self.last_class, class);
        self.last_class
    }

    /// Returns all classes, each with at least one node.
    pub(crate) fn classes(&self) -> &BTreeMap<ClassId, Class> {
        &self.classes
    }

    /// Returns the class and the room of a member.
    pub(crate) fn node(&self, node: &NodeId) -> Option<&(ClassId, Room)> {
        self.nodes.get(node)
    }

    /// Returns the class of a member if what runs on it counts: of what is lost nothing does.
    pub(crate) fn counting_class(&self, node: &NodeId) -> Option<ClassId> {
        let (class, _) = self.nodes.get(node)?;
        (self.classes[class].key.standing != Standing::Lost).then_some(*class)
    }

    /// Returns whether a member may be given something new.
    pub(crate) fn standing(&self, node: &NodeId) -> Option<Standing> {
        self.nodes.get(node).map(|(class, _)| self.classes[class].key.standing)
    }

    /// Tells whether an allocation of what is demanded fits on a node.
    pub(crate) fn fits(&self, node: &NodeId, demand: &Demand) -> bool {
        self.nodes.get(node).is_some_and(|(_, room)| room.fits(demand))
    }

    /// Returns what all nodes have together that may be given something new.
    pub(crate) fn total(&self) -> Resources {
        self.total
    }
}

impl Class {
    fn insert(&mut self, node: &NodeId, room: &Room) {
        self.order.insert(node, room, false);
        if let Some(batch) = &mut self.batch {
            batch.insert(node, room, true);
        }
    }

    fn remove(&mut self, node: &NodeId, room: &Room) {
        self.order.remove(node, room, false);
        if let Some(batch) = &mut self.batch {
            batch.remove(node, room, true);
        }
    }

    /// Returns how many nodes it has.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.order.by_share.len()).unwrap_or(u32::MAX)
    }

    /// Returns its nodes, emptiest first.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.order.by_share.iter().map(|(_, node)| node)
    }

    /// Returns its nodes in order as services, or batch work, see them.
    pub(crate) fn order(&self, is_batch: bool) -> &Order {
        self.batch.as_ref().filter(|_| is_batch).unwrap_or(&self.order)
    }
}

impl Order {
    fn insert(&mut self, node: &NodeId, room: &Room, is_batch: bool) {
        let free = room.free(is_batch);
        self.by_share.insert((room.reserved_share(), node.clone()));
        self.by_room.entry(coarse(free.fuel_rate)).or_default().insert((free.memory.0, node.clone()));
    }

    fn remove(&mut self, node: &NodeId, room: &Room, is_batch: bool) {
        let free = room.free(is_batch);
        self.by_share.remove(&(room.reserved_share(), node.clone()));
        let coarse = coarse(free.fuel_rate);
        if let Some(row) = self.by_room.get_mut(&coarse) {
            row.remove(&(free.memory.0, node.clone()));
            if row.is_empty() {
                self.by_room.remove(&coarse);
            }
        }
    }

    /// Returns the most memory, and the most computing, that one of its nodes has free which counts; not always the
    /// same node.
    pub(crate) fn freest(
        &self,
        pools: &Pools,
        is_batch: bool,
        counts: impl Fn(&NodeId) -> bool,
    ) -> Resources {
        let rooms = self.by_room.values().filter_map(|row| row.iter().rev().find(|(_, node)| counts(node)));
        let memory = rooms.map(|(memory, _)| *memory).max().unwrap_or_default();
        let mut rows = self.by_room.values().rev();
        let row = rows.find(|row| row.iter().any(|(_, node)| counts(node))).into_iter().flatten();
        let rates = row
            .filter(|(_, node)| counts(node))
            .filter_map(|(_, node)| pools.node(node))
            .map(|(_, room)| room.free(is_batch).fuel_rate);
        Resources { memory: Bytes(memory), fuel_rate: rates.max().unwrap_or_default() }
    }

    /// Tells whether `need` may fit on one of its nodes; false is certain.
    pub(crate) fn may_fit(&self, need: &Resources) -> bool {
        let mut rows = self.by_room.range(coarse(need.fuel_rate)..);
        rows.any(|(_, row)| row.last().is_some_and(|(memory, _)| *memory >= need.memory.0))
    }

    /// Returns its nodes after `place`, emptiest first.
    pub(crate) fn emptiest(&self, after: Option<&(u64, NodeId)>) -> impl Iterator<Item = &(u64, NodeId)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_share.range((from, Bound::Unbounded))
    }

    /// Returns the rows in which nodes may have the computing that `need` asks for.
    pub(crate) fn rows(&self, need: &Resources) -> impl Iterator<Item = u8> + use<'_> {
        self.by_room.range(coarse(need.fuel_rate)..).map(|(row, _)| *row)
    }

    /// Returns the nodes of a row after `place` that have the memory which `need` asks for, those with the least first.
    pub(crate) fn tightest<'a>(
        &'a self,
        row: u8,
        need: &Resources,
        after: Option<&(u64, NodeId)>,
    ) -> impl Iterator<Item = &'a (u64, NodeId)> {
        let first = (need.memory.0, FIRST.clone());
        let from = after.map_or(Bound::Included(&first), Bound::Excluded);
        self.by_room.get(&row).map(|row| row.range((from, Bound::Unbounded))).into_iter().flatten()
    }
}

/// Returns a fuel rate on a scale of about four steps for each doubling. A higher step is a higher rate.
fn coarse(rate: FuelRate) -> u8 {
    let value = rate.0;
    if value < 4 {
        return u8::try_from(value).unwrap_or_default();
    }
    let bits = value.ilog2();
    let quarter = (value >> (bits - 2)) & 3;
    u8::try_from(u64::from(bits) * 4 + quarter).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_of_fuel_rates_never_falls() {
        let rates = (0..64).flat_map(|bit| [-1_i64, 0, 1].map(|by| (1_u64 << bit).saturating_add_signed(by)));
        let mut rates: Vec<u64> = rates.chain([0, 5, 6, 7, u64::MAX]).collect();
        rates.sort_unstable();
        let steps: Vec<u8> = rates.iter().map(|rate| coarse(FuelRate(*rate))).collect();
        assert!(steps.is_sorted(), "{steps:?}");
        assert!(coarse(FuelRate(100)) < coarse(FuelRate(200)));
    }
}
