//! Giving chunks of components to other nodes.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use dunlin_model::Digest;
use dunlin_protocol::{ChunkPlace, ChunkReply, MAX_CHUNKS_ASKED, StreamReply, StreamRequest};
use dunlin_transport::Stream;
use tokio::time::timeout;

use super::Components;
use super::gathering::Gathering;

/// How long who asks for a component waits until this node begins to fetch it: nodes are told of it at about the same time.
const BEGIN_TIME: Duration = Duration::from_secs(2);
/// How often who waits for a chunk is told that it is still to come.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// What of a component is here.
enum Held {
    All(Arc<File>),
    Some(Arc<Gathering>),
}

impl Components {
    /// Answers a request of another node.
    pub(crate) async fn answer(&self, request: StreamRequest, mut stream: Stream) {
        let answered = async {
            let StreamRequest::Chunks { digest, chunks } = request else {
                return refuse(&mut stream, "a node gives chunks of components, and nothing else").await;
            };
            let Ok(_turn) = self.givings.try_acquire() else {
                return refuse(&mut stream, "this node gives to as many as it can").await;
            };
            match self.held(&digest).await {
                Some(held) => give(held, &mut stream, &chunks).await,
                None => refuse(&mut stream, &format!("component {digest} is not here")).await,
            }
        };
        if let Err(error) = answered.await {
            tracing::debug!(error = &*error as &dyn std::error::Error, "chunks were not given");
        }
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
                if let Ok(file) = tokio::fs::File::open(self.path(digest)).await {
                    return Some(Held::All(Arc::new(file.into_std().await)));
                }
                under_way.changed().await.ok()?;
            }
        };
        timeout(BEGIN_TIME, held).await.ok().flatten()
    }
}

async fn give(held: Held, stream: &mut Stream, chunks: &[ChunkPlace]) -> anyhow::Result<()> {
    let chunks = &chunks[..chunks.len().min(MAX_CHUNKS_ASKED)];
    stream.send_message(&StreamReply::Ok { length: None, name: None }).await?;
    match held {
        Held::All(file) => {
            for place in chunks {
                stream.send.send_chunk(&file, *place).await?;
            }
        }
        Held::Some(gathering) => give_as_it_comes(gathering, stream, chunks).await?,
    }
    stream.finish();
    Ok(stream.send.delivered().await?)
}

/// Gives each chunk as soon as it is here. Holds nothing that keeps the fetching alive: it may end without them.
async fn give_as_it_comes(
    gathering: Arc<Gathering>,
    stream: &mut Stream,
    chunks: &[ChunkPlace],
) -> anyhow::Result<()> {
    let numbered = |place: &ChunkPlace| gathering.number(*place).map(|number| (number, *place));
    let numbered: Option<Vec<(usize, ChunkPlace)>> = chunks.iter().map(numbered).collect();
    let mut wanted = numbered.context("there are no such chunks")?;
    let (mut presence, file) = (gathering.presence(), Arc::clone(gathering.file()));
    drop(gathering);
    while !wanted.is_empty() {
        let here: Vec<(usize, ChunkPlace)>;
        (here, wanted) = {
            let present = presence.borrow_and_update();
            wanted.into_iter().partition(|(number, _)| present[*number])
        };
        for (_, place) in &here {
            stream.send.send_chunk(&file, *place).await?;
        }
        if here.is_empty() {
            match timeout(SIGN_OF_LIFE, presence.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_ended)) => bail!("the fetching has ended"),
                Err(_late) => stream.send_message(&ChunkReply::Waiting).await?,
            }
        }
    }
    Ok(())
}

async fn refuse(stream: &mut Stream, message: &str) -> anyhow::Result<()> {
    stream.send_message(&StreamReply::Error { message: message.to_owned() }).await?;
    stream.finish();
    Ok(stream.send.delivered().await?)
}
