//! A handed connection as its HTTP server sees it: one head of a request at a time, and nothing behind it before it
//! is decided that the request is answered here.
//!
//! The bytes of the head are remembered until then, and what follows stays outside the server. So a request that is
//! for somebody else can be given back exactly as it came, with nothing of its body lost.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How much is read at once while a request is being decided on.
const READ_AHEAD: usize = 1 << 10;
/// Buffers above this are not kept from request to request.
const KEPT: usize = 4 << 10;
/// How much is put together to be written in one piece: as long as it takes less to copy it than it takes the system to
/// gather the parts.
const IN_ONE_PIECE: usize = 1 << 10;
/// The end of a body in chunks without trailers.
const LAST_CHUNK: [u8; 5] = *b"0\r\n\r\n";

/// A connection that lets one head through at a time.
#[derive(Debug)]
pub(crate) struct Turnstile {
    pub(crate) stream: TcpStream,
    pub(crate) pass: Arc<Pass>,
}

/// What server and turnstile share.
#[derive(Debug)]
pub(crate) struct Pass {
    state: Mutex<State>,
    is_flushed: AtomicBool,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The head that is being read or decided on, or what there is of it.
    head: BytesMut,
    /// What was read beyond it.
    rest: BytesMut,
    has_ended: bool,
    /// Who waits for the decision, or for a flush.
    waiting: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next head, of which so many bytes have been searched for its end.
    Head { searched: usize },
    /// The head is through, and nothing more until it is decided on.
    Held,
    /// So many bytes of a body.
    Body(u64),
    /// A body in chunks, of which these were the last bytes.
    Chunks([u8; 5]),
    /// It is not known any more where the next head begins: everything goes through.
    Lost,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    Nothing,
    Bytes(u64),
    Chunks,
}

impl Turnstile {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let state = State {
            phase: Phase::Head { searched: 0 },
            head: BytesMut::new(),
            rest: BytesMut::new(),
            has_ended: false,
            waiting: None,
        };
        let pass = Pass { state: Mutex::new(state), is_flushed: AtomicBool::new(true) };
        Self { stream, pass: Arc::new(pass) }
    }
}

impl Pass {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes notice that a request begins, and tells whether its head is known here.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.lock();
        let is_held = state.phase == Phase::Held;
        if !is_held {
            state.phase = Phase::Lost;
        }
        is_held
    }

    /// Tells whether the request under way can still be given back.
    pub(crate) fn is_held(&self) -> bool {
        self.lock().phase == Phase::Held
    }

    /// Tells whether the next thing to come is a head.
    pub(crate) fn is_between_requests(&self) -> bool {
        matches!(self.lock().phase, Phase::Head { .. }) && self.is_flushed.load(Ordering::Acquire)
    }

    /// Lets through what follows the head: the request is answered here.
    pub(crate) fn accept(&self, follows: Follows) {
        let mut state = self.lock();
        if state.phase != Phase::Held {
            return;
        }
        state.phase = match follows {
            Follows::Nothing | Follows::Bytes(0) => Phase::Head { searched: 0 },
            Follows::Bytes(length) => Phase::Body(length),
            Follows::Chunks => Phase::Chunks([0; 5]),
        };
        if state.head.capacity() > KEPT {
            state.head = BytesMut::new();
        }
        state.head.clear();
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Takes notice that the server has taken the last chunk of a body, or that nobody wants to have it.
    pub(crate) fn end_chunks(&self, is_whole: bool) {
        let mut state = self.lock();
        if let Phase::Chunks(last) = state.phase {
            // Otherwise the server has read on, and has parts of the next request that are not known here.
            let is_known = is_whole && last == LAST_CHUNK;
            state.phase = if is_known { Phase::Head { searched: 0 } } else { Phase::Lost };
        }
    }

    /// Returns once all that the server wrote has left.
    pub(crate) fn poll_flushed(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_flushed.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.lock().waiting = Some(context.waker().clone());
        Poll::Pending
    }

    /// Returns what was read and not answered: the head under way, as it came, and what came after it.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut state = self.lock();
        let mut read = std::mem::take(&mut state.head).to_vec();
        read.extend_from_slice(&state.rest);
        state.rest.clear();
        read
    }
}

impl State {
    /// Takes notice of `new` bytes for a head and returns how many of them still belong to it.
    fn read_head(&mut self, new: &[u8], searched: usize) -> usize {
        let before = self.head.len();
        self.head.extend_from_slice(new);
        match head_end(&self.head, searched) {
            Some(end) => {
                self.head.truncate(end);
                self.phase = Phase::Held;
                end - before
            }
            None => {
                self.phase = Phase::Head { searched: self.head.len() };
                new.len()
            }
        }
    }

