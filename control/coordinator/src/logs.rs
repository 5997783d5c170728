//! What guests print, pulled from the nodes they run on.

use std::time::Duration;

use anyhow::Context as _;
use dunlin_api::LogLine;
use dunlin_model::{AllocationId, LogRecord, NodeId};
use dunlin_protocol::{LogQuery, StreamReply, StreamRequest};
use dunlin_transport::{Connection, Stream};
use tokio::sync::mpsc;

/// How long a node may take to say whether it has something to tell.
const REPLY_TIME: Duration = Duration::from_secs(10);

/// Asks one node and passes its lines on until it has no more, or nobody wants them.
pub(crate) async fn pull(
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
