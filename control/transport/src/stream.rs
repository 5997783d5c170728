//! Streams: messages, and bytes.
//!
//! A stream is a byte stream in both directions (`AsyncRead` and `AsyncWrite`); messages are frames on it. Messages
//! are read to the byte, so bytes may follow them. A half that is dropped before it is finished is reset, so that the
//! other side never takes a part for the whole.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dunlin_protocol::{FrameError, StreamReply, StreamRequest, decode_known, encode, frame_length};
use quinn::{ReadError, VarInt, WriteError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::ConnectionEnded;

/// The code of a stream that was given up before its end.
const ABANDONED: VarInt = VarInt::from_u32(1);
/// The code of a stream on which something came that is no frame.
const MALFORMED: VarInt = VarInt::from_u32(2);

/// Returns how urgent what is sent on such a stream is: where a link takes less than there is to send, more urgent bytes
/// go first. That a node is there and what it is to do goes before what its guests say, and that before what can wait.
pub(crate) fn priority(request: &StreamRequest) -> i32 {
    match request {
        StreamRequest::Control(_) => 3,
        StreamRequest::Renew { .. } | StreamRequest::Secret { .. } => 2,
        StreamRequest::Relay => 1,
        StreamRequest::Logs(_) | StreamRequest::Traps(_) => 0,
        StreamRequest::Component { .. }
        | StreamRequest::ChunkList { .. }
        | StreamRequest::Chunk { .. }
        | StreamRequest::Program { .. }
        | StreamRequest::Input { .. }
        | StreamRequest::CoreDump { .. } => -1,
    }
}

/// How long a stream may take to say what it is for.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// The most bytes of a stream's first message.
const MAX_REQUEST: usize = 64 << 10;
/// Bytes read at once; also how far memory runs ahead of what has really come.
const CHUNK: usize = 64 << 10;

/// Why something could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The other side does not want more of this stream.
    #[error("the other side stopped the stream with code {code}")]
    Stopped {
        /// Its code.
        code: u64,
    },
    /// The stream was finished before.
    #[error("the stream was finished before")]
    Finished,
    /// The message does not fit into a frame.
    #[error("could not make a frame of the message")]
    Frame(#[from] FrameError),
    /// The connection is at its end.
    #[error("the stream ended with its connection")]
    Connection(#[from] ConnectionEnded),
}

/// Why something could not be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The other side gave the stream up.
    #[error("the other side gave the stream up with code {code}")]
    Reset {
        /// Its code.
        code: u64,
    },
    /// The stream ended within a message, or before the one that was due.
    #[error("the stream ended where a message was due")]
    Truncated,
    /// What came is no frame, or no message of the expected kind. Nothing more can be read.
    #[error("could not read the message")]
    Frame(#[from] FrameError),
    /// What came is a request of a kind that this version does not know. The other side was told.
    #[error("the stream is for something that this version does not know")]
    UnknownRequest,
    /// Nothing came in time.
    #[error("the stream did not say what it is for within {}s", REQUEST_TIME.as_secs())]
    TimedOut,
    /// The stream was ended here.
    #[error("the stream was ended here")]
    EndedHere,
    /// The connection is at its end.
    #[error("the stream ended with its connection")]
    Connection(#[from] ConnectionEnded),
}

/// The half on which this side sends.
#[derive(Debug)]
pub struct SendHalf {
    inner: quinn::SendStream,
    finished: bool,
    ending: Option<Ending>,
}

/// Is over when the other side has received everything, or wants no more.
struct Ending(
    Pin<Box<dyn Future<Output = Result<Option<quinn::VarInt>, quinn::StoppedError>> + Send + Sync>>,
);

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ending(..)")
    }
}

impl SendHalf {
    /// Sends a message. If this is dropped while it waits, the stream is of no more use.
    pub async fn send_message<M: Serialize>(&mut self, message: &M) -> Result<(), SendError> {
        let frame = encode(message)?;
        self.send_bytes(&frame).await
    }

    /// Sends bytes.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.inner.write_all(bytes).await.map_err(|error| match error {
            WriteError::Stopped(code) => SendError::Stopped { code: code.into_inner() },
            WriteError::ConnectionLost(error) => SendError::Connection(error.into()),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => SendError::Finished,
        })
    }

    /// Sets how urgent what is sent is, see [`priority`].
    pub(crate) fn set_priority(&self, priority: i32) {
        // It fails only if the stream has ended.
        let _ = self.inner.set_priority(priority);
    }

    /// Says that nothing more comes: the other side sees a proper end.
    pub fn finish(&mut self) {
        self.finished = true;
        // It fails only if the stream was finished or stopped before, and then it has ended too.
        let _ = self.inner.finish();
    }

    /// Waits until the other side has received everything, after [`SendHalf::finish`], or has given the stream up.
    pub async fn delivered(&mut self) -> Result<(), SendError> {
        match self.inner.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(SendError::Stopped { code: code.into_inner() }),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(SendError::Connection(error.into())),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(SendError::Finished),
        }
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.finished {
            // It fails only if the stream has ended in another way.
            let _ = self.inner.reset(ABANDONED);
        }
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.inner), context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.inner), context)
    }

    /// Is over when the other side has received everything, so that who closes the connection after it cuts nothing off.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ending.is_none() {
            self.finish();
            self.ending = Some(Ending(Box::pin(self.inner.stopped())));
        }
        match &mut self.ending {
            // How it ended is for who reads the other half.
            Some(Ending(ending)) => ending.as_mut().poll(context).map(|_| Ok(())),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// The half on which this side receives.
#[derive(Debug)]
pub struct ReceiveHalf {
    inner: quinn::RecvStream,
    /// What was looked at, and is still to be read.
    ahead: Bytes,
    /// What was read of the next frame.
    frame: Vec<u8>,
}

impl ReceiveHalf {
    /// Returns the next message, or nothing at the stream's proper end. Messages of unknown kinds are skipped.
    ///
    /// May be dropped while it waits, without loss. Do not read bytes before it has returned.
    pub async fn receive_message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, ReceiveError> {
        loop {
            let Some(body) = self.receive_frame(dunlin_protocol::MAX_FRAME).await? else { return Ok(None) };
            match decode_known(&body) {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => tracing::debug!("message of an unknown kind skipped"),
                Err(error) => return Err(self.refuse(error)),
            }
        }
    }

    /// Returns the body of the next frame, of at most `limit` bytes.
    pub(crate) async fn receive_frame(&mut self, limit: usize) -> Result<Option<Vec<u8>>, ReceiveError> {
        loop {
            let wanted = match self.frame.first_chunk::<4>() {
                None => 4,
                Some(prefix) => match frame_length(*prefix) {
                    Ok(length) if length <= limit => 4 + length,
                    Ok(length) => return Err(self.refuse(FrameError::TooLong { observed: length as u64 })),
                    Err(error) => return Err(self.refuse(error)),
                },
            };
            if self.frame.len() >= 4 && self.frame.len() >= wanted {
                let rest = self.frame.split_off(wanted);
                let body = std::mem::replace(&mut self.frame, rest).split_off(4);
                return Ok(Some(body));
            }
            // Never more than the frame still needs: the bytes after it are not ours.
            let chunk = (wanted - self.frame.len()).min(CHUNK);
            match self.receive_chunk(chunk).await? {
                Some(chunk) => self.frame.extend_from_slice(&chunk),
                None if self.frame.is_empty() => return Ok(None),
                None => return Err(ReceiveError::Truncated),
            }
        }
    }

    /// Returns what comes next, at most `limit` bytes; nothing at the stream's proper end.
    async fn receive_chunk(&mut self, limit: usize) -> Result<Option<Bytes>, ReceiveError> {
        if !self.ahead.is_empty() {
            return Ok(Some(self.ahead.split_to(limit.min(self.ahead.len()))));
        }
        let chunk = self.inner.read_chunk(limit, true).await.map_err(receive_error)?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }

    /// Adds what has come to `bytes`; tells whether there was something, which there is not at the stream's proper end.
    pub(crate) async fn receive_bytes(&mut self, bytes: &mut Vec<u8>) -> Result<bool, ReceiveError> {
        let Some(chunk) = self.receive_chunk(CHUNK).await? else { return Ok(false) };
        bytes.extend_from_slice(&chunk);
        Ok(true)
    }

    /// Returns the next byte, which is read again later; nothing at the stream's proper end.
    async fn peek(&mut self) -> Result<Option<u8>, ReceiveError> {
        if self.ahead.is_empty() {
            self.ahead = self.receive_chunk(CHUNK).await?.unwrap_or_default();
        }
        Ok(self.ahead.first().copied())
    }

    pub(crate) fn refuse(&mut self, error: FrameError) -> ReceiveError {
        // It fails only if the stream has ended already.
        let _ = self.inner.stop(MALFORMED);
        ReceiveError::Frame(error)
    }
}

fn receive_error(error: ReadError) -> ReceiveError {
    match error {
        ReadError::Reset(code) => ReceiveError::Reset { code: code.into_inner() },
        ReadError::ConnectionLost(error) => ReceiveError::Connection(error.into()),
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            ReceiveError::EndedHere
        }
    }
}

