//! Items of jobs: who runs them, and how their ends are told.
//!
//! Items without inputs come as ranges, of which a few lanes take one item after the other: there are as many lanes as
//! the allocation may have instances, so each that has room takes the next item without asking anybody. How items
//! ended is told together: at once if nothing was told lately, and otherwise after a short while.
//!
//! Not here: what an instance is (`dunlin_engine::Job`), and which items are run (the agent).

use std::any::Any;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use dunlin_engine::{Item, ItemEnd, Job};
use dunlin_model::{AllocationId, ItemRange, ItemRecord, NodeId, Outcome};
use dunlin_protocol::FromWorker;
use tokio::sync::{Notify, watch};

use crate::attached::Attached;
use crate::control::Agent;
use crate::log_queue::LogQueue;

/// How long ends wait for others to go with, after some were told.
const BATCH_TIME: Duration = Duration::from_millis(5);
/// How many ends, and how many bytes of output, go in one message; a single end may have more output.
const BATCH_ENDS: usize = 2048;
const BATCH_OUTPUT: usize = 1 << 20;

/// The items which this worker has been told to run.
pub(crate) struct Items {
    node: NodeId,
    ranges: Mutex<BTreeMap<AllocationId, Ranges>>,
    ends: Mutex<BTreeMap<AllocationId, VecDeque<(u32, ItemRecord)>>>,
    ended: Notify,
    /// How many lanes and single items of each allocation are at work: what has ended and was not told counts, too.
    at_work: watch::Sender<BTreeMap<AllocationId, u32>>,
}

/// The items of one allocation which no lane has taken yet.
#[derive(Default)]
struct Ranges {
    waiting: VecDeque<ItemRange>,
    lanes: u32,
}

impl Ranges {
    fn next(&mut self) -> Option<u32> {
        let range = self.waiting.front_mut()?;
        let item = range.start;
        range.start += 1;
        if range.is_empty() {
            self.waiting.pop_front();
        }
        Some(item)
    }

    fn len(&self) -> u32 {
        self.waiting.iter().fold(0, |sum, range| sum.saturating_add(range.len()))
    }
}

impl Items {
    pub(crate) fn new(node: NodeId) -> Self {
        let (ranges, ends, at_work) = Default::default();
        Self { node, ranges, ends, ended: Notify::new(), at_work }
    }

    /// Runs an item of an allocation; `job` is absent if it is not here.
    pub(crate) async fn run_one(&self, allocation: AllocationId, job: Option<Job>, item: Item) {
        let number = item.number;
        self.begin(allocation);
        let end = match job {
            Some(job) => caught(job.run_item(item)).await,
            None => not_here(allocation),
        };
        self.tell(allocation, number, end);
        self.end(allocation);
    }

    /// Runs the first item of an allocation with streams of its own.
    pub(crate) async fn run_attached(
        &self,
        allocation: AllocationId,
        job: Option<Job>,
        arguments: Vec<String>,
        attached: &Attached,
    ) {
        self.begin(allocation);
        let end = match job {
            None => not_here(allocation),
            Some(job) => match attached.streams(allocation).await {
                Ok(streams) => caught(job.run_attached(arguments, streams)).await,
                Err(error) => {
                    let reason = format!("its standard streams cannot be used: {error}");
                    ItemEnd::without_instance(Outcome::NotStarted { reason })
                }
            },
        };
        self.tell(allocation, 0, end);
        self.end(allocation);
    }

    /// Runs all items of a range.
    pub(crate) fn run_range(self: &Arc<Self>, allocation: AllocationId, job: Option<Job>, range: ItemRange) {
        let Some(job) = job else {
            (range.start..range.end).for_each(|item| self.tell(allocation, item, not_here(allocation)));
            return;
        };
        if range.is_empty() {
            return;
        }
        let mut ranges = self.ranges();
        let queue = ranges.entry(allocation).or_default();
        queue.waiting.push_back(range);
        let wanted = job.concurrency().min(queue.lanes.saturating_add(queue.len()));
        while queue.lanes < wanted {
            queue.lanes += 1;
            self.begin(allocation);
            tokio::spawn(self.clone().lane(allocation, job.clone()));
        }
    }

    /// Forgets the items of an allocation which no lane has taken.
    pub(crate) fn stop(&self, allocation: AllocationId) {
        // The lanes that are left find nothing more, and the last of them forgets the allocation.
        if let Some(queue) = self.ranges().get_mut(&allocation) {
            queue.waiting.clear();
        }
    }

    /// Runs one item after the other until there are no more.
    async fn lane(self: Arc<Self>, allocation: AllocationId, job: Job) {
        while let Some(number) = self.next(allocation) {
            let item = Item { number, arguments: vec![number.to_string()], input: None };
            let end = caught(job.run_item(item)).await;
            self.tell(allocation, number, end);
            // Requests of the same namespace, and the other lanes, have their turn.
            tokio::task::yield_now().await;
        }
        self.end(allocation);
    }

    /// Takes the next item; if there is none, the lane that asks has ended.
    fn next(&self, allocation: AllocationId) -> Option<u32> {
        let mut ranges = self.ranges();
        let queue = ranges.get_mut(&allocation)?;
        let next = queue.next();
        if next.is_none() {
            queue.lanes -= 1;
            if queue.lanes == 0 {
                ranges.remove(&allocation);
            }
        }
        next
    }

