//! Standard output and standard error: lines in the log, the bounded output of a job item, or a pipe to who waits for it.
//!
//! The first two are always ready and never grow beyond their limit; what is too much is dropped and said to be. A pipe
//! loses nothing: its guest waits for whoever reads it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use dunlin_model::MAX_ITEM_OUTPUT;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::limits::MAX_WRITE;
use crate::logs::Lines;
use crate::pipe::Pipe;

/// What a job item wrote to standard output, at most [`MAX_ITEM_OUTPUT`] bytes of it.
#[derive(Clone, Debug, Default)]
pub struct Capture(Arc<Mutex<Captured>>);

#[derive(Debug, Default)]
struct Captured {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl Capture {
    /// Returns what was written so far as text, and whether it was more than is kept.
    pub fn take(&self) -> (String, bool) {
        let mut captured = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = std::mem::take(&mut captured.bytes);
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        // A byte that is not UTF-8 becomes three.
        let too_long = text.len() > MAX_ITEM_OUTPUT;
        text.truncate(text.floor_char_boundary(MAX_ITEM_OUTPUT));
        (text, captured.is_cut || too_long)
    }

    fn write(&self, bytes: &[u8]) {
        let mut captured = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_ITEM_OUTPUT - captured.bytes.len();
        captured.is_cut |= bytes.len() > room;
        captured.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// One of a guest's two output streams. All handles to it share what is behind.
#[derive(Clone)]
pub(crate) enum Output {
    Lines(Arc<Mutex<Lines>>),
    Capture(Capture),
    Pipe(Pipe),
}

impl Output {
    pub(crate) fn lines(lines: Lines) -> Self {
        Self::Lines(Arc::new(Mutex::new(lines)))
    }

    /// Ends a line that was begun.
    pub(crate) fn flush_line(&self) {
        if let Self::Lines(lines) = self {
            lines.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
    }

    /// Returns the last lines, if these are for the log.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        match self {
            Self::Lines(lines) => lines.lock().unwrap_or_else(PoisonError::into_inner).last(),
            Self::Capture(_) | Self::Pipe(_) => Vec::new(),
        }
    }

    /// Forgets the last lines.
    pub(crate) fn forget_lines(&self) {
        if let Self::Lines(lines) = self {
            lines.lock().unwrap_or_else(PoisonError::into_inner).forget();
        }
    }

    fn take(&self, bytes: &[u8]) -> StreamResult<()> {
        match self {
            Self::Lines(lines) => lines.lock().unwrap_or_else(PoisonError::into_inner).write(bytes),
            Self::Capture(capture) => capture.write(bytes),
            Self::Pipe(pipe) => pipe.write(bytes)?,
        }
        Ok(())
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        match self {
            Self::Pipe(pipe) => match pipe.try_clone() {
                Ok(sender) => Box::new(sender),
                // There are too many open files: it takes what there is room for, and fails beyond that.
                Err(_) => Box::new(self.clone()),
            },
            Self::Lines(_) | Self::Capture(_) => Box::new(self.clone()),
        }
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match self {
            Self::Lines(_) | Self::Capture(_) => Ok(MAX_WRITE),
            Self::Pipe(pipe) => pipe.check_write(),
        }
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        if let Self::Pipe(pipe) = self {
            pipe.flushed().await;
        }
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        // A guest of WASI 0.3 may offer all of its memory at once, and pays for each call.
        let bytes = &bytes[..bytes.len().min(MAX_WRITE)];
        let taken = self.take(bytes).map(|()| bytes.len());
        Poll::Ready(taken.map_err(|_| std::io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_beyond_the_limit_is_cut_and_said_to_be() {
        let capture = Capture::default();
        capture.write(&vec![b'x'; MAX_ITEM_OUTPUT]);
        assert!(!capture.clone().0.lock().unwrap().is_cut);
        capture.write(b"y");
        let (text, is_cut) = capture.take();
        assert_eq!((text.len(), is_cut), (MAX_ITEM_OUTPUT, true));
    }
}
