//! What services and jobs have in common: one allocation's limits, its log, its meter, and how an instance is
//! begun and ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dunlin_host::{
    Access, Denial, Granted, Guest, GuestSetup, LogSink, Logs, NotGranted, Slice, Stdin, Stdout, Told,
};
use dunlin_model::{
    AllocationId, AssignedAllocation, Bytes, DurationMs, Fuel, HostCalls, InstanceId, LimitHit, LimitValue,
    Limits, NodeId, Outcome, Revision, TrapRecord, WorkloadName,
};
use wasmtime::{Store, StoreContextMut, UpdateDeadline};

use crate::backtrace::frames;
use crate::code::{Linked, Loaded};
use crate::dump::{Dumps, Untold};
use crate::engine::LoadError;
use crate::gate::{Gate, Room};
use crate::gauge::Gauge;
use crate::limits::{EPOCH_TICK, FUEL_SLICE};
use crate::meter::{Bucket, Meter};
use crate::outcome::{Ending, of_error, or_denied};
use crate::pause::{Pause, next_slice};

/// How many traps of one allocation are told in a second; the others are counted.
const TRAPS_TOLD: u64 = 10;

/// What the instances of one allocation have used, and how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Fuel burned.
    pub fuel: Fuel,
    /// The most memory one instance held.
    pub memory: Bytes,
    /// Instances that have ended.
    pub instances: u64,
    /// How many of them have failed: they ended badly, or answered with a status of 500 and above.
    pub failed: u64,
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
    /// By which instance.
    pub(crate) instance: InstanceId,
    pub(crate) fuel: Fuel,
    pub(crate) memory: Bytes,
    pub(crate) wall: DurationMs,
    pub(crate) host: HostCalls,
}

/// How an instance has ended.
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) used: Used,
    /// What is still to be told of it.
    pub(crate) untold: Option<Untold>,
}

