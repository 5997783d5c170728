//! `dunlin run`: one component once, in the sandbox of a fleet's nodes, with the caller's own standard streams.
//!
//! Standard output is the guest's alone; what this command has to say goes to standard error. The worker holds neither
//! the caller's terminal nor his files: its output goes into pipes that are emptied here, and of the input it gets
//! only what can be read and nothing else, as it is, so that it consumes no more than it reads.

use std::fs::File;
use std::io::{self, IsTerminal as _, PipeReader, Read as _, Write};
use std::os::fd::{AsFd as _, OwnedFd};

use clap::Args;
use dunlin_agent::{Solo, SoloEnd, SoloError, SoloStreams};
use dunlin_model::{JobSpec, LogRecord, LogSource, Outcome, WorkloadKind};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::alone::{Intent, Prepared, SandboxArgs, show_logs, source, take_dump};
use super::processes::{Stop, failed, start_quiet_log};
use crate::error::CommandError;
use crate::output::Output;

/// The exit code of who is ended by Ctrl-C.
const INTERRUPTED: u8 = 130;
/// The most bytes of all arguments; they travel in one message.
const MAX_ARGUMENTS: usize = 1 << 20;
/// With this the host begins to say how an item ended, which is told at the end of this command.
const ENDED: &str = "item ended: ";

/// Run one component once, without a fleet.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin run word-count.wasm --fuel 1G -- README.md <README.md")]
#[command(
    after_help = "Exit codes: the guest's own (0 or 1), 121 out of fuel, 122 out of memory, 123 another limit, \
                        124 deadline exceeded, 134 trapped; 1 could not be run, 2 wrong usage."
)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    sandbox: SandboxArgs,
    /// Its arguments.
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// Runs the component and returns the exit code.
pub(crate) async fn run(args: RunArgs, output: &Output) -> Result<u8, CommandError> {
    let RunArgs { sandbox, arguments } = args;
    let size: usize = arguments.iter().map(String::len).sum();
    if size > MAX_ARGUMENTS {
        return Err(CommandError::usage("cannot give the guest so many arguments")
            .because(format!("limit `arguments` is {MAX_ARGUMENTS} bytes, observed {size}"))
            .help("put them into a file, and let the guest read it from standard input"));
    }
    let job = JobSpec { attempts: 1, ..JobSpec::default() };
    let prepared = sandbox.prepare(Intent::Run, WorkloadKind::Job(job), start_quiet_log())?;
    let cannot = |error: anyhow::Error| failed(&format!("cannot run {}", prepared.label()), &error);
    let mut stop = Stop::new().map_err(cannot)?;
    let (streams, emptied) = streams().map_err(|error| cannot(error.into()))?;
    let started = tokio::select! {
        started = Solo::start(prepared.config.clone(), prepared.guest.clone()) => started,
        () = stop.asked() => return Ok(INTERRUPTED),
    };
    let mut solo = started.map_err(|error| prepared.not_started(&error))?;
    let done = CancellationToken::new();
    let logs = tokio::spawn(show_logs(solo.logs(), done.clone(), output.clone(), shown()));
    let ended = tokio::select! {
        ended = solo.run(arguments, streams) => Some(ended),
        () = stop.asked() => None,
    };
    // Its end of the pipes is closed at the latest with it.
    solo.end_now().await;
    let is_emptied = async {
        for emptied in emptied {
            drop(emptied.await);
        }
    };
    let all = tokio::select! {
        () = is_emptied => true,
        () = stop.asked() => false,
    };
    done.cancel();
    drop(logs.await);
    match ended {
        Some(ended) if all => told(&prepared, ended, output),
        Some(_) | None => Ok(INTERRUPTED),
    }
}

