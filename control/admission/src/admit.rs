//! The whole check: size, kind, counts, validity, imports, exports, in this order, cheapest first.

use std::collections::BTreeSet;

use dunlin_model::{Bytes, ComponentLimits, Feature};
use serde::{Deserialize, Serialize};
use wasmparser::{BinaryReaderError, Validator, WasmFeatures};

use crate::provided::{capability_of, is_compatible, is_of_wasi_03, is_provided, is_provided_to_wasi_03};
use crate::refusal::{MissingImport, Refusal, shown};
use crate::scan::{Surface, invalid, scan};

/// How many names a refusal lists.
pub(crate) const MAX_LISTED: usize = 20;

/// How much stack the validator gets for each type that a component may have: types refer to earlier ones, and it
/// follows a chain of all of them by recursion. Only what is used of it is ever backed by memory.
const VALIDATOR_STACK: u64 = (128 << 20) / 10_000;
/// How much it gets at least.
const LEAST_STACK: u64 = 8 << 20;

/// A way to start a component: the world it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// It exports `wasi:http/incoming-handler@0.2.x`, or `wasi:http/handler@0.3.x`.
    Service,
    /// It exports `wasi:cli/run@0.2.x`, or of 0.3.x.
    Command,
}

/// What is known of a component that may become a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The ways to start it, at least one.
    pub worlds: Vec<World>,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What it needs that is off unless a node's operator switches it on. It may run nowhere else.
    pub features: BTreeSet<Feature>,
    /// How large it is.
    pub size: Bytes,
}

impl Admitted {
    /// Tells whether it needs `feature`.
    pub fn needs(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    /// Tells whether it can be started as `world` says.
    pub fn is(&self, world: World) -> bool {
        self.worlds.contains(&world)
    }
}

/// The parts of WebAssembly that guests may use. The engine switches on the same.
pub const fn features() -> WasmFeatures {
    WasmFeatures::WASM2
        .union(WasmFeatures::TAIL_CALL)
        .union(WasmFeatures::EXTENDED_CONST)
        .union(WasmFeatures::RELAXED_SIMD)
        .union(WasmFeatures::COMPONENT_MODEL)
}

/// The parts that components of WASI 0.3 may use: of the asynchronous part of the component model no more than what
/// their interfaces are made of, so no threads, no tasks with a stack of their own and no error contexts.
pub const fn wasi_03_features() -> WasmFeatures {
    features().union(WasmFeatures::CM_ASYNC)
}

/// Returns what the component `bytes` needs that is off unless a node's operator switches it on, as its imports and
/// exports say; nothing if it is no component. Whether it may become a guest at all is not asked, nor how large it may
/// be where it is to run.
pub fn needed_features(bytes: &[u8]) -> BTreeSet<Feature> {
    scan(bytes, &ComponentLimits::maximum()).map(|surface| features_of(&surface)).unwrap_or_default()
}

/// A component is of WASI 0.3 if it imports or exports anything of it. All others are judged as if there were no such
/// thing, so what is asynchronous in them is refused.
pub(crate) fn features_of(surface: &Surface) -> BTreeSet<Feature> {
    let mut names = surface.imports.iter().chain(&surface.exports);
    let wasi03 = names.any(|name| is_of_wasi_03(name));
    wasi03.then_some(Feature::Wasi03).into_iter().collect()
}

/// Tells whether `bytes` may become a guest where nobody has set other limits, and if not, why. What it needs is a part
/// of the answer: who lets it run must look at [`Admitted::features`].
pub fn admit(bytes: &[u8]) -> Result<Admitted, Refusal> {
    admit_within(bytes, &ComponentLimits::default())
}

/// Tells whether `bytes` may become a guest within `limits`, and if not, why.
pub fn admit_within(bytes: &[u8], limits: &ComponentLimits) -> Result<Admitted, Refusal> {
    let size = Bytes(bytes.len() as u64);
    if let Some(hit) = limits.refuse_size(size) {
        return Err(Refusal::TooLarge(hit));
    }
    // wasmtime's compiled form is an ELF file.
    if bytes.starts_with(b"\x7fELF") {
        return Err(Refusal::PrecompiledNotAccepted);
    }
    let surface = scan(bytes, limits)?;
    let needed = features_of(&surface);
    let wasi03 = needed.contains(&Feature::Wasi03);
    validate(bytes, if wasi03 { wasi_03_features() } else { features() }, limits)?;
    check_imports(&surface, wasi03)?;
    let worlds = worlds(&surface, wasi03)?;
    Ok(Admitted { worlds, imports: surface.imports, exports: surface.exports, features: needed, size })
}

/// Validates a component or a module that may use these features.
pub(crate) fn validate(
    bytes: &[u8],
    features: WasmFeatures,
    limits: &ComponentLimits,
) -> Result<(), Refusal> {
    let stack = limits.types.saturating_mul(VALIDATOR_STACK).max(LEAST_STACK);
    let stack = usize::try_from(stack).unwrap_or(usize::MAX);
    let validation = || Validator::new_with_features(features).validate_all(bytes).map(drop);
    let result = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(stack).spawn_scoped(scope, validation);
        thread.map(|thread| thread.join())
    });
    match result {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(feature_off(&error).unwrap_or_else(|| invalid(&error))),
        Ok(Err(_panic)) => Err(Refusal::InvalidWasm { offset: 0, message: "the validator gave up".into() }),
        Err(error) => {
            Err(Refusal::NotChecked { reason: format!("no thread to validate it on: {}", error.kind()) })
        }
    }
}

