//! `dunlin job`: runs of jobs, from their start to the record of each item.

mod inputs;
mod show;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use dunlin_api::{Client, RunState, RunStatus, RunsQuery, StartRun};
use dunlin_model::{DurationMs, JobInput, Manifest, RunId, WorkloadName};
use serde_json::json;
use tokio::time::Instant;

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
    /// One item for each file which matches; what the manifest says if neither is given.
    #[arg(long, num_args = 1.., value_name = "GLOB")]
    pub(crate) input: Vec<String>,
    /// Wait until the run has ended.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait; without end if absent. The run goes on after it.
    #[arg(long, requires = "wait", value_name = "TIME")]
    pub(crate) timeout: Option<DurationMs>,
}

/// Show how runs stand.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin job status r3")]
pub(crate) struct StatusArgs {
    /// Which, like `r3`; all if absent.
    pub(crate) run: Option<RunId>,
}

/// Print what a run gave.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin job result r3")]
pub(crate) struct ResultArgs {
    /// Which, like `r3`.
    pub(crate) run: RunId,
    /// One line per item, also if there is a combined output.
    #[arg(long)]
    pub(crate) items: bool,
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
#[derive(Debug)]
pub(crate) struct RunInput {
    /// How many items, or which files.
    pub(crate) input: JobInput,
    /// Where the files are.
    pub(crate) folder: PathBuf,
}

pub(crate) async fn run(global: &Global, args: JobArgs, output: &Output) -> Result<(), CommandError> {
    match args.command {
        JobCommand::Run(args) => start(global, args, output).await,
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
    let input = input(&args, &job, manifest)?;
    let run = start_run(&client, &job, &input, output).await?;
    if !args.wait {
        return output.result(&json!({ "run": run, "job": job }), || {
            format!("{run} of `{job}` is started; `dunlin job status {run}` shows how it stands\n")
        });
    }
    output.note(&format!("{run} of `{job}` is started"));
    let status = wait_for_run(&client, run, args.timeout.map(Duration::from), output).await?;
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

fn input(
    args: &RunArgs,
    job: &WorkloadName,
    manifest: Option<(Manifest, PathBuf)>,
) -> Result<RunInput, CommandError> {
    if let Some(items) = args.items {
        return Ok(RunInput { input: JobInput::Count(items), folder: PathBuf::new() });
    }
    if !args.input.is_empty() {
        return Ok(RunInput { input: JobInput::Files(args.input.clone()), folder: PathBuf::new() });
    }
    let written =
        manifest.filter(|(manifest, _)| manifest.app == job.app).and_then(|(mut manifest, folder)| {
            let input = manifest.workloads.remove(&job.workload)?.input?;
            Some(RunInput { input, folder })
        });
    written.ok_or_else(|| {
        CommandError::usage(format!("cannot tell what a run of `{job}` should work on"))
            .because("there is no dunlin.toml in this folder which says it")
            .help("say `--items 10`, or `--input 'texts/*.md'` for one item per file")
    })
}

/// Starts a run; files are sent first.
pub(crate) async fn start_run(
    client: &Client,
    job: &WorkloadName,
    input: &RunInput,
    output: &Output,
) -> Result<RunId, CommandError> {
    let start = match &input.input {
        JobInput::Count(items) => StartRun { items: Some(*items), inputs: None },
        JobInput::Files(patterns) => {
            let folder = if input.folder.as_os_str().is_empty() { Path::new(".") } else { &input.folder };
            let inputs = inputs::send(client, folder, patterns, output).await?;
            StartRun { items: None, inputs: Some(inputs) }
        }
    };
    let started = client.start_run(&job.app_name(), &job.workload, &start).await;
    Ok(started.map_err(|error| CommandError::client(format!("cannot run `{job}`"), &error))?.run)
}

/// Returns how a run ended.
pub(crate) async fn wait_for_run(
    client: &Client,
    run: RunId,
    timeout: Option<Duration>,
    output: &Output,
) -> Result<RunStatus, CommandError> {
    let began = Instant::now();
    let bar = output.progress_of_count(&format!("running {run}"), 0);
    loop {
        let status = client
            .run(run)
            .await
            .map_err(|error| CommandError::client(format!("cannot tell how {run} stands"), &error))?;
        if status.state.is_ended() {
            bar.finish();
            return Ok(status);
        }
        bar.set_of(u64::from(status.recorded), u64::from(status.items));
        if timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
            bar.finish();
            return Err(show::not_ended(&status));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn status(global: &Global, args: StatusArgs, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    if let Some(run) = args.run {
        let status = client
            .run(run)
            .await
            .map_err(|error| CommandError::client(format!("cannot show {run}"), &error))?;
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