impl AsyncRead for ReceiveHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return AsyncRead::poll_read(Pin::new(&mut self.inner), context, buffer);
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead.split_to(length));
        Poll::Ready(Ok(()))
    }
}

/// What a stream is for that another node has opened.
#[derive(Debug)]
pub enum FromPeer {
    /// It asks for something of this node itself.
    Request(StreamRequest, Stream),
    /// It brings a request for a service, as HTTP/1.
    Http(Stream),
}

/// A stream in both directions: messages, bytes, or an I/O object for HTTP.
#[derive(Debug)]
pub struct Stream {
    /// The half on which this side sends.
    pub send: SendHalf,
    /// The half on which this side receives.
    pub receive: ReceiveHalf,
}

impl Stream {
    pub(crate) fn new(send: quinn::SendStream, receive: quinn::RecvStream) -> Self {
        Self {
            send: SendHalf { inner: send, finished: false, ending: None },
            receive: ReceiveHalf { inner: receive, ahead: Bytes::new(), frame: Vec::new() },
        }
    }

    /// Sends a message. If this is dropped while it waits, the stream is of no more use.
    pub async fn send_message<M: Serialize>(&mut self, message: &M) -> Result<(), SendError> {
        self.send.send_message(message).await
    }

    /// Returns the next message, as [`ReceiveHalf::receive_message`] does.
    pub async fn receive_message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, ReceiveError> {
        self.receive.receive_message().await
    }

