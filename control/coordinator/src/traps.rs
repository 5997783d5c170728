//! What is known of instances that ended badly, pulled from the nodes that ran them. The coordinator keeps none.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dunlin_api::TrapList;
use dunlin_model::{InstanceId, NodeId, TrapOnNode, TrapRecord};
use dunlin_protocol::{StreamReply, StreamRequest, TrapQuery};
use dunlin_transport::{Connection, Stream};
use tokio::task::JoinSet;

use crate::fleet::Fleet;

/// How long all nodes together may take to tell.
const TELL_TIME: Duration = Duration::from_secs(10);
/// How many bytes of records are told at most, as JSON.
const MAX_BYTES: usize = 16 << 20;

/// Asks `nodes` and returns the latest of what they tell.
pub(crate) async fn gather(fleet: &Arc<Fleet>, nodes: Vec<NodeId>, query: TrapQuery) -> TrapList {
    let mut list = TrapList::default();
    let mut asked = JoinSet::new();
    let tail = usize::try_from(query.tail).unwrap_or(usize::MAX);
    for node in nodes {
        let Some(connection) = fleet.connection(&node) else {
            list.unheard.push(node);
            continue;
        };
        let query = query.clone();
        asked.spawn(async move {
            let told = tokio::time::timeout(TELL_TIME, pull(connection, query)).await;
            (node, told.context("the node did not tell in time").flatten())
        });
    }
    while let Some(Ok((node, told))) = asked.join_next().await {
        match told {
            Ok(traps) => {
                list.traps.extend(traps.into_iter().map(|trap| TrapOnNode { node: node.clone(), trap }));
                // Fleets are large: never more is held than one answer needs.
                keep_latest(&mut list.traps, tail);
            }
            Err(error) => {
                tracing::debug!(%node, error = &*error as &dyn std::error::Error, "traps of a node not heard");
                list.unheard.push(node);
            }
        }
    }
    list.unheard.sort();
    list
}

/// Drops all but the latest `tail`, and of these what is beyond the bytes of an answer.
fn keep_latest(traps: &mut Vec<TrapOnNode>, tail: usize) {
    traps.sort_by_key(|told| (told.trap.at, told.trap.instance));
    let mut bytes = 0;
    let fits = |trap: &&TrapOnNode| {
        bytes += serde_json::to_vec(trap).map_or(0, |json| json.len());
        bytes <= MAX_BYTES
    };
    let kept = traps.iter().rev().take(tail).take_while(fits).count();
    traps.drain(..traps.len() - kept);
}

async fn pull(connection: Connection, query: TrapQuery) -> anyhow::Result<Vec<TrapRecord>> {
    let tail = usize::try_from(query.tail)?;
    let mut stream = connection.open(&StreamRequest::Traps(query)).await?;
    match stream.receive_message::<StreamReply>().await? {
        Some(StreamReply::Ok { .. }) => {}
        Some(StreamReply::Error { message }) => anyhow::bail!(message),
        None => anyhow::bail!("the node closed the stream"),
    }
    let mut traps = Vec::new();
    while let Some(trap) = stream.receive_message::<TrapRecord>().await? {
        anyhow::ensure!(traps.len() < tail, "the node tells more than it was asked for");
        traps.push(trap.bounded());
    }
    Ok(traps)
}

/// Why there is no core dump.
pub(crate) enum NoDump {
    /// The node has none.
    Missing,
    /// The node could not be asked.
    Unheard(String),
}

/// Returns the stream on which `node` tells the core dump of `instance`, and how long that is.
pub(crate) async fn open_dump(
    fleet: &Arc<Fleet>,
    node: &NodeId,
    instance: InstanceId,
) -> Result<(Stream, u64), NoDump> {
    let connection = fleet.connection(node);
    let connection = connection.ok_or_else(|| NoDump::Unheard("it is not connected".to_owned()))?;
    let asked = async {
        let mut stream = connection.open(&StreamRequest::CoreDump { instance }).await?;
        stream.finish();
        let reply = stream.receive_message::<StreamReply>().await?;
        anyhow::Ok((stream, reply.context("the node closed the stream")?))
    };
    let answered = tokio::time::timeout(TELL_TIME, asked).await.context("the node did not tell in time");
    match answered.flatten() {
        Ok((stream, StreamReply::Ok { length: Some(length), .. })) => Ok((stream, length)),
        Ok((_, StreamReply::Ok { length: None, .. })) => {
            Err(NoDump::Unheard("the node did not say how long it is".to_owned()))
        }
        Ok((_, StreamReply::Error { message })) => {
            tracing::debug!(%node, %instance, message, "no core dump");
            Err(NoDump::Missing)
        }
        Err(error) => Err(NoDump::Unheard(format!("{error:#}"))),
    }
}
