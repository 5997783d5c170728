//! The stream of log lines: one JSON value per line, each of bounded length.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;

use super::ClientError;
use crate::LogLine;

/// The most bytes of one line: `LogRecord::MAX_TEXT` with each byte escaped, and what stands around it.
const MAX_LINE: usize = 512 << 10;

type Lines = Pin<Box<dyn Stream<Item = Result<LogLine, ClientError>> + Send>>;

/// What guests print, line by line.
pub struct LogStream {
    lines: Lines,
}

impl LogStream {
    pub(super) fn new(response: reqwest::Response, url: String) -> Self {
        let bytes = response.bytes_stream().map_err(|error| io::Error::other(error.without_url()));
        let lines = FramedRead::new(StreamReader::new(bytes), LinesCodec::new_with_max_length(MAX_LINE));
        let lines = lines.filter_map(move |line| {
            let line = read(line, &url);
            async move { line }
        });
        Self { lines: Box::pin(lines) }
    }
}

impl fmt::Debug for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStream").finish_non_exhaustive()
    }
}

impl Stream for LogStream {
    type Item = Result<LogLine, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.lines.poll_next_unpin(context)
    }
}

/// Returns nothing for an empty line, with which a server may keep a silent connection open.
fn read(line: Result<String, LinesCodecError>, url: &str) -> Option<Result<LogLine, ClientError>> {
    match line {
        Ok(text) if text.trim().is_empty() => None,
        Ok(text) => Some(
            serde_json::from_str(&text)
                .map_err(|error| ClientError::bad_answer(format!("a log line is not one: {error}"))),
        ),
        Err(LinesCodecError::MaxLineLengthExceeded) => {
            Some(Err(ClientError::bad_answer(format!("a log line has more than {MAX_LINE} bytes"))))
        }
        Err(LinesCodecError::Io(source)) => {
            Some(Err(ClientError::Unreachable { url: url.to_owned(), source: Box::new(source) }))
        }
    }
}
