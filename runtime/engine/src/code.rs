//! The code of one component: loaded when it is wanted, and dropped again when it is not.
//!
//! A node may have a thousand services of which ten are asked for anything. What is deployed therefore costs its
//! path and its name; machine code is in memory only of those that were used lately, up to
//! [`MAX_LOADED_CODE`]. To load it again takes about a millisecond, once for all requests that wait for it.
//!
//! Code is dropped by letting go of it: instances that still run keep what they run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
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
use crate::limits::{CODE_IDLE, MAX_LOADED_CODE};

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
    /// Returns the code, which is loaded first if it is not in memory.
    pub(crate) async fn linked(&self) -> Result<Arc<Linked>, LoadError> {
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
        *code.linked() = Some(linked.clone());
        code.engine.shelf().make_room(code.identity);
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
}

/// Every component that is in use, and how much of their code is in memory.
pub(crate) struct Shelf {
    began: Instant,
    /// By what they are, so that two allocations of one component share its code.
    codes: Mutex<BTreeMap<Identity, Weak<Code>>>,
    /// When any code was last wanted, as far as [`Shelf::drop_idle`] has seen.
    used: AtomicU64,
}

impl Shelf {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), codes: Mutex::default(), used: AtomicU64::new(0) }
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
        });
        codes.insert(identity, Arc::downgrade(&code));
        Loaded(code)
    }

    /// Drops the code that nobody wanted for [`CODE_IDLE`].
    pub(crate) fn drop_idle(&self) {
        let idle = u64::try_from(CODE_IDLE.as_millis()).unwrap_or(u64::MAX);
        let since = self.now().saturating_sub(idle);
        for code in self.all() {
            self.used.fetch_max(code.used.load(Ordering::Relaxed), Ordering::Relaxed);
            if code.used.load(Ordering::Relaxed) < since {
                *code.linked() = None;
            }
        }
    }

    /// Drops all code.
    pub(crate) fn drop_all(&self) {
        for code in self.all() {
            *code.linked() = None;
        }
    }

    /// Tells for how long nobody wanted any code, as far as [`Shelf::drop_idle`] has seen.
    pub(crate) fn idle(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.used.load(Ordering::Relaxed)))
    }

    /// Drops the code that was not wanted for longest, until the rest is within [`MAX_LOADED_CODE`]; never `kept`.
    fn make_room(&self, kept: Identity) {
        let mut codes = self.all();
        codes.sort_by_key(|code| code.used.load(Ordering::Relaxed));
        let size = |code: &Arc<Code>| code.linked().as_ref().map_or(0, |linked| linked.size);
        let mut total: u64 = codes.iter().map(size).sum();
        for code in codes.iter().filter(|code| code.identity != kept) {
            if total <= MAX_LOADED_CODE {
                break;
            }
            total -= size(code);
            *code.linked() = None;
        }
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