    /// Returns what a stream that was accepted is for: its first message, within ten seconds.
    ///
    /// A request of an unknown kind is answered with [`StreamReply::Error`].
    pub async fn receive_request(&mut self) -> Result<StreamRequest, ReceiveError> {
        let body = tokio::time::timeout(REQUEST_TIME, self.receive.receive_frame(MAX_REQUEST))
            .await
            .map_err(|_| ReceiveError::TimedOut)??
            .ok_or(ReceiveError::Truncated)?;
        match decode_known(&body) {
            Ok(Some(request)) => {
                self.send.set_priority(priority(&request));
                Ok(request)
            }
            Ok(None) => {
                let message = "this side is older and does not know this kind of stream".to_owned();
                // If it cannot be sent, the other side is gone and needs no answer.
                let _ = self.send_message(&StreamReply::Error { message }).await;
                self.send.finish();
                Err(ReceiveError::UnknownRequest)
            }
            Err(error) => Err(self.receive.refuse(error)),
        }
    }

    /// Returns what a stream that another node has opened is for, within ten seconds.
    pub async fn receive_from_peer(mut self) -> Result<FromPeer, ReceiveError> {
        let first = tokio::time::timeout(REQUEST_TIME, self.receive.peek());
        match first.await.map_err(|_| ReceiveError::TimedOut)?? {
            // The first byte of a length: no frame is so long that it is another one. No method of HTTP begins so.
            Some(0) => Ok(FromPeer::Request(self.receive_request().await?, self)),
            Some(_) => Ok(FromPeer::Http(self)),
            None => Err(ReceiveError::Truncated),
        }
    }

    /// Says that nothing more comes from this side.
    pub fn finish(&mut self) {
        self.send.finish();
    }

    /// Returns the halves, to be used by two tasks.
    pub fn split(self) -> (SendHalf, ReceiveHalf) {
        (self.send, self.receive)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.receive).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(context)
    }
}
