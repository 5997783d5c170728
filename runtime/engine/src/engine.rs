//! From compiled code on disk to a component that can be run.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dunlin_compiled::{CodeKey, CodeKind, Platform};
use dunlin_host::{Guest, NotGranted};
use dunlin_model::{Bytes, Digest, FuelRate, Metering, WorkloadSpec};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use wasmtime::component::{Component, InstancePre};

use crate::code::{Linked, Loaded, Shelf};
use crate::dump::Dumps;
use crate::gauge::Gauge;
use crate::genuine::{Code, Genuine, Known, path_of};
use crate::kinds::{EngineKind, Kind, Kinds};
use crate::limits::POOL_INSTANCES;

/// How many components are loaded at a time.
const LOADERS: usize = 2;
/// What a processor burns in a second, where nobody has said.
const PROCESSOR_RATE: u64 = 1_000_000_000;

/// What an engine must know.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// The key that authenticates compiled components.
    pub code_key: CodeKey,
    /// The platform for which they were compiled, as [`crate::platform`] returns it.
    pub platform: Platform,
    /// How many instances may live at the same time. More than [`EngineConfig::MOST_INSTANCES`] cannot; the fewer they
    /// are, the less memory is taken to keep account of them.
    pub instances: u32,
}

impl EngineConfig {
    /// The most instances that one process can have.
    pub const MOST_INSTANCES: u32 = POOL_INSTANCES;
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime does not work on this machine.
    #[error("wasmtime cannot be set up: {0}")]
    Wasmtime(String),
    /// No thread could be started.
    #[error("cannot start the thread which counts time for guests")]
    Thread(#[source] std::io::Error),
}

/// Why a component is not loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// It will never be: the component itself is at fault.
    #[error("{0}")]
    Refused(String),
    /// It may be another time.
    #[error("{0}")]
    Failed(String),
}

impl From<NotGranted> for LoadError {
    /// Another node may have what this one has not.
    fn from(error: NotGranted) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What became of giving back memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is given back.
    Done,
    /// Some of it will be when the guests end that are running.
    Begun,
    /// It is not: too many guests are running for which there were other places before.
    Refused,
}

/// Loads components. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    kinds: Kinds,
    dumps: Arc<Dumps>,
    /// What a processor of this node burns in a second.
    processor_rate: AtomicU64,
    config: EngineConfig,
    /// Few components are loaded at a time: each is in memory twice meanwhile.
    loading: Semaphore,
    shelf: Shelf,
}

/// How guests are run, as far as it is for their workload to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) kind: CodeKind,
    /// Whether core dumps are wanted.
    pub(crate) dumps: bool,
}

