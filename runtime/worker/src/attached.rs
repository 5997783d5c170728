//! The standard streams of somebody who waits for what a guest writes, as they are passed: one message, one stream.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dunlin_engine::Streams;
use dunlin_host::Pipe;
use dunlin_model::AllocationId;
use dunlin_protocol::StandardStream;
use tokio::sync::Notify;

/// The streams that were passed and that nobody has taken.
#[derive(Default)]
pub(crate) struct Attached {
    passed: Mutex<BTreeMap<(AllocationId, StandardStream), OwnedFd>>,
    came: Notify,
}

impl Attached {
    /// Keeps one until all three are there.
    pub(crate) fn keep(&self, allocation: AllocationId, stream: StandardStream, descriptor: OwnedFd) {
        self.passed().insert((allocation, stream), descriptor);
        self.came.notify_one();
    }

    /// Returns the streams for `allocation`, however long they take to come.
    pub(crate) async fn streams(&self, allocation: AllocationId) -> io::Result<Streams> {
        let [input, output, error] = loop {
            // Of a notification that nobody waits for, the next one who waits is told.
            if let Some(all) = self.take(allocation) {
                break all;
            }
            self.came.notified().await;
        };
        Ok(Streams {
            stdin: std::fs::File::from(input).into(),
            stdout: Pipe::new(output)?,
            stderr: Pipe::new(error)?,
        })
    }

    fn take(&self, allocation: AllocationId) -> Option<[OwnedFd; 3]> {
        let mut passed = self.passed();
        let all = [StandardStream::Input, StandardStream::Output, StandardStream::Error];
        if !all.iter().all(|stream| passed.contains_key(&(allocation, *stream))) {
            return None;
        }
        let taken = all.map(|stream| passed.remove(&(allocation, stream)));
        let [Some(input), Some(output), Some(error)] = taken else { return None };
        Some([input, output, error])
    }

    fn passed(&self) -> MutexGuard<'_, BTreeMap<(AllocationId, StandardStream), OwnedFd>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
