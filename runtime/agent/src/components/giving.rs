//! Giving chunks of components to other nodes.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dunlin_model::Digest;
use dunlin_protocol::{ChunkPlace, StreamReply, StreamRequest};
use dunlin_transport::Stream;
use tokio::time::timeout;

use super::Components;
use super::gathering::Gathering;

/// How long who asks for a component waits until this node begins to fetch it: nodes are told of it at about the same time.
const BEGIN_TIME: Duration = Duration::from_secs(2);
/// How long another node may take to receive a chunk.
const GIVING_TIME: Duration = Duration::from_secs(30);

/// What of a component is here.
enum Held {
    All,
    Some(Arc<Gathering>),
}

impl Components {
    /// Answers a request of another node.
    pub(crate) async fn answer(&self, request: StreamRequest, mut stream: Stream) {
        let answered = match request {
            StreamRequest::Chunk { digest, place } => self.give(digest, place, &mut stream).await,
            _ => refuse(&mut stream, "a node gives chunks of components, and nothing else").await,
        };
        if let Err(error) = answered {
            tracing::debug!(error = &*error as &dyn std::error::Error, "a chunk was not given");
        }
    }

    async fn give(&self, digest: Digest, place: ChunkPlace, stream: &mut Stream) -> anyhow::Result<()> {
        let gathered = match self.held(&digest).await {
            Some(Held::All) => None,
            Some(Held::Some(gathering)) => match until_there(gathering, place).await? {
                Some(file) => Some(file),
                None => return refuse(stream, "another node brings this chunk").await,
            },
            None => return refuse(stream, &format!("component {digest} is not here")).await,
        };
        // To some at a time: all at once they would press each other out of the link.
        let _turn = self.givings.acquire().await?;
        let giving = async {
            let file = match gathered {
                Some(file) => file,
                None => Arc::new(tokio::fs::File::open(self.path(&digest)).await?.into_std().await),
            };
            stream.send_message(&StreamReply::Ok { length: None, name: None }).await?;
            stream.send.send_chunk(&file, place).await?;
            stream.finish();
            anyhow::Ok(stream.send.delivered().await?)
        };
        timeout(GIVING_TIME, giving).await.context("the node takes it too slowly")?
    }

    /// Returns what is here of a component; waits a moment until there is something.
    async fn held(&self, digest: &Digest) -> Option<Held> {
        let mut under_way = self.under_way.subscribe();
        let held = async {
            loop {
                let gathering = under_way.borrow_and_update().get(digest).cloned();
                if let Some(gathering) = gathering {
                    return Some(Held::Some(gathering));
                }
                if tokio::fs::try_exists(self.path(digest)).await.is_ok_and(|exists| exists) {
                    return Some(Held::All);
                }
                under_way.changed().await.ok()?;
            }
        };
        timeout(BEGIN_TIME, held).await.ok().flatten()
    }
}

/// Waits until a chunk is here that this node brings, and returns the file it is in; nothing if it does not bring it. Holds
/// nothing that keeps the fetching alive: it may end without that chunk.
async fn until_there(gathering: Arc<Gathering>, place: ChunkPlace) -> anyhow::Result<Option<Arc<File>>> {
    let number = gathering.number(place).context("there is no such chunk")?;
    if !gathering.has_or_brings(number) {
        return Ok(None);
    }
    let (mut presence, file) = (gathering.presence(), Arc::clone(gathering.file()));
    drop(gathering);
    presence.wait_for(|present| present[number]).await.context("the fetching has ended")?;
    Ok(Some(file))
}

async fn refuse(stream: &mut Stream, message: &str) -> anyhow::Result<()> {
    stream.send_message(&StreamReply::Error { message: message.to_owned() }).await?;
    stream.finish();
    Ok(stream.send.delivered().await?)
}
