//! Which requests go where: the table every ingress works from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{AllocationId, Digest, NodeId, Percent, RouteSpec, WorkloadName};

/// The whole routing of a fleet, as one value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Host and path prefix → service.
    pub routes: Vec<Route>,
    /// The running allocations of each service that has routes, or that guests of its namespace may call by its name.
    pub endpoints: BTreeMap<WorkloadName, Vec<Endpoint>>,
    /// Where other nodes' ingresses are reached over QUIC.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// The SHA-256 of the public keys of machines that are no members any more, though their certificates may hold: nobody
    /// takes their requests.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub revoked: BTreeSet<Digest>,
    /// The services that run on every node: each node answers for them itself, as long as it can.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub everywhere: BTreeSet<WorkloadName>,
    /// The services whose canaries are to have this share of the requests; others have as much as their number says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shares: BTreeMap<WorkloadName, Percent>,
    /// The services of which an allocation takes fewer requests at the same time than [`RouteTable::NARROW`], and how many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub narrow: BTreeMap<WorkloadName, u32>,
}

impl RouteTable {
    /// Below this it matters to who shares requests how many an allocation takes at the same time.
    pub const NARROW: u32 = 16;

    /// Tells whether a service has canaries that are not promoted yet: only who decides on each request can see to their share.
    pub fn has_canaries(&self, service: &WorkloadName) -> bool {
        self.endpoints.get(service).is_some_and(|endpoints| endpoints.iter().any(|endpoint| endpoint.canary))
    }
}

/// Host and path prefix → service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// Which requests.
    #[serde(flatten)]
    pub spec: RouteSpec,
    /// Which service answers them.
    pub workload: WorkloadName,
}

/// One running allocation of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// The allocation.
    pub allocation: AllocationId,
    /// Where it runs.
    pub node: NodeId,
    /// Whether it is a canary that is not promoted yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
}

impl Endpoint {
    /// Returns one that is no canary.
    pub fn new(allocation: AllocationId, node: NodeId) -> Self {
        Self { allocation, node, canary: false }
    }
}

/// What the worker of a namespace may know of the route table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRoutes {
    /// Which requests of clients it may answer, in the order in which they count.
    pub routes: Vec<NamespaceRoute>,
    /// The services of the namespace that run on this node, for guests that call them.
    pub services: BTreeMap<WorkloadName, LocalService>,
}

/// One route as the worker of a namespace may know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRoute {
    /// Which requests.
    pub spec: RouteSpec,
    /// Where they are answered on this node; nothing if they are not for this namespace, or if the route has rules.
    pub service: Option<LocalService>,
}

/// A service as far as its own node can answer for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalService {
    /// Its running allocations on this node.
    pub allocations: Vec<AllocationId>,
    /// Whether it has others on other nodes.
    pub is_elsewhere: bool,
}
