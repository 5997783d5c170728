//! The bodies that pass through. Nothing is collected; what is small enough is remembered for another try.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::access_log::Logged;
use crate::config::MAX_REPLAY;
use crate::load::UnderWay;
use crate::upstream::{Pool, Upstream};

/// The body of a request on its way to a worker or a node.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// There is none.
    Empty,
    /// It comes from a client while it is sent.
    Streamed {
        source: Arc<Replay>,
        /// Which try this is: only the latest may read.
        attempt: u32,
        /// How many of the remembered chunks it has sent.
        sent: usize,
        length: SizeHint,
    },
}

/// A client's body, of which the beginning is remembered so that another endpoint can be sent it again.
#[derive(Debug)]
pub(crate) struct Replay(Mutex<ReplayState>);

#[derive(Debug)]
struct ReplayState {
    incoming: Incoming,
    attempt: u32,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// Whether all that was read is in `kept`.
    is_whole: bool,
    has_ended: bool,
    /// How many bytes have come, and how many may.
    read: u64,
    limit: u64,
}

/// Why a client's body could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutgoingError {
    #[error("could not read the client's body")]
    Client(#[source] hyper::Error),
    #[error("the body is larger than its route takes")]
    TooLarge,
    #[error("the body is being sent to another endpoint")]
    Superseded,
}

impl Replay {
    pub(crate) fn new(incoming: Incoming) -> Self {
        let state = ReplayState {
            incoming,
            attempt: 0,
            kept: Vec::new(),
            kept_bytes: 0,
            is_whole: true,
            has_ended: false,
            read: 0,
            limit: u64::MAX,
        };
        Self(Mutex::new(state))
    }

    fn lock(&self) -> MutexGuard<'_, ReplayState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets no more than so many bytes through.
    pub(crate) fn limit(&self, limit: u64) {
        self.lock().limit = limit;
    }

    /// Tells whether more has come than may.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.lock();
        state.read > state.limit
    }

    /// Tells whether all that has come of it is remembered.
    pub(crate) fn is_whole(&self) -> bool {
        self.lock().is_whole
    }

    /// Returns the body from its beginning, unless too much of it has gone already.
    pub(crate) fn again(self: &Arc<Self>, length: &SizeHint) -> Option<Outgoing> {
        let mut state = self.lock();
        if !state.is_whole {
            return None;
        }
        state.attempt += 1;
        let attempt = state.attempt;
        Some(Outgoing::Streamed { source: Arc::clone(self), attempt, sent: 0, length: *length })
    }
}

impl ReplayState {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        match frame.data_ref() {
            Some(data) if self.is_whole && self.kept_bytes + data.len() <= MAX_REPLAY => {
                self.kept_bytes += data.len();
                self.kept.push(data.clone());
            }
            _ => {
                self.is_whole = false;
                self.kept = Vec::new();
            }
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = OutgoingError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutgoingError>>> {
        let Self::Streamed { source, attempt, sent, .. } = self.get_mut() else {
            return Poll::Ready(None);
        };
        let mut state = source.lock();
        if state.attempt != *attempt {
            return Poll::Ready(Some(Err(OutgoingError::Superseded)));
        }
        if let Some(data) = state.kept.get(*sent) {
            *sent += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if state.has_ended {
            return Poll::Ready(None);
        }
        match ready!(Pin::new(&mut state.incoming).poll_frame(context)) {
            Some(Ok(frame)) => {
                state.read += frame.data_ref().map_or(0, |data| data.len() as u64);
                if state.read > state.limit {
                    state.is_whole = false;
                    return Poll::Ready(Some(Err(OutgoingError::TooLarge)));
                }
                state.keep(&frame);
                *sent += 1;
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                state.is_whole = false;
                Poll::Ready(Some(Err(OutgoingError::Client(error))))
            }
            None => {
                state.has_ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed { source, attempt, sent, .. } => {
                let state = source.lock();
                let is_at_end = *sent >= state.kept.len();
                state.attempt == *attempt && is_at_end && (state.has_ended || state.incoming.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed { length, .. } => *length,
        }
    }
}

/// The body of a response on its way to the client.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Our own words.
    Whole(Full<Bytes>),
    /// It comes from a worker or a node while it is sent.
    Streamed(Streamed),
    /// Either of them, of which the access log tells.
    Logged(Box<Logged>),
}

/// A body that holds the connection it comes from, and gives it back at its end.
#[derive(Debug)]
pub(crate) struct Streamed {
    incoming: Incoming,
    upstream: Option<Upstream>,
    pool: Option<Arc<Pool>>,
    has_ended: bool,
    /// That the request is under way.
    under_way: Option<UnderWay>,
}

impl Answer {
    /// Lets a request be under way until all of this is sent.
    pub(crate) fn hold(&mut self, under_way: UnderWay) {
        match self {
            // What is told of by the access log was held before.
            Self::Whole(_) | Self::Logged(_) => {}
            Self::Streamed(body) => body.under_way = Some(under_way),
        }
    }
}

impl Streamed {
    pub(crate) fn new(incoming: Incoming, upstream: Upstream, pool: Option<Arc<Pool>>) -> Self {
        Self { incoming, upstream: Some(upstream), pool, has_ended: false, under_way: None }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // A connection with an unread rest is of no use to anyone; it is closed, which tells the other side to stop.
        let has_ended = self.has_ended || self.incoming.is_end_stream();
        if let (true, Some(pool), Some(upstream)) = (has_ended, &self.pool, self.upstream.take()) {
            pool.give_back(upstream);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body)
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Streamed(body) => {
                let frame = ready!(Pin::new(&mut body.incoming).poll_frame(context));
                // Nothing follows trailers.
                body.has_ended |=
                    frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers));
                Poll::Ready(frame)
            }
            Self::Logged(body) => body.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Streamed(body) => body.has_ended || body.incoming.is_end_stream(),
            Self::Logged(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Streamed(body) => body.incoming.size_hint(),
            Self::Logged(body) => body.size_hint(),
        }
    }
}