impl Engine {
    /// Returns an engine, which starts a thread that counts time when the first guest comes which needs that.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        Ok(Self(Arc::new(Inner {
            kinds: Kinds::new(config.instances)?,
            dumps: Arc::new(Dumps::new()),
            processor_rate: AtomicU64::new(PROCESSOR_RATE),
            config,
            loading: Semaphore::new(LOADERS),
            shelf: Shelf::new(),
        })))
    }

    /// Says what a processor of this node burns in a second: by it the time of guests that are metered by time counts,
    /// in allocations that are loaded from now on.
    pub fn set_processor_rate(&self, rate: FuelRate) {
        self.0.processor_rate.store(rate.0.max(1), Ordering::Relaxed);
    }

    /// Returns the component with this digest, whose compiled code is in the file `compiled` for as long as it is in
    /// use, to be metered by fuel. That the code is genuine and can be linked is known when this returns.
    pub async fn load(&self, compiled: &Path, digest: Digest) -> Result<Loaded, LoadError> {
        self.load_as(compiled, digest, Metering::Fuel).await
    }

    /// Returns the same as code of this kind, which the file must hold.
    pub async fn load_as(
        &self,
        compiled: &Path,
        digest: Digest,
        kind: impl Into<CodeKind>,
    ) -> Result<Loaded, LoadError> {
        self.load_way(compiled, digest, Way { kind: kind.into(), dumps: false }).await
    }

    /// Returns the component of a workload, to be run as its spec says.
    pub async fn load_for(&self, compiled: &Path, spec: &WorkloadSpec) -> Result<Loaded, LoadError> {
        let way = Way { kind: CodeKind::of(spec), dumps: spec.coredump };
        self.load_way(compiled, spec.component, way).await
    }

    async fn load_way(&self, compiled: &Path, digest: Digest, way: Way) -> Result<Loaded, LoadError> {
        let loaded = self.0.shelf.take(self, compiled.to_owned(), (digest, way));
        loaded.looked_at().await?;
        Ok(loaded)
    }

    /// Says how large a core dump may be that is made from now on.
    pub fn set_coredump_size(&self, size: Bytes) {
        self.0.dumps.set_size(size);
    }

    pub(crate) fn dumps(&self) -> Arc<Dumps> {
        Arc::clone(&self.0.dumps)
    }

    /// Drops the code of components that were not asked for anything in a while.
    pub fn drop_idle_code(&self) {
        self.0.shelf.drop_idle();
    }

    /// Tells for how long nobody has wanted to run anything.
    pub fn idle(&self) -> Duration {
        self.0.shelf.idle()
    }

    /// Gives back what guests that have ended left in memory: new guests find none of their places, and the old ones go
    /// with the last guests that are in them.
    pub fn renew(&self) -> Renewal {
        self.0.kinds.renew(|| self.0.shelf.drop_all())
    }

    pub(crate) fn shelf(&self) -> &Shelf {
        &self.0.shelf
    }

    /// Returns what tells how much a new instance burns that is metered so.
    pub(crate) fn gauge(&self, metering: Metering) -> Gauge {
        match metering {
            Metering::Fuel => Gauge::Fuel,
            Metering::Time => Gauge::by_time(FuelRate(self.0.processor_rate.load(Ordering::Relaxed))),
        }
    }

    /// Reads the compiled code in the file `compiled` and resolves its imports.
    pub(crate) async fn read_and_link(
        &self,
        compiled: &Path,
        digest: Digest,
        way: Way,
    ) -> Result<Linked, LoadError> {
        let _turn = self.0.loading.acquire().await.expect("the semaphore is never closed");
        if Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
            // Others go on on another thread, and this one need not be woken again: there is a request that waits.
            return tokio::task::block_in_place(|| self.read_and_link_now(compiled, digest, way));
        }
        let (this, compiled) = (self.clone(), compiled.to_owned());
        let loading = tokio::task::spawn_blocking(move || this.read_and_link_now(&compiled, digest, way));
        loading.await.map_err(|error| LoadError::Failed(format!("loading it ended early: {error}")))?
    }

    fn read_and_link_now(&self, compiled: &Path, digest: Digest, way: Way) -> Result<Linked, LoadError> {
        let EngineConfig { code_key: key, platform, instances: _ } = self.0.config;
        let Way { kind, dumps } = way;
        let genuine = Genuine::take(Known { path: compiled, key, platform, component: digest, kind })?;
        let Genuine { checks, size, .. } = genuine;
        let engine = self.0.kinds.get(EngineKind { checks, wasi03: kind.wasi03, dumps });
        let engine = engine.map_err(|error| LoadError::Failed(error.to_string()))?;
        let pre = link(&engine, genuine)?;
        Ok(Linked::new(pre, kind, checks, size))
    }
}

#[expect(unsafe_code, reason = "wasmtime cannot check that bytes are what its compiler made")]
fn link(kind: &Kind, genuine: Genuine) -> Result<InstancePre<Guest>, LoadError> {
    let component = match &genuine.code {
        // SAFETY: The MAC of these very bytes shows that the agent kept them for this namespace after its compiler had
        // made them, and nobody can change them any more.
        Code::Sealed(file) => unsafe { Component::deserialize_file(&kind.wasmtime, path_of(file)) },
        // SAFETY: As above; they are this process's own.
        Code::Bytes(bytes) => unsafe { Component::deserialize(&kind.wasmtime, bytes) },
    };
    let component = component.map_err(|error| LoadError::Failed(format!("cannot be loaded: {error:#}")))?;
    kind.linker.instantiate_pre(&component).map_err(|error| {
        LoadError::Refused(format!("the component's imports do not fit what is provided: {error:#}"))
    })
}
