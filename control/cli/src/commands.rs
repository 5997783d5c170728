//! The commands, one file each, and which of them answers.

pub(crate) mod alone;
pub(crate) mod artifact;
pub(crate) mod backup;
pub(crate) mod build;
pub(crate) mod completions;
pub(crate) mod context;
pub(crate) mod delete;
pub(crate) mod deploy;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod forecast;
pub(crate) mod inspect;
pub(crate) mod job;
pub(crate) mod logs;
pub(crate) mod migrate;
pub(crate) mod namespace;
pub(crate) mod new;
pub(crate) mod next_program;
pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod plan;
pub(crate) mod processes;
pub(crate) mod rollout;
pub(crate) mod run;
pub(crate) mod secret;
pub(crate) mod serve;
pub(crate) mod shared;
pub(crate) mod sign;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod test;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod upgrade;

use crate::args::{Cli, Command};
use crate::error::CommandError;
use crate::output::Output;

/// Carries out what was asked.
pub(crate) fn run(cli: Cli, output: &Output) -> Result<(), CommandError> {
    let Cli { global, command } = cli;
    match command {
        Command::Up(args) => block_on(up::run(&global, args, output)),
        Command::Run(args) => end(block_on(run::run(args, output))?),
        Command::Serve(args) => serve::serve(args, output),
        Command::New(args) => new::run(args, output),
        Command::Build(args) => block_on(build::run(&global, args, output)),
        Command::Test(args) => block_on(test::run(&global, args, output)),
        Command::Inspect(args) => inspect::run(args, output),
        Command::Completions(args) => completions::completions(args, output),
        Command::Man(args) => completions::man(args, output),
        Command::Sign(args) => block_on(sign::run(&global, args, output)),
        Command::Push(args) => block_on(artifact::push(&global, args, output)),
        Command::Pull(args) => block_on(artifact::pull(args, output)),
        Command::Install(args) => block_on(artifact::install(&global, args, output)),
        Command::Deploy(args) => match args.plan() {
            Some(args) => end(block_on(plan::run(&global, args, output))?),
            None => block_on(deploy::run(&global, args, output)),
        },
        Command::Plan(args) => end(block_on(plan::run(&global, args, output))?),
        Command::Simulate(args) => block_on(simulate::run(&global, args, output)),
        Command::Status(args) => block_on(status::run(&global, args, output)),
        Command::Nodes(args) => block_on(nodes::run(&global, args, output)),
        Command::Node(args) => block_on(node::run(&global, args, output)),
        Command::Namespace(args) => block_on(namespace::run(&global, args, output)),
        Command::Explain(args) => block_on(explain::run(&global, args, output)),
        Command::Logs(args) => block_on(logs::run(&global, args, output)),
        Command::Job(args) => block_on(job::run(&global, args, output)),
        Command::History(args) => block_on(rollout::history(&global, args, output)),
        Command::Rollback(args) => block_on(rollout::rollback(&global, args, output)),
        Command::Promote(args) => block_on(rollout::promote(&global, args, output)),
        Command::Stop(args) => block_on(stop::run(&global, args, output)),
        Command::Delete(args) => block_on(delete::run(&global, args, output)),
        Command::Backup(args) => block_on(backup::backup(&global, args, output)),
        Command::Recover(args) => block_on(backup::recover(&global, args, output)),
        Command::Restore(args) => backup::restore(args, output),
        Command::MigrateStore(args) => migrate::migrate_store(args, output),
        Command::Upgrade(args) => block_on(upgrade::run(&global, args, output)),
        Command::Secret(args) => block_on(secret::run(&global, args, output)),
        Command::Login(args) => block_on(context::login(&global, args, output)),
        Command::Context(args) => context::run(args, output),
        Command::Token(args) => block_on(token::run(&global, args, output)),
        Command::Coordinator(args) => processes::coordinator(args),
        Command::Agent(args) => processes::agent(args, output),
        Command::Doctor(args) => block_on(doctor::run(args, output)),
        Command::Worker(args) => processes::worker(args, output),
        Command::CompileComponent(args) => processes::compile_component(args, output),
        Command::Calibrate => processes::calibrate(output),
    }
}

/// Ends the program with a code of the command's own.
fn end(code: u8) -> Result<(), CommandError> {
    match code {
        0 => Ok(()),
        code => std::process::exit(i32::from(code)),
    }
}

/// Runs a command which only asks a coordinator; one thread is enough for that. Those which become a process of the
/// fleet make a runtime of their own.
fn block_on<T>(command: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        CommandError::failed("cannot start").caused_by(&error).help("is this machine out of memory or files?")
    })?;
    runtime.block_on(command)
}
