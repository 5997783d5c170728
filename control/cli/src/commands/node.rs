//! `dunlin node`: what operators say of nodes, from "nothing new goes there" to "what lost nodes ran is replaced now".
//!
//! Not here: the list of nodes (`nodes`).

mod drain;

use clap::{Args, Subcommand};
use dunlin_api::{BrakeReleased, CordonNode, HeldZone};
use dunlin_model::{DurationMs, NodeId};

use crate::args::Global;
use crate::error::CommandError;
use crate::output::Output;

/// Keep work away from nodes, or let it be replaced.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin node drain node-2 --wait")]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    pub(crate) command: NodeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    Cordon(CordonArgs),
    Drain(DrainArgs),
    Uncordon(UncordonArgs),
    Release(ReleaseArgs),
    Approve(ApproveArgs),
    Revoke(RevokeArgs),
    Remove(RemoveArgs),
}

/// Let nothing new go to a node; what runs there goes on, and a drain ends.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin node cordon node-2")]
pub(crate) struct CordonArgs {
    /// Which.
    pub(crate) node: NodeId,
}

/// Cordon a node and let what runs there move to others.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin node drain node-2 --deadline 30m --wait")]
pub(crate) struct DrainArgs {
    /// Which.
    pub(crate) node: NodeId,
    /// How long what runs there may take to leave; then it is ended.
    #[arg(long, default_value = "10m", value_name = "TIME")]
    pub(crate) deadline: DurationMs,
    /// Wait until nothing is left, and say what is; fails if something had to be ended.
    #[arg(long)]
    pub(crate) wait: bool,
}

/// Let a node be used as any other again.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin node uncordon node-2")]
pub(crate) struct UncordonArgs {
    /// Which.
    pub(crate) node: NodeId,
}

/// Let what lost nodes ran be replaced now, though many were lost at once.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin node release")]
pub(crate) struct ReleaseArgs {}

/// Let a machine become a node that waits for it: it has joined with a token that wants approval.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin node approve edge-7")]
pub(crate) struct ApproveArgs {
    /// Which.
    pub(crate) node: NodeId,
}

