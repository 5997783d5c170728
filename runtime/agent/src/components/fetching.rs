//! Bringing the chunks of one component, from whoever has them.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use dunlin_model::Digest;
use dunlin_planted::{Point, fails};
use dunlin_protocol::{Neighbour, PackedChunk, StreamReply, StreamRequest};
use dunlin_transport::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::{self, FuturesUnordered};
use tokio::time::{Instant, sleep_until, timeout};

use super::gathering::Gathering;
use super::plan::{Plan, Source};
use super::{Components, FetchError, blocking, take_from_disk};

/// How many chunks are asked for at a time from the same source,
const ASKED: usize = 8;
/// and from the coordinator by each of those that fetch together.
const ASKED_TOGETHER: usize = 2;
/// How long reaching a neighbour may take.
const REACH_TIME: Duration = Duration::from_secs(20);
/// How long no chunk at all may come before neighbours are not waited for any more.
const STALL: Duration = Duration::from_secs(60);
/// How long neighbours are waited for at least after half of all sources have given what they had to.
const LAST_ONES: Duration = Duration::from_secs(20);

/// One fetch: what it brings, and from where it may.
pub(super) struct Fetch<'a> {
    components: &'a Components,
    digest: Digest,
    gathering: &'a Arc<Gathering>,
    neighbours: &'a [Neighbour],
    from_coordinator: AtomicU64,
    from_neighbours: AtomicU64,
}

/// What has become of the asking of one source.
struct Taken {
    source: Source,
    asked: Vec<usize>,
    /// The numbers of the chunks that it does not give, though it gives others.
    declined: Vec<usize>,
    result: Result<(), TakeError>,
}

/// Why a chunk was not taken.
enum TakeError {
    /// From that source nothing can be had.
    Source(anyhow::Error),
    /// That source does not have this one.
    Declined,
    /// It cannot be kept.
    Disk(io::Error),
}

impl From<anyhow::Error> for TakeError {
    fn from(error: anyhow::Error) -> Self {
        Self::Source(error)
    }
}

/// How long is waited for those that have not given yet.
struct Patience {
    began: Instant,
    /// When a chunk came last.
    last: Instant,
    begun: usize,
    ended: usize,
    /// When nobody is waited for any more.
    end: Option<Instant>,
}

impl Patience {
    fn new() -> Self {
        let now = Instant::now();
        Self { began: now, last: now, begun: 0, ended: 0, end: None }
    }

    /// Returns until when neighbours are waited for, as far as it is known now.
    fn until(&self) -> Instant {
        let stall = self.last + STALL;
        self.end.map_or(stall, |end| end.min(stall))
    }

    /// A source has given what it had to. Once half of them have, the others have as much time again: one that is slow, on
    /// purpose or not, does not hold up the whole.
    fn ended(&mut self, now: Instant) {
        self.ended += 1;
        if self.ended * 2 >= self.begun {
            self.end.get_or_insert(now + LAST_ONES.max(now - self.began));
        }
    }
}

impl<'a> Fetch<'a> {
    pub(super) fn new(
        components: &'a Components,
        digest: Digest,
        gathering: &'a Arc<Gathering>,
        neighbours: &'a [Neighbour],
    ) -> Self {
        let (from_coordinator, from_neighbours) = Default::default();
        Self { components, digest, gathering, neighbours, from_coordinator, from_neighbours }
    }

    /// Brings all chunks that are not here. `show` is called when it is known which of them this node brings.
    pub(super) async fn run(self, show: impl FnOnce()) -> Result<(), FetchError> {
        let gathering = self.gathering;
        let (folder, filled) = (self.components.folder.clone(), Arc::clone(gathering));
        blocking(move || take_from_disk(&folder, &filled)).await?;
        let missing = gathering.missing();
        let lacking: u64 = missing.iter().map(|number| u64::from(gathering.place(*number).length)).sum();
        let mut plan = Plan {
            here: &self.components.node,
            chunks: gathering.chunks(),
            neighbours: self.neighbours,
            failed: BTreeSet::new(),
            declined: BTreeSet::new(),
        };
        let mut patience = Patience::new();
        let mut taking = FuturesUnordered::new();
        taking.extend(self.begin(&plan, &missing, &mut patience));
        show();
        let mut presence = gathering.presence();
        loop {
            let is_waiting = plan.failed.len() < self.neighbours.len();
            let taken = tokio::select! {
                taken = taking.next() => taken,
                _ = presence.changed() => {
                    patience.last = Instant::now();
                    continue;
                }
                () = sleep_until(patience.until()), if is_waiting => {
                    // Whatever keeps them from giving, the coordinator is there.
                    plan.failed.extend(0..self.neighbours.len());
                    taking = self.begin(&plan, &gathering.missing(), &mut patience).collect();
                    continue;
                }
            };
            let Some(taken) = taken else { break };
            patience.ended(Instant::now());
            let left = self.after(taken, &mut plan)?;
            taking.extend(self.begin(&plan, &left, &mut patience));
        }
        tracing::info!(
            component = %self.digest,
            bytes = gathering.length(),
            here_before = gathering.length() - lacking,
            from_neighbours = self.from_neighbours.load(Ordering::Relaxed),
            from_coordinator = self.from_coordinator.load(Ordering::Relaxed),
            milliseconds = patience.began.elapsed().as_millis(),
            "component fetched"
        );
        Ok(())
    }

