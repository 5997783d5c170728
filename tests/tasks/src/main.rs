//! The chores of the project: `cargo x demo | test | bench | campaign | simulate | teeth | check | setup`.
//!
//! One file per chore, and `step`, through which all of them start programs. What a chore runs can be read off its
//! file and typed by hand; nothing is hidden here that cargo could not do.

mod check;
mod demo;
mod setup;
mod step;
mod toolchains;

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use crate::step::{Beside, Step, built};

/// The chores of the project.
#[derive(Parser)]
#[command(name = "cargo x", bin_name = "cargo x")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Adds what a fresh machine lacks: the target that guests are compiled to, and compilers of other languages.
    Setup,
    /// Runs all tests, optimised, as users would run the program.
    Test,
    /// Starts a fleet on this machine and shows what it does.
    Demo {
        /// End after one round instead of waiting to be interrupted.
        #[arg(long)]
        once: bool,
        /// Show three coordinators on three members of etcd, and the loss of each, one after the other.
        #[arg(long)]
        ha: bool,
    },
    /// Measures; see book/src/contributing/benchmarks.md for what each name means.
    Bench {
        /// What to measure, and options for it; everything if absent.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Lets real processes live through many faults; see book/src/contributing/testing.md for what each name means.
    Campaign {
        /// Which, and options for it: `kills --rounds 5000`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<String>,
    },
    /// Lets both brains live through many histories in a faulty world, or through one again.
    Simulate {
        /// How many histories, each with a seed of its own.
        #[arg(long, default_value_t = 2_000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// On how many threads; one for each processor if absent.
        #[arg(long)]
        threads: Option<usize>,
        /// Kinds of faults that do not happen, as a shrunk failure names them: `loss,lateness`.
        #[arg(long)]
        without: Option<String>,
        /// How many nodes a fleet has at most.
        #[arg(long)]
        nodes: Option<u64>,
    },
    /// Plants bugs in the program and sees whether the campaigns find them.
    Teeth {
        /// How many of them.
        #[arg(long, default_value_t = 15)]
        bugs: u64,
    },
    /// Runs what must pass beside the tests: format, lints, licences, documentation.
    Check,
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            step::say_failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> anyhow::Result<()> {
    match chore {
        Chore::Setup => {
            setup::setup()?;
            toolchains::install()
        }
        Chore::Test => {
            setup::setup()?;
            toolchains::install()?;
            test()
        }
        Chore::Teeth { bugs } => {
            setup::setup()?;
            toolchains::install()?;
            programs(&["dunlin-campaigns"]).run()?;
            teeth_of_campaigns(bugs, 3 * EACH_POINT)
        }
        Chore::Demo { ha: true, .. } => {
            setup::setup()?;
            toolchains::install()?;
            programs(&["dunlin", "dunlin-campaigns"]).run()?;
            let mut show = Command::new(step::program("dunlin-campaigns"));
            show.arg("show-coordinators");
            Step::new("several coordinators", show).streamed()
        }
        Chore::Demo { once, ha: false } => {
            setup::setup()?;
            programs(&["dunlin"]).run()?;
            Step::new("the guests", setup::guests(["build"])).run()?;
            demo::run(once)
        }
        Chore::Bench { arguments } => {
            setup::setup()?;
            programs(&["dunlin", "dunlin-bench"]).run()?;
            let mut bench = Command::new(step::program("dunlin-bench"));
            bench.args(arguments);
            Step::new("measures", bench).streamed()
        }
        Chore::Campaign { arguments } => {
            setup::setup()?;
            toolchains::install()?;
            programs(&["dunlin", "dunlin-campaigns"]).run()?;
            let mut campaign = Command::new(step::program("dunlin-campaigns"));
            campaign.args(arguments);
            Step::new("the campaign", campaign).streamed()
        }
        Chore::Simulate { seeds, from, threads, without, nodes } => {
            let simulation = built(["build", "--package", "dunlin-simulation"]);
            Step::new("the simulation", simulation).run()?;
            let mut simulate = Command::new(step::program("dunlin-simulation"));
            simulate.args(["--seeds", &seeds.to_string(), "--from", &from.to_string()]);
            let more = [
                ("--threads", threads.map(|it| it.to_string())),
                ("--without", without),
                ("--nodes", nodes.map(|it| it.to_string())),
            ];
            for (name, value) in more {
                simulate.args(value.into_iter().flat_map(|value| [name.to_owned(), value]));
            }
            Step::new("histories", simulate).streamed()
        }
        Chore::Check => check::check(),
    }
}

/// Runs all tests: those of the simulation, which need the processors and know no time, beside the others, which mostly
/// wait.
fn test() -> anyhow::Result<()> {
    Step::new("the tests are built", built(["test", "--workspace", "--no-run"])).streamed()?;
    let mut teeth_are_built = teeth();
    teeth_are_built.arg("--no-run");
    Step::new("the teeth of the simulation are built", teeth_are_built).streamed()?;
    let simulation = Beside::start("the simulation", &built(["test", "--workspace", "--test", "seeds"]))?;
    let teeth = Beside::start("the teeth of the simulation", &teeth())?;
    let others = ["test", "--workspace", "--exclude", "dunlin-simulation"];
    Step::new("all other tests", built(others)).streamed()?;
    Step::new("tests of the guest SDK", setup::sdk(["test"])).streamed()?;
    teeth_of_campaigns(5, EACH_POINT)?;
    simulation.end()?;
    teeth.end()
}

/// Tests whether the simulation finds what is planted. By itself, since what is tested beside it must have no such bugs.
fn teeth() -> Command {
    let feature = "planted-bugs";
    let mut teeth = built(["test", "--package", "dunlin-simulation", "--features", feature]);
    // And what the simulation has of unit tests.
    teeth.args(["--lib", "--bins", "--test", "teeth"]);
    teeth
}

/// How many rounds come to each fault point once.
const EACH_POINT: u64 = 23;

/// Tests whether the campaigns find so many planted bugs, with a program of its own that has them, and then what comes of
/// so many faults at the points that it has for that.
fn teeth_of_campaigns(bugs: u64, points_rounds: u64) -> anyhow::Result<()> {
    let build = built(["build", "--workspace", "--bin", "dunlin", "--features", "dunlin/planted-bugs"]);
    Step::new("the program with planted bugs", build).run()?;
    let (plain, planted) = (step::program("dunlin"), step::program("dunlin-planted"));
    std::fs::rename(&plain, &planted)?;
    // In its place again, so that nobody takes the one for the other.
    programs(&["dunlin"]).run()?;
    let mut campaigns = Command::new(step::program("dunlin-campaigns"));
    campaigns.args(["teeth", "--rounds", &bugs.to_string()]).env("DUNLIN_TEST_PROGRAM", &planted);
    Step::new("the teeth of the campaigns", campaigns).streamed()?;
    let mut points = Command::new(step::program("dunlin-campaigns"));
    points.args(["points", "--rounds", &points_rounds.to_string()]).env("DUNLIN_TEST_PROGRAM", planted);
    Step::new("the fault points of the program", points).streamed()
}

/// Builds programs out of the whole workspace, so that all of them share what they are built of. The tests bring
/// features of their own, and so are built of other copies of some crates.
fn programs(names: &[&str]) -> Step {
    let mut build = built(["build", "--workspace"]);
    for name in names {
        build.args(["--bin", name]);
    }
    Step::new("the program", build)
}
