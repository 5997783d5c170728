//! `dunlin deploy`: from a folder with a `dunlin.toml` to an app that runs.
//!
//! Three steps, each of use alone: [`build()`] makes and reads the components, [`submit`] sends what the coordinator
//! lacks and the specs, [`wait`] looks on until every service runs.

mod build;
mod gather;
mod signed;
mod wait;
mod wrap;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dunlin_api::{AppStatus, Client, Deployed, RolloutStatus};
use dunlin_model::{AppName, AppSpec, DurationMs, Name, Revision, Want, WorkloadKind};
use serde::Serialize;

pub(crate) use self::build::{
    Built, SIGN_PASSWORD, build, find_manifest, manifest_text, read_guest, read_manifest,
};
pub(crate) use self::gather::{Place, gather};
pub(crate) use self::signed::signature_files;
pub(crate) use self::wrap::{refusal_help, wrapped};
use super::job::send_inputs;
use super::plan::PlanArgs;
use crate::args::Global;
use crate::error::CommandError;
use crate::output::{Output, escaped};

/// Build an app and bring it into the fleet.
#[derive(Clone, Debug, Args)]
#[command(before_help = "Example: dunlin deploy guests/examples/quickstart")]
pub(crate) struct DeployArgs {
    /// The folder of the app, or its manifest.
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// Take the components as they are; do not run `[build] command`.
    #[arg(long)]
    pub(crate) no_build: bool,
    #[command(flatten)]
    pub(crate) how: DeployHow,
    /// Only show what would change, as `dunlin plan` does.
    #[arg(long, conflicts_with_all = ["accept", "no_wait", "timeout"])]
    pub(crate) plan: bool,
}

/// What is accepted of a deploy, and how long it is looked on.
#[derive(Clone, Debug, Args)]
pub(crate) struct DeployHow {
    /// Accept what it newly wants, where the namespace asks: `dunlin plan` shows it.
    #[arg(long)]
    pub(crate) accept: bool,
    /// Do not wait until all services run.
    #[arg(long, conflicts_with = "timeout")]
    pub(crate) no_wait: bool,
    /// How long to wait until all services run.
    #[arg(long, default_value = "60s", value_name = "TIME")]
    pub(crate) timeout: DurationMs,
}

impl DeployArgs {
    /// Returns what is to be planned, if that is all that is wanted.
    pub(crate) fn plan(&self) -> Option<PlanArgs> {
        self.plan.then(|| PlanArgs { path: self.path.clone(), no_build: self.no_build })
    }
}

/// What a deploy came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeployResult {
    /// Which app.
    pub(crate) app: AppName,
    /// Its revision from now on.
    pub(crate) revision: Revision,
    /// Whether this deploy made it.
    pub(crate) changed: bool,
    /// What its workloads may do or have now and could not before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) wants: Vec<Want>,
    /// How it stands after the wait; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<AppStatus>,
}

pub(crate) async fn run(global: &Global, args: DeployArgs, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    let result = build_and_deploy(&client, &args, global.namespace.as_ref(), output).await?;
    show(&result, output)
}

/// Says what a deploy came to.
pub(crate) fn show(result: &DeployResult, output: &Output) -> Result<(), CommandError> {
    output.result(result, || {
        let DeployResult { app, revision, changed, wants, status } = result;
        let change = if *changed { "" } else { ", nothing changed" };
        let mut text = format!("`{app}` is deployed as revision {revision}{change}\n");
        text.push_str(&wanted(wants, "it newly has"));
        if let Some(status) = status {
            text.push_str(&super::status::workloads(status));
            if status.rollout.as_ref().is_some_and(RolloutStatus::waits_for_a_person) {
                text.push_str(&format!(
                    "\nits canaries run: `dunlin promote {app}` lets all follow, `dunlin rollback {app}` takes them back\n"
                ));
            } else if status.rollout.is_some() && *changed {
                text.push_str(&format!(
                    "\nit is still watched, and taken back if it fails: `dunlin history {app}` shows what became of it\n"
                ));
            }
        }
        text
    })
}

/// Says what is newly wanted; nothing if that is nothing.
pub(super) fn wanted(wants: &[Want], what: &str) -> String {
    if wants.is_empty() {
        return String::new();
    }
    let lines = wants.iter().map(|want| format!("  {}\n", escaped(&want.to_string())));
    format!("{what}:\n{}", lines.collect::<String>())
}

/// Builds an app, brings it into the fleet, and waits as `args` say.
pub(crate) async fn build_and_deploy(
    client: &Client,
    args: &DeployArgs,
    namespace: Option<&Name>,
    output: &Output,
) -> Result<DeployResult, CommandError> {
    let built = build(&args.path, !args.no_build, namespace, output).await?;
    bring(client, &built, &args.how, output).await
}

/// Brings an app into the fleet, and waits.
pub(crate) async fn bring(
    client: &Client,
    built: &Built,
    how: &DeployHow,
    output: &Output,
) -> Result<DeployResult, CommandError> {
    let Deployed { revision, changed, wants } = submit(client, built, how.accept, output).await?;
    let app = built.spec.name.clone();
    let status = if how.no_wait {
        None
    } else {
        let timeout = Duration::from(how.timeout);
        Some(wait::until_running(client, &app, revision, timeout, output).await?)
    };
    Ok(DeployResult { app, revision, changed, wants, status })
}

/// Sends the inputs of jobs whose runs nobody may be there to start; returns the spec that names them.
pub(super) async fn with_inputs(
    client: &Client,
    built: &Built,
    output: &Output,
) -> Result<AppSpec, CommandError> {
    let mut spec = built.spec.clone();
    signed::note_stale(&spec, output);
    for (name, patterns) in &built.inputs {
        let (list, count) = send_inputs(client, &built.folder, patterns, output).await?;
        if let Some(WorkloadKind::Job(job)) = spec.workloads.get_mut(name).map(|it| &mut it.kind) {
            (job.inputs, job.items) = (Some(list), Some(count));
        }
    }
    Ok(spec)
}

/// Sends the components which the coordinator lacks, then the specs.
pub(crate) async fn submit(
    client: &Client,
    built: &Built,
    accept: bool,
    output: &Output,
) -> Result<Deployed, CommandError> {
    let name = &built.spec.name;
    for component in &built.components {
        let digest = &component.digest;
        let failed = |error| {
            CommandError::client(format!("cannot send {} for `{name}`", component.path.display()), &error)
        };
        if client.has_component(digest).await.map_err(failed)? {
            continue;
        }
        let length = component.bytes.len() as u64;
        let progress = output.progress_of_bytes(&format!("sending {}", component.label()), length);
        let bar = progress.clone();
        let sent = client.upload_component(digest, component.bytes.clone(), move |sent| bar.set(sent)).await;
        progress.finish();
        sent.map_err(failed)?;
    }
    let spec = with_inputs(client, built, output).await?;
    let deployed = if accept { client.deploy_accepted(&spec).await } else { client.deploy(&spec).await };
    deployed.map_err(|error| CommandError::client(format!("cannot deploy `{name}`"), &error))
}
