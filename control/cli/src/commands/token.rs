//! `dunlin token`: what a new machine needs to become a node.

use clap::{Args, Subcommand};
use dunlin_api::CreateJoinToken;
use dunlin_model::DurationMs;

use crate::args::Global;
use crate::error::CommandError;
use crate::output::Output;
use crate::time::utc;

/// Make tokens with which nodes join.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin token create --lifetime 1h --uses 3")]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    Create(CreateArgs),
}

/// Make a token with which nodes join; it is shown once.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin token create --lifetime 1h --uses 3")]
pub(crate) struct CreateArgs {
    /// How long it may be used.
    #[arg(long, default_value = "1h", value_name = "TIME")]
    pub(crate) lifetime: DurationMs,
    /// How many nodes may join with it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub(crate) uses: u32,
    /// Nodes that join with it wait until an operator approves them: `dunlin node approve`.
    #[arg(long)]
    pub(crate) approval: bool,
}

pub(crate) async fn run(global: &Global, args: TokenArgs, output: &Output) -> Result<(), CommandError> {
    let TokenCommand::Create(CreateArgs { lifetime, uses, approval }) = args.command;
    let client = crate::client::connect(global)?;
    let wish = CreateJoinToken { lifetime_ms: Some(lifetime), uses: Some(uses), approval };
    let created = client
        .create_join_token(&wish)
        .await
        .map_err(|error| CommandError::client("cannot create a token", &error))?;
    let then = if approval { ", and waits for `dunlin node approve`" } else { "" };
    let nodes = if uses == 1 { "one node".to_owned() } else { format!("{uses} nodes") };
    output.note(&format!("{nodes} may join with it until {}{then}; keep it secret", utc(created.expires_ms)));
    output.result(&created, || format!("{}\n", created.token))
}
