//! Whose requests may come on one connection: the namespaces of all routes that a host can match. Pure.

use std::collections::BTreeMap;

use dunlin_model::{Name, RouteTable};

use crate::router::normal_host;

/// For each host, the one namespace that all its routes lead to, if there is but one.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    hosts: BTreeMap<String, Owner>,
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
                Some(host) => owners.hosts.entry(normal_host(host).into_owned()).or_default(),
                None => &mut owners.any_host,
            };
            owner.add(&route.workload.namespace);
        }
        // Where none of a host's own routes fits, those without a host are tried.
        for owner in owners.hosts.values_mut() {
            match &owners.any_host {
                Owner::Nobody => {}
                Owner::One(namespace) => owner.add(namespace),
                Owner::Several => *owner = Owner::Several,
            }
        }
        owners
    }

    /// Tells whether no request with this `authority` can be for another namespace.
    pub(crate) fn is_sole(&self, authority: &str, namespace: &Name) -> bool {
        let owner = if self.hosts.is_empty() {
            &self.any_host
        } else {
            self.hosts.get(&*normal_host(authority)).unwrap_or(&self.any_host)
        };
        matches!(owner, Owner::One(sole) if sole == namespace)
    }
}
