//! What guests have said, and how they ended badly, that the agent has not yet taken: a queue with an end.
//!
//! If the agent is slow, records are dropped here, counted, and the count is told; guests never wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_host::{DumpBytes, LogSink};
use dunlin_model::{CoreDump, LogRecord, LogSource, TrapRecord};
use dunlin_protocol::FromWorker;
use tokio::sync::Notify;

use crate::channel::Passing;
use crate::control::Agent;

/// How many records may wait.
const MAX_RECORDS: usize = 4096;
/// How many bytes of text may wait.
const MAX_TEXT: usize = 4 << 20;
/// How many records, and how many bytes of text, go in one message.
const BATCH_RECORDS: usize = 512;
const BATCH_TEXT: usize = 512 << 10;
/// How many traps may wait.
const MAX_TRAPS: usize = 64;
/// How long records wait for others to go with.
const BATCH_TIME: Duration = Duration::from_millis(50);

pub(crate) struct LogQueue {
    /// The way of core dumps, which are too long for a message.
    passing: Arc<Passing>,
    waiting: Mutex<Waiting>,
    arrived: Notify,
    /// Held while a batch is sent, so that batches keep their order.
    sending: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    records: VecDeque<LogRecord>,
    text: usize,
    dropped: u64,
    traps: VecDeque<(Box<TrapRecord>, Option<DumpBytes>)>,
}

impl LogQueue {
    pub(crate) fn new(passing: Arc<Passing>) -> Self {
        Self { passing, waiting: Mutex::default(), arrived: Notify::new(), sending: Default::default() }
    }

    /// Sends everything that waits.
    pub(crate) async fn flush(&self, agent: &Agent) {
        let _turn = self.sending.lock().await;
        loop {
            let records = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take_batch();
            if records.is_empty() {
                break;
            }
            agent.send(FromWorker::Logs { records }).await;
        }
        // What they said comes before what became of them.
        while let Some((mut trap, dump)) = self.next_trap() {
            if let Some(DumpBytes { bytes, turn }) = dump {
                if let Err(error) = self.passing.send_dump(trap.instance, bytes).await {
                    let reason = format!("it could not be passed to the agent: {error}");
                    trap.coredump = Some(CoreDump::NotMade { reason });
                }
                drop(turn);
            }
            agent.send(FromWorker::Trap(trap)).await;
        }
    }

    fn next_trap(&self) -> Option<(Box<TrapRecord>, Option<DumpBytes>)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).traps.pop_front()
    }

    /// Sends what comes, for ever.
    pub(crate) async fn pump(&self, agent: &Agent) {
        loop {
            self.arrived.notified().await;
            tokio::time::sleep(BATCH_TIME).await;
            self.flush(agent).await;
        }
    }
}

impl LogSink for LogQueue {
    fn record(&self, record: LogRecord) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).add(record);
        self.arrived.notify_one();
    }

    fn trap(&self, trap: Box<TrapRecord>) {
        self.add_trap(trap, None);
    }

    fn trap_with_dump(&self, trap: Box<TrapRecord>, dump: DumpBytes) {
        self.add_trap(trap, Some(dump));
    }
}

impl LogQueue {
    fn add_trap(&self, trap: Box<TrapRecord>, dump: Option<DumpBytes>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Of more the agent would keep no more.
        if waiting.traps.len() == MAX_TRAPS {
            waiting.traps.pop_front();
        }
        waiting.traps.push_back((trap, dump));
        drop(waiting);
        self.arrived.notify_one();
    }
}

impl Waiting {
    fn add(&mut self, record: LogRecord) {
        if self.records.len() >= MAX_RECORDS || self.text + record.text.len() > MAX_TEXT {
            self.dropped += 1;
            return;
        }
        self.text += record.text.len();
        self.records.push_back(record);
    }

    fn take_batch(&mut self) -> Vec<LogRecord> {
        let mut batch = Vec::new();
        let mut text = 0;
        while let Some(record) = self.records.front() {
            if batch.len() == BATCH_RECORDS || text + record.text.len() > BATCH_TEXT {
                break;
            }
            text += record.text.len();
            batch.extend(self.records.pop_front());
        }
        self.text -= text;
        if self.records.is_empty()
            && self.dropped > 0
            && let Some(last) = batch.last()
        {
            let text = format!("{} lines dropped: limit `log queue` is {MAX_RECORDS} lines", self.dropped);
            batch.push(LogRecord { at: last.at, instance: last.instance, source: LogSource::Host, text });
            self.dropped = 0;
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::{AllocationId, InstanceId, Timestamp};

    use super::*;

    #[test]
    fn what_the_queue_cannot_take_is_counted_and_told_last() {
        let mut waiting = Waiting::default();
        let instance = InstanceId { allocation: AllocationId::new(1), number: 1 };
        for number in 0..MAX_RECORDS + 10 {
            let text = format!("line {number}");
            waiting.add(LogRecord { at: Timestamp(0), instance, source: LogSource::Stdout, text });
        }
        let mut taken = Vec::new();
        loop {
            let batch = waiting.take_batch();
            if batch.is_empty() {
                break;
            }
            taken.extend(batch);
        }
        assert_eq!(taken.len(), MAX_RECORDS + 1);
        assert_eq!(taken.last().unwrap().text, "10 lines dropped: limit `log queue` is 4096 lines");
        assert_eq!(waiting.text, 0);
    }
}
