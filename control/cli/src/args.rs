//! What may be asked on the command line.
//!
//! The options of one command stand beside it, in `commands`; here is what all have in common.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use dunlin_model::Name;

use crate::commands::{
    artifact, backup, build, completions, context, delete, deploy, doctor, explain, inspect, job, logs,
    migrate, namespace, new, node, nodes, plan, processes, rollout, run, secret, serve, sign, simulate,
    status, stop, test, token, up, upgrade,
};

/// Runs WebAssembly services and jobs on a fleet of machines.
#[derive(Debug, Parser)]
#[command(name = "dunlin", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(before_help = "Example: dunlin new service hello && cd hello && dunlin up .")]
#[command(after_help = "Exit codes: 0 done, 1 could not be done, 2 wrong usage, 3 coordinator not reached.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads the command line of this process, or ends the process with what is wrong with it.
    ///
    /// That is code 2, but for a plan, of which 2 says that something would change.
    pub(crate) fn of_process() -> Self {
        let words: Vec<OsString> = std::env::args_os().collect();
        Self::try_parse_from(&words).unwrap_or_else(|error| {
            let code = if error.exit_code() != 0 && plans(&words) { 1 } else { error.exit_code() };
            // There is nobody left to tell that standard error is closed.
            drop(error.print());
            std::process::exit(code)
        })
    }
}

/// Tells whether a command line, right or wrong, asks for a plan.
fn plans(words: &[OsString]) -> bool {
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(words);
    matches.is_ok_and(|matches| match matches.subcommand() {
        Some(("plan", _)) => true,
        // Of a line that is wrong not even a flag has its default.
        Some(("deploy", deploy)) => matches!(deploy.try_get_one::<bool>("plan"), Ok(Some(true))),
        _ => false,
    })
}