/// Says how the guest ended, and returns the exit code.
fn told(prepared: &Prepared, ended: Result<SoloEnd, SoloError>, output: &Output) -> Result<u8, CommandError> {
    let SoloEnd { outcome, fuel, memory, wall, host, coredump } =
        ended.map_err(|error| prepared.not_started(&error))?;
    match (coredump, &prepared.coredump) {
        (Some(Ok(from)), Some(to)) => take_dump(&from, to, output),
        (Some(Err(reason)), _) => output.note(&format!("no core dump was made: {reason}")),
        _ => {}
    }
    let summary = json!({
        "outcome": outcome, "fuel": fuel, "memory": memory, "wall_ms": wall, "host": host,
    });
    output.line_to_stderr(&summary, || {
        let outcome = match &outcome {
            Outcome::Exited { code } => format!("Exited with {code}"),
            outcome => outcome.name().to_owned(),
        };
        Some(format!("{outcome}: {fuel} fuel burned, at most {memory} of memory, {wall}"))
    });
    if !outcome.is_completed() {
        for line in prepared.ungranted() {
            output.note(&line);
        }
    }
    let label = prepared.label();
    let stopped = |code, help: String| {
        let (_, why) = outcome.to_string().split_once(": ").map_or_else(
            || (String::new(), outcome.to_string()),
            |(name, why)| (name.to_owned(), why.to_owned()),
        );
        Err(CommandError::ended(code, format!("`{label}` ended as {}", outcome.name()))
            .because(why)
            .help(help))
    };
    let limits = &prepared.guest.spec.limits;
    match &outcome {
        Outcome::Completed => Ok(0),
        Outcome::Exited { code } => Ok(*code),
        Outcome::Cancelled => Ok(INTERRUPTED),
        Outcome::OutOfFuel { .. } => stopped(
            121,
            format!(
                "does it compute for ever? if not, give it more: `--fuel {}`",
                limits.fuel.plus(limits.fuel)
            ),
        ),
        Outcome::OutOfMemory { .. } => {
            stopped(122, format!("give it more: `--memory {}`", limits.memory.plus(limits.memory)))
        }
        Outcome::LimitExceeded { .. } => stopped(
            123,
            "the book's page on limits says what this one binds; a manifest can raise most of them"
                .to_owned(),
        ),
        Outcome::DeadlineExceeded { .. } => {
            stopped(124, format!("give it more: `--deadline {}`", limits.deadline.plus(limits.deadline)))
        }
        Outcome::Trapped { .. } => {
            let fault = "the guest is at fault; built with debug information, its stack names lines";
            stopped(134, prepared.instead().unwrap_or_else(|| fault.to_owned()))
        }
        Outcome::NotStarted { .. } | Outcome::Unknown { .. } => {
            stopped(1, "DUNLIN_LOG=info shows what was done".to_owned())
        }
    }
}

/// Returns what makes the line of a record: of what the host says, how the item ended is left out.
fn shown() -> impl FnMut(&LogRecord) -> Option<String> + Send {
    let mut is_ended = false;
    move |record| {
        is_ended |= record.source == LogSource::Host && record.text.starts_with(ENDED);
        let is_shown = record.source != LogSource::Host || !is_ended;
        is_shown.then(|| format!("{}: {}", source(record.source), record.text))
    }
}

/// Returns the streams for the guest, and what is told when its two outputs have come to their ends.
fn streams() -> io::Result<(SoloStreams, [oneshot::Receiver<()>; 2])> {
    let (out, stdout) = io::pipe()?;
    let (err, stderr) = io::pipe()?;
    let emptied = [
        empty(out, io::stdout().as_fd().try_clone_to_owned()?)?,
        empty(err, io::stderr().as_fd().try_clone_to_owned()?)?,
    ];
    Ok((SoloStreams { stdin: input()?, stdout: stdout.into(), stderr: stderr.into() }, emptied))
}

/// Returns what the guest reads. What is no more than readable it gets as it is; a terminal, and what could also be
/// written to, it does not get itself.
fn input() -> io::Result<OwnedFd> {
    let own = io::stdin().as_fd().try_clone_to_owned()?;
    let flags = OFlag::from_bits_truncate(fcntl(&own, FcntlArg::F_GETFL)?);
    if !own.is_terminal() && flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
        return Ok(own);
    }
    let (reader, mut writer) = io::pipe()?;
    // It may wait for a key for ever, and ends with the process.
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let _nobody_reads = io::copy(&mut File::from(own), &mut writer);
    })?;
    Ok(reader.into())
}

/// Brings what comes out of `pipe` to `to`, at once. When nobody takes it any more, the guest learns of that.
fn empty(mut pipe: PipeReader, to: OwnedFd) -> io::Result<oneshot::Receiver<()>> {
    let (end, ended) = oneshot::channel();
    let mut to = File::from(to);
    std::thread::Builder::new().name("output".to_owned()).spawn(move || {
        let mut room = vec![0; 64 << 10];
        loop {
            match pipe.read(&mut room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(read @ 1..) => {
                    if to.write_all(&room[..read]).is_err() {
                        break;
                    }
                }
                Ok(0) | Err(_) => break,
            }
        }
        drop(pipe);
        let _nobody_waits = end.send(());
    })?;
    Ok(ended)
}
