//! One compiler process: fed, bounded in time and output, and judged by how it ended.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use dunlin_compiled::{CodeKind, Platform};
use dunlin_model::{CompileLimits, LimitHit, Metering};
use dunlin_planted::{Point, fails};
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
/// How often as long as a processor may work for it compiling one component may take, however busy the machine is.
const PATIENCE: u32 = 3;
/// How long the compiler may take to say for which platform it compiles.
const ANSWER_TIME: Duration = Duration::from_secs(180);

/// Returns for which platform `program` compiles.
pub(crate) async fn platform_of(program: &Path) -> Result<Platform, CompileError> {
    let failed = |reason: String| CompileError::Failed(format!("could not ask the compiler: {reason}"));
    let mut command = compiler(program);
    let output = tokio::time::timeout(ANSWER_TIME, command.arg("--platform").stdin(Stdio::null()).output())
        .await
        .map_err(|_| failed("it does not answer".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    said.trim().parse().map_err(|_| {
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        failed(format!("it ended with {} and said: {complaint}", output.status))
    })
}

/// How a compiler is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Child<'a> {
    /// The `dunlin` program.
    pub(super) program: &'a Path,
    /// The user that it becomes, if it may.
    pub(super) user: Option<u32>,
    /// Whether it ends where a part of the wall is missing.
    pub(super) required: bool,
    /// C1 to C4.
    pub(super) limits: &'a CompileLimits,
}

impl Child<'_> {
    /// Compiles `component` to code of this kind.
    pub(super) async fn compile(self, component: Vec<u8>, kind: CodeKind) -> Result<Vec<u8>, CompileError> {
        let mut child = fails(Point::CompileSpawn)
            .and_then(|()| self.command(kind).stdin(Stdio::piped()).spawn())
            .map_err(|error| CompileError::Failed(format!("could not start the compiler: {error}")))?;
        let mut stdin = child.stdin.take().expect("standard input was asked to be a pipe");
        let stdout = child.stdout.take().expect("standard output was asked to be a pipe");
        let stderr = child.stderr.take().expect("standard error was asked to be a pipe");
        let most = self.limits.compiled_size;

        let feed = async move {
            // A compiler that does not read to the end has failed; how, its exit tells.
            drop(stdin.write_all(&component).await);
        };
        let everything = async {
            let (_, compiled, complaint) =
                tokio::join!(feed, read(stdout, most.0), read(stderr, MAX_COMPLAINT));
            // Whoever writes more than is read would wait for ever.
            if compiled.len() as u64 > most.0 {
                return (None, compiled, complaint);
            }
            (Some(child.wait().await), compiled, complaint)
        };
        let patience = Duration::from(self.limits.compile_time).saturating_mul(PATIENCE);
        let Ok((status, compiled, complaint)) = tokio::time::timeout(patience, everything).await else {
            let value = format!("{} of a processor in {patience:?}", self.limits.compile_time);
            return Err(compile_limit(&LimitHit::new("compile_time", value, "more")));
        };
        match status {
            None => Err(compile_limit(&LimitHit::new("compiled_size", most, "more"))),
            Some(Err(error)) => {
                Err(CompileError::Failed(format!("could not wait for the compiler: {error}")))
            }
            Some(Ok(status)) => judge(status, self.limits, compiled, &complaint),
        }
    }

    fn command(self, kind: CodeKind) -> Command {
        let mut command = compiler(self.program);
        command.args(["--agent", &std::process::id().to_string()]);
        let metering = match kind.metering {
            Metering::Fuel => "fuel",
            Metering::Time => "time",
        };
        command.args(["--metering", metering]);
        if kind.wasi03 {
            command.arg("--wasi-0.3");
        }
        let limits = serde_json::to_string(self.limits).expect("limits have only string keys");
        command.args(["--limits", &limits]);
        if let Some(user) = self.user {
            command.args(["--user", &user.to_string()]);
        }
        if self.required {
            command.arg("--required");
        }
        command
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

fn judge(
    status: ExitStatus,
    limits: &CompileLimits,
    compiled: Vec<u8>,
    complaint: &[u8],
) -> Result<Vec<u8>, CompileError> {
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
            let CompileLimits { compile_memory: memory, compile_time: time, .. } = limits;
            let (limit, value) = match status.signal().and_then(|signal| Signal::try_from(signal).ok()) {
                Some(Signal::SIGXCPU) => ("compile_time", time.to_string()),
                Some(Signal::SIGABRT) => ("compile_memory", memory.to_string()),
                _ => ("compiler", format!("{memory} of memory, {time} of a processor")),
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
    use dunlin_model::{Bytes, DurationMs};

    use super::*;

    /// Not those that hold where nobody says anything.
    fn limits() -> CompileLimits {
        CompileLimits {
            compile_memory: Bytes(2 << 30),
            compile_time: DurationMs(90_000),
            compiled_size: Bytes(1 << 20),
            ..CompileLimits::default()
        }
    }

    fn judged(wait_status: i32, complaint: &str) -> String {
        let status = ExitStatus::from_raw(wait_status);
        match judge(status, &limits(), Vec::new(), complaint.as_bytes()) {
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
            (Signal::SIGXCPU, "limit `compile_time` is 90s, observed more"),
            (Signal::SIGABRT, "limit `compile_memory` is 2GiB, observed more"),
            (Signal::SIGSEGV, "limit `compiler` is 2GiB of memory, 90s of a processor, observed more"),
        ] {
            let limit = format!("refused: compile_limit: the component takes too much to compile: {limit}");
            assert!(judged(signal as i32, "").starts_with(&limit), "{}", judged(signal as i32, ""));
        }
    }

    /// Has the script `does` stand for the compiler, and returns how that went.
    async fn compiled_by(does: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{does}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        loop {
            let child = Child { program: &program, user: None, required: false, limits: &limits() };
            match child.compile(b"a component".to_vec(), Metering::Fuel.into()).await {
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
        assert!(time.contains("limit `compile_time` is 90s, observed more"), "{time}");
        let size = compiled_by("while echo 0123456789abcdef0123456789abcdef; do :; done").await;
        assert!(size.contains("limit `compiled_size` is 1MiB, observed more"), "{size}");
        assert_eq!(compiled_by("read component; echo done").await, "5 bytes");
        // It is told its limits, and binds itself to them.
        let told =
            compiled_by("read component; case \"$*\" in *'\"compile_memory\":2147483648'*) echo done; esac");
        assert_eq!(told.await, "5 bytes");
    }
}
