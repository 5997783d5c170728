//! The whole check: size, kind, counts, validity, imports, exports, in this order, cheapest first.

use dunlin_model::{Bytes, ComponentLimits};
use serde::{Deserialize, Serialize};
use wasmparser::{BinaryReaderError, Validator, WasmFeatures};

use crate::provided::{capability_of, is_compatible, is_provided};
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
    /// It exports `wasi:http/incoming-handler@0.2.x`.
    Service,
    /// It exports `wasi:cli/run@0.2.x`.
    Command,
}

/// What is known of a component that may become a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The ways to start it, at least one.
    pub worlds: Vec<World>,
    /// What it imports.
    pub imports: Vec<String>,
    /// How large it is.
    pub size: Bytes,
}

impl Admitted {
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

/// Tells whether `bytes` may become a guest where nobody has set other limits, and if not, why.
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
    validate(bytes, limits)?;
    check_imports(&surface)?;
    let worlds = worlds(&surface)?;
    Ok(Admitted { worlds, imports: surface.imports, size })
}

/// Validates a component or a module with the features that guests may use.
pub(crate) fn validate(bytes: &[u8], limits: &ComponentLimits) -> Result<(), Refusal> {
    let stack = limits.types.saturating_mul(VALIDATOR_STACK).max(LEAST_STACK);
    let stack = usize::try_from(stack).unwrap_or(usize::MAX);
    let validation = || Validator::new_with_features(features()).validate_all(bytes).map(drop);
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
    let says_so = ["enable", "support", "without", "not allowed", "multiple memories", "zero byte expected"];
    if !says_so.iter().any(|word| message.contains(word)) {
        return None;
    }
    let (_, feature) = FEATURES.iter().find(|(words, _)| message.contains(words))?;
    Some(Refusal::FeatureOff { feature, offset: error.offset() as u64, message: shown(message) })
}

fn check_imports(surface: &Surface) -> Result<(), Refusal> {
    let missing: Vec<&String> = surface.imports.iter().filter(|name| !is_provided(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let name = |name: &&String| MissingImport { name: shown(name), why: capability_of(name).to_owned() };
    Err(Refusal::MissingImports {
        names: missing.iter().take(MAX_LISTED).map(name).collect(),
        more: missing.len().saturating_sub(MAX_LISTED),
    })
}

fn worlds(surface: &Surface) -> Result<Vec<World>, Refusal> {
    let exports = |interface: &str| {
        surface.exports.iter().any(|name| match name.split_once('@') {
            Some((name, version)) => name == interface && is_compatible(version, "0.2.0"),
            None => false,
        })
    };
    let mut worlds = Vec::new();
    if exports("wasi:http/incoming-handler") {
        worlds.push(World::Service);
    }
    if exports("wasi:cli/run") {
        worlds.push(World::Command);
    }
    if worlds.is_empty() {
        let exports = surface.exports.iter().take(MAX_LISTED).map(|name| shown(name)).collect();
        return Err(Refusal::MissingExport { exports });
    }
    Ok(worlds)
}
