//! `dunlin upgrade`: the fleet's agents become another program, ring by ring.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, Subcommand};
use dunlin_api::{Client, StartUpgrade, UpgradeNodeState, UpgradeState, UpgradeStatus};
use dunlin_model::{Architecture, Digest, DurationMs, Program, UpgradePlan};

use crate::args::Global;
use crate::error::CommandError;
use crate::output::{Output, table};

/// How often it is asked how an upgrade stands.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Bring another version of Dunlin to the agents of all nodes, some at a time, and stop at the first trouble.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin upgrade start dunlin-x86_64 dunlin-aarch64 --wait")]
pub(crate) struct UpgradeArgs {
    #[command(subcommand)]
    pub(crate) command: UpgradeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UpgradeCommand {
    Start(StartArgs),
    Status(StatusArgs),
    Stop(StopArgs),
    Resume(ResumeArgs),
    Revert(RevertArgs),
}

/// Begin an upgrade: upload signed programs, and have agents become them, ring by ring.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin upgrade start dunlin-x86_64 --rings 10,100 --wait")]
pub(crate) struct StartArgs {
    /// Programs, one for each architecture of the fleet, each with its minisign signature beside it in `FILE.minisig`.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) programs: Vec<PathBuf>,
    /// How many of the nodes are to have it by the end of each ring, in per cent; one node at least.
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_value = "1,10,50,100")]
    pub(crate) rings: Vec<u8>,
    /// How many nodes become it at a time.
    #[arg(long, value_name = "NODES", default_value_t = UpgradePlan::default().at_once)]
    pub(crate) at_once: u32,
    /// How long the nodes of a ring must be well before the next one begins.
    #[arg(long, value_name = "TIME", default_value_t = UpgradePlan::default().bake)]
    pub(crate) bake: DurationMs,
    /// How long a node may take to become it.
    #[arg(long, value_name = "TIME", default_value_t = UpgradePlan::default().patience)]
    pub(crate) patience: DurationMs,
    /// Wait until all nodes have it, or it was stopped; then the exit code is 1.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait at most.
    #[arg(long, value_name = "TIME", requires = "wait")]
    pub(crate) timeout: Option<DurationMs>,
}

/// Show how the last upgrade stands, and what each node says.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin upgrade status")]
pub(crate) struct StatusArgs {}

/// Have no further node told; nodes that have it keep it.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin upgrade stop")]
pub(crate) struct StopArgs {}

/// Go on with an upgrade that was stopped; nodes that could not become it try again.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin upgrade resume")]
pub(crate) struct ResumeArgs {}

/// Have all agents become what they were before the last upgrade, in one ring.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin upgrade revert --yes")]
pub(crate) struct RevertArgs {
    /// Yes, it is meant.
    #[arg(long)]
    pub(crate) yes: bool,
}

pub(crate) async fn run(global: &Global, args: UpgradeArgs, output: &Output) -> Result<(), CommandError> {
    let failed = |what: &str, error| CommandError::client(what.to_owned(), &error);
    match args.command {
        UpgradeCommand::Start(args) => start(global, args, output).await,
        UpgradeCommand::Status(StatusArgs {}) => {
            let status = crate::client::connect(global)?.upgrade().await;
            let status = status.map_err(|error| failed("cannot tell how the upgrade stands", error))?;
            output.result(&status, || shown(&status))
        }
        UpgradeCommand::Stop(StopArgs {}) => {
            let status = crate::client::connect(global)?.stop_upgrade().await;
            let status = status.map_err(|error| failed("cannot stop the upgrade", error))?;
            output.result(&status, || shown(&status))
        }
        UpgradeCommand::Resume(ResumeArgs {}) => {
            let status = crate::client::connect(global)?.resume_upgrade().await;
            let status = status.map_err(|error| failed("cannot go on with the upgrade", error))?;
            output.result(&status, || shown(&status))
        }
        UpgradeCommand::Revert(RevertArgs { yes: false }) => {
            Err(CommandError::usage("the upgrade is not taken back".to_owned())
                .because("all agents become another program by that")
                .help("`dunlin upgrade revert --yes` does it"))
        }
        UpgradeCommand::Revert(RevertArgs { yes: true }) => {
            let status = crate::client::connect(global)?.revert_upgrade().await;
            let status = status.map_err(|error| failed("cannot take the upgrade back", error))?;
            output.result(&status, || shown(&status))
        }
    }
}

async fn start(global: &Global, args: StartArgs, output: &Output) -> Result<(), CommandError> {
    let StartArgs { programs: files, rings, at_once, bake, patience, wait, timeout } = args;
    let plan = UpgradePlan { rings, at_once, bake, patience };
    plan.check()
        .map_err(|reason| CommandError::usage("cannot begin the upgrade".to_owned()).because(reason))?;
    let client = crate::client::connect(global)?;
    let mut programs = BTreeMap::new();
    for path in files {
        let (architecture, program, bytes) = read(&path)?;
        let failed = |error| CommandError::client(format!("cannot upload {}", path.display()), &error);
        if !client.has_program(&program.digest).await.map_err(failed)? {
            client.upload_program(&program.digest, bytes, |_| {}).await.map_err(failed)?;
        }
        if programs.insert(architecture.clone(), program).is_some() {
            return Err(CommandError::usage("cannot begin the upgrade".to_owned())
                .because(format!("two of these programs are for {architecture}")));
        }
    }
    let begun = client.start_upgrade(&StartUpgrade { programs, plan }).await;
    let begun = begun.map_err(|error| CommandError::client("cannot begin the upgrade".to_owned(), &error))?;
    if !wait {
        return output.result(&begun, || shown(&begun));
    }
    let status = until_over(&client, begun.number, timeout).await?;
    if let UpgradeState::Stopped = status.state {
        return Err(CommandError::failed(format!("upgrade {} was stopped", status.number))
            .because(status.reason.unwrap_or_default())
            .help("`dunlin upgrade status` shows each node; `dunlin upgrade resume` tries again, `dunlin upgrade revert` \
                   takes it back from those that have it"));
    }
    output.result(&status, || shown(&status))
}