    /// Gives the server what is in `rest` and allowed; false if there is nothing.
    fn read_rest(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let mut length = self.rest.len().min(buffer.remaining());
        if length == 0 {
            return false;
        }
        match self.phase {
            Phase::Head { searched } => {
                let new = self.rest.split_to(length);
                let of_head = self.read_head(&new, searched);
                buffer.put_slice(&new[..of_head]);
                if of_head < new.len() {
                    // The rarest case: two requests came at once.
                    let mut rest = BytesMut::from(&new[of_head..]);
                    rest.extend_from_slice(&self.rest);
                    self.rest = rest;
                }
                return true;
            }
            Phase::Held => return false,
            Phase::Body(left) => length = length.min(usize::try_from(left).unwrap_or(usize::MAX)),
            Phase::Chunks(_) | Phase::Lost => {}
        }
        buffer.put_slice(&self.rest[..length]);
        let passed = &buffer.filled()[buffer.filled().len() - length..];
        self.phase = passed_on(self.phase, passed);
        self.rest.advance(length);
        if self.rest.is_empty() {
            self.rest = BytesMut::new();
        }
        true
    }
}

/// Returns the phase after `passed` went through.
fn passed_on(phase: Phase, passed: &[u8]) -> Phase {
    match phase {
        Phase::Body(left) => match left.saturating_sub(passed.len() as u64) {
            0 => Phase::Head { searched: 0 },
            left => Phase::Body(left),
        },
        Phase::Chunks(mut last) => {
            let new = &passed[passed.len().saturating_sub(last.len())..];
            last.rotate_left(new.len());
            let kept = last.len() - new.len();
            last[kept..].copy_from_slice(new);
            Phase::Chunks(last)
        }
        phase => phase,
    }
}

/// Returns where the first head in `bytes` ends, of which the first `searched` are known not to hold its end.
/// Empty lines before a request do not count, and lines may end without a carriage return, as the server has it.
fn head_end(bytes: &[u8], searched: usize) -> Option<usize> {
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let mut at = begin.max(searched.saturating_sub(2));
    loop {
        at += bytes[at..].iter().position(|byte| *byte == b'\n')? + 1;
        match &bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
}

impl AsyncRead for Turnstile {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, pass } = self.get_mut();
        let mut state = pass.lock();
        let state = &mut *state;
        if state.read_rest(buffer) {
            return Poll::Ready(Ok(()));
        }
        if !state.rest.is_empty() {
            state.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        if state.has_ended {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match state.phase {
            Phase::Held => {
                // Only to notice that the client goes away; what comes instead waits for the decision.
                let mut ahead = [0; READ_AHEAD];
                let mut ahead = ReadBuf::new(&mut ahead);
                ready!(Pin::new(stream).poll_read(context, &mut ahead))?;
                if ahead.filled().is_empty() {
                    state.has_ended = true;
                    return Poll::Ready(Ok(()));
                }
                state.rest.extend_from_slice(ahead.filled());
                state.waiting = Some(context.waker().clone());
                Poll::Pending
            }
            Phase::Head { searched } => {
                ready!(Pin::new(stream).poll_read(context, buffer))?;
                let new = &buffer.filled()[before..];
                let of_head = state.read_head(new, searched);
                state.rest.extend_from_slice(&new[of_head..]);
                buffer.set_filled(before + of_head);
                Poll::Ready(Ok(()))
            }
            phase => {
                match phase {
                    Phase::Body(left) => {
                        ready!(Pin::new(&mut stream.take(left)).poll_read(context, buffer))?;
                    }
                    _ => ready!(Pin::new(stream).poll_read(context, buffer))?,
                }
                state.phase = passed_on(phase, &buffer.filled()[before..]);
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// Returns `parts` in one piece, if there is room for them in `piece`.
fn put_together<'a>(parts: &[io::IoSlice<'_>], piece: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut length = 0;
    for part in parts {
        piece.get_mut(length..length + part.len())?.copy_from_slice(part);
        length += part.len();
    }
    Some(&piece[..length])
}

impl Turnstile {
    fn has_written(&self) {
        self.pass.is_flushed.store(false, Ordering::Release);
    }
}

impl AsyncWrite for Turnstile {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.has_written();
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.has_written();
        let stream = Pin::new(&mut self.get_mut().stream);
        let mut piece = [0; IN_ONE_PIECE];
        match put_together(parts, &mut piece) {
            Some(whole) => stream.poll_write(context, whole),
            None => stream.poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// The server asks for this once it has written all that it had.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, pass } = self.get_mut();
        ready!(Pin::new(stream).poll_flush(context))?;
        if !pass.is_flushed.swap(true, Ordering::AcqRel)
            && let Some(waiting) = pass.lock().waiting.take()
        {
            waiting.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;

    #[test]
    fn a_short_response_is_written_in_one_piece_and_a_long_one_as_it_is() {
        let mut piece = [0; 8];
        let parts = |parts: &[&'static [u8]]| parts.iter().map(|part| IoSlice::new(part)).collect::<Vec<_>>();
        assert_eq!(put_together(&parts(&[b"head", b"", b"body"]), &mut piece), Some(b"headbody".as_slice()));
        assert_eq!(put_together(&parts(&[b"head", b"bodies"]), &mut piece), None);
        assert_eq!(put_together(&[], &mut piece), Some(b"".as_slice()));
    }
}
