//! One compiler process: fed, bounded in time and output, and judged by how it ended.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use dunlin_compiled::{CodeKind, Platform};
use dunlin_model::{Bytes, DurationMs, LimitHit, Metering};
use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::CompileError;

/// The argument with which the `dunlin` program becomes a compiler.
const SUBCOMMAND: &str = "compile-component";
/// The most bytes that are read of what a compiler complains.
const MAX_COMPLAINT: u64 = 4 << 10;
/// What the compiler exits with if the component is at fault; what it complains is then a whole sentence.
const EXIT_REFUSED: i32 = 2;
/// What the compiler exits with if something else went wrong.
const EXIT_FAILED: i32 = 3;
/// The most time that compiling one component may take, however busy the machine is.
const COMPILE_TIME: Duration = Duration::from_secs(180);
/// C4: the most bytes that compiled code may have.
const MAX_COMPILED: u64 = 256 << 20;
/// C3: the memory that the compiler allows itself.
const COMPILE_MEMORY: Bytes = Bytes(1 << 30);
/// C3: the time of a processor that the compiler allows itself.
const COMPILE_CPU: DurationMs = DurationMs(60_000);

/// Returns for which platform `program` compiles.
pub(crate) async fn platform_of(program: &Path) -> Result<Platform, CompileError> {
    let failed = |reason: String| CompileError::Failed(format!("could not ask the compiler: {reason}"));
    let mut command = compiler(program);
    let output = tokio::time::timeout(COMPILE_TIME, command.arg("--platform").stdin(Stdio::null()).output())
        .await
        .map_err(|_| failed("it does not answer".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    said.trim().parse().map_err(|_| {
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        failed(format!("it ended with {} and said: {complaint}", output.status))
    })
}

/// Compiles `component` with `program`, as `user` if there is one, to code of this kind.
pub(super) async fn compile_in_child(
    program: &Path,
    user: Option<u32>,
    required: bool,
    (component, kind): (Vec<u8>, CodeKind),
) -> Result<Vec<u8>, CompileError> {
    let mut command = compiler(program);
    command.args(["--agent", &std::process::id().to_string()]);
    let metering = match kind.metering {
        Metering::Fuel => "fuel",
        Metering::Time => "time",
    };
    command.args(["--metering", metering]);
    if kind.wasi03 {
        command.arg("--wasi-0.3");
    }
    if let Some(user) = user {
        command.args(["--user", &user.to_string()]);
    }
    if required {
        command.arg("--required");
    }
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| CompileError::Failed(format!("could not start the compiler: {error}")))?;
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
        return Err(compile_limit(&LimitHit::new(
            "compile_time",
            format!("{COMPILE_TIME:?} of waiting"),
            "more",
        )));
    };
    match status {
        None => Err(compile_limit(&LimitHit::new("compiled_size", Bytes(MAX_COMPILED), "more"))),
        Some(Err(error)) => Err(CompileError::Failed(format!("could not wait for the compiler: {error}"))),
        Some(Ok(status)) => judge(status, compiled, &complaint),
    }
}

