//! wasmtime's engines, one for each kind of guest, and how they are replaced.
//!
//! An engine has a pool of places for instances. A place is made clean for the next instance and keeps the memory it
//! has, up to a size; the stacks of guests keep all. That makes instances cheap, but what guests have taken once is never
//! given back: wasmtime's pool only ever grows towards all that its places can keep. An engine that is replaced gives
//! back everything at once, when the last instance on it has ended.
//!
//! Not here: when that is due (`runtime/worker`), and the code that runs on them (`code`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_host::Guest;
use wasmtime::EngineWeak;
use wasmtime::component::Linker;

use crate::checks::Checks;
use crate::config::{config, dumping_config, places, pooled_config};
use crate::engine::{EngineError, Renewal};
use crate::limits::{EPOCH_TICK, POOL_INSTANCES};

/// How many engines that were replaced may still have instances.
const MOST_REPLACED: usize = 4;

/// All engines of a worker.
pub(crate) struct Kinds {
    /// How many instances are to live on each.
    instances: u32,
    /// Made when the first guest wants them: most workers have one.
    made: Mutex<BTreeMap<EngineKind, Arc<Kind>>>,
    /// Those that were replaced, as long as something runs on them.
    replaced: Mutex<Vec<EngineWeak>>,
}

impl Kinds {
    pub(crate) fn new(instances: u32) -> Result<Self, EngineError> {
        let usual = Arc::new(Kind::new(EngineKind::USUAL, instances)?);
        let made = Mutex::new([(EngineKind::USUAL, usual)].into());
        Ok(Self { instances, made, replaced: Mutex::default() })
    }

    /// Returns what runs guests of this kind.
    pub(crate) fn get(&self, kind: EngineKind) -> Result<Arc<Kind>, EngineError> {
        match self.made().entry(kind) {
            Entry::Occupied(made) => Ok(Arc::clone(made.get())),
            Entry::Vacant(vacant) => {
                let made = Arc::new(Kind::new(kind, self.instances)?);
                Ok(Arc::clone(vacant.insert(made)))
            }
        }
    }

    /// Replaces them all for what is loaded after `drop_code`, which is to let go of what was loaded before; unless there
    /// would be too many.
    pub(crate) fn renew(&self, drop_code: impl FnOnce()) -> Renewal {
        let in_use = self.in_use().len();
        let is_busy = self.made().values().any(|kind| kind.is_busy());
        if !may_renew(in_use, is_busy, places(self.instances)) {
            return Renewal::Refused;
        }
        // The old ones go before there is a new one: both together may need more mappings than the kernel gives.
        let old = std::mem::take(&mut *self.made());
        self.in_use().extend(old.values().map(|kind| kind.wasmtime.weak()));
        drop_code();
        drop(old);
        // Most guests want this one, and should not wait for it.
        if let Err(error) = self.get(EngineKind::USUAL) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "no places for guests; the next guest asks again");
        }
        if self.in_use().is_empty() { Renewal::Done } else { Renewal::Begun }
    }

    fn in_use(&self) -> MutexGuard<'_, Vec<EngineWeak>> {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.retain(|engine| engine.upgrade().is_some());
        replaced
    }

    fn made(&self) -> MutexGuard<'_, BTreeMap<EngineKind, Arc<Kind>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells whether engines with room for so many instances each may be replaced when so many that were replaced before are
/// in use, and perhaps those that are to be. Each place takes some of the mappings which the kernel gives a process, and
/// there are enough of these for [`POOL_INSTANCES`].
fn may_renew(in_use: usize, is_busy: bool, places: u32) -> bool {
    let with_room = |engines: usize| engines.saturating_mul(places as usize) <= POOL_INSTANCES as usize;
    (in_use == 0 && !is_busy) || (in_use < MOST_REPLACED && with_room(in_use + 2))
}

/// Which engine runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EngineKind {
    pub(crate) checks: Checks,
    /// What is of WASI 0.3 never shares an engine with what is not.
    pub(crate) wasi03: bool,
    pub(crate) dumps: bool,
}

impl EngineKind {
    /// That of most guests.
    const USUAL: Self = Self { checks: Checks::Fuel, wasi03: false, dumps: false };
}

/// What runs guests of one kind: wasmtime has one kind of code for an engine.
pub(crate) struct Kind {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<Guest>,
}

impl Kind {
    /// Tells whether there are instances in its places.
    fn is_busy(&self) -> bool {
        self.wasmtime.pooling_allocator_metrics().is_some_and(|pool| pool.component_instances() > 0)
    }

    fn new(kind: EngineKind, instances: u32) -> Result<Self, EngineError> {
        let failed = |error: wasmtime::Error| EngineError::Wasmtime(format!("{error:#}"));
        let wasmtime = wasmtime_engine(kind, instances).map_err(failed)?;
        let linker = match kind.wasi03 {
            false => dunlin_host::linker(&wasmtime),
            true => dunlin_host::wasi_03_linker(&wasmtime),
        };
        let linker = linker.map_err(failed)?;
        if kind.checks.sees_time() {
            start_epochs(&wasmtime).map_err(EngineError::Thread)?;
        }
        Ok(Self { wasmtime, linker })
    }
}

/// Returns an engine with a pool, or without one where the machine does not give that much address space. It cannot
/// compile: a compiler that nobody may use would only take memory in each worker.
fn wasmtime_engine(kind: EngineKind, instances: u32) -> wasmtime::Result<wasmtime::Engine> {
    let EngineKind { checks, wasi03, dumps } = kind;
    let engine = |mut config: wasmtime::Config| {
        config.enable_compiler(false);
        wasmtime::Engine::new(&config)
    };
    if dumps {
        return engine(dumping_config(checks, wasi03));
    }
    engine(pooled_config(checks, wasi03, instances)).or_else(|error| {
        tracing::warn!(error = format!("{error:#}"), "no pool for instances; each is allocated by itself");
        engine(config(checks, wasi03))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_engines_are_there_at_a_time_as_there_are_mappings_for() {
        let small = POOL_INSTANCES / 16;
        assert!(may_renew(0, true, small));
        assert!(may_renew(MOST_REPLACED - 1, true, small));
        assert!(!may_renew(MOST_REPLACED, false, small));
        assert!(may_renew(0, false, POOL_INSTANCES), "the old one goes first");
        assert!(!may_renew(0, true, POOL_INSTANCES));
        assert!(!may_renew(1, false, POOL_INSTANCES / 2));
    }
}
