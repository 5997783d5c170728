//! How guests call services of their own namespace: by an ordinary host name, which no resolver is asked for.

use crate::{Host, HostPattern, HttpPattern, Name, WorkloadName};

/// The request header that says which workload's guest asks. The host writes it on each call of a service; neither
/// guests nor clients from outside can.
pub const CALLER_HEADER: &str = "dunlin-caller";

/// What the name of a service ends with: `cart.shop.internal` is the workload `cart` of the app `shop`.
const DOMAIN: &str = "internal";

impl Host {
    /// Returns which service of `namespace` guests mean by this host and `port`, without TLS, if they mean one.
    pub fn service(&self, port: u16, namespace: &Name) -> Option<WorkloadName> {
        let Self::Name(name) = self else { return None };
        let (workload, rest) = name.split_once('.')?;
        let (app, domain) = rest.split_once('.')?;
        if domain != DOMAIN || port != WorkloadName::PORT {
            return None;
        }
        Some(WorkloadName {
            namespace: namespace.clone(),
            app: app.parse().ok()?,
            workload: workload.parse().ok()?,
        })
    }
}

impl WorkloadName {
    /// The port at which services answer to their names; with another one such a name is a host like any.
    pub const PORT: u16 = 80;

    /// Returns the host by which guests of its namespace call this service.
    pub fn host(&self) -> Host {
        Host::Name(format!("{}.{}.{DOMAIN}", self.workload, self.app))
    }

    /// Returns the hosts that a grant may name to mean this service among others.
    pub fn granted_by(&self) -> [HostPattern; 4] {
        [
            HostPattern::Exactly(self.host()),
            HostPattern::Below(format!("{}.{DOMAIN}", self.app)),
            HostPattern::Below(DOMAIN.to_owned()),
            HostPattern::Any,
        ]
    }
}

impl HttpPattern {
    /// Tells whether a service may be among what this grants.
    pub fn may_be_service(&self) -> bool {
        let is_of_domain =
            |name: &str| name == DOMAIN || name.strip_suffix(DOMAIN).is_some_and(|rest| rest.ends_with('.'));
        let may_be = match &self.host {
            HostPattern::Any => true,
            HostPattern::Below(parent) => is_of_domain(parent),
            HostPattern::Exactly(Host::Name(name)) => is_of_domain(name),
            HostPattern::Exactly(Host::Address(_)) => false,
        };
        may_be && !self.is_tls && self.port == WorkloadName::PORT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(host: &str, port: u16) -> Option<String> {
        let host: Host = host.parse().unwrap();
        host.service(port, &"demo".parse().unwrap()).map(|name| name.to_string())
    }

    #[test]
    fn two_names_before_the_domain_are_a_service() {
        assert_eq!(service("cart.shop.internal", 80).as_deref(), Some("demo/shop/cart"));
        assert_eq!(service("CART.Shop.internal.", 80).as_deref(), Some("demo/shop/cart"));
        for (host, port) in [
            ("cart.shop.internal", 8080),
            ("shop.internal", 80),
            ("a.cart.shop.internal", 80),
            ("cart.shop.internal.example", 80),
            ("cart.shop.example", 80),
            ("cart_1.shop.internal", 80),
            ("internal", 80),
            ("127.0.0.1", 80),
        ] {
            assert_eq!(service(host, port), None, "{host}:{port}");
        }
    }

    #[test]
    fn a_service_has_one_host_and_some_grants_may_mean_it() {
        let name: WorkloadName = "demo/shop/cart".parse().unwrap();
        assert_eq!(name.host().service(WorkloadName::PORT, &name.namespace).as_ref(), Some(&name));
        assert!(name.granted_by().iter().all(|pattern| pattern.matches(&name.host())));
        let may_be = |grant: &str| grant.parse::<HttpPattern>().unwrap().may_be_service();
        for grant in [
            "http://*",
            "http://*.internal",
            "http://*.shop.internal",
            "http://cart.shop.internal",
            "http://a.internal:80",
        ] {
            assert!(may_be(grant), "{grant}");
        }
        for grant in [
            "https://*",
            "http://*:8080",
            "http://*.example",
            "http://xinternal",
            "http://10.0.0.1",
            "https://a.b.internal",
        ] {
            assert!(!may_be(grant), "{grant}");
        }
    }
}
