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
use dunlin_model::{CompileLimits, ComponentLimits, Metering};
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

/// Compiles what comes on standard input within `limits`, for guests that are metered so, and writes the result to
/// standard output; what is wrong goes to standard error. This is the whole of the process `dunlin compile-component`
/// once it is confined, and the result is its exit code.
pub fn compile_child(metering: Metering, limits: &CompileLimits) -> u8 {
    match run_child(metering, limits) {
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

fn run_child(metering: Metering, limits: &CompileLimits) -> Result<(), CompileError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| CompileError::Failed(format!("{what}: {error}"));
    limit_this_process(limits).map_err(|error| failed("could not limit the compiler", &error))?;
    let mut component = Vec::new();
    std::io::stdin()
        .take(limits.component.component_size.0 + 1)
        .read_to_end(&mut component)
        .map_err(|error| failed("could not read the component", &error))?;
    let compiled = compile_within(&component, metering, &limits.component)?;
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
pub fn compile_as(component: &[u8], metering: Metering) -> Result<Vec<u8>, CompileError> {
    compile_within(component, metering, &ComponentLimits::default())
}

fn compile_within(
    component: &[u8],
    metering: Metering,
    limits: &ComponentLimits,
) -> Result<Vec<u8>, CompileError> {
    dunlin_admission::admit_within(component, limits).map_err(|refusal| match refusal {
        Refusal::NotChecked { .. } => CompileError::Failed(refusal.to_string()),
        refusal => CompileError::Refused(format!("{}: {refusal}", refusal.code())),
    })?;
    let checks = Checks::of(component, metering);
    let engine = wasmtime::Engine::new(&config(checks))
        .map_err(|error| CompileError::Failed(format!("wasmtime cannot be set up: {error:#}")))?;
    let mut compiled = engine
        .precompile_component(&dunlin_admission::with_bounded_debug_info(component))
        .map_err(|error| CompileError::Refused(format!("the component cannot be compiled: {error:#}")))?;
    compiled.push(checks.tag());
    Ok(compiled)
}