/// Take a node off the list that is lost, revoked or never came; or send a machine away that waits to become one.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin node remove node-2 --yes")]
pub(crate) struct RemoveArgs {
    /// Which.
    pub(crate) node: NodeId,
    /// Yes, it is meant.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Cut a node off for good, and let what it runs be replaced at once: for a machine that was stolen or given away.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin node revoke node-2 --yes")]
pub(crate) struct RevokeArgs {
    /// Which.
    pub(crate) node: NodeId,
    /// Yes, it is meant.
    #[arg(long)]
    pub(crate) yes: bool,
}

pub(crate) async fn run(global: &Global, args: NodeArgs, output: &Output) -> Result<(), CommandError> {
    match args.command {
        NodeCommand::Cordon(args) => cordon(global, &args.node, output).await,
        NodeCommand::Drain(args) => drain::run(global, &args, output).await,
        NodeCommand::Uncordon(args) => uncordon(global, &args.node, output).await,
        NodeCommand::Release(ReleaseArgs {}) => release(global, output).await,
        NodeCommand::Approve(args) => approve(global, &args.node, output).await,
        NodeCommand::Remove(args) => remove(global, args, output).await,
        NodeCommand::Revoke(args) => revoke(global, args, output).await,
    }
}

async fn cordon(global: &Global, node: &NodeId, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    let status = client
        .cordon_node(node, &CordonNode { drain_ms: None })
        .await
        .map_err(|error| CommandError::client(format!("cannot cordon `{node}`"), &error))?;
    output.result(&status, || {
        let stays = match status.allocations {
            0 => "it runs nothing".to_owned(),
            1 => "its 1 allocation goes on".to_owned(),
            allocations => format!("its {allocations} allocations go on"),
        };
        format!("nothing new goes to `{node}` until `dunlin node uncordon {node}`; {stays}\n")
    })
}

async fn uncordon(global: &Global, node: &NodeId, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    let status = client
        .uncordon_node(node)
        .await
        .map_err(|error| CommandError::client(format!("cannot uncordon `{node}`"), &error))?;
    output.result(&status, || format!("`{node}` is used as any other node\n"))
}

async fn approve(global: &Global, node: &NodeId, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    client
        .approve_node(node)
        .await
        .map_err(|error| CommandError::client(format!("cannot approve `{node}`"), &error))?;
    output.result(&serde_json::json!({ "node": node }), || {
        format!("`{node}` is a node as soon as its agent asks again, which takes a few seconds\n")
    })
}

async fn remove(
    global: &Global,
    RemoveArgs { node, yes }: RemoveArgs,
    output: &Output,
) -> Result<(), CommandError> {
    if !yes {
        return Err(CommandError::usage(format!("`{node}` is not removed"))
            .because("a node that was removed is never let in again with the key that it has")
            .help(format!("`dunlin node remove {node} --yes` does it")));
    }
    let client = crate::client::connect(global)?;
    client
        .remove_node(&node)
        .await
        .map_err(|error| CommandError::client(format!("cannot remove `{node}`"), &error))?;
    output.result(&serde_json::json!({ "node": node }), || format!("`{node}` is off the list\n"))
}

async fn revoke(
    global: &Global,
    RevokeArgs { node, yes }: RevokeArgs,
    output: &Output,
) -> Result<(), CommandError> {
    if !yes {
        let help = format!(
            "`dunlin node revoke {node} --yes` does it; `dunlin node drain {node}` moves its work and leaves it a member"
        );
        return Err(CommandError::usage(format!("`{node}` is not revoked"))
            .because("a node that was revoked is never let in again with the key that it has")
            .help(help));
    }
    let client = crate::client::connect(global)?;
    let status = client
        .revoke_node(&node)
        .await
        .map_err(|error| CommandError::client(format!("cannot revoke `{node}`"), &error))?;
    output.result(&status, || format!("`{node}` is cut off, and what it ran is replaced\n"))
}

async fn release(global: &Global, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    let released = client
        .release_brake()
        .await
        .map_err(|error| CommandError::client("cannot release the brake", &error))?;
    output.result(&released, || released_text(&released))
}

fn released_text(released: &BrakeReleased) -> String {
    let zones: Vec<String> = released.held_zones.iter().map(held).collect();
    let were = match zones.len() {
        0 => "no zone was held".to_owned(),
        1 => format!("a zone was held: {}", zones.join("; ")),
        count => format!("{count} zones were held: {}", zones.join("; ")),
    };
    match released.nodes {
        0 => format!("nothing waits to be replaced; {were}\n"),
        1 => format!("what 1 lost node ran is replaced now; {were}\n"),
        nodes => format!("what {nodes} lost nodes ran is replaced now; {were}\n"),
    }
}

/// Says which zone is held, and why.
pub(crate) fn held(held: &HeldZone) -> String {
    let HeldZone { zone, lost, nodes } = held;
    let name = if zone.is_empty() { "the nodes without a zone".to_owned() } else { format!("zone `{zone}`") };
    format!("{name} with {lost} of {nodes} nodes lost")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_zones_that_were_held_are_told() {
        let zone = |zone: &str| HeldZone { zone: zone.to_owned(), lost: 4, nodes: 10 };
        let mut lines = released_text(&BrakeReleased { held_zones: Vec::new(), nodes: 0 });
        lines += &released_text(&BrakeReleased { held_zones: Vec::new(), nodes: 1 });
        lines += &released_text(&BrakeReleased { held_zones: vec![zone("")], nodes: 4 });
        lines += &released_text(&BrakeReleased { held_zones: vec![zone("a"), zone("b")], nodes: 8 });
        expect![[r#"
            nothing waits to be replaced; no zone was held
            what 1 lost node ran is replaced now; no zone was held
            what 4 lost nodes ran is replaced now; a zone was held: the nodes without a zone with 4 of 10 nodes lost
            what 8 lost nodes ran is replaced now; 2 zones were held: zone `a` with 4 of 10 nodes lost; zone `b` with 4 of 10 nodes lost
        "#]]
        .assert_eq(&lines);
    }
}
