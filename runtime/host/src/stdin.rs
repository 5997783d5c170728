//! Standard input from a file, of which nothing is read before the guest asks.
//!
//! wasmtime begins to read as soon as it is given a stream. What it had read of a file, and a guest had not, would be
//! missing for whoever reads the same file next: `(dunlin run first; dunlin run second) < input`.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{AsyncStdinStream, IsTerminal, StdinStream};
use wasmtime_wasi::p2::{InputStream, Pollable, StreamResult};

/// The file, and what reads it once that has begun.
struct Source {
    file: Mutex<Option<File>>,
    begun: OnceLock<AsyncStdinStream>,
}

impl Source {
    fn begun(&self) -> &AsyncStdinStream {
        self.begun.get_or_init(|| {
            let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
            AsyncStdinStream::new(file.expect("the file is taken once, where reading begins"))
        })
    }
}

/// Standard input. All streams that are made of it share how far it was read.
pub(crate) struct Input(Arc<Source>);

impl Input {
    pub(crate) fn new(file: File) -> Self {
        Self(Arc::new(Source { file: Mutex::new(Some(file)), begun: OnceLock::new() }))
    }
}

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Input {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(Unread { source: Arc::clone(&self.0), stream: None })
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(Handle { source: Arc::clone(&self.0), stream: None })
    }
}

/// A guest's handle to it.
struct Handle {
    source: Arc<Source>,
    stream: Option<Box<dyn InputStream>>,
}

impl Handle {
    fn stream(&mut self) -> &mut dyn InputStream {
        &mut **self.stream.get_or_insert_with(|| self.source.begun().p2_stream())
    }
}

#[async_trait]
impl Pollable for Handle {
    async fn ready(&mut self) {
        self.stream().ready().await;
    }
}

#[async_trait]
impl InputStream for Handle {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.stream().read(size)
    }

    async fn cancel(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.cancel().await;
        }
    }
}

/// The same for whoever reads it without WASI's streams.
struct Unread {
    source: Arc<Source>,
    stream: Option<Pin<Box<dyn AsyncRead + Send + Sync>>>,
}

impl AsyncRead for Unread {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let stream = this.stream.get_or_insert_with(|| Pin::from(this.source.begun().async_stream()));
        stream.as_mut().poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    #[tokio::test]
    async fn nothing_is_read_before_somebody_asks_and_all_handles_go_on_where_the_last_one_was() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one two").unwrap();
        file.rewind().unwrap();
        let input = Input::new(file.try_clone().unwrap().into());
        let (mut first, mut second) = (input.p2_stream(), input.p2_stream());
        drop(input.p2_stream());
        tokio::task::yield_now().await;
        assert_eq!(file.stream_position().unwrap(), 0);
        assert_eq!(first.blocking_read(4).await.unwrap(), "one ");
        assert_eq!(second.blocking_read(10).await.unwrap(), "two");
        assert!(first.blocking_read(1).await.is_err(), "the end");
    }
}
