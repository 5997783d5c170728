//! What services and jobs have in common: one allocation's limits, its log, its meter, and how an instance is
//! begun and ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dunlin_host::{Guest, GuestSetup, LogSink, Logs, Stdin, Stdout};
use dunlin_model::{
    AllocationId, AssignedAllocation, Bytes, DurationMs, Fuel, InstanceId, Limits, NodeId, Outcome,
};
use wasmtime::{Store, UpdateDeadline};

use crate::gate::Gate;
use crate::limits::FUEL_SLICE;
use crate::outcome::{Ending, of_error};

/// What the instances of one allocation have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Fuel burned.
    pub fuel: Fuel,
    /// The most memory one instance held.
    pub memory: Bytes,
    /// Instances that have ended.
    pub instances: u64,
}

/// What one instance has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    pub(crate) fuel: Fuel,
    pub(crate) memory: Bytes,
    pub(crate) wall: DurationMs,
}

pub(crate) struct Sandbox {
    allocation: AllocationId,
    pub(crate) limits: Limits,
    environment: Vec<(String, String)>,
    pub(crate) gate: Gate,
    logs: Arc<Logs>,
    fuel: AtomicU64,
    memory: AtomicU64,
    instances: AtomicU64,
    next_instance: AtomicU64,
}

impl Sandbox {
    pub(crate) fn new(allocation: &AssignedAllocation, node: &NodeId, sink: Arc<dyn LogSink>) -> Self {
        Self {
            allocation: allocation.id,
            limits: allocation.spec.limits,
            environment: environment(allocation, node),
            gate: Gate::new(allocation.spec.limits.concurrency.max(1)),
            logs: Arc::new(Logs::new(sink)),
            fuel: AtomicU64::new(0),
            memory: AtomicU64::new(0),
            instances: AtomicU64::new(0),
            next_instance: AtomicU64::new(1),
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            fuel: Fuel(self.fuel.load(Ordering::Relaxed)),
            memory: Bytes(self.memory.load(Ordering::Relaxed)),
            instances: self.instances.load(Ordering::Relaxed),
        }
    }

    /// Returns the store of a new instance, with all limits set.
    pub(crate) fn begin(&self, engine: &wasmtime::Engine, own: Own) -> wasmtime::Result<Instance> {
        let number = self.next_instance.fetch_add(1, Ordering::Relaxed);
        let id = InstanceId { allocation: self.allocation, number };
        let mut environment = self.environment.clone();
        environment.extend(own.environment);
        let setup = GuestSetup {
            instance: id,
            arguments: own.arguments,
            environment,
            stdin: own.stdin,
            stdout: own.stdout,
            memory: self.limits.memory,
            logs: self.logs.clone(),
        };
        let mut store = Guest::store(engine, setup);
        store.set_fuel(self.limits.fuel.0)?;
        store.fuel_async_yield_interval(Some(FUEL_SLICE))?;
        store.set_epoch_deadline(1);
        // tokio's own way to yield lets it look for I/O and timers before the guest goes on.
        store.epoch_deadline_callback(|_| {
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        Ok(Instance { id, store, started: Instant::now() })
    }

    /// Waits for `call` to end, but not longer than the deadline, nor after `cancelled`.
    pub(crate) async fn until_end<T>(
        &self,
        call: impl Future<Output = wasmtime::Result<T>>,
        cancelled: impl Future<Output = ()>,
    ) -> Ending<T> {
        tokio::select! {
            result = tokio::time::timeout(self.limits.deadline.into(), call) => match result {
                Ok(result) => Ending::Returned(result),
                Err(_elapsed) => Ending::DeadlinePassed,
            },
            () = cancelled => Ending::Cancelled,
            () = self.gate.ended() => Ending::Cancelled,
        }
    }

    /// Accounts for an instance that has ended, tells its log how, and returns its outcome.
    pub(crate) fn end<T>(
        &self,
        what: &str,
        instance: &Instance,
        ending: &Ending<T>,
        judge: impl FnOnce(&T) -> Outcome,
    ) -> (Outcome, Used) {
        let guest = instance.store.data();
        let outcome = match ending {
            Ending::Returned(Ok(value)) => match (judge(value), guest.limiter().denied()) {
                (Outcome::Completed, _) => Outcome::Completed,
                (_, Some(denied)) => Outcome::OutOfMemory { limit: denied.limit, observed: denied.observed },
                (outcome, None) => outcome,
            },
            Ending::Returned(Err(error)) => of_error(error, guest.limiter(), &self.limits),
            Ending::DeadlinePassed => Outcome::DeadlineExceeded { limit: self.limits.deadline },
            Ending::Cancelled => Outcome::Cancelled,
        };
        let left = instance.store.get_fuel().unwrap_or(0);
        let used = Used {
            fuel: self.limits.fuel.minus(Fuel(left)),
            memory: guest.limiter().peak(),
            wall: DurationMs(u64::try_from(instance.started.elapsed().as_millis()).unwrap_or(u64::MAX)),
        };
        self.fuel.fetch_add(used.fuel.0, Ordering::Relaxed);
        self.memory.fetch_max(used.memory.0, Ordering::Relaxed);
        self.instances.fetch_add(1, Ordering::Relaxed);
        guest.end_output();
        if !outcome.is_completed() {
            self.logs.say(instance.id, &format!("{what} ended: {outcome}"));
        }
        (outcome, used)
    }
}

/// What an instance is given of its own.
pub(crate) struct Own {
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) stdin: Stdin,
    pub(crate) stdout: Stdout,
}

pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) store: Store<Guest>,
    started: Instant,
}

/// Returns what the manifest gives a guest, and what it may want to know of itself. The latter cannot be overridden.
fn environment(allocation: &AssignedAllocation, node: &NodeId) -> Vec<(String, String)> {
    let mut environment = allocation.spec.environment.clone();
    environment.retain(|name, _| !name.starts_with("DUNLIN_"));
    let own = [
        ("DUNLIN_NODE", node.to_string()),
        ("DUNLIN_ALLOCATION", allocation.id.to_string()),
        ("DUNLIN_WORKLOAD", allocation.workload.to_string()),
        ("DUNLIN_REVISION", allocation.revision.to_string()),
    ];
    environment.extend(own.map(|(name, value)| (name.to_owned(), value)));
    environment.into_iter().collect()
}
