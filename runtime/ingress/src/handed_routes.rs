//! A namespace's own routes made ready for requests, in its worker.

use std::sync::atomic::{AtomicUsize, Ordering};

use dunlin_model::{AllocationId, LocalService, NamespaceRoute};
use http::HeaderMap;

use crate::choice;
use crate::router::Router;

/// A namespace's own routes made ready for requests.
#[derive(Debug, Default)]
pub(crate) struct HandedRoutes {
    router: Router<Option<HandedTarget>>,
}

/// A service of the namespace, as far as this node has it.
#[derive(Debug)]
pub(crate) struct HandedTarget {
    service: LocalService,
    turn: AtomicUsize,
}

impl HandedRoutes {
    /// Returns `routes` made ready.
    pub(crate) fn new(routes: Vec<NamespaceRoute>) -> Self {
        let mut router = Router::default();
        for route in routes {
            let target = route.service.map(|service| HandedTarget { service, turn: AtomicUsize::new(0) });
            router.insert(&route.spec, target);
        }
        Self { router }
    }

    /// Returns who answers `path` at `authority`, if somebody here does.
    pub(crate) fn find(&self, authority: &str, path: &str) -> Option<&HandedTarget> {
        self.router.find(authority, path, &HeaderMap::new())?.as_ref()
    }
}

impl HandedTarget {
    /// Returns its allocations here in the order in which the next request should try them.
    pub(crate) fn allocations(&self) -> impl Iterator<Item = AllocationId> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let allocations = self.service.allocations.as_slice();
        let start = turn.checked_rem(allocations.len()).unwrap_or(0);
        choice::round(allocations.len(), start).map(move |index| allocations[index])
    }

    /// Tells whether more than one allocation could answer.
    pub(crate) fn has_others(&self) -> bool {
        self.service.is_elsewhere || self.service.allocations.len() > 1
    }
}
