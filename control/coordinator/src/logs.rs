//! What guests print, pulled from the nodes they run on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dunlin_api::LogLine;
use dunlin_model::{AllocationId, LogRecord, NodeId};
use dunlin_protocol::{LogQuery, StreamReply, StreamRequest};
use dunlin_transport::{Connection, Stream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::fleet::Fleet;

/// How long a node may take to say whether it has something to tell.
const REPLY_TIME: Duration = Duration::from_secs(10);

/// How often a follower looks for allocations that have come.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// How many lines are told of an allocation that came while it was followed: its first ones too.
const NEWCOMER_TAIL: u32 = 1000;

/// What is pulled from one node, until it is dropped.
struct Pull {
    node: NodeId,
    allocations: Vec<AllocationId>,
    task: AbortOnDropHandle<()>,
}

/// Pulls what is wanted, and also what comes to be wanted later, until nobody reads any more.
pub(crate) async fn follow(
    fleet: Arc<Fleet>,
    wanted: impl Fn() -> Vec<Wanted> + Send,
    tail: u32,
    lines: mpsc::Sender<LogLine>,
) {
    let mut pulls: Vec<Pull> = Vec::new();
    let mut seen: BTreeSet<AllocationId> = BTreeSet::new();
    let mut tail = tail;
    while !lines.is_closed() {
        let now = wanted();
        // One that is not wanted any more gives back its stream; one that broke off is begun again.
        pulls.retain(|pull| !pull.task.is_finished() && now.iter().any(|wanted| wanted.meets(pull)));
        for Wanted { node, allocations } in now {
            let Some(connection) = fleet.connection(&node) else { continue };
            let is_pulled = |id: &AllocationId| {
                pulls.iter().any(|pull| pull.node == node && pull.allocations.contains(id))
            };
            let missing: Vec<_> = allocations.into_iter().filter(|id| !is_pulled(id)).collect();
            let (again, new): (Vec<_>, Vec<_>) = missing.into_iter().partition(|id| seen.contains(id));
            seen.extend(&new);
            for (allocations, tail) in [(again, 0), (new, tail)] {
                if !allocations.is_empty() {
                    let query = LogQuery { allocations: allocations.clone(), tail, follow: true };
                    let task = tokio::spawn(tell(connection.clone(), node.clone(), query, lines.clone()));
                    pulls.push(Pull { node: node.clone(), allocations, task: AbortOnDropHandle::new(task) });
                }
            }
        }
        tail = NEWCOMER_TAIL;
        tokio::select! {
            () = tokio::time::sleep(LOOK_PERIOD) => {}
            () = lines.closed() => {}
        }
    }
}

/// Pulls from one node; what goes wrong is the node's trouble, and the other nodes are told of still.
pub(crate) async fn tell(
    connection: Connection,
    node: NodeId,
    query: LogQuery,
    lines: mpsc::Sender<LogLine>,
) {
    if let Err(error) = pull(connection, node.clone(), query, lines).await {
        tracing::debug!(%node, error = &*error as &dyn std::error::Error, "logs of a node ended");
    }
}

/// Asks one node and passes its lines on until it has no more, or nobody wants them.
async fn pull(
    connection: Connection,
    node: NodeId,
    query: LogQuery,
    lines: mpsc::Sender<LogLine>,
) -> anyhow::Result<()> {
    let opened = tokio::select! {
        opened = tokio::time::timeout(REPLY_TIME, ask(&connection, query)) => opened,
        () = lines.closed() => return Ok(()),
    };
    let mut stream = opened.context("the node did not reply in time")??;
    loop {
        let record = tokio::select! {
            record = stream.receive_message::<LogRecord>() => record?,
            // The reader is gone: dropping the stream tells the node.
            () = lines.closed() => return Ok(()),
        };
        let Some(record) = record else { return Ok(()) };
        if lines.send(LogLine { node: node.clone(), record }).await.is_err() {
            return Ok(());
        }
    }
}

/// Returns the stream on which the node tells its lines.
async fn ask(connection: &Connection, query: LogQuery) -> anyhow::Result<Stream> {
    let mut stream = connection.open(&StreamRequest::Logs(query)).await?;
    match stream.receive_message::<StreamReply>().await? {
        Some(StreamReply::Ok { .. }) => Ok(stream),
        Some(StreamReply::Error { message }) => anyhow::bail!(message),
        None => anyhow::bail!("the node closed the stream"),
    }
}

/// Which allocations on one node are wanted.
pub(crate) struct Wanted {
    pub(crate) node: NodeId,
    pub(crate) allocations: Vec<AllocationId>,
}

impl Wanted {
    fn meets(&self, pull: &Pull) -> bool {
        self.node == pull.node && self.allocations.iter().any(|id| pull.allocations.contains(id))
    }
}