    fn begin(&self, allocation: AllocationId) {
        self.at_work.send_modify(|all| *all.entry(allocation).or_default() += 1);
    }

    fn end(&self, allocation: AllocationId) {
        self.at_work.send_modify(|all| {
            if let Entry::Occupied(mut left) = all.entry(allocation) {
                *left.get_mut() -= 1;
                if *left.get() == 0 {
                    left.remove();
                }
            }
        });
    }

    /// Waits until each item of an allocation that has begun has ended, and tells the agent.
    pub(crate) async fn finished(&self, allocation: AllocationId, agent: &Agent, logs: &LogQueue) {
        // The sender is here, so it cannot be gone.
        let mut at_work = self.at_work.subscribe();
        drop(at_work.wait_for(|all| !all.contains_key(&allocation)).await);
        self.flush(agent, logs).await;
    }

    fn tell(&self, allocation: AllocationId, item: u32, end: ItemEnd) {
        let record = ItemRecord {
            outcome: end.outcome,
            node: self.node.clone(),
            // The agent knows.
            attempt: 1,
            fuel: end.fuel,
            memory: end.memory,
            wall: end.wall,
            host: end.host,
            output: end.output,
            output_cut: end.output_cut,
        };
        self.ends().entry(allocation).or_default().push_back((item, record));
        self.ended.notify_one();
    }

    /// Tells how items ended, for ever.
    pub(crate) async fn pump(&self, agent: &Agent, logs: &LogQueue) {
        loop {
            self.ended.notified().await;
            self.flush(agent, logs).await;
            tokio::time::sleep(BATCH_TIME).await;
        }
    }

    async fn flush(&self, agent: &Agent, logs: &LogQueue) {
        let ends = std::mem::take(&mut *self.ends());
        // What they said comes before how they ended.
        logs.flush(agent).await;
        for (allocation, mut ends) in ends {
            while !ends.is_empty() {
                agent.send(FromWorker::ItemsEnded { allocation, items: batch(&mut ends) }).await;
            }
        }
    }

    fn ranges(&self) -> MutexGuard<'_, BTreeMap<AllocationId, Ranges>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<AllocationId, VecDeque<(u32, ItemRecord)>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes as many ends as go in one message.
fn batch(ends: &mut VecDeque<(u32, ItemRecord)>) -> Vec<(u32, ItemRecord)> {
    let mut output = 0;
    let fits = |(index, (_, record)): &(usize, &(u32, ItemRecord))| {
        output += record.output.len();
        *index == 0 || (*index < BATCH_ENDS && output <= BATCH_OUTPUT)
    };
    let count = ends.iter().enumerate().take_while(fits).count();
    ends.drain(..count).collect()
}

/// Runs an item to its end. A panic in the host's code ends only this item.
async fn caught(running: impl Future<Output = ItemEnd>) -> ItemEnd {
    let mut running = pin!(running);
    let caught: Result<ItemEnd, Box<dyn Any + Send>> = poll_fn(|context| {
        // What panicked is not looked at again, but for being dropped.
        match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(end)) => Poll::Ready(Ok(end)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await;
    caught.unwrap_or_else(|_| {
        let reason = "the host panicked while the guest called it; this is a bug of Dunlin".to_owned();
        ItemEnd::without_instance(Outcome::Trapped { reason })
    })
}

fn not_here(allocation: AllocationId) -> ItemEnd {
    let reason = format!("allocation {allocation} runs no items here");
    ItemEnd::without_instance(Outcome::NotStarted { reason })
}

#[cfg(test)]
mod tests {
    use dunlin_model::{Bytes, DurationMs, Fuel};

    use super::*;

    fn ended(output: usize) -> ItemRecord {
        ItemRecord {
            outcome: Outcome::Completed,
            node: "node-1".parse().unwrap(),
            attempt: 1,
            fuel: Fuel(0),
            memory: Bytes(0),
            wall: DurationMs(0),
            host: Default::default(),
            output: "x".repeat(output),
            output_cut: false,
        }
    }

    #[test]
    fn ranges_are_taken_item_by_item_in_their_order() {
        let mut ranges = Ranges::default();
        ranges.waiting.extend([ItemRange { start: 3, end: 5 }, ItemRange { start: 9, end: 10 }]);
        assert_eq!(ranges.len(), 3);
        let taken: Vec<u32> = std::iter::from_fn(|| ranges.next()).collect();
        assert_eq!(taken, [3, 4, 9]);
    }

    #[test]
    fn a_message_has_a_bounded_number_of_ends_and_bytes_of_output() {
        let mut many: VecDeque<_> = (0..).take(BATCH_ENDS + 1).map(|item| (item, ended(0))).collect();
        assert_eq!([batch(&mut many).len(), batch(&mut many).len()], [BATCH_ENDS, 1]);
        let mut large: VecDeque<_> = (0..3).map(|item| (item, ended(BATCH_OUTPUT / 2 + 1))).collect();
        assert_eq!([batch(&mut large).len(), batch(&mut large).len()], [1, 1]);
        let mut largest: VecDeque<_> = [(0, ended(BATCH_OUTPUT + 1))].into();
        assert_eq!(batch(&mut largest).len(), 1);
    }
}
