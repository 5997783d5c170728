//! What goes through a connection: the two streams of a socket. Who counts and charges the bytes is `metered`.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::buf::BufMut as _;
use bytes::{Buf as _, Bytes, BytesMut};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};

use super::socket::Connection;
use crate::limits::MAX_WRITE;

/// The most bytes of one read.
const MAX_READ: usize = MAX_WRITE;

/// What comes in. Clones are the same stream.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    connection: Arc<Connection>,
    is_closed: Arc<AtomicBool>,
}

impl Reader {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, is_closed: Arc::default() }
    }

    /// Takes nothing more.
    pub(super) fn shut_down(&self) {
        if !self.is_closed.swap(true, Ordering::Relaxed) {
            shut_down(&self.connection, Shutdown::Read);
        }
    }
}

fn shut_down(connection: &Connection, how: Shutdown) {
    let how = match how {
        Shutdown::Read => rustix::net::Shutdown::Read,
        Shutdown::Write => rustix::net::Shutdown::Write,
        Shutdown::Both => rustix::net::Shutdown::Both,
    };
    // It fails where the other side is gone already.
    let _gone = rustix::net::shutdown(&connection.stream, how);
}

fn failed(error: io::Error) -> StreamError {
    StreamError::LastOperationFailed(error.into())
}

#[async_trait]
impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(StreamError::Closed);
        }
        if size == 0 {
            return Ok(Bytes::new());
        }
        let size = size.min(MAX_READ);
        let mut bytes = BytesMut::with_capacity(size);
        match self.connection.stream.try_read_buf(&mut (&mut bytes).limit(size)) {
            Ok(0) => {
                self.is_closed.store(true, Ordering::Relaxed);
                Err(StreamError::Closed)
            }
            Ok(_) => Ok(bytes.freeze()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Bytes::new()),
            Err(error) => {
                self.is_closed.store(true, Ordering::Relaxed);
                Err(failed(error))
            }
        }
    }
}

#[async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {
        if !self.is_closed.load(Ordering::Relaxed) {
            // What is wrong with it is heard by who reads.
            let _heard_later = self.connection.stream.readable().await;
        }
    }
}

/// What goes out. Clones are the same stream.
///
/// What the system has no room for is written by a task, no more than one write of the guest; until that is done,
/// there is no room for the next. A guest that waits for an answer need not ask for that.
#[derive(Clone)]
pub(super) struct Writer {
    connection: Arc<Connection>,
    state: Arc<Mutex<State>>,
}

type Writing = AbortOnDropJoinHandle<io::Result<()>>;

enum State {
    Open,
    Writing(Writing),
    /// It is closed once this is written.
    Closing(Writing),
    Closed,
    /// It failed, and who asks next will be told.
    Failed(io::Error),
}

impl State {
    /// Takes note of a task that has ended, and tells whether none is left.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (task, then) = match self {
            Self::Writing(task) => (task, Self::Open),
            Self::Closing(task) => (task, Self::Closed),
            Self::Open | Self::Closed | Self::Failed(_) => return Poll::Ready(()),
        };
        match Pin::new(task).poll(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => *self = then,
            Poll::Ready(Err(error)) => *self = Self::of_error(error),
        }
        Poll::Ready(())
    }

    fn of_error(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Failed(error) }
    }

    /// Returns how much may be written now; an error once.
    fn room(&mut self) -> StreamResult<usize> {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(0),
            Poll::Ready(()) => match std::mem::replace(self, Self::Closed) {
                Self::Failed(error) => Err(failed(error)),
                Self::Open => {
                    *self = Self::Open;
                    Ok(MAX_WRITE)
                }
                Self::Closed | Self::Writing(_) | Self::Closing(_) => Err(StreamError::Closed),
            },
        }
    }
}

impl Writer {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, state: Arc::new(Mutex::new(State::Open)) }
    }

    /// Sends nothing more than what was written.
    pub(super) fn shut_down(&self) {
        let mut state = self.state();
        *state = match std::mem::replace(&mut *state, State::Closed) {
            State::Open => {
                shut_down(&self.connection, Shutdown::Write);
                State::Closed
            }
            State::Writing(writing) => {
                let connection = Arc::clone(&self.connection);
                State::Closing(spawn(async move {
                    writing.await?;
                    shut_down(&connection, Shutdown::Write);
                    Ok(())
                }))
            }
            other @ (State::Closing(_) | State::Closed | State::Failed(_)) => other,
        };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes as much as the system takes now.
fn write_some(connection: &Connection, bytes: &mut Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        match connection.stream.try_write(bytes) {
            Ok(written) => bytes.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn write_rest(connection: Arc<Connection>, mut bytes: Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        connection.stream.writable().await?;
        write_some(&connection, &mut bytes)?;
    }
    Ok(())
}

#[async_trait]
impl OutputStream for Writer {
    fn write(&mut self, mut bytes: Bytes) -> StreamResult<()> {
        let mut state = self.state();
        if state.room()? < bytes.len() {
            return Err(StreamError::trap("the guest wrote to a stream that had no room"));
        }
        if let Err(error) = write_some(&self.connection, &mut bytes) {
            *state = State::of_error(error);
            return state.room().map(drop);
        }
        if !bytes.is_empty() {
            *state = State::Writing(spawn(write_rest(Arc::clone(&self.connection), bytes)));
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        // What is written goes out by itself.
        match &*self.state() {
            State::Closed => Err(StreamError::Closed),
            State::Open | State::Writing(_) | State::Closing(_) | State::Failed(_) => Ok(()),
        }
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.state().room()
    }

    /// What a guest has written is not lost by dropping its stream.
    async fn cancel(&mut self) {
        self.ready().await;
    }
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| self.state().poll(context)).await;
    }
}
