//! The brake: a mass loss never causes a mass move.
//!
//! What a lost node ran stays its own until the node is *released*; only then it is replaced elsewhere. One node is
//! released at a time, and none of a zone of which many were lost at once: that is a broken network or a power cut more
//! often than so many broken machines, and whoever moves everything then breaks the rest. The operator can override.

use std::collections::BTreeMap;

use dunlin_model::{DurationMs, NodeId, Timestamp};

use crate::durable::Durable;
use crate::effort::Effort;
use crate::planted::{Bug, planted};
use crate::{AllocationState, Change, Cluster, NodeRecord, Step};

/// The label that says in which zone a node is. Those without it are one zone of their own.
pub const ZONE: &str = "zone";
/// Nodes lost within so long of each other are lost together.
const TOGETHER: DurationMs = DurationMs(120_000);
/// So many nodes of a zone are lost together at least before the brake holds.
const FEWEST: usize = 3;
/// And more than this share of the zone, in per cent.
const SHARE: usize = 30;

/// A zone of which nothing is moved.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Held {
    /// How many of its nodes are lost and were not released.
    pub lost: usize,
    /// How many nodes it has.
    pub nodes: usize,
}

/// Returns the zones whose nodes are not released, as many of them were lost together.
pub(crate) fn held_zones(durable: &Durable) -> BTreeMap<String, Held> {
    let mut zones: BTreeMap<&str, (usize, usize, Vec<Timestamp>)> = BTreeMap::new();
    // One that an operator has cut off is no loss.
    let members = durable.nodes().values().filter(|record| record.info.is_some() && !record.revoked);
    for record in members {
        let (nodes, waiting, losses) = zones.entry(zone(record)).or_default();
        *nodes += 1;
        *waiting += usize::from(record.lost.is_some() && !record.released);
        // The first that was lost may have been released before it was known that others would follow.
        losses.extend(record.lost);
    }
    let held = zones.into_iter().filter_map(|(zone, (nodes, waiting, mut losses))| {
        losses.sort_unstable();
        let is_mass = losses.iter().enumerate().any(|(index, first)| {
            let together = losses[index..].partition_point(|loss| loss.since(*first) <= TOGETHER);
            together >= FEWEST && together * 100 > nodes * SHARE
        });
        (is_mass && waiting > 0).then(|| (zone.to_owned(), Held { lost: waiting, nodes }))
    });
    held.collect()
}

fn zone(record: &NodeRecord) -> &str {
    let labels = record.info.as_ref().map(|info| &info.labels);
    labels.and_then(|labels| labels.get(ZONE)).map_or("", String::as_str)
}

impl Cluster {
    /// Lets what lost nodes ran be replaced: of one node now and then, of none while the brake holds; of all if the
    /// operator has said so.
    pub(crate) fn release_lost(&mut self, step: &mut Step, effort: &mut Effort, now: Timestamp) {
        if self.durable.unreleased().is_empty() {
            self.volatile.release_all = false;
            return;
        }
        if self.volatile.next_release.is_none_or(|next| next > now) {
            return;
        }
        while self.volatile.release_all && !effort.is_over() {
            let Some((_, node)) = self.durable.unreleased().first().cloned() else {
                // What is lost from now on is another matter.
                self.volatile.release_all = false;
                return;
            };
            self.release(step, &node, effort, now);
        }
        if self.volatile.release_all {
            return;
        }
        let held = held_zones(&self.durable);
        let free = self.durable.unreleased().iter().find(|(_, node)| {
            let record = &self.durable.nodes()[node];
            planted(Bug::IgnoreBrake) || !held.contains_key(zone(record))
        });
        // Who is held is looked at again when a node is lost or comes back, or the operator speaks.
        let Some((_, node)) = free.cloned() else {
            self.volatile.next_release = None;
            return;
        };
        self.release(step, &node, effort, now);
        let pause = if planted(Bug::ReleaseAllAtOnce) { DurationMs(0) } else { self.config.release_pause };
        self.volatile.next_release = Some(now.plus(pause));
    }

    /// Returns the moment from which another node may be released.
    pub(crate) fn next_release(&self) -> Option<Timestamp> {
        let is_any = !self.durable.unreleased().is_empty();
        self.volatile.next_release.filter(|_| is_any)
    }

    /// Lets what a lost node ran be replaced.
    pub(crate) fn release(&mut self, step: &mut Step, node: &NodeId, effort: &mut Effort, now: Timestamp) {
        let mut record = self.durable.nodes()[node].clone();
        record.released = true;
        self.change(step, Change::Node(record), now);
        for id in self.ids_on_node(node) {
            effort.spend(1);
            // With one of them their run may have ended, and so all of it.
            let Some(record) = self.durable.allocations().get(&id) else { continue };
            if record.state == AllocationState::Lost {
                let workload = record.workload.clone();
                if !planted(Bug::LoseRange) {
                    self.queue_again(step, id, now);
                }
                self.volatile.dirty.workloads.insert(workload);
            }
        }
    }
}
