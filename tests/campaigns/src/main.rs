//! `dunlin-campaigns NAME --rounds N`: one campaign, as long as wanted. `cargo x campaign` starts it.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use dunlin_harness::Network;

/// Faults, many of them, on real processes.
#[derive(Parser)]
#[command(name = "dunlin-campaigns")]
struct Arguments {
    /// Which.
    campaign: Campaign,
    /// How many faults.
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// From what they follow.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Campaign {
    /// `kill -9` of coordinator, agent and worker (T4).
    Kills,
    /// One system call that fails, or that its process does not survive (T5). Wants `strace`.
    Faults,
    /// The program ends, fails or stands still at one of its fault points. `cargo x teeth` builds a program with them.
    Points,
    /// One bit that is not as it was written, in any file of a coordinator or an agent (T5).
    Flips,
    /// Power that is cut again and again while the coordinator is away (T7).
    Reboots,
    /// New revisions, drains, new programs and killed agents, over which no request may fail (T8).
    Updates,
    /// A thousand agents whose coordinator is killed.
    Crowd,
    /// Loss of coordinators and of members of etcd, killed or paused (T6).
    Coordinators,
    /// Networks that are cut, one way or both, for a moment or for long (T6). Wants network namespaces.
    Partitions,
    /// Whether the others find planted bugs: as many of them as rounds. `cargo x teeth` runs it.
    Teeth,
    /// The loss of each coordinator and each member of etcd, one after the other, told step by step.
    ShowCoordinators,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            let _nobody_listens = writeln!(io::stderr(), "error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if matches!(arguments.campaign, Campaign::Partitions) && !Network::is_of_its_own() {
        return in_a_network_of_its_own();
    }
    let started = Instant::now();
    let runtime = tokio::runtime::Runtime::new()?;
    let Arguments { rounds, seed, .. } = *arguments;
    let report = match arguments.campaign {
        Campaign::Kills => runtime.block_on(dunlin_campaigns::kills(rounds, seed)),
        Campaign::Faults => runtime.block_on(dunlin_campaigns::faults(rounds, seed)),
        Campaign::Points => runtime.block_on(dunlin_campaigns::points(rounds, seed)),
        Campaign::Flips => runtime.block_on(dunlin_campaigns::flips(rounds, seed)),
        Campaign::Reboots => runtime.block_on(dunlin_campaigns::reboots(rounds, seed)),
        Campaign::Updates => runtime.block_on(dunlin_campaigns::updates(rounds, seed)),
        Campaign::Crowd => runtime.block_on(dunlin_campaigns::crowd(rounds, seed)),
        Campaign::Coordinators => runtime.block_on(dunlin_campaigns::coordinators(rounds, seed)),
        Campaign::Partitions => runtime.block_on(dunlin_campaigns::partitions(rounds, seed)),
        Campaign::Teeth => dunlin_campaigns::teeth(rounds, seed),
        Campaign::ShowCoordinators => runtime.block_on(dunlin_campaigns::show_coordinators(|step| {
            let _nobody_listens = writeln!(io::stdout(), "--- {step}");
        })),
    };
    let (seed, seconds) = (arguments.seed, started.elapsed().as_secs());
    writeln!(io::stdout(), "{}seed {seed}, {seconds} s", report?)?;
    Ok(ExitCode::SUCCESS)
}

/// Starts this program once more, as it was started, in a network that nobody else is in.
fn in_a_network_of_its_own() -> anyhow::Result<ExitCode> {
    if !Network::can_be_made() {
        writeln!(io::stdout(), "skipped: this user may make no network namespaces here; root may")?;
        return Ok(ExitCode::SUCCESS);
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let program = std::env::current_exe()?.display().to_string();
    let status = Network::of_its_own(&[vec![program], words].concat()).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
