//! `dunlin history`, `rollback` and `promote`: the revisions of an app, the way back, and the end of canaries.

use clap::Args;
use dunlin_api::{RevisionList, RevisionStatus};
use dunlin_model::Revision;
use serde_json::json;

use crate::args::Global;
use crate::error::CommandError;
use crate::names;
use crate::output::{Output, table};
use crate::time::utc;

/// Show the revisions of an app that are kept, and what became of each.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin history shop")]
pub(crate) struct HistoryArgs {
    /// `app` or `namespace/app`.
    pub(crate) app: String,
}

/// Make an earlier revision of an app the newest again.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin rollback shop --to 3")]
pub(crate) struct RollbackArgs {
    /// `app` or `namespace/app`.
    pub(crate) app: String,
    /// Which revision; the last that was well if absent.
    #[arg(long, value_name = "REVISION")]
    pub(crate) to: Option<u64>,
}

/// Let all allocations of an app follow its canaries.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin promote shop")]
pub(crate) struct PromoteArgs {
    /// `app` or `namespace/app`.
    pub(crate) app: String,
}

pub(crate) async fn history(global: &Global, args: HistoryArgs, output: &Output) -> Result<(), CommandError> {
    let name = names::app(&args.app, global.namespace.as_ref())?;
    let client = crate::client::connect(global)?;
    let list = client
        .revisions(&name)
        .await
        .map_err(|error| CommandError::client(format!("cannot show the revisions of `{name}`"), &error))?;
    output.result(&list, || shown(&list))
}

pub(crate) async fn rollback(
    global: &Global,
    args: RollbackArgs,
    output: &Output,
) -> Result<(), CommandError> {
    let name = names::app(&args.app, global.namespace.as_ref())?;
    let client = crate::client::connect(global)?;
    let deployed = client
        .rollback(&name, args.to.map(Revision))
        .await
        .map_err(|error| CommandError::client(format!("cannot roll `{name}` back"), &error))?;
    output.result(&json!({ "app": name, "revision": deployed.revision, "changed": deployed.changed }), || {
        if deployed.changed {
            format!(
                "`{name}` is as it was, under revision {}; `dunlin status {name}` shows it come\n",
                deployed.revision
            )
        } else {
            format!("`{name}` is so already: revision {}\n", deployed.revision)
        }
    })
}

pub(crate) async fn promote(global: &Global, args: PromoteArgs, output: &Output) -> Result<(), CommandError> {
    let name = names::app(&args.app, global.namespace.as_ref())?;
    let client = crate::client::connect(global)?;
    client
        .promote(&name)
        .await
        .map_err(|error| CommandError::client(format!("cannot promote the canaries of `{name}`"), &error))?;
    output.result(&json!({ "app": name, "promoted": true }), || {
        format!("all allocations of `{name}` follow its canaries\n")
    })
}

fn shown(list: &RevisionList) -> String {
    let rows = list.revisions.iter().map(|revision| {
        let RevisionStatus { revision, deployed, state, reason, restores } = revision;
        let restores = restores.map(|restored| format!("restores {restored}")).unwrap_or_default();
        let reason = reason.clone().unwrap_or_default();
        vec![revision.to_string(), utc(*deployed), state.name().to_owned(), restores, reason]
    });
    table(&["REVISION", "DEPLOYED", "STATE", "", "REASON"], rows.collect())
}