/// Waits until an upgrade is over or was stopped.
async fn until_over(
    client: &Client,
    number: u64,
    timeout: Option<DurationMs>,
) -> Result<UpgradeStatus, CommandError> {
    let end = timeout.map(|timeout| Instant::now() + Duration::from(timeout));
    loop {
        let status = client.upgrade().await;
        let status = status
            .map_err(|error| CommandError::client("cannot tell how the upgrade stands".to_owned(), &error))?;
        if status.number != number {
            return Err(CommandError::failed(format!("upgrade {number} is not the last one any more"))
                .because(format!("somebody has begun upgrade {}", status.number)));
        }
        if status.state != UpgradeState::Running {
            return Ok(status);
        }
        if end.is_some_and(|end| end <= Instant::now()) {
            let (done, all) = (status.done, status.nodes.len());
            return Err(CommandError::failed(format!("upgrade {number} goes on"))
                .because(format!("{done} of {all} nodes have it"))
                .help(
                    "`dunlin upgrade status` shows each node; `dunlin upgrade stop` has no further one told",
                ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Reads a program and its signature.
fn read(path: &Path) -> Result<(Architecture, Program, Bytes), CommandError> {
    let cannot = || CommandError::usage(format!("cannot use {} as a program", path.display()));
    let bytes = std::fs::read(path).map_err(|error| cannot().caused_by(&error))?;
    let architecture = architecture(&bytes).ok_or_else(|| {
        cannot()
            .because("it is no program for Linux on a processor that Dunlin knows")
            .help("name the file of a `dunlin` program, as `cargo build --release` makes it")
    })?;
    let beside = PathBuf::from(format!("{}.minisig", path.display()));
    let signature = std::fs::read_to_string(&beside).map_err(|error| {
        cannot()
            .because(format!("its signature {}: {error}", beside.display()))
            .help(format!("sign it with a key that the nodes know: `minisign -S -m {}`", path.display()))
    })?;
    let digest = Digest::of(&bytes);
    Ok((architecture, Program { digest, signature }, bytes.into()))
}

/// Returns what processor a program is for, as its ELF header says.
fn architecture(program: &[u8]) -> Option<Architecture> {
    let machine: [u8; 2] = program.get(18..20)?.try_into().ok()?;
    if program.get(..4)? != b"\x7fELF" {
        return None;
    }
    let name = match (program[5], u16::from_le_bytes(machine), u16::from_be_bytes(machine)) {
        (1, 0x3e, _) => "x86_64",
        (1, 0xb7, _) => "aarch64",
        (1, 0xf3, _) => "riscv64",
        (2, _, 0x16) => "s390x",
        _ => return None,
    };
    name.parse().ok()
}

fn shown(status: &UpgradeStatus) -> String {
    let UpgradeStatus { number, state, reason, programs, plan, ring, started_ms: _, done, nodes } = status;
    let taking = nodes.iter().filter(|node| node.state != UpgradeNodeState::Apart).count();
    let what = match programs.is_empty() {
        true => "to what is installed".to_owned(),
        false => {
            let programs = programs.iter().map(|(name, digest)| format!("{name} {}", short(digest)));
            format!("to {}", programs.collect::<Vec<_>>().join(", "))
        }
    };
    let stands = match state {
        UpgradeState::Running => format!("ring {ring} of {}", plan.rings.len()),
        UpgradeState::Stopped => format!("stopped: {}", reason.as_deref().unwrap_or_default()),
        UpgradeState::Done => "done".to_owned(),
    };
    let rows = nodes.iter().map(|node| {
        let state = match node.state {
            UpgradeNodeState::Done => "done",
            UpgradeNodeState::Told => "told",
            UpgradeNodeState::Failed => "failed",
            UpgradeNodeState::Waiting => "waiting",
            UpgradeNodeState::Apart => "apart",
        };
        let program = node.program.as_ref().map_or_else(|| "installed".to_owned(), short);
        vec![
            node.node.to_string(),
            state.to_owned(),
            node.version.clone(),
            program,
            node.reason.clone().unwrap_or_default(),
        ]
    });
    let table = table(&["NODE", "STATE", "VERSION", "PROGRAM", "WHY"], rows.collect());
    format!("upgrade {number} {what}: {stands}; {done} of {taking} nodes have it\n{table}")
}

fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_says_what_it_is_for() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(architecture(&own), Some(Architecture::own()));
        for other in [&b"#!/bin/sh\nexec dunlin\n"[..], b"\x7fELF", b""] {
            assert_eq!(architecture(other), None);
        }
    }
}