/// Returns the refusal which names the part of WebAssembly that is off, if that is what the validator minds.
/// Its messages are the only place where it says so; a wording not listed here is shown as it is.
fn feature_off(error: &BinaryReaderError) -> Option<Refusal> {
    const FEATURES: &[(&str, &str)] = &[
        ("memory64", "memory64"),
        ("64-bit memories", "memory64"),
        ("64-bit tables", "memory64"),
        ("shared-everything-threads", "shared-everything-threads"),
        ("threads", "threads"),
        ("shared memories", "threads"),
        ("multi-memory", "multi-memory"),
        ("multiple memories", "multi-memory"),
        ("custom page sizes", "custom page sizes"),
        ("custom-page-sizes", "custom page sizes"),
        ("stack switching", "stack switching"),
        ("exceptions", "exceptions"),
        ("exception refs", "exceptions"),
        ("function references", "function references"),
        ("wide arithmetic", "wide arithmetic"),
        ("component model async", "component model async"),
        ("component-model async", "component model async"),
        ("gc proposal", "garbage collection"),
        ("without `gc`", "garbage collection"),
        ("gc support", "garbage collection"),
        ("gc types", "garbage collection"),
        ("heap type", "garbage collection"),
        ("nested namespaces", "nested names"),
        ("zero byte expected", "multi-memory"),
    ];
    let message = error.message();
    let says_so =
        ["enable", "require", "support", "without", "not allowed", "multiple memories", "zero byte expected"];
    if !says_so.iter().any(|word| message.contains(word)) {
        return None;
    }
    let (_, feature) = FEATURES.iter().find(|(words, _)| message.contains(words))?;
    Some(Refusal::FeatureOff { feature, offset: error.offset() as u64, message: shown(message) })
}

fn check_imports(surface: &Surface, wasi03: bool) -> Result<(), Refusal> {
    let is_there = |name: &str| is_provided(name) || wasi03 && is_provided_to_wasi_03(name);
    let missing: Vec<&String> = surface.imports.iter().filter(|name| !is_there(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let name = |name: &&String| MissingImport { name: shown(name), why: capability_of(name).to_owned() };
    Err(Refusal::MissingImports {
        names: missing.iter().take(MAX_LISTED).map(name).collect(),
        more: missing.len().saturating_sub(MAX_LISTED),
    })
}

/// Returns the ways to start it. What is of WASI 0.3 is started by its exports of 0.3 alone.
fn worlds(surface: &Surface, wasi03: bool) -> Result<Vec<World>, Refusal> {
    let (version, handler) =
        if wasi03 { ("0.3.0", "wasi:http/handler") } else { ("0.2.0", "wasi:http/incoming-handler") };
    let exports = |interface: &str| {
        surface.exports.iter().any(|name| match name.split_once('@') {
            Some((name, exported)) => name == interface && is_compatible(exported, version),
            None => false,
        })
    };
    let mut worlds = Vec::new();
    if exports(handler) {
        worlds.push(World::Service);
    }
    if exports("wasi:cli/run") {
        worlds.push(World::Command);
    }
    if worlds.is_empty() {
        let exports = surface.exports.iter().take(MAX_LISTED).map(|name| shown(name)).collect();
        return Err(Refusal::MissingExport { exports, wasi03 });
    }
    Ok(worlds)
}
