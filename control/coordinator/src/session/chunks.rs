//! Components, chunk by chunk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_model::{Chunk, Digest, NodeId};
use dunlin_protocol::{ChunkList, ChunkPlace, StreamReply};
use dunlin_store::Components;
use dunlin_transport::Stream;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::{Desk, end, refuse};
use crate::neighbours::{neighbours, site};

/// How long a node may keep others of its site waiting while it takes a chunk.
const TURN_TIME: Duration = Duration::from_secs(10);
/// The lists of how many components are remembered.
const REMEMBERED: usize = 256;

/// The components of which a connected agent was given the list of chunks.
pub(super) type Listed = Mutex<BTreeSet<Digest>>;

/// The chunks of the components that were asked for.
#[derive(Debug, Default)]
pub(crate) struct ChunkLists(Mutex<BTreeMap<Digest, List>>);

/// A list that is made once, however many ask for it at the same time.
type List = Arc<OnceCell<Arc<[Chunk]>>>;

impl ChunkLists {
    async fn of(&self, components: &Arc<Components>, digest: Digest) -> anyhow::Result<Arc<[Chunk]>> {
        let list = {
            let mut lists = lock(&self.0);
            if lists.len() >= REMEMBERED && !lists.contains_key(&digest) {
                // Any of them: what is asked for again is made again.
                lists.pop_first();
            }
            Arc::clone(lists.entry(digest).or_default())
        };
        let making = || async {
            let components = Arc::clone(components);
            anyhow::Ok(tokio::task::spawn_blocking(move || components.chunks(&digest)).await??)
        };
        list.get_or_try_init(making).await.cloned()
    }
}

impl Desk {
    pub(super) async fn send_chunk_list(
        &self,
        mut stream: Stream,
        node: &NodeId,
        listed: &Listed,
        digest: Digest,
    ) -> anyhow::Result<()> {
        if let Err(message) = self.check_component(node, &digest) {
            return refuse(stream, &message).await;
        }
        let chunks = match self.chunk_lists.of(&self.components, digest).await {
            Ok(chunks) => chunks.to_vec(),
            Err(error) => return refuse(stream, &format!("{error:#}")).await,
        };
        lock(listed).insert(digest);
        let neighbours = neighbours(&self.driver.view(), node, &digest);
        stream.send_message(&StreamReply::Ok { length: None, name: None }).await?;
        stream.send_message(&ChunkList { chunks, neighbours }).await?;
        end(stream).await
    }

    /// Sends a chunk of a component whose list the agent was given on the same connection.
    pub(super) async fn send_chunk(
        &self,
        mut stream: Stream,
        node: &NodeId,
        listed: &Listed,
        digest: Digest,
        place: ChunkPlace,
    ) -> anyhow::Result<()> {
        if !lock(listed).contains(&digest) {
            return refuse(
                stream,
                &format!("node {node} has not asked for the chunks of component {digest}"),
            )
            .await;
        }
        let components = Arc::clone(&self.components);
        let file = match tokio::task::spawn_blocking(move || components.open(&digest)).await? {
            Ok((file, _)) => Arc::new(file),
            Err(error) => return refuse(stream, &error.to_string()).await,
        };
        let view = self.driver.view();
        let turn = match view.nodes.get(node).and_then(site) {
            Some(site) => self.site_turns.turn(digest, site).await,
            None => None,
        };
        let mut sending = std::pin::pin!(async {
            stream.send_message(&StreamReply::Ok { length: None, name: None }).await?;
            stream.send.send_chunk(&file, place).await?;
            end(stream).await
        });
        match timeout(TURN_TIME, &mut sending).await {
            Ok(sent) => sent,
            Err(_slow) => {
                drop(turn);
                sending.await
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
