//! The code of one component: loaded when it is wanted, and dropped again when it is not.
//!
//! A node may have a thousand services of which ten are asked for anything. What is deployed therefore costs its
//! path and its name; machine code is in memory only of those that were used lately, up to
//! [`MAX_LOADED_CODE`]. What was loaded only to see whether it can be run goes after a moment, that of a request after a
//! minute. To load it again takes about a millisecond, once for all requests that wait for it.
//!
//! Code is dropped by letting go of it: instances that still run keep what they run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use dunlin_compiled::CodeKind;
use dunlin_host::Guest;
use dunlin_model::Digest;
use wasmtime::component::InstancePre;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p3::bindings as p3;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::checks::Checks;
use crate::dump::Dumps;
use crate::engine::{Engine, LoadError, Way};
use crate::gauge::Gauge;
use crate::limits::{CODE_IDLE, CODE_UNASKED, MAX_LOADED_CODE};

/// How much room is made at a time, so that who loads code does not look over all there is each time.
const ROOM_MADE: u64 = MAX_LOADED_CODE / 8;

/// A component that can be run. Cheap to clone; its code is in memory when it is needed.
#[derive(Clone)]
pub struct Loaded(Arc<Code>);

/// Which code it is: of which component, and how it is run.
type Identity = (Digest, Way);

struct Code {
    engine: Engine,
    path: PathBuf,
    identity: Identity,
    linked: Mutex<Option<Arc<Linked>>>,
    /// Whoever loads holds it; who waits for it finds the code loaded.
    loading: tokio::sync::Mutex<()>,
    /// When it was last wanted, in milliseconds of [`Shelf::now`].
    used: AtomicU64,
    /// Whether that was to run it.
    is_asked: AtomicBool,
}

/// Code in memory, its imports resolved.
pub(crate) struct Linked {
    pre: InstancePre<Guest>,
    kind: CodeKind,
    checks: Checks,
    service: OnceLock<ServiceCode>,
    job: OnceLock<JobCode>,
    /// How many bytes the compiled component has.
    size: u64,
}

/// What answers requests, by the version of WASI.
pub(crate) enum ServiceCode {
    Wasi02(ProxyPre<Guest>),
    Wasi03(ServicePre<Guest>),
}

/// What runs items, by the version of WASI.
pub(crate) enum JobCode {
    Wasi02(CommandPre<Guest>),
    Wasi03(p3::CommandPre<Guest>),
}

impl Linked {
    pub(crate) fn new(pre: InstancePre<Guest>, kind: CodeKind, checks: Checks, size: u64) -> Self {
        Self { pre, kind, checks, service: OnceLock::new(), job: OnceLock::new(), size }
    }

    /// Returns what it looks at while it runs.
    pub(crate) fn checks(&self) -> Checks {
        self.checks
    }

    /// Returns the engine that it runs on.
    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        self.pre.engine()
    }

    /// Returns it as something that answers requests.
    pub(crate) fn service(&self) -> Result<&ServiceCode, LoadError> {
        if let Some(service) = self.service.get() {
            return Ok(service);
        }
        let service = match self.kind.wasi03 {
            false => ProxyPre::new(self.pre.clone()).map(ServiceCode::Wasi02),
            true => ServicePre::new(self.pre.clone()).map(ServiceCode::Wasi03),
        };
        let service = service
            .map_err(|error| LoadError::Refused(format!("the component is not a service: {error:#}")))?;
        Ok(self.service.get_or_init(|| service))
    }

    /// Returns it as something that runs items.
    pub(crate) fn job(&self) -> Result<&JobCode, LoadError> {
        if let Some(job) = self.job.get() {
            return Ok(job);
        }
        let job = match self.kind.wasi03 {
            false => CommandPre::new(self.pre.clone()).map(JobCode::Wasi02),
            true => p3::CommandPre::new(self.pre.clone()).map(JobCode::Wasi03),
        };
        let job =
            job.map_err(|error| LoadError::Refused(format!("the component is not a job: {error:#}")))?;
        Ok(self.job.get_or_init(|| job))
    }
}

impl Loaded {
    /// Returns the code to be run, which is loaded first if it is not in memory.
    pub(crate) async fn linked(&self) -> Result<Arc<Linked>, LoadError> {
        let is_asked = &self.0.is_asked;
        // All requests of a component read this, and so only the first writes it.
        if !is_asked.load(Ordering::Relaxed) {
            is_asked.store(true, Ordering::Relaxed);
        }
        self.looked_at().await
    }

    /// Returns the same, to be looked at only.
    pub(crate) async fn looked_at(&self) -> Result<Arc<Linked>, LoadError> {
        let code = &self.0;
        code.used.store(code.engine.shelf().now(), Ordering::Relaxed);
        if let Some(linked) = code.in_memory() {
            return Ok(linked);
        }
        let _turn = code.loading.lock().await;
        if let Some(linked) = code.in_memory() {
            return Ok(linked);
        }
        let (digest, way) = code.identity;
        let linked = Arc::new(code.engine.read_and_link(&code.path, digest, way).await?);
        let shelf = code.engine.shelf();
        shelf.loaded.fetch_add(linked.size, Ordering::Relaxed);
        *code.linked() = Some(linked.clone());
        let old = shelf.make_room(code.identity);
        if !old.is_empty() {
            // To take code out of memory takes time, for which nobody should wait who has just loaded some.
            tokio::task::spawn_blocking(move || drop(old));
        }
        Ok(linked)
    }
}

