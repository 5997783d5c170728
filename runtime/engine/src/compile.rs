//! Compiling, in a process of its own.
//!
//! A compiler is a large program that reads bytes from strangers. It therefore runs as a child without environment,
//! which limits itself before it reads the first of them and can neither open the network of the worker nor write a
//! file: bytes come in on standard input and go out on standard output. If it dies, a component was refused and
//! nothing else happened.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use dunlin_admission::Refusal;
use dunlin_model::{Bytes, LimitHit};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::config::config;
use crate::engine::LoadError;
use crate::limits::{COMPILE_ADDRESS_SPACE, COMPILE_CPU_SECONDS, COMPILE_MEMORY, COMPILE_TIME, MAX_COMPILED};

/// The argument with which the `dunlin` program becomes a compiler.
const SUBCOMMAND: &str = "compile-component";
/// The most bytes that are read of what a compiler complains.
const MAX_COMPLAINT: u64 = 4 << 10;
/// What the compiler exits with if the component cannot be compiled.
const EXIT_REFUSED: u8 = 2;
/// What the compiler exits with if something else went wrong.
const EXIT_FAILED: u8 = 3;

/// Compiles `component` with the program `compiler`.
pub(crate) async fn compile_in_child(compiler: &Path, component: Vec<u8>) -> Result<Vec<u8>, LoadError> {
    let mut child = Command::new(compiler)
        .arg(SUBCOMMAND)
        .env_clear()
        // The program's allocator would otherwise count a gigabyte of untouched reserve against the limit on memory.
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| LoadError::Failed(format!("could not start the compiler: {error}")))?;
    let mut stdin = child.stdin.take().expect("standard input was asked to be a pipe");
    let stdout = child.stdout.take().expect("standard output was asked to be a pipe");
    let stderr = child.stderr.take().expect("standard error was asked to be a pipe");

    let feed = async move {
        // A compiler that does not read to the end has failed; how, its exit tells.
        drop(stdin.write_all(&component).await);
    };
    let everything = async {
        let (_, compiled, complaint) =
            tokio::join!(feed, read(stdout, MAX_COMPILED), read(stderr, MAX_COMPLAINT));
        // Whoever writes more than is read would wait for ever.
        if compiled.len() as u64 > MAX_COMPILED {
            return (None, compiled, complaint);
        }
        (Some(child.wait().await), compiled, complaint)
    };
    let Ok((status, compiled, complaint)) = tokio::time::timeout(COMPILE_TIME, everything).await else {
        return Err(compile_limit(&LimitHit::new("compile time", format!("{COMPILE_TIME:?}"), "more")));
    };
    match status {
        None => Err(compile_limit(&LimitHit::new("compiled size", Bytes(MAX_COMPILED), "more"))),
        Some(Err(error)) => Err(LoadError::Failed(format!("could not wait for the compiler: {error}"))),
        Some(Ok(status)) => judge(status, compiled, &complaint),
    }
}

async fn read(stream: impl AsyncRead + Unpin, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What could be read before an error is judged like the rest, by the exit of the child.
    drop(stream.take(limit + 1).read_to_end(&mut bytes).await);
    bytes
}

fn judge(status: ExitStatus, compiled: Vec<u8>, complaint: &[u8]) -> Result<Vec<u8>, LoadError> {
    let complaint = String::from_utf8_lossy(complaint).trim().to_owned();
    match status.code() {
        Some(0) => Ok(compiled),
        Some(code) if code == i32::from(EXIT_REFUSED) => {
            Err(LoadError::Refused(format!("the component cannot be compiled: {complaint}")))
        }
        Some(code) if code == i32::from(EXIT_FAILED) => {
            Err(LoadError::Failed(format!("the compiler failed: {complaint}")))
        }
        Some(code) => Err(LoadError::Refused(format!("the compiler ended with code {code}: {complaint}"))),
        // Killed by somebody else, or by a kernel in need of memory: that says nothing of the component.
        None if status.signal() == Some(Signal::SIGKILL as i32) => {
            Err(LoadError::Failed("the compiler was killed".to_owned()))
        }
        None => {
            let limits =
                format!("{} of memory, {COMPILE_CPU_SECONDS}s of a processor", Bytes(COMPILE_MEMORY));
            Err(compile_limit(&LimitHit::new("compiler", limits, status)))
        }
    }
}

fn compile_limit(hit: &LimitHit) -> LoadError {
    LoadError::Refused(format!("compile_limit: the component takes too much to compile: {hit}"))
}

/// Compiles what comes on standard input and writes the result to standard output; what is wrong goes to standard
/// error. This is the whole of the process `dunlin compile-component`, and the result is its exit code.
pub fn compile_child() -> u8 {
    match run_child() {
        Ok(()) => 0,
        Err((code, complaint)) => {
            // There is nobody left to tell if this fails.
            drop(std::io::stderr().write_all(complaint.as_bytes()));
            code
        }
    }
}

fn run_child() -> Result<(), (u8, String)> {
    let failed = |what: &str, error: &dyn std::fmt::Display| (EXIT_FAILED, format!("{what}: {error}"));
    limit_this_process().map_err(|error| failed("could not limit the compiler", &error))?;
    let mut component = Vec::new();
    std::io::stdin()
        .take(dunlin_admission::MAX_COMPONENT + 1)
        .read_to_end(&mut component)
        .map_err(|error| failed("could not read the component", &error))?;
    dunlin_admission::admit(&component).map_err(|refusal| match refusal {
        Refusal::NotChecked { .. } => (EXIT_FAILED, refusal.to_string()),
        refusal => (EXIT_REFUSED, refusal.to_string()),
    })?;
    let compiled = compile(&component).map_err(|complaint| (EXIT_REFUSED, complaint))?;
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(&compiled).and_then(|()| stdout.flush());
    written.map_err(|error| failed("could not write the compiled component", &error))
}

fn limit_this_process() -> nix::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    nix::sys::prctl::set_dumpable(false)?;
    let limits = [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_DATA, COMPILE_MEMORY),
        (Resource::RLIMIT_AS, COMPILE_ADDRESS_SPACE),
    ];
    // The soft limit alone: it ends the process by a signal of its own, the hard one like anybody who kills it.
    setrlimit(Resource::RLIMIT_CPU, COMPILE_CPU_SECONDS, COMPILE_CPU_SECONDS + 10)?;
    limits.into_iter().try_for_each(|(resource, limit)| setrlimit(resource, limit, limit))
}

/// Compiles `component` here.
pub(crate) fn compile(component: &[u8]) -> Result<Vec<u8>, String> {
    let engine = wasmtime::Engine::new(&config()).map_err(|error| format!("{error:#}"))?;
    engine.precompile_component(component).map_err(|error| format!("{error:#}"))
}
