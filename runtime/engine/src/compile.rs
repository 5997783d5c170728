//! Compiling, in a process of its own.
//!
//! A compiler is a large program that reads bytes from strangers. It therefore runs as a child without environment,
//! which limits itself before it reads the first of them: bytes come in on standard input and go out on standard
//! output. If it dies, a component was refused and nothing else happened.
//!
//! Not here: who starts it, judges how it ended and keeps what it made (`runtime/agent`), and the wall around it
//! (`runtime/worker`).

use std::io::{Read, Write};

use dunlin_admission::Refusal;
use dunlin_compiled::CodeKind;
use dunlin_model::{CompileLimits, ComponentLimits, Feature, Metering};
use nix::sys::resource::{Resource, setrlimit};

use crate::checks::Checks;
use crate::config::config;
use crate::limits::COMPILE_ADDRESS_SPACE;

/// What the compiler exits with if the component is at fault; what it complains is then a whole sentence.
pub const EXIT_REFUSED: u8 = 2;
/// What the compiler exits with if something else went wrong.
pub const EXIT_FAILED: u8 = 3;

/// Why a component is not compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It never will be: the component itself is at fault.
    #[error("{0}")]
    Refused(String),
    /// It may be another time.
    #[error("{0}")]
    Failed(String),
}

/// Compiles what comes on standard input within `limits`, to code of this kind, and writes the result to standard
/// output; what is wrong goes to standard error. This is the whole of the process `dunlin compile-component` once it
/// is confined, and the result is its exit code.
pub fn compile_child(kind: CodeKind, limits: &CompileLimits) -> u8 {
    match run_child(kind, limits) {
        Ok(()) => 0,
        Err(error) => {
            let code = match error {
                CompileError::Refused(_) => EXIT_REFUSED,
                CompileError::Failed(_) => EXIT_FAILED,
            };
            // There is nobody left to tell if this fails.
            drop(std::io::stderr().write_all(error.to_string().as_bytes()));
            code
        }
    }
}

fn run_child(kind: CodeKind, limits: &CompileLimits) -> Result<(), CompileError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| CompileError::Failed(format!("{what}: {error}"));
    limit_this_process(limits).map_err(|error| failed("could not limit the compiler", &error))?;
    let mut component = Vec::new();
    std::io::stdin()
        .take(limits.component.component_size.0 + 1)
        .read_to_end(&mut component)
        .map_err(|error| failed("could not read the component", &error))?;
    let compiled = compile_within(&component, kind, &limits.component)?;
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(&compiled).and_then(|()| stdout.flush());
    written.map_err(|error| failed("could not write the compiled component", &error))
}

fn limit_this_process(limits: &CompileLimits) -> nix::Result<()> {
    let CompileLimits { compile_memory, compile_time, .. } = limits;
    let limits = [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_DATA, compile_memory.0),
        (Resource::RLIMIT_AS, COMPILE_ADDRESS_SPACE),
    ];
    // The soft limit alone: it ends the process by a signal of its own, the hard one like anybody who kills it.
    let seconds = compile_time.0.div_ceil(1000);
    setrlimit(Resource::RLIMIT_CPU, seconds, seconds + 10)?;
    limits.into_iter().try_for_each(|(resource, limit)| setrlimit(resource, limit, limit))
}

/// Admits and compiles `component`, to be metered by fuel, in this process, which nothing limits: for tests.
pub fn compile(component: &[u8]) -> Result<Vec<u8>, CompileError> {
    compile_as(component, Metering::Fuel)
}

/// Admits and compiles `component` in this process, which nothing limits: for tests.
pub fn compile_as(component: &[u8], kind: impl Into<CodeKind>) -> Result<Vec<u8>, CompileError> {
    compile_within(component, kind.into(), &ComponentLimits::default())
}

/// Whether a component is of WASI 0.3 is for itself to say, whatever somebody believes of it.
fn compile_within(
    component: &[u8],
    kind: CodeKind,
    limits: &ComponentLimits,
) -> Result<Vec<u8>, CompileError> {
    let admitted = dunlin_admission::admit_within(component, limits).map_err(|refusal| match refusal {
        Refusal::NotChecked { .. } => CompileError::Failed(refusal.to_string()),
        refusal => CompileError::Refused(format!("{}: {refusal}", refusal.code())),
    })?;
    match (admitted.needs(Feature::Wasi03), kind.wasi03) {
        (true, true) | (false, false) => {}
        (true, false) => {
            let reason =
                "feature_off: the component is of WASI 0.3, and was not known to be; deploy it again";
            return Err(CompileError::Refused(reason.to_owned()));
        }
        (false, true) => {
            let reason = "the component is not of WASI 0.3, and was said to be; deploy it again";
            return Err(CompileError::Refused(reason.to_owned()));
        }
    }
    let checks = Checks::of(component, kind);
    let engine = wasmtime::Engine::new(&config(checks, kind.wasi03))
        .map_err(|error| CompileError::Failed(format!("wasmtime cannot be set up: {error:#}")))?;
    let mut compiled = engine
        .precompile_component(&dunlin_admission::with_bounded_debug_info(component))
        .map_err(|error| CompileError::Refused(format!("the component cannot be compiled: {error:#}")))?;
    compiled.push(checks.tag());
    Ok(compiled)
}
