//! What services and jobs have in common: one allocation's limits, its log, its meter, and how an instance is
//! begun and ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dunlin_host::{
    Access, Denial, Granted, Guest, GuestSetup, LogSink, Logs, NotGranted, Stdin, Stdout, Told,
};
use dunlin_model::{
    AllocationId, AssignedAllocation, Bytes, DurationMs, Fuel, HostCalls, InstanceId, LimitHit, LimitValue,
    Limits, NodeId, Outcome,
};
use wasmtime::{Store, StoreContextMut, UpdateDeadline};

use crate::engine::LoadError;
use crate::gate::{Gate, Room};
use crate::limits::FUEL_SLICE;
use crate::meter::{Bucket, Meter};
use crate::outcome::{Ending, of_error, or_denied};

/// What the instances of one allocation have used, and how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Fuel burned.
    pub fuel: Fuel,
    /// The most memory one instance held.
    pub memory: Bytes,
    /// Instances that have ended.
    pub instances: u64,
    /// How long they took together.
    pub wall: DurationMs,
    /// What they asked of the host.
    pub host: HostCalls,
    /// How many ended with each outcome, by its name.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// How often each limit was hit, by its name.
    pub limit_hits: BTreeMap<String, u64>,
    /// Bytes of log that were dropped.
    pub log_dropped: Bytes,
}

/// What one instance has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    pub(crate) fuel: Fuel,
    pub(crate) memory: Bytes,
    pub(crate) wall: DurationMs,
    pub(crate) host: HostCalls,
}

pub(crate) struct Sandbox {
    allocation: AllocationId,
    pub(crate) limits: Limits,
    environment: Vec<(String, String)>,
    pub(crate) gate: Gate,
    meter: Arc<Meter>,
    logs: Arc<Logs>,
    granted: Arc<Granted>,
    usage: Mutex<Usage>,
    next_instance: AtomicU64,
}

impl Sandbox {
    pub(crate) fn new(
        allocation: &AssignedAllocation,
        node: &NodeId,
        sink: Arc<dyn LogSink>,
        access: &Access,
    ) -> Result<Self, NotGranted> {
        let limits = allocation.spec.limits;
        let room = Room::of(&allocation.workload.namespace);
        let granted = access.grant(allocation.id, &allocation.spec.capabilities, &limits)?;
        Ok(Self {
            allocation: allocation.id,
            limits,
            environment: environment(allocation, node),
            gate: Gate::new(limits.concurrency.max(1), room),
            meter: Arc::new(Meter::new(allocation.id.number(), limits.fuel_rate, limits.fuel_burst)),
            logs: Arc::new(Logs::new(sink, &limits)),
            usage: Mutex::default(),
            next_instance: AtomicU64::new(1),
            granted: Arc::new(granted),
        })
    }

    pub(crate) fn usage(&self) -> Usage {
        let (lines, log_dropped) = self.logs.dropped();
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if lines > 0 {
            usage.limit_hits.insert("log_rate".to_owned(), lines);
        }
        Usage { log_dropped, ..usage }
    }

    /// Counts a limit that was hit where there is no instance, or beside it.
    pub(crate) fn count_hit(&self, hit: &LimitHit) {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        *usage.limit_hits.entry(hit.limit.clone()).or_default() += 1;
    }

    /// Returns the store of a new instance, with all limits set.
    pub(crate) fn begin(&self, engine: &wasmtime::Engine, own: Own) -> wasmtime::Result<Instance> {
        let id = self.next_id();
        let mut environment = self.environment.clone();
        environment.extend(own.environment);
        let setup = GuestSetup {
            instance: id,
            arguments: own.arguments,
            environment,
            stdin: own.stdin,
            stdout: own.stdout,
            stderr: own.stderr,
            limits: self.limits,
            fuel_slice: Some(FUEL_SLICE),
            logs: self.logs.clone(),
            granted: Arc::clone(&self.granted),
        };
        let mut store = Guest::store(engine, setup);
        Guest::set_fuel(&mut store, self.limits.fuel)?;
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(self.ticker());
        Ok(Instance { id, store, started: Instant::now() })
    }

    /// Prepares an instance that has ended well for its next request.
    pub(crate) fn begin_again(&self, instance: &mut Instance) -> wasmtime::Result<()> {
        instance.store.data_mut().begin_again(instance.id);
        Guest::set_fuel(&mut instance.store, self.limits.fuel)?;
        instance.store.set_epoch_deadline(1);
        instance.started = Instant::now();
        Ok(())
    }

    fn next_id(&self) -> InstanceId {
        let number = self.next_instance.fetch_add(1, Ordering::Relaxed);
        InstanceId { allocation: self.allocation, number }
    }

