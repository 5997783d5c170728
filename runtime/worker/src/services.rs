//! The services of this worker's namespaces that run in this process, for guests that call them by name.
//!
//! Which of its allocations take calls is what the routes say, and not what is loaded here: one that is about to be
//! stopped gets none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use dunlin_engine::Place;
use dunlin_host::{Answering, CallBody, Callee, call_body};
use dunlin_model::{AllocationId, LocalService, Name, WorkloadName};
use http::Request;

use crate::allocations::Allocations;
use crate::data::{Tells, told};
use crate::failure;

/// The services that guests may find in this process.
#[derive(Default)]
pub(crate) struct Services {
    known: RwLock<BTreeMap<WorkloadName, Known>>,
    allocations: OnceLock<Weak<Allocations>>,
}

/// One service, as far as it runs here.
struct Known {
    allocations: Vec<AllocationId>,
    turn: AtomicUsize,
}

impl Services {
    /// Has those be found that are among `allocations`, which cannot be had before: their guests may call services.
    pub(crate) fn run_by(&self, allocations: &Arc<Allocations>) {
        // It is said once.
        let _known = self.allocations.set(Arc::downgrade(allocations));
    }

    /// Takes these services of `namespace` for all calls from now on.
    pub(crate) fn set(&self, namespace: &Name, services: BTreeMap<WorkloadName, LocalService>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|service, _| service.namespace != *namespace);
        for (service, LocalService { allocations, is_elsewhere: _ }) in services {
            known.insert(service, Known { allocations, turn: AtomicUsize::new(0) });
        }
    }

    /// Takes a place for one request at `service`, if one is free here: each time at another one of its allocations.
    pub(crate) fn place(&self, service: &WorkloadName) -> Option<LocalCallee> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let Known { allocations, turn } = known.get(service)?;
        let all = self.allocations.get()?.upgrade()?;
        let first = turn.fetch_add(1, Ordering::Relaxed);
        let (before, after) = allocations.split_at(first.checked_rem(allocations.len())?);
        let mut in_turn = after.iter().chain(before);
        in_turn.find_map(|allocation| all.service(*allocation)?.place()).map(LocalCallee)
    }
}

/// A place for one call.
pub(crate) struct LocalCallee(Place);

impl Callee for LocalCallee {
    fn answer(self: Box<Self>, request: Request<CallBody>) -> Answering {
        Box::pin(async move {
            let Self(place) = *self;
            let fuel = place.tells_fuel();
            let tells = Tells { fuel, account: false, trailers: false, client_reads_trailers: false };
            match place.handle(request).await {
                Ok(response) => told(response, tells).map(call_body),
                Err(failed) => failure::of(failed).into_response().map(call_body),
            }
        })
    }
}