pub(crate) struct Sandbox {
    allocation: AllocationId,
    workload: WorkloadName,
    revision: Revision,
    traps: TrapRate,
    pub(crate) limits: Limits,
    environment: Vec<(String, String)>,
    pub(crate) gate: Gate,
    meter: Arc<Meter>,
    logs: Arc<Logs>,
    granted: Arc<Granted>,
    /// What binds core dumps, if they are wanted.
    dumps: Option<Arc<Dumps>>,
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
        let granted = access.grant(allocation, &limits)?;
        Ok(Self {
            allocation: allocation.id,
            workload: allocation.workload.clone(),
            revision: allocation.revision,
            traps: TrapRate::new(),
            limits,
            environment: environment(allocation, node),
            gate: Gate::new(limits.concurrency.max(1), room),
            meter: Arc::new(Meter::new(allocation.id.number(), limits.fuel_rate, limits.fuel_burst)),
            logs: Arc::new(Logs::new(sink, &limits)),
            usage: Mutex::default(),
            next_instance: AtomicU64::new(1),
            granted: Arc::new(granted),
            dumps: None,
        })
    }

    /// Returns the same, with core dumps if `loaded` is run so that they can be made.
    pub(crate) fn dumping(self, loaded: &Loaded) -> Self {
        Self { dumps: loaded.dumps(), ..self }
    }

    pub(crate) fn usage(&self) -> Usage {
        let (lines, log_dropped) = self.logs.dropped();
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if lines > 0 {
            usage.limit_hits.insert("log_rate".to_owned(), lines);
        }
        let cut = Some(("log_line", self.logs.cut())).filter(|(_, count)| *count > 0);
        for (limit, count) in self.granted.limit_hits().into_iter().chain(cut) {
            *usage.limit_hits.entry(limit.to_owned()).or_default() += count;
        }
        Usage { log_dropped, ..usage }
    }

    /// Counts an instance that ended well and gave a bad answer.
    pub(crate) fn count_bad_answer(&self) {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner).failed += 1;
    }

    /// Counts a limit that was hit where there is no instance, or beside it.
    pub(crate) fn count_hit(&self, hit: &LimitHit) {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        *usage.limit_hits.entry(hit.limit.clone()).or_default() += 1;
    }

    /// Returns the store of a new instance, with all limits set; `gauge` is to tell what it burns.
    pub(crate) fn begin(&self, linked: &Linked, gauge: Gauge, own: Own) -> wasmtime::Result<Instance> {
        let (id, pause, checks) = (self.next_id(), Pause::new(), linked.checks());
        let slice_ended = self.slice_end(gauge.clone(), pause.clone());
        let mut environment = self.environment.clone();
        environment.extend(own.environment);
        let (slice, on_time) = if checks.counts_fuel() {
            (Some(Slice { fuel: FUEL_SLICE, ended: Box::new(slice_ended) }), None)
        } else {
            (None, Some(slice_ended))
        };
        let setup = GuestSetup {
            instance: id,
            arguments: own.arguments,
            environment,
            stdin: own.stdin,
            stdout: own.stdout,
            stderr: own.stderr,
            limits: self.limits,
            slice,
            logs: self.logs.clone(),
            granted: Arc::clone(&self.granted),
        };
        let mut store = Guest::store(linked.wasmtime(), setup);
        Guest::set_fuel(&mut store, self.limits.fuel)?;
        if checks.sees_time() {
            see_time(&mut store, on_time);
        }
        Ok(Instance { id, store, gauge, pause, started: Instant::now() })
    }

    /// Prepares an instance that has ended well for its next request.
    pub(crate) fn begin_again(&self, instance: &mut Instance) -> wasmtime::Result<()> {
        instance.store.data_mut().begin_again(instance.id);
        Guest::set_fuel(&mut instance.store, self.limits.fuel)?;
        instance.gauge.reset();
        instance.store.set_epoch_deadline(1);
        instance.started = Instant::now();
        Ok(())
    }

    fn next_id(&self) -> InstanceId {
        let number = self.next_instance.fetch_add(1, Ordering::Relaxed);
        InstanceId { allocation: self.allocation, number }
    }

    /// Returns what is done whenever a computing guest has had its slice: what it burned goes to the meter of its
    /// allocation, and it is made to wait for what it burned, or called the host, too fast.
    fn slice_end(
        &self,
        gauge: Gauge,
        pause: Pause,
    ) -> impl FnMut(StoreContextMut<'_, Guest>) -> wasmtime::Result<u64> + Send + Sync + 'static {
        let (meter, limits) = (self.meter.clone(), self.limits);
        let (began, mut paused) = (Instant::now(), Duration::ZERO);
        let (mut slice, mut ended) = (FUEL_SLICE, Duration::ZERO);
        let mut calls = Bucket::new(limits.host_calls.into(), limits.host_call_burst.into(), Duration::ZERO);
        move |mut context| {
            let burned = gauge.burned(&context, limits.fuel);
            let guest = context.data_mut();
            let called = guest.tick().calls;
            let told = guest.told();
            guest.tell(Told { fuel: burned, calls: called });
            let clock = Instant::now();
            meter.debit(burned.minus(told.fuel), clock);
            gauge.check(burned, limits.fuel)?;
            let now = clock.saturating_duration_since(began);
            slice =
                next_slice(slice, now.saturating_sub(std::mem::replace(&mut ended, now)), limits.fuel_rate);
            calls.debit(now, called.saturating_sub(told.calls));
            let held_up = calls.wait(now);
            if held_up.is_some() {
                guest.deny(Denial {
                    limit: "host_calls",
                    value: LimitValue::Count(limits.host_calls.into()),
                    observed: LimitValue::Count(called),
                });
            }
            let wait = meter.wait();
            if let Some(wait) = wait {
                let missing = u128::from(limits.fuel_rate.0) * wait.as_millis() / 1000;
                let observed = limits.fuel_burst.plus(Fuel(u64::try_from(missing).unwrap_or(u64::MAX)));
                guest.deny(Denial {
                    limit: "fuel_rate",
                    value: LimitValue::FuelRate(limits.fuel_rate),
                    observed: LimitValue::Fuel(observed),
                });
            }
            // Slices of fuel may follow each other in a fraction of a tick; between two pauses the guest only gives its
            // thread back.
            if wait.is_some() || held_up.is_some() || now.saturating_sub(paused) >= EPOCH_TICK {
                paused = now;
                pause.ask(held_up);
            }
            Ok(slice)
        }
    }

    /// Waits for `call`, which is what the instance of `gauge` does, to end; but not longer than the deadline, nor after
    /// `cancelled`.
    pub(crate) async fn until_end<T>(
        &self,
        (gauge, pause): (&Gauge, &Pause),
        call: impl Future<Output = wasmtime::Result<T>>,
        cancelled: impl Future<Output = ()>,
    ) -> Ending<T> {
        let call = async {
            self.meter.earned().await;
            pause.between(&self.meter, gauge.measure(call)).await
        };
        tokio::select! {
            // Most instances are done at the first poll, and then nobody has to be asked to wake this.
            biased;
            result = tokio::time::timeout(self.limits.deadline.into(), call) => match result {
                Ok(result) => Ending::Returned(result),
                Err(_elapsed) => Ending::DeadlinePassed,
            },
            () = cancelled => Ending::Cancelled,
            () = self.gate.ended() => Ending::Cancelled,
        }
    }

    /// Accounts for an instance that has ended, tells its log how, and returns its outcome. If there is to be a core
    /// dump, what is known of its trap is still to be told, as long as its store is there.
    pub(crate) fn end<T>(
        &self,
        what: &str,
        instance: &Instance,
        ending: &Ending<T>,
        judge: impl FnOnce(&T) -> Outcome,
    ) -> Ended {
        let burned = instance.gauge.burned(&instance.store, self.limits.fuel);
        let guest = instance.store.data();
        let now = Instant::now();
        self.meter.debit(burned.minus(guest.told().fuel), now);
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
            instance: instance.id,
            fuel: burned,
            memory: guest.limiter().peak(),
            wall: DurationMs(u64::try_from((now - instance.started).as_millis()).unwrap_or(u64::MAX)),
            host: guest.host_calls(),
        };
        self.count(&outcome, used, guest);
        guest.end_output();
        let mut untold = None;
        if !outcome.is_completed() {
            self.logs.say(instance.id, &format!("{what} ended: {outcome}"));
            let error = match ending {
                Ending::Returned(Err(error)) => Some(error),
                Ending::Returned(Ok(_)) | Ending::DeadlinePassed | Ending::Cancelled => None,
            };
            untold = self.tell_trap(&outcome, used, guest, error);
        }
        Ended { outcome, used, untold }
    }

    /// Tells what its author may want to know of an instance that ended badly.
    fn tell_trap(
        &self,
        outcome: &Outcome,
        used: Used,
        guest: &Guest,
        error: Option<&wasmtime::Error>,
    ) -> Option<Untold> {
        if matches!(outcome, Outcome::Completed | Outcome::Cancelled | Outcome::NotStarted { .. }) {
            return None;
        }
        let missed = self.traps.take()?;
        let outcome = match (outcome, error) {
            // The stack stands by itself.
            (Outcome::Trapped { .. }, Some(error)) => {
                Outcome::Trapped { reason: error.root_cause().to_string() }
            }
            _ => outcome.clone(),
        };
        let trap = TrapRecord {
            at: Logs::now(),
            instance: used.instance,
            workload: self.workload.clone(),
            revision: self.revision,
            outcome,
            fuel: used.fuel,
            memory: used.memory,
            wall: used.wall,
            host: used.host,
            frames: error.map(frames).unwrap_or_default(),
            host_calls: guest.last_calls().calls(),
            stderr: guest.last_lines(),
            missed,
            coredump: None,
        };
        match &self.dumps {
            Some(dumps) => dumps.begin(trap, error, &self.logs),
            None => {
                self.logs.trap(trap);
                None
            }
        }
    }

    fn count(&self, outcome: &Outcome, used: Used, guest: &Guest) {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.fuel = usage.fuel.plus(used.fuel);
        usage.memory = usage.memory.max(used.memory);
        usage.instances += 1;
        usage.failed += u64::from(!matches!(outcome, Outcome::Completed | Outcome::Cancelled));
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

/// How many traps of one allocation are told.
struct TrapRate {
    began: Instant,
    /// What is left to tell, and how many were not told since the last that was.
    state: Mutex<(Bucket, u64)>,
}

impl TrapRate {
    fn new() -> Self {
        let bucket = Bucket::new(TRAPS_TOLD, TRAPS_TOLD, Duration::ZERO);
        Self { began: Instant::now(), state: Mutex::new((bucket, 0)) }
    }

    /// Returns how many were missed before the one that may be told now; nothing if it may not.
    fn take(&self) -> Option<u64> {
        let now = self.began.elapsed();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (bucket, missed) = &mut *state;
        if bucket.wait(now).is_some() {
            *missed += 1;
            return None;
        }
        bucket.debit(now, 1);
        Some(std::mem::take(missed))
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
        | Outcome::NotStarted { .. }
        | Outcome::Unknown { .. } => None,
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
    pub(crate) gauge: Gauge,
    pub(crate) pause: Pause,
    started: Instant,
}

/// Has the guest in `store` give its thread back whenever time has passed, with `slice_ended` where that is what ends
/// its slice.
fn see_time(
    store: &mut Store<Guest>,
    mut slice_ended: Option<
        impl FnMut(StoreContextMut<'_, Guest>) -> wasmtime::Result<u64> + Send + Sync + 'static,
    >,
) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |mut context| {
        match &mut slice_ended {
            Some(slice_ended) => drop(slice_ended(context)?),
            // Its slices are of fuel; this is only wasmtime's own call.
            None => drop(context.data_mut().tick()),
        }
        Ok(UpdateDeadline::Yield(1))
    });
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
    if allocation.spec.on_partition().is_singleton() {
        // Allocations are counted, and no number is given twice: the one placed later has the higher one.
        environment.insert("DUNLIN_FENCE".to_owned(), allocation.id.number().to_string());
    }
    environment.into_iter().collect()
}
