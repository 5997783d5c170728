//! Where requests go when the coordinator knows of nobody who answers: to what runs here.
//!
//! The coordinator takes an allocation out of the routes when its node says that it does not run, and puts it back when
//! it does. If its word is late, or it is gone by then, the routes would lead nowhere though the service runs. So a
//! service without endpoints is answered by its allocations on this node, as long as they are well.

use std::collections::BTreeMap;

use dunlin_model::{Endpoint, NodeId, RouteTable, WorkloadName};

use crate::allocation::Allocation;

/// The endpoints on this node of services that have none in the routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fallback(BTreeMap<WorkloadName, Vec<Endpoint>>);

impl Fallback {
    /// Returns those among the allocations of `node`, which come in the order of their ids.
    pub(crate) fn of<'a>(
        node: &NodeId,
        routes: &RouteTable,
        allocations: impl Iterator<Item = &'a Allocation>,
    ) -> Self {
        let mut endpoints: BTreeMap<WorkloadName, Vec<Endpoint>> = BTreeMap::new();
        for allocation in allocations {
            let workload = &allocation.assigned.workload;
            // A singleton that leaves is in no route, and the next one waits for its end: it must take nothing new.
            if !allocation.may_answer() || allocation.assigned.spec.on_partition().is_singleton() {
                continue;
            }
            if routes.endpoints.get(workload).is_some_and(Vec::is_empty) {
                let endpoint = Endpoint::new(allocation.assigned.id, node.clone());
                endpoints.entry(workload.clone()).or_default().push(endpoint);
            }
        }
        Self(endpoints)
    }

    /// Returns the routes with these.
    pub(crate) fn added_to(&self, mut routes: RouteTable) -> RouteTable {
        routes.endpoints.extend(self.0.clone());
        routes
    }
}
