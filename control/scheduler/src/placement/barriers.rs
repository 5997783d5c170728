//! What keeps a workload from a node beside a lack of room.

use std::collections::BTreeSet;

use dunlin_model::NodeId;

use super::Demand;
use super::filter::judge;
use super::relation::Relations;
use crate::Cluster;

/// What keeps a workload from a node beside a lack of room.
#[derive(Debug)]
pub(crate) struct Barriers {
    demand: Demand,
    relations: Relations,
    forbidden: BTreeSet<NodeId>,
    only: Option<BTreeSet<NodeId>>,
}

impl Barriers {
    /// Looks where all workloads are that the demand wants near or apart.
    pub(crate) fn new(cluster: &Cluster, demand: &Demand) -> Self {
        let relations = Relations::of(cluster, &demand.workload, &demand.spec.placement);
        let forbidden = relations.forbidden_nodes().cloned().collect();
        let only = relations.only().map(|only| only.into_iter().cloned().collect());
        Self { demand: demand.clone(), relations, forbidden, only }
    }

    /// Tells whether nothing keeps it from a node.
    pub(crate) fn allow(&self, cluster: &Cluster, node: &NodeId) -> bool {
        let pools = &cluster.volatile.pools;
        let Some((class, _)) = pools.node(node) else { return false };
        let key = &pools.classes()[class].key;
        judge(key, &self.demand).is_ok()
            && !self.relations.forbids(key)
            && !self.forbidden.contains(node)
            && self.only.as_ref().is_none_or(|only| only.contains(node))
    }
}