fn compiler(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg0("dunlin")
        .arg(SUBCOMMAND)
        .env_clear()
        // The program's allocator would otherwise count a gigabyte of untouched reserve against the limit on memory.
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        .current_dir("/")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

async fn read(stream: impl AsyncRead + Unpin, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What could be read before an error is judged like the rest, by the exit of the child.
    drop(stream.take(limit + 1).read_to_end(&mut bytes).await);
    bytes
}

fn judge(status: ExitStatus, compiled: Vec<u8>, complaint: &[u8]) -> Result<Vec<u8>, CompileError> {
    let complaint = String::from_utf8_lossy(complaint).trim().to_owned();
    match status.code() {
        Some(0) => Ok(compiled),
        Some(EXIT_REFUSED) => Err(CompileError::Refused(complaint)),
        Some(EXIT_FAILED) => Err(CompileError::Failed(format!("the compiler failed: {complaint}"))),
        Some(code) => Err(CompileError::Refused(format!("the compiler ended with code {code}: {complaint}"))),
        // Killed by somebody else, or by a kernel in need of memory: that says nothing of the component.
        None if status.signal() == Some(Signal::SIGKILL as i32) => {
            Err(CompileError::Failed("the compiler was killed".to_owned()))
        }
        None => {
            // It ends so when its time is up, and aborts where there is no memory.
            let (limit, value) = match status.signal().and_then(|signal| Signal::try_from(signal).ok()) {
                Some(Signal::SIGXCPU) => ("compile_time", COMPILE_CPU.to_string()),
                Some(Signal::SIGABRT) => ("compile_memory", COMPILE_MEMORY.to_string()),
                _ => ("compiler", format!("{COMPILE_MEMORY} of memory, {COMPILE_CPU} of a processor")),
            };
            Err(compile_limit(&LimitHit::new(limit, value, format!("more: it ended with {status}"))))
        }
    }
}

fn compile_limit(hit: &LimitHit) -> CompileError {
    CompileError::Refused(format!("compile_limit: the component takes too much to compile: {hit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(wait_status: i32, complaint: &str) -> String {
        match judge(ExitStatus::from_raw(wait_status), Vec::new(), complaint.as_bytes()) {
            Ok(_) => "compiled".to_owned(),
            Err(CompileError::Refused(reason)) => format!("refused: {reason}"),
            Err(CompileError::Failed(reason)) => format!("failed: {reason}"),
        }
    }

    #[test]
    fn the_component_is_blamed_for_its_limits_and_not_for_a_kill_from_outside() {
        assert_eq!(judged(0, ""), "compiled");
        assert_eq!(judged(2 << 8, "core_module: no\n"), "refused: core_module: no");
        assert_eq!(judged(3 << 8, "no memory"), "failed: the compiler failed: no memory");
        assert_eq!(judged(101 << 8, "panicked"), "refused: the compiler ended with code 101: panicked");
        assert_eq!(judged(Signal::SIGKILL as i32, ""), "failed: the compiler was killed");
        for (signal, limit) in [
            (Signal::SIGXCPU, "limit `compile_time` is 1m, observed more"),
            (Signal::SIGABRT, "limit `compile_memory` is 1GiB, observed more"),
            (Signal::SIGSEGV, "limit `compiler` is 1GiB of memory, 1m of a processor, observed more"),
        ] {
            let limit = format!("refused: compile_limit: the component takes too much to compile: {limit}");
            assert!(judged(signal as i32, "").starts_with(&limit), "{}", judged(signal as i32, ""));
        }
    }

    #[test]
    fn what_the_table_says_of_compiling_is_what_holds() {
        let fixed = |name| dunlin_model::LimitRow::fixed(name).unwrap().number();
        assert_eq!(
            [fixed("compile_memory"), fixed("compile_time"), fixed("compiled_size")],
            [COMPILE_MEMORY.0, COMPILE_CPU.0, MAX_COMPILED]
        );
    }

    /// Has the script `does` stand for the compiler, and returns how that went.
    async fn compiled_by(does: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{does}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        loop {
            match compile_in_child(&program, None, false, (b"a component".to_vec(), Metering::Fuel.into()))
                .await
            {
                Ok(compiled) => return format!("{} bytes", compiled.len()),
                // A child of another test, started at this moment, still has the script open.
                Err(CompileError::Failed(reason)) if reason.contains("busy") => {}
                Err(CompileError::Refused(reason) | CompileError::Failed(reason)) => return reason,
            }
        }
    }

    #[tokio::test]
    async fn compilers_that_take_too_much_are_ended_and_the_limit_is_told() {
        let time = compiled_by("ulimit -S -t 1; while :; do :; done").await;
        assert!(time.contains("limit `compile_time` is 1m, observed more"), "{time}");
        let size = compiled_by("while echo 0123456789abcdef0123456789abcdef; do :; done").await;
        assert!(size.contains("limit `compiled_size` is 256MiB, observed more"), "{size}");
        assert_eq!(compiled_by("read component; echo done").await, "5 bytes");
    }
}
