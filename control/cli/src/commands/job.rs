//! `dunlin job`: runs of jobs, from their start to the record of each item.

mod inputs;
mod jobs;
mod pace;
mod show;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use dunlin_api::{Client, RunStarted, RunState, RunStatus, RunsQuery, StartRun};
use dunlin_model::{DurationMs, JobInput, Manifest, RunId, WorkloadName};
use serde_json::json;
use tokio::time::Instant;

pub(crate) use self::inputs::send_inputs;
use self::pace::{Pace, Watch};

use super::deploy::find_manifest;
use crate::args::Global;
use crate::error::CommandError;
use crate::names;
use crate::output::Output;

const POLL: Duration = Duration::from_millis(250);

/// Run jobs and see what became of them.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin job run word-count --input 'texts/*.md' --wait")]
pub(crate) struct JobArgs {
    #[command(subcommand)]
    pub(crate) command: JobCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    Run(RunArgs),
    List(jobs::ListArgs),
    Status(StatusArgs),
    Result(ResultArgs),
    Cancel(CancelArgs),
}

/// Start a run of a job.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin job run word-count --input 'texts/*.md' --wait")]
pub(crate) struct RunArgs {
    /// `job`, `app/job` or `namespace/app/job`.
    pub(crate) job: String,
    /// So many items, each knowing only its number.
    #[arg(long, conflicts_with = "input", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(dunlin_model::MAX_ITEMS)))]
    pub(crate) items: Option<u32>,
    /// One item for each file which matches, or `-` for one item that reads standard input; what the manifest says if
    /// neither is given.
    #[arg(long, num_args = 1.., value_name = "GLOB")]
    pub(crate) input: Vec<String>,
    /// A variable beside those of the manifest, or in place of one of them; may be given several times.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) environment: Vec<(String, String)>,
    /// Wait until the run has ended.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Wait, and say now and then how far it has come, also where there is no terminal.
    #[arg(long)]
    pub(crate) follow: bool,
    /// How long to wait; without end if absent. The run goes on after it.
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<DurationMs>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Show how runs stand.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin job status r3")]
pub(crate) struct StatusArgs {
    /// Which, like `r3`; all if absent.
    pub(crate) run: Option<RunId>,
    /// Wait until it has ended, and say now and then how far it has come.
    #[arg(long, requires = "run")]
    pub(crate) follow: bool,
}

/// Print what a run gave.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin job result r3")]
pub(crate) struct ResultArgs {
    /// Which, like `r3`.
    pub(crate) run: RunId,
    /// One line per item, also if there is a combined output or but one item.
    #[arg(long)]
    pub(crate) items: bool,
    /// The whole output of this item alone, which counts from 0.
    #[arg(long, value_name = "N", conflicts_with = "items")]
    pub(crate) item: Option<u32>,
    /// Print control characters as they are, also on a terminal.
    #[arg(long)]
    pub(crate) raw: bool,
}

/// Cancel a run; the records of its items stay.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin job cancel r3")]
pub(crate) struct CancelArgs {
    /// Which, like `r3`.
    pub(crate) run: RunId,
}

/// What a run works on, with the folder to which patterns are relative.
#[derive(Debug, Default)]
struct RunInput {
    /// How many items, or which files; what the fleet knows of the job if absent.
    input: Option<JobInput>,
    /// Where the files are.
    folder: PathBuf,
}

pub(crate) async fn run(global: &Global, args: JobArgs, output: &Output) -> Result<(), CommandError> {
    match args.command {
        JobCommand::Run(args) => start(global, args, output).await,
        JobCommand::List(args) => jobs::list(global, &args, output).await,
        JobCommand::Status(args) => status(global, args, output).await,
        JobCommand::Result(args) => {
            let client = crate::client::connect(global)?;
            show::result(&client, &args, output).await
        }
        JobCommand::Cancel(CancelArgs { run }) => {
            let client = crate::client::connect(global)?;
            client
                .cancel_run(run)
                .await
                .map_err(|error| CommandError::client(format!("cannot cancel {run}"), &error))?;
            output.result(&json!({ "run": run, "cancelled": true }), || format!("{run} is cancelled\n"))
        }
    }
}

async fn start(global: &Global, args: RunArgs, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    let manifest = find_manifest()?;
    let job = resolve(&client, global, &args.job, manifest.as_ref().map(|(manifest, _)| manifest)).await?;
    let input = input(&args, &job, manifest);
    let environment = args.environment.into_iter().collect();
    let RunStarted { run, after } = start_run(&client, &job, &input, environment, output).await?;
    let waits = match after.as_slice() {
        [] => String::new(),
        after => {
            format!(", after {}", after.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "))
        }
    };
    if !(args.wait || args.follow || args.timeout.is_some()) {
        return output.result(&json!({ "run": run, "job": job, "after": after }), || {
            format!("{run} of `{job}` is started{waits}; `dunlin job status {run}` shows how it stands\n")
        });
    }
    output.note(&format!("{run} of `{job}` is started{waits}"));
    let watch = Watch { follow: args.follow, timeout: args.timeout.map(Duration::from) };
    let status = wait_for_run(&client, run, watch, output).await?;
    output.result(&status, || show::ended(&status))?;
    show::success(&status)
}

async fn resolve(
    client: &Client,
    global: &Global,
    text: &str,
    manifest: Option<&Manifest>,
) -> Result<WorkloadName, CommandError> {
    // Most often the manifest at hand names it, and the fleet need not be asked.
    if let Ok(name) = names::job(text, global.namespace.as_ref(), manifest, &[]) {
        return Ok(name);
    }
    let apps = client.apps().await;
    let apps = apps.map_err(|error| CommandError::client(format!("cannot look up `{text}`"), &error))?.apps;
    names::job(text, global.namespace.as_ref(), manifest, &apps)
}

/// Returns what is said here of what a run is to work on.
fn input(args: &RunArgs, job: &WorkloadName, manifest: Option<(Manifest, PathBuf)>) -> RunInput {
    if let Some(items) = args.items {
        return RunInput { input: Some(JobInput::Count(items)), folder: PathBuf::new() };
    }
    if !args.input.is_empty() {
        return RunInput { input: Some(JobInput::Files(args.input.clone())), folder: PathBuf::new() };
    }
    let written =
        manifest.filter(|(manifest, _)| manifest.app == job.app).and_then(|(mut manifest, folder)| {
            let input = manifest.workloads.remove(&job.workload)?.input?;
            Some(RunInput { input: Some(input), folder })
        });
    written.unwrap_or_default()
}

/// Starts a run; files are sent first.
async fn start_run(
    client: &Client,
    job: &WorkloadName,
    input: &RunInput,
    environment: BTreeMap<String, String>,
    output: &Output,
) -> Result<RunStarted, CommandError> {
    let start = StartRun { environment, ..StartRun::default() };
    let start = match &input.input {
        None => start,
        Some(JobInput::Count(items)) => StartRun { items: Some(*items), ..start },
        Some(JobInput::Files(patterns)) if *patterns == ["-"] => {
            StartRun { inputs: Some(inputs::send_standard_input(client).await?), ..start }
        }
        Some(JobInput::Files(patterns)) => {
            let folder = if input.folder.as_os_str().is_empty() { Path::new(".") } else { &input.folder };
            let (inputs, _) = send_inputs(client, folder, patterns, output).await?;
            StartRun { inputs: Some(inputs), ..start }
        }
    };
    client.start_run(&job.app_name(), &job.workload, &start).await.map_err(|error| {
        if error.problem().is_some_and(|problem| problem.code == "nothing_to_work_on") {
            return CommandError::usage(format!("cannot tell what a run of `{job}` should work on"))
                .because("neither its manifest nor a dunlin.toml in this folder says it")
                .help("say `--items 10`, or `--input 'texts/*.md'` for one item per file");
        }
        CommandError::client(format!("cannot run `{job}`"), &error)
    })
}

/// Returns how a run ended.
async fn wait_for_run(
    client: &Client,
    run: RunId,
    watch: Watch,
    output: &Output,
) -> Result<RunStatus, CommandError> {
    let began = Instant::now();
    let bar = output.progress_in_words();
    let mut pace = Pace::default();
    loop {
        let status = client
            .run(run)
            .await
            .map_err(|error| CommandError::client(format!("cannot tell how {run} stands"), &error))?;
        if status.state.is_ended() {
            bar.finish();
            return Ok(status);
        }
        pace.note(began.elapsed(), status.recorded);
        let words = pace.words(&status);
        bar.say(u64::from(status.recorded), u64::from(status.items), &words);
        if watch.follow && !bar.is_seen() && pace.is_worth_a_line(began.elapsed(), &status) {
            output.note(&words);
        }
        if watch.timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
            bar.finish();
            return Err(show::not_ended(&status));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn status(global: &Global, args: StatusArgs, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    if let Some(run) = args.run {
        let status = match args.follow {
            true => wait_for_run(&client, run, Watch { follow: true, timeout: None }, output).await?,
            false => client
                .run(run)
                .await
                .map_err(|error| CommandError::client(format!("cannot show {run}"), &error))?,
        };
        return output.result(&status, || show::one(&status));
    }
    let mut list = client
        .runs(&RunsQuery::default())
        .await
        .map_err(|error| CommandError::client("cannot list the runs", &error))?;
    if let Some(namespace) = &global.namespace {
        list.runs.retain(|run| run.workload.namespace == *namespace);
    }
    output.result(&list, || show::all(&list.runs))
}

/// Tells whether a run did what it was started for.
fn is_completed(status: &RunStatus) -> bool {
    status.state == RunState::Completed
}
