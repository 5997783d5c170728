//! Standard output or standard error as a pipe: every byte as the guest wrote it, as fast as somebody reads.
//!
//! What the pipe has no room for is kept here, no more than one write of it; meanwhile the guest waits. Nothing is lost
//! when the guest ends: whoever ran it waits with [`Pipe::flushed`].

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::unix::pipe::Sender;
use wasmtime_wasi::p2::{StreamError, StreamResult};

use crate::limits::MAX_WRITE;

/// The writing end of a pipe. Clones are the same end.
#[derive(Clone, Debug)]
pub struct Pipe(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sender: Sender,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// How many of them have been written.
    written: usize,
    /// Set once nobody reads any more.
    is_closed: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Writes what the pipe has room for.
    fn write_some(&mut self, sender: &Sender) {
        while !self.is_empty() && !self.is_closed {
            match sender.try_write(&self.bytes[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.is_closed = true,
            }
        }
        self.bytes.clear();
        self.written = 0;
    }
}

impl Pipe {
    /// Returns the pipe whose writing end `descriptor` is. Must be called within a tokio runtime.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let (sender, waiting) = (Sender::from_owned_fd(descriptor)?, Mutex::default());
        Ok(Self(Arc::new(Inner { sender, waiting })))
    }

    /// Waits until everything is in the pipe, or nobody reads it any more.
    pub async fn flushed(&self) {
        while !self.with(|waiting| waiting.is_empty() || waiting.is_closed) {
            if self.0.sender.writable().await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> StreamResult<()> {
        self.with(|waiting| {
            if waiting.is_closed {
                return Err(StreamError::Closed);
            }
            // A guest may be told twice that there is room before it writes, by two handles; not more often.
            if waiting.bytes.len() + bytes.len() > 2 * MAX_WRITE {
                return Err(StreamError::trap("the guest wrote to a stream that had no room"));
            }
            waiting.bytes.extend_from_slice(bytes);
            waiting.write_some(&self.0.sender);
            Ok(())
        })
    }

    pub(crate) fn check_write(&self) -> StreamResult<usize> {
        self.with(|waiting| match waiting {
            Waiting { is_closed: true, .. } => Err(StreamError::Closed),
            waiting if waiting.is_empty() => Ok(MAX_WRITE),
            _ => Ok(0),
        })
    }

    /// Returns another handle to the same end, for who writes by himself.
    pub(crate) fn try_clone(&self) -> io::Result<Sender> {
        Sender::from_owned_fd(self.0.sender.as_fd().try_clone_to_owned()?)
    }

    /// Writes what can be written, then looks at what waits.
    fn with<T>(&self, look: impl FnOnce(&mut Waiting) -> T) -> T {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.write_some(&self.0.sender);
        look(&mut waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn nothing_is_lost_though_the_reader_is_slow() {
        let (mut reader, writer) = io::pipe().unwrap();
        let pipe = Pipe::new(writer.into()).unwrap();
        let sent: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
        let expected = sent.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            read
        });
        for piece in sent.chunks(MAX_WRITE) {
            pipe.flushed().await;
            assert_eq!(pipe.check_write().unwrap(), MAX_WRITE);
            pipe.write(piece).unwrap();
        }
        pipe.flushed().await;
        drop(pipe);
        assert!(reading.await.unwrap() == expected);
    }

    #[tokio::test]
    async fn who_does_not_wait_is_refused_and_who_reads_no_more_closes_the_stream() {
        let (reader, writer) = io::pipe().unwrap();
        let pipe = Pipe::new(writer.into()).unwrap();
        let mut refused = None;
        for _ in 0..16 {
            refused = pipe.write(&[0; MAX_WRITE]).err();
            if refused.is_some() {
                break;
            }
        }
        assert!(matches!(refused, Some(StreamError::Trap(_))), "{refused:?}");
        assert_eq!(pipe.check_write().unwrap(), 0);
        drop(reader);
        pipe.flushed().await;
        assert!(matches!(pipe.write(b"more"), Err(StreamError::Closed)));
    }
}
