//! From the bytes of a component to one that can be run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dunlin_admission::Refusal;
use dunlin_host::Guest;
use dunlin_model::{Bytes, Digest};
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use wasmtime::component::{Component, InstancePre, Linker};

use crate::cache::Cache;
use crate::compile;
use crate::config::{config, pooled_config};
use crate::limits::EPOCH_TICK;

/// What an engine must know.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Where compiled components are kept; made if it is not there.
    pub cache: PathBuf,
    /// The key that authenticates them.
    pub cache_key: [u8; 32],
    /// Who compiles.
    pub compiler: Compiler,
}

/// Who compiles components.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// This program, started with the argument `compile-component`, which calls [`crate::compile_child`].
    Child(PathBuf),
    /// This process. Only for tests, which have no program to call: nothing limits it.
    InProcess,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime does not work on this machine.
    #[error("wasmtime cannot be set up: {0}")]
    Wasmtime(String),
    /// There is no place for compiled components.
    #[error("cannot use {path} for compiled components")]
    Cache {
        /// Where it should have been.
        path: PathBuf,
        /// Why it cannot.
        source: std::io::Error,
    },
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

/// Loads components. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    wasmtime: wasmtime::Engine,
    linker: Linker<Guest>,
    cache: Cache,
    compiler: Compiler,
    /// C3: one compiler at a time. Who waits for it may find the component in the cache afterwards.
    compiling: Semaphore,
    /// What is in use, so that two allocations of one component share its code.
    loaded: Mutex<BTreeMap<Digest, Weak<InstancePre<Guest>>>>,
}

/// A component that can be run.
#[derive(Clone)]
pub struct Loaded(pub(crate) Arc<InstancePre<Guest>>);

impl Engine {
    /// Returns an engine and starts the thread that counts time for its guests.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        let wasmtime = wasmtime_engine().map_err(|error| EngineError::Wasmtime(format!("{error:#}")))?;
        let linker =
            dunlin_host::linker(&wasmtime).map_err(|error| EngineError::Wasmtime(format!("{error:#}")))?;
        let EngineConfig { cache: folder, cache_key, compiler } = config;
        let cache = Cache::open(folder.clone(), cache_key, &wasmtime)
            .map_err(|source| EngineError::Cache { path: folder, source })?;
        start_epochs(&wasmtime).map_err(EngineError::Thread)?;
        let (compiling, loaded) = (Semaphore::new(1), Mutex::default());
        Ok(Self(Arc::new(Inner { wasmtime, linker, cache, compiler, compiling, loaded })))
    }

    /// Loads the component in the file `component`, whose bytes have this digest.
    pub async fn load(&self, component: &Path, digest: Digest) -> Result<Loaded, LoadError> {
        if let Some(loaded) = self.in_use(digest) {
            return Ok(loaded);
        }
        let _turn = self.0.compiling.acquire().await.expect("the semaphore is never closed");
        if let Some(loaded) = self.in_use(digest) {
            return Ok(loaded);
        }
        let this = self.clone();
        let cached = blocking(move || this.0.cache.read(digest)).await?;
        let compiled = match cached {
            Some(compiled) => compiled,
            None => self.compile(component, digest).await?,
        };
        let this = self.clone();
        let pre = blocking(move || this.link(&compiled)).await??;
        let pre = Arc::new(pre);
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|_, pre| pre.strong_count() > 0);
        loaded.insert(digest, Arc::downgrade(&pre));
        Ok(Loaded(pre))
    }

    fn in_use(&self, digest: Digest) -> Option<Loaded> {
        let loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.get(&digest)?.upgrade().map(Loaded)
    }

    async fn compile(&self, path: &Path, digest: Digest) -> Result<Vec<u8>, LoadError> {
        let bytes = read_component(path).await?;
        let bytes = blocking(move || {
            let actual = Digest::of(&bytes);
            if actual != digest {
                return Err(LoadError::Failed(format!("the component should be {digest} but is {actual}")));
            }
            match dunlin_admission::admit(&bytes) {
                Ok(_) => Ok(bytes),
                Err(refusal @ Refusal::NotChecked { .. }) => Err(LoadError::Failed(refusal.to_string())),
                Err(refusal) => Err(LoadError::Refused(format!("{}: {refusal}", refusal.code()))),
            }
        })
        .await??;
        let compiled = match &self.0.compiler {
            Compiler::Child(program) => compile::compile_in_child(program, bytes).await?,
            Compiler::InProcess => {
                blocking(move || compile::compile(&bytes)).await?.map_err(LoadError::Refused)?
            }
        };
        let this = self.clone();
        blocking(move || {
            if let Err(error) = this.0.cache.write(digest, &compiled) {
                tracing::warn!(%digest, error = &error as &dyn std::error::Error, "compiled component not kept");
            }
            compiled
        })
        .await
    }

    #[expect(unsafe_code, reason = "wasmtime cannot check that bytes are what its compiler made")]
    fn link(&self, compiled: &[u8]) -> Result<InstancePre<Guest>, LoadError> {
        // SAFETY: The bytes are what the compiler child has just written, or come from the cache, which gives only
        // bytes whose MAC shows that a worker of this namespace on this node wrote them after it compiled them.
        let component = unsafe { Component::deserialize(&self.0.wasmtime, compiled) };
        let component =
            component.map_err(|error| LoadError::Failed(format!("cannot be loaded: {error:#}")))?;
        self.0.linker.instantiate_pre(&component).map_err(|error| {
            LoadError::Refused(format!("the component's imports do not fit what is provided: {error:#}"))
        })
    }
}

/// Returns an engine with a pool, or without one where the machine does not give that much address space.
fn wasmtime_engine() -> wasmtime::Result<wasmtime::Engine> {
    wasmtime::Engine::new(&pooled_config()).or_else(|error| {
        tracing::warn!(error = format!("{error:#}"), "no pool for instances; each is allocated by itself");
        wasmtime::Engine::new(&config())
    })
}

/// Starts the thread which makes computing guests let others run. It is a thread of the operating system, so that
/// no guest can keep it from running, and it ends with the engine.
fn start_epochs(engine: &wasmtime::Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    std::thread::Builder::new().name("epochs".to_owned()).spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(EPOCH_TICK);
        }
    })?;
    Ok(())
}

async fn read_component(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |error| LoadError::Failed(format!("could not read the component: {error}"));
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let limit = Bytes(dunlin_admission::MAX_COMPONENT);
    let mut bytes = Vec::new();
    // One byte more than allowed, so that admission sees that it is too large and says so.
    file.take(limit.0 + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    Ok(bytes)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LoadError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|error| LoadError::Failed(format!("loading it ended early: {error}")))
}
