//! What guests print, pulled from the nodes they run on.

use dunlin_api::LogLine;
use dunlin_model::{AllocationId, LogRecord, NodeId};
use dunlin_protocol::{LogQuery, StreamReply, StreamRequest};
use dunlin_transport::Connection;
use tokio::sync::mpsc;

/// Asks one node and passes its lines on until it has no more, or nobody wants them.
pub(crate) async fn pull(
    connection: Connection,
    node: NodeId,
    query: LogQuery,
    lines: mpsc::Sender<LogLine>,
) -> anyhow::Result<()> {
    let mut stream = connection.open(&StreamRequest::Logs(query)).await?;
    match stream.receive_message::<StreamReply>().await? {
        Some(StreamReply::Ok { .. }) => {}
        Some(StreamReply::Error { message }) => anyhow::bail!(message),
        None => anyhow::bail!("the node closed the stream"),
    }
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

/// Which allocations on one node are wanted.
pub(crate) struct Wanted {
    pub(crate) node: NodeId,
    pub(crate) allocations: Vec<AllocationId>,
}
