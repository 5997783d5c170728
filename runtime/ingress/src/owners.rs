//! Whose requests may come on one connection: the namespaces of all routes that a host can match. Pure. Where one of these
//! routes has rules they are the ingress's own.

use std::collections::BTreeMap;

use dunlin_model::{Name, RouteTable};

use crate::router::{normal_host, parents};

/// For each host as routes name it, the one namespace that these lead to, if there is but one.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    hosts: BTreeMap<String, Owner>,
    /// Of all names below one.
    below: BTreeMap<String, Owner>,
    any_host: Owner,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Owner {
    #[default]
    Nobody,
    One(Name),
    Several,
}

impl Owner {
    fn add(&mut self, namespace: &Name) {
        *self = match std::mem::take(self) {
            Self::Nobody => Self::One(namespace.clone()),
            Self::One(known) if known == *namespace => Self::One(known),
            Self::One(_) | Self::Several => Self::Several,
        };
    }
}

impl Owners {
    pub(crate) fn new(routes: &RouteTable) -> Self {
        let mut owners = Self::default();
        for route in &routes.routes {
            let owner = match &route.spec.host {
                Some(host) => match host.strip_prefix("*.") {
                    Some(parent) => owners.below.entry(normal_host(parent).into_owned()).or_default(),
                    None => owners.hosts.entry(normal_host(host).into_owned()).or_default(),
                },
                None => &mut owners.any_host,
            };
            // What a route's rules say is done by the ingress, on whatever connection and however a path is spelled; and so it
            // is seen to that canaries have their share.
            if route.spec.rules.is_some() || routes.has_canaries(&route.workload) {
                *owner = Owner::Several;
            }
            owner.add(&route.workload.namespace);
        }
        owners
    }

    /// Tells whether no request with this `authority` can be for another namespace.
    pub(crate) fn is_sole(&self, authority: &str, namespace: &Name) -> bool {
        let host = normal_host(authority);
        let is_foreign = |owner: &Owner| match owner {
            Owner::Nobody => false,
            Owner::One(sole) => sole != namespace,
            Owner::Several => true,
        };
        // Where none of a host's own routes fits, the others are tried.
        let own = self.hosts.get(&*host);
        if own.is_some_and(is_foreign) || is_foreign(&self.any_host) {
            return false;
        }
        let is_shared = !self.below.is_empty()
            && parents(&host).filter_map(|parent| self.below.get(parent)).any(is_foreign);
        !is_shared
    }
}
