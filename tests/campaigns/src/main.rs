//! `dunlin-campaigns NAME --rounds N`: one campaign, as long as wanted. `cargo x campaign` starts it.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};

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
    /// Loss of coordinators and of members of etcd, killed or paused (T6).
    Coordinators,
    /// The loss of each coordinator and each member of etcd, one after the other, told step by step.
    ShowCoordinators,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _nobody_listens = writeln!(io::stderr(), "error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let started = Instant::now();
    let runtime = tokio::runtime::Runtime::new()?;
    let Arguments { rounds, seed, .. } = *arguments;
    let report = match arguments.campaign {
        Campaign::Kills => runtime.block_on(dunlin_campaigns::kills(rounds, seed)),
        Campaign::Coordinators => runtime.block_on(dunlin_campaigns::coordinators(rounds, seed)),
        Campaign::ShowCoordinators => runtime.block_on(dunlin_campaigns::show_coordinators(|step| {
            let _nobody_listens = writeln!(io::stdout(), "--- {step}");
        })),
    };
    let (seed, seconds) = (arguments.seed, started.elapsed().as_secs());
    writeln!(io::stdout(), "{}seed {seed}, {seconds} s", report?)?;
    Ok(())
}
