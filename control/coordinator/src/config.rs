//! What an operator may set for a coordinator.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use dunlin_model::ComponentLimits;
use dunlin_scheduler::Config as Patience;
use dunlin_store::EtcdLocation;
use dunlin_transport::Authority;

/// The UDP port on which agents find the coordinator.
pub const DEFAULT_FLEET_PORT: u16 = 7400;
/// The TCP port of the HTTP API.
pub const DEFAULT_API_PORT: u16 = 7401;

/// How patient a fleet is with silent nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Machines on one reliable network: a node is lost after 10 s of silence.
    Lan,
    /// Machines behind flaky links: after 30 s.
    Edge,
    /// Machines that are out of reach for hours: after 6 h.
    Dark,
}

impl Profile {
    /// Returns what it means to the brain.
    pub(crate) const fn patience(self) -> Patience {
        match self {
            Self::Lan => Patience::LAN,
            Self::Edge => Patience::EDGE,
            Self::Dark => Patience::DARK,
        }
    }
}

/// The settings of a coordinator.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept that is kept on this machine.
    pub state: PathBuf,
    /// The etcd in which the fleet's state is, for several coordinators; in the state folder if absent.
    pub etcd: Option<EtcdLocation>,
    /// Where components and inputs are that several coordinators share; in the state folder if absent.
    pub objects: Option<String>,
    /// Where agents are awaited, over QUIC.
    pub fleet: SocketAddr,
    /// Where the API is served, over HTTPS.
    pub api: SocketAddr,
    /// Host names or addresses under which the API is reached, besides loopback; they go into its certificate.
    pub api_names: Vec<String>,
    /// Where other coordinators reach the API of this one, as `host:port`; as `api` says if absent.
    pub advertise_api: Option<String>,
    /// How patient it is.
    pub profile: Profile,
    /// How long the certificate of a node is good; from half of it on the node renews it.
    pub node_lifetime: Duration,
    /// How large and how intricate an uploaded component may be.
    pub limits: ComponentLimits,
}

impl Config {
    /// Returns the settings for a coordinator which keeps its state in `state` and listens on loopback only.
    pub fn local(state: PathBuf) -> Self {
        Self {
            state,
            etcd: None,
            objects: None,
            fleet: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_FLEET_PORT)),
            api: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_API_PORT)),
            api_names: Vec::new(),
            advertise_api: None,
            profile: Profile::Edge,
            node_lifetime: Authority::NODE_LIFETIME,
            limits: ComponentLimits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use dunlin_transport::Backoff;

    use super::*;

    #[test]
    fn nobody_is_lost_before_it_can_have_tried() {
        for profile in [Profile::Lan, Profile::Edge, Profile::Dark] {
            let grace = std::time::Duration::from_millis(profile.patience().start_grace.0);
            assert!(grace > Backoff::LONGEST_ABSENCE, "{profile:?}: {grace:?}");
        }
    }
}
