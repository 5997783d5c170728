//! What an operator may set for an agent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use dunlin_model::{Bytes, FuelRate, NodeId};

use crate::{Programs, Settings};

/// The TCP port of a node's ingress.
pub const DEFAULT_INGRESS_PORT: u16 = 7480;

/// The settings of an agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept.
    pub state: PathBuf,
    /// The name of the node; used when it joins, checked later.
    pub node: NodeId,
    /// Where the coordinators are, each as `host:port`; resolved at each attempt. One of them is in charge.
    pub coordinators: Vec<String>,
    /// The join token, needed at the first start only.
    pub join_token: Option<GivenToken>,
    /// Where the ingress listens.
    pub ingress: SocketAddr,
    /// Where the QUIC endpoint is bound, for the coordinator and for other nodes.
    pub endpoint: SocketAddr,
    /// Where other nodes reach `endpoint`, if that is not the bound address itself.
    pub advertise: Option<SocketAddr>,
    /// What operators say about the node.
    pub labels: BTreeMap<String, String>,
    /// Memory that guests may use; by default what the machine has available at start, less a reserve.
    pub memory: Option<Bytes>,
    /// Computing that guests may use; by default what is measured at the first start.
    pub fuel_rate: Option<FuelRate>,
    /// The `dunlin` program, for worker processes.
    pub program: PathBuf,
    /// What this machine can run as its agent.
    pub programs: Programs,
    /// What the node's config file says.
    pub settings: Settings,
    /// Gives back memory that the thread which calls it has freed.
    pub tidy: fn(),
    /// Lets go of the code that was only needed to start.
    pub let_go_of_code: fn(),
}

/// A join token as somebody gave it. It is a secret, so `Debug` does not show it.
#[derive(Clone)]
pub struct GivenToken(pub String);

impl std::fmt::Debug for GivenToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GivenToken(..)")
    }
}