impl Loaded {
    /// Returns what tells how much a new instance of it burns.
    pub(crate) fn gauge(&self) -> Gauge {
        self.0.engine.gauge(self.0.identity.1.kind.metering)
    }

    /// Tells whether it is of WASI 0.3.
    pub(crate) fn is_of_wasi_03(&self) -> bool {
        self.0.identity.1.kind.wasi03
    }

    /// Returns what binds its core dumps, if any are wanted.
    pub(crate) fn dumps(&self) -> Option<Arc<Dumps>> {
        self.0.identity.1.dumps.then(|| self.0.engine.dumps())
    }
}

impl Code {
    fn in_memory(&self) -> Option<Arc<Linked>> {
        self.linked().clone()
    }

    fn linked(&self) -> MutexGuard<'_, Option<Arc<Linked>>> {
        self.linked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up what is in memory, which goes when whoever runs it has ended and the caller drops it.
    fn give_up(&self) -> Option<Arc<Linked>> {
        self.is_asked.store(false, Ordering::Relaxed);
        let linked = self.linked().take()?;
        self.engine.shelf().loaded.fetch_sub(linked.size, Ordering::Relaxed);
        Some(linked)
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        drop(self.give_up());
    }
}

/// Every component that is in use, and how much of their code is in memory.
pub(crate) struct Shelf {
    began: Instant,
    /// By what they are, so that two allocations of one component share its code.
    codes: Mutex<BTreeMap<Identity, Weak<Code>>>,
    /// When any code was last wanted, as far as [`Shelf::drop_idle`] has seen.
    used: AtomicU64,
    /// How many bytes of code are in memory.
    loaded: AtomicU64,
}

impl Shelf {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            codes: Mutex::default(),
            used: AtomicU64::new(0),
            loaded: AtomicU64::new(0),
        }
    }

    /// Returns the code with this identity, which is made if nobody uses it yet.
    pub(crate) fn take(&self, engine: &Engine, path: PathBuf, identity: Identity) -> Loaded {
        let mut codes = self.codes();
        if let Some(code) = codes.get(&identity).and_then(Weak::upgrade) {
            return Loaded(code);
        }
        codes.retain(|_, code| code.strong_count() > 0);
        let code = Arc::new(Code {
            engine: engine.clone(),
            path,
            identity,
            linked: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
            used: AtomicU64::new(self.now()),
            is_asked: AtomicBool::new(false),
        });
        codes.insert(identity, Arc::downgrade(&code));
        Loaded(code)
    }

    /// Drops the code that nobody wanted for [`CODE_IDLE`], or [`CODE_UNASKED`] where nobody has yet.
    pub(crate) fn drop_idle(&self) {
        let now = self.now();
        for code in self.all() {
            self.used.fetch_max(code.used.load(Ordering::Relaxed), Ordering::Relaxed);
            let since = Duration::from_millis(now.saturating_sub(code.used.load(Ordering::Relaxed)));
            if is_idle(since, code.is_asked.load(Ordering::Relaxed)) {
                drop(code.give_up());
            }
        }
    }

    /// Drops all code.
    pub(crate) fn drop_all(&self) {
        for code in self.all() {
            drop(code.give_up());
        }
    }

    /// Tells for how long nobody wanted any code, as far as [`Shelf::drop_idle`] has seen.
    pub(crate) fn idle(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.used.load(Ordering::Relaxed)))
    }

    /// Gives up the code that was not wanted for longest, if there is more than [`MAX_LOADED_CODE`], until there is room
    /// for more; never `kept`.
    fn make_room(&self, kept: Identity) -> Vec<Arc<Linked>> {
        if self.loaded.load(Ordering::Relaxed) <= MAX_LOADED_CODE {
            return Vec::new();
        }
        let mut codes = self.all();
        codes.retain(|code| code.identity != kept && code.linked().is_some());
        codes.sort_by_key(|code| code.used.load(Ordering::Relaxed));
        let mut old = Vec::new();
        for code in codes {
            if self.loaded.load(Ordering::Relaxed) <= MAX_LOADED_CODE - ROOM_MADE {
                break;
            }
            old.extend(code.give_up());
        }
        old
    }

    fn all(&self) -> Vec<Arc<Code>> {
        self.codes().values().filter_map(Weak::upgrade).collect()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn codes(&self) -> MutexGuard<'_, BTreeMap<Identity, Weak<Code>>> {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells whether code that was wanted so long ago, perhaps to be run, is to go.
fn is_idle(since: Duration, is_asked: bool) -> bool {
    since > if is_asked { CODE_IDLE } else { CODE_UNASKED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_nobody_has_asked_for_goes_before_the_rest() {
        assert!(!is_idle(CODE_UNASKED, false), "whoever has deployed it may be about to ask");
        assert!(is_idle(CODE_UNASKED + Duration::from_millis(1), false));
        assert!(!is_idle(CODE_IDLE, true));
        assert!(is_idle(CODE_IDLE + Duration::from_millis(1), true));
    }
}