    /// Returns what is done whenever a computing guest has had its slice of time: what it burned goes to the meter of
    /// its allocation, and it waits for what it burned, or called the host, too fast.
    fn ticker(
        &self,
    ) -> impl FnMut(StoreContextMut<'_, Guest>) -> wasmtime::Result<UpdateDeadline> + Send + Sync + 'static
    {
        let (meter, limits) = (self.meter.clone(), self.limits);
        let began = Instant::now();
        let mut calls = Bucket::new(limits.host_calls.into(), limits.host_call_burst.into(), began.elapsed());
        move |mut context| {
            let left = Fuel(context.get_fuel().unwrap_or(0));
            let burned = limits.fuel.minus(left);
            let guest = context.data_mut();
            let called = guest.tick().calls;
            let told = guest.told();
            guest.tell(Told { fuel: burned, calls: called });
            meter.debit(burned.minus(told.fuel));
            let now = began.elapsed();
            calls.debit(now, called.saturating_sub(told.calls));
            let held_up = calls.wait(now);
            if held_up.is_some() {
                guest.deny(Denial {
                    limit: "host_calls",
                    value: LimitValue::Count(limits.host_calls.into()),
                    observed: LimitValue::Count(called),
                });
            }
            if let Some(wait) = meter.wait() {
                let missing = u128::from(limits.fuel_rate.0) * wait.as_millis() / 1000;
                let observed = limits.fuel_burst.plus(Fuel(u64::try_from(missing).unwrap_or(u64::MAX)));
                guest.deny(Denial {
                    limit: "fuel_rate",
                    value: LimitValue::FuelRate(limits.fuel_rate),
                    observed: LimitValue::Fuel(observed),
                });
            }
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(meter.clone().turn(held_up))))
        }
    }

    /// Waits for `call` to end, but not longer than the deadline, nor after `cancelled`.
    pub(crate) async fn until_end<T>(
        &self,
        call: impl Future<Output = wasmtime::Result<T>>,
        cancelled: impl Future<Output = ()>,
    ) -> Ending<T> {
        let call = async {
            self.meter.earned().await;
            call.await
        };
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
        let left = Fuel(instance.store.get_fuel().unwrap_or(0));
        let burned = self.limits.fuel.minus(left);
        let guest = instance.store.data();
        self.meter.debit(burned.minus(guest.told().fuel));
        let outcome = match ending {
            Ending::Returned(Ok(value)) => match judge(value) {
                Outcome::Completed => Outcome::Completed,
                outcome => or_denied(outcome, guest),
            },
            Ending::Returned(Err(error)) => of_error(error, guest),
            Ending::DeadlinePassed => Outcome::DeadlineExceeded { limit: self.limits.deadline },
            Ending::Cancelled => Outcome::Cancelled,
        };
        let used = Used {
            fuel: burned,
            memory: guest.limiter().peak(),
            wall: DurationMs(u64::try_from(instance.started.elapsed().as_millis()).unwrap_or(u64::MAX)),
            host: guest.host_calls(),
        };
        self.count(&outcome, used, guest);
        guest.end_output();
        if !outcome.is_completed() {
            self.logs.say(instance.id, &format!("{what} ended: {outcome}"));
        }
        (outcome, used)
    }

    fn count(&self, outcome: &Outcome, used: Used, guest: &Guest) {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.fuel = usage.fuel.plus(used.fuel);
        usage.memory = usage.memory.max(used.memory);
        usage.instances += 1;
        usage.wall = usage.wall.plus(used.wall);
        usage.host.calls += used.host.calls;
        usage.host.bytes = usage.host.bytes.plus(used.host.bytes);
        *usage.outcomes.entry(outcome.name()).or_default() += 1;
        let ended_by = limit_of(outcome);
        if let Some(limit) = ended_by
            && guest.denials().of(limit).is_none()
        {
            *usage.limit_hits.entry(limit.to_owned()).or_default() += 1;
        }
        for (denial, count) in guest.denials().iter() {
            *usage.limit_hits.entry(denial.limit.to_owned()).or_default() += count;
        }
    }
}

/// Returns the name of the limit for which an instance ended, if it did for one.
fn limit_of(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::OutOfFuel { .. } => Some("fuel"),
        Outcome::OutOfMemory { .. } => Some("memory"),
        Outcome::DeadlineExceeded { .. } => Some("deadline"),
        Outcome::LimitExceeded { hit } => Some(&hit.limit),
        Outcome::Completed
        | Outcome::Exited { .. }
        | Outcome::Trapped { .. }
        | Outcome::Cancelled
        | Outcome::NotStarted { .. } => None,
    }
}

/// Refuses an allocation that would give its guests more than they may be given: what a manifest could not say, a
/// coordinator of another version may.
pub fn check_environment(allocation: &AssignedAllocation) -> Result<(), LoadError> {
    let spec = &allocation.spec;
    let given = spec.environment.iter().chain(&spec.capabilities.config);
    let given = Bytes(given.map(|(name, value)| (name.len() + value.len()) as u64).sum());
    if given <= spec.limits.environment {
        return Ok(());
    }
    let hit = LimitHit::new("environment", spec.limits.environment, given);
    Err(LoadError::Refused(format!("the guest would be given too much: {hit}")))
}

/// What an instance is given of its own.
pub(crate) struct Own {
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) stdin: Stdin,
    pub(crate) stdout: Stdout,
    pub(crate) stderr: Stdout,
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
