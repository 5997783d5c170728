//! `dunlin stop`: an app runs no more, but stays known.

use clap::Args;
use serde_json::json;

use crate::args::Global;
use crate::error::CommandError;
use crate::names;
use crate::output::Output;

/// Stop an app; a deploy starts it again.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin stop shop")]
pub(crate) struct StopArgs {
    /// `app` or `namespace/app`.
    pub(crate) app: String,
}

pub(crate) async fn run(global: &Global, args: StopArgs, output: &Output) -> Result<(), CommandError> {
    let name = names::app(&args.app, global.namespace.as_ref())?;
    let client = crate::client::connect(global)?;
    client
        .stop_app(&name)
        .await
        .map_err(|error| CommandError::client(format!("cannot stop `{name}`"), &error))?;
    output.result(&json!({ "app": name, "stopped": true }), || {
        format!("`{name}` is stopped; `dunlin deploy` starts it again\n")
    })
}