/// What all commands have in common.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// The coordinator's address, like https://127.0.0.1:7401.
    #[arg(long, global = true, env = "DUNLIN_COORDINATOR", value_name = "URL")]
    pub(crate) coordinator: Option<String>,
    /// The file with the token.
    #[arg(long, global = true, env = "DUNLIN_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The file with the certificate of the fleet's authority, PEM.
    #[arg(long, global = true, env = "DUNLIN_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The fleet: a name that `dunlin login` was given, or a file that `dunlin up` has written.
    #[arg(long, global = true, env = "DUNLIN_CONTEXT", value_name = "NAME|FILE")]
    pub(crate) context: Option<PathBuf>,
    /// The namespace, where a name does not say it.
    #[arg(long, global = true, env = "DUNLIN_NAMESPACE", value_name = "NAME")]
    pub(crate) namespace: Option<Name>,
    /// For people or for programs.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Format,
    /// Say nothing but the result.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences.
    #[default]
    Table,
    /// JSON, one value; one per line where there is no end.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    New(new::NewArgs),
    Build(build::BuildArgs),
    Up(up::UpArgs),
    Run(run::RunArgs),
    Serve(serve::ServeArgs),
    Test(test::TestArgs),
    Inspect(inspect::InspectArgs),
    Deploy(deploy::DeployArgs),
    Sign(sign::SignArgs),
    Push(artifact::PushArgs),
    Pull(artifact::PullArgs),
    Install(artifact::InstallArgs),
    Plan(plan::PlanArgs),
    Simulate(simulate::SimulateArgs),
    Status(status::StatusArgs),
    Nodes(nodes::NodesArgs),
    Node(node::NodeArgs),
    Namespace(namespace::NamespaceArgs),
    Logs(logs::LogsArgs),
    Explain(explain::ExplainArgs),
    Job(job::JobArgs),
    History(rollout::HistoryArgs),
    Rollback(rollout::RollbackArgs),
    Promote(rollout::PromoteArgs),
    Stop(stop::StopArgs),
    Delete(delete::DeleteArgs),
    Secret(secret::SecretArgs),
    Upgrade(upgrade::UpgradeArgs),
    Login(context::LoginArgs),
    Context(context::ContextArgs),
    Token(token::TokenArgs),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    MigrateStore(migrate::MigrateStoreArgs),
    Recover(backup::RecoverArgs),
    Coordinator(processes::CoordinatorArgs),
    Agent(processes::AgentArgs),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
    #[command(hide = true)]
    Worker(processes::WorkerArgs),
    #[command(hide = true)]
    CompileComponent(processes::CompileArgs),
    /// Measure this machine's fuel rate.
    #[command(hide = true, before_help = "Example: dunlin calibrate")]
    Calibrate,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_book_shows_is_understood() {
        for line in [
            "dunlin new",
            "dunlin new service hello",
            "dunlin build shop --output json",
            "dunlin inspect hello.wasm",
            "dunlin test",
            "dunlin test shop greets --no-build --output json",
            "dunlin push hello.wasm ghcr.io/team/hello:1.0.0",
            "dunlin push . localhost:5000/shop --no-build",
            "dunlin pull oci://ghcr.io/team/hello:1.0.0 hello.wasm",
            "dunlin install ghcr.io/team/shop:1 --set greeting=hello --set web.colour=red --no-wait",
            "dunlin login north --coordinator https://10.0.0.1:7401 --ca-file ca.pem --token-file token",
            "dunlin context",
            "dunlin context use north",
            "dunlin --context north status",
            "dunlin context delete north --yes",
            "dunlin completions zsh",
            "dunlin up . --watch",
            "dunlin man pages",
            "dunlin deploy",
            "dunlin deploy guests/examples/quickstart --no-build --timeout 90s",
            "dunlin deploy --no-wait --output json",
            "dunlin deploy --plan",
            "dunlin plan guests/examples/quickstart --no-build --output json",
            "dunlin simulate --lose-zone b --lose-node node-1 --load x1.5 --within 30m",
            "dunlin simulate --fleet fleet.toml --deploy shop --scale shop/cart=5 --drain-node a-1",
            "dunlin simulate --snapshot-out fleet.json",
            "dunlin --namespace team-a status shop",
            "dunlin nodes --quiet",
            "dunlin node cordon node-2",
            "dunlin node drain node-2",
            "dunlin node drain node-2 --deadline 30m --wait --output json",
            "dunlin node uncordon node-2",
            "dunlin node release",
            "dunlin namespace list",
            "dunlin namespace show team-a",
            "dunlin namespace set team-a --memory 4GiB --fuel-rate 2G/s --allocations 100",
            "dunlin namespace set team-a --items none --weight 3 --packing pack",
            "dunlin logs shop -f --tail 10 --raw",
            "dunlin logs shop --traps",
            "dunlin explain a12.3 --output json",
            "dunlin explain a12",
            "dunlin explain shop/cart --output json",
            "dunlin job run word-count --items 10 --wait",
            "dunlin job run shop/sum --input a/*.md --input b/*.md",
            "dunlin job run shop/sum --input a b c",
            "dunlin job run shop/sum --input - --env COLOUR=red --env SIZE=3 --follow",
            "dunlin job run shop/sum --wait --timeout 5m",
            "dunlin job list",
            "dunlin job status r3 --follow",
            "dunlin job status",
            "dunlin job status r3",
            "dunlin job result r3 --items",
            "dunlin job cancel r3",
            "dunlin history shop",
            "dunlin rollback shop",
            "dunlin rollback team-a/shop --to 3 --output json",
            "dunlin promote shop",
            "dunlin stop shop",
            "dunlin delete shop --yes",
            "dunlin secret set DATABASE_URL",
            "dunlin secret set team-a/DATABASE_URL --file url.txt --output json",
            "dunlin --namespace team-a secret list",
            "dunlin secret delete DATABASE_URL --yes",
            "dunlin token create --lifetime 2h --uses 3",
            "dunlin doctor --output json",
            "dunlin run word-count.wasm --fuel 1G --quiet -- a --b",
            "dunlin run a.wasm --folder /data=. --folder /out=.:rw --scratch /tmp --env A=b --config c=d",
            "dunlin serve hello.wasm --addr 127.0.0.1:0 --reuse --allow-http https://a.example",
            "dunlin run a.wasm --allow-socket db.example.com:5432 --allow-socket [::1]:80 --allow-address ::1",
        ] {
            assert!(parsed(line).is_ok(), "{line}: {}", parsed(line).unwrap_err());
        }
    }

    #[test]
    fn what_contradicts_itself_is_wrong_usage() {
        for line in [
            "dunlin",
            "dunlin fly",
            "dunlin deploy --timeout 5",
            "dunlin deploy --plan --no-wait",
            "dunlin simulate --fleet a --snapshot-out b",
            "dunlin simulate --load 2",
            "dunlin simulate --scale shop/cart",
            "dunlin job run sum --items 3 --input a",
            "dunlin job run sum --env COLOUR",
            "dunlin job status --follow",
            "dunlin job status 3",
            "dunlin explain a/b/c/d",
            "dunlin logs --traps --follow",
            "dunlin secret set",
            "dunlin token create --uses 0",
            "dunlin rollback shop --to last",
            "dunlin push hello.wasm hello:1",
            "dunlin install ghcr.io/team/shop:1 --set greeting",
            "dunlin login No_Name",
            "dunlin node drain",
            "dunlin node drain Node_2",
            "dunlin node drain node-2 --deadline 10",
            "dunlin namespace set team-a",
            "dunlin namespace set team-a --memory much",
            "dunlin namespace set team-a --allocations -1",
            "dunlin namespace set team-a --packing tight",
            "dunlin namespace set Team_A --weight 3",
            "dunlin run",
            "dunlin run a.wasm --fuel much",
            "dunlin run a.wasm --folder /data",
            "dunlin serve a.wasm -- argument",
            "dunlin --namespace Team_A nodes",
        ] {
            assert_eq!(parsed(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_plan_is_known_also_where_its_command_line_is_wrong() {
        let plans = |line: &str| plans(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        for line in
            ["dunlin plan --fly", "dunlin --output xml plan", "dunlin plan a b", "dunlin deploy --plan --fly"]
        {
            assert!(plans(line), "{line}");
        }
        for line in ["dunlin deploy --fly", "dunlin stop plan --fly", "dunlin"] {
            assert!(!plans(line), "{line}");
        }
    }

    #[test]
    fn of_a_line_that_is_wrong_it_is_known_whether_it_asks_for_a_plan() {
        let asks = |line: &str| plans(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        assert!(asks("dunlin plan --fly") && asks("dunlin deploy --plan --no-wait"));
        assert!(!asks("dunlin deploy --timeout 5") && !asks("dunlin fly") && !asks("dunlin"));
    }

    #[test]
    fn every_help_begins_with_an_example() {
        fn check(command: &mut clap::Command) {
            let help = command.render_help().to_string();
            let first = help.lines().next().unwrap_or_default();
            // An example may set a variable before the program's name.
            let is_example = first.starts_with("Example: ") && first.contains("dunlin ");
            assert!(is_example, "{}: {help}", command.get_name());
            for inner in command.get_subcommands_mut() {
                check(inner);
            }
        }
        check(&mut Cli::command());
    }
}