    /// Begins to take these chunks from where the plan says.
    fn begin<'b>(
        &'b self,
        plan: &Plan<'_>,
        numbers: &[usize],
        patience: &mut Patience,
    ) -> impl Iterator<Item = impl Future<Output = Taken> + use<'a, 'b>> + use<'a, 'b> {
        let sources = plan.sources(numbers);
        patience.begun += sources.len();
        for (source, numbers) in &sources {
            if plan.brings(*source) {
                self.gathering.will_bring(numbers);
            }
        }
        let at_a_time = if plan.is_shared() { ASKED_TOGETHER } else { ASKED };
        sources.into_iter().map(move |(source, asked)| self.take(source, asked, at_a_time))
    }

    /// Notes in the plan what has become of a source, and returns the numbers of the chunks that are to be had elsewhere.
    fn after(&self, taken: Taken, plan: &mut Plan<'_>) -> Result<Vec<usize>, FetchError> {
        plan.declined.extend(&taken.declined);
        let error = match (taken.result, taken.source) {
            (Ok(()) | Err(TakeError::Declined), _) => return Ok(taken.declined),
            (Err(TakeError::Disk(error)), _) => return Err(error.into()),
            (Err(TakeError::Source(error)), Source::Coordinator) => {
                return Err(FetchError::Coordinator(error));
            }
            (Err(TakeError::Source(error)), Source::Neighbour(number)) => {
                plan.failed.insert(number);
                error
            }
        };
        let (component, source) = (self.digest, taken.source);
        let error = &*error as &dyn std::error::Error;
        tracing::debug!(%component, ?source, error, "a neighbour gave not all");
        let missing = self.gathering.missing();
        Ok(taken.asked.into_iter().filter(|number| missing.binary_search(number).is_ok()).collect())
    }

    async fn take(&self, source: Source, asked: Vec<usize>, at_a_time: usize) -> Taken {
        let at_a_time = if source == Source::Coordinator { at_a_time } else { ASKED };
        let mut taking = stream::iter(asked.clone())
            .map(|number| async move { (number, self.take_one(source, number).await) })
            .buffer_unordered(at_a_time);
        let (mut declined, mut result) = (Vec::new(), Ok(()));
        while result.is_ok() {
            match taking.next().await {
                Some((number, Err(TakeError::Declined))) => declined.push(number),
                Some((_, taken)) => result = taken,
                None => break,
            }
        }
        drop(taking);
        Taken { source, asked, declined, result }
    }

    async fn take_one(&self, source: Source, number: usize) -> Result<(), TakeError> {
        // What else is asked of the coordinator needs streams of the same connection.
        let _turn = match source {
            Source::Coordinator => {
                Some(self.components.askings.acquire().await.map_err(anyhow::Error::from)?)
            }
            Source::Neighbour(_) => None,
        };
        let mut stream = self.open(source, number).await?;
        let packed = stream.receive_message::<PackedChunk>().await.map_err(anyhow::Error::from)?;
        let packed = packed.context("the stream ended where a chunk was due")?;
        let counter = match source {
            Source::Coordinator => &self.from_coordinator,
            Source::Neighbour(_) => &self.from_neighbours,
        };
        counter.fetch_add(packed.size() as u64, Ordering::Relaxed);
        let is_wrong = || anyhow!("what came is not chunk {number} of component {}", self.digest);
        let unpacking = tokio::task::spawn_blocking(move || packed.unpack());
        let Ok(Ok(chunk)) = unpacking.await else { return Err(is_wrong().into()) };
        let gathering = Arc::clone(self.gathering);
        let putting = blocking(move || {
            fails(Point::PullMidStream)?;
            gathering.put(number, &chunk)
        });
        if putting.await.map_err(TakeError::Disk)? { Ok(()) } else { Err(is_wrong().into()) }
    }

    /// Asks a source for a chunk; it answers when it has it.
    async fn open(&self, source: Source, number: usize) -> Result<Stream, TakeError> {
        let request = StreamRequest::Chunk { digest: self.digest, place: self.gathering.place(number) };
        let Source::Neighbour(neighbour) = source else {
            return Ok(self.components.link.fetch(&request).await?.0);
        };
        let Neighbour { node, address, .. } = &self.neighbours[neighbour];
        let asking = timeout(REACH_TIME, self.components.peers.ask(node, *address, &request));
        let mut stream = asking.await.context("the node is not reached")??;
        stream.finish();
        let reply = stream.receive_message().await.map_err(anyhow::Error::from)?;
        match reply.context("the node ended the stream")? {
            StreamReply::Ok { .. } => Ok(stream),
            StreamReply::Error { message } => {
                tracing::trace!(%node, number, message, "a neighbour does not give a chunk");
                Err(TakeError::Declined)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_have_as_long_as_the_others_took_and_no_longer() {
        let mut patience = Patience::new();
        patience.begun = 4;
        let began = patience.began;
        assert_eq!(patience.until(), began + STALL);
        patience.ended(began + Duration::from_secs(50));
        patience.last = began + Duration::from_secs(50);
        assert_eq!(patience.until(), began + Duration::from_secs(110), "of four only one has ended");
        patience.ended(began + Duration::from_secs(55));
        patience.last = began + Duration::from_secs(100);
        assert_eq!(patience.until(), began + Duration::from_secs(110));
        patience.begun += 1;
        patience.ended(began + Duration::from_secs(105));
        assert_eq!(patience.until(), began + Duration::from_secs(110));
    }

    #[test]
    fn who_was_fast_leaves_the_others_some_time_all_the_same() {
        let mut patience = Patience::new();
        patience.begun = 2;
        patience.ended(patience.began + Duration::from_secs(1));
        assert_eq!(patience.until(), patience.began + Duration::from_secs(1) + LAST_ONES);
    }
}
