//! The body of a guest's response, on its way to the client.
//!
//! It is whole where the guest was done before anything of its response went out. Else it is tied to its instance in
//! both directions: when the client goes away the instance is ended, and when the instance fails half-way the client
//! must see a broken response, never one that looks complete.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use dunlin_model::{Bytes as Size, LimitHit, Outcome};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::exchange::Record;
use crate::service::Spent;
use crate::trailer::{AccountNames, FuelTrailer, remove_own};

/// Why a response stops before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The instance failed.
    #[error("the guest ended before its response: {0}")]
    Ended(Outcome),
    /// The guest gave the response up, or broke the promise of its length.
    #[error("the guest's response is broken: {0}")]
    Broken(wasmtime_wasi_http::Error),
    /// It is too long.
    #[error("the response is too long: {0}")]
    TooLong(LimitHit),
}

/// The body of a guest's response.
pub struct GuestBody(Kind);

enum Kind {
    /// All of it, and what the request has used.
    Whole(Bytes, Option<Spent>),
    // Boxed, since most bodies are whole and are moved about several times.
    Stream(Box<Stream>),
}

/// A body that is still being made.
pub(crate) struct Stream {
    /// What the guest wrote before the head went out.
    pub(crate) begun: VecDeque<Frame<Bytes>>,
    /// Whether that was all.
    pub(crate) is_ended: bool,
    pub(crate) rest: HyperOutgoingBody,
    pub(crate) record: Record,
    /// Ends the instance when it is dropped unused; absent if the instance has ended.
    pub(crate) lifeline: Option<oneshot::Sender<()>>,
    /// How many bytes it may have.
    pub(crate) limit: Size,
    pub(crate) sent: u64,
    /// How many bytes are still to come, where the head says how many there are.
    pub(crate) left: Option<u64>,
    /// Whether nobody will read it: the answer to HEAD has none.
    pub(crate) is_unread: bool,
    /// The guest's own trailers, which wait for what is added to them.
    pub(crate) trailers: Option<HeaderMap>,
    /// Ends when the instance does; absent if it has.
    pub(crate) ended: Option<oneshot::Receiver<()>>,
    /// What comes after the body, if that is wanted.
    pub(crate) fuel: Option<FuelTrailer>,
    /// Whether the body has come to its end, and the instance may go on after it.
    pub(crate) is_let_live: bool,
}

impl GuestBody {
    pub(crate) fn whole(bytes: Bytes, spent: Option<Spent>) -> Self {
        Self(Kind::Whole(bytes, spent))
    }

    pub(crate) fn stream(stream: Stream) -> Self {
        Self(Kind::Stream(Box::new(stream)))
    }

    /// Returns what the request has used, if its guest was done before the response went out.
    pub fn spent(&self) -> Option<Spent> {
        match &self.0 {
            Kind::Whole(_, spent) => *spent,
            Kind::Stream(_) => None,
        }
    }

    /// Has the body end with trailers that say what its instance burned, and tells whether it will: a body whose length is
    /// known before it is made has no trailers.
    pub fn end_with_account(&mut self, names: AccountNames) -> bool {
        match &mut self.0 {
            Kind::Stream(stream) if stream.left.is_none() && !stream.is_unread => {
                stream.fuel = Some(FuelTrailer::new(names, stream.ended.take()));
                true
            }
            Kind::Stream(_) | Kind::Whole(..) => false,
        }
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Whole(bytes, _) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes, _) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Stream(stream) => stream.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes, _) => bytes.is_empty(),
            Kind::Stream(stream) => {
                let has_trailers = stream.fuel.is_some() || stream.trailers.is_some();
                let has_data = !stream.begun.is_empty();
                !has_data && !has_trailers && (stream.is_ended || stream.rest.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl Stream {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = match self.begun.pop_front() {
            Some(frame) => Some(Ok(frame)),
            None if self.is_ended => None,
            None => ready!(Pin::new(&mut self.rest).poll_frame(context)),
        };
        match next.transpose() {
            Err(error) => return Poll::Ready(Some(Err(BodyError::Broken(error)))),
            Ok(None) => self.is_ended = true,
            Ok(Some(frame)) => match frame.into_trailers() {
                Err(frame) => return Poll::Ready(Some(self.passed(frame))),
                Ok(mut trailers) => {
                    remove_own(&mut trailers);
                    (self.trailers, self.is_ended) = (Some(trailers), true);
                }
            },
        }
        self.poll_end(context)
    }

    /// Ends the body, with trailers if there are any.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let is_for_log = self.fuel.as_ref().is_some_and(FuelTrailer::is_for_log);
        if let Some(fuel) = self.fuel.as_mut().filter(|_| !is_for_log) {
            ready!(fuel.poll_known(&self.record, context));
        }
        // wasmtime ends the stream in the same way whether the guest finished it or perished. The outcome is set before
        // the instance is taken down, so whoever perished has one.
        if !self.is_let_live
            && let Some((outcome, _)) = self.record.get()
            && !outcome.is_completed()
            && self.left != Some(0)
        {
            return Poll::Ready(Some(Err(BodyError::Ended(outcome.clone()))));
        }
        self.release();
        self.is_let_live = true;
        if let Some(fuel) = self.fuel.as_mut().filter(|_| is_for_log) {
            ready!(fuel.poll_known(&self.record, context));
        }
        let mut trailers = self.trailers.take();
        if let Some(fuel) = self.fuel.take() {
            fuel.tell(&self.record, &mut trailers);
        }
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn passed(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.sent += length;
        if self.sent > self.limit.0 {
            self.lifeline = None;
            return Err(BodyError::TooLong(too_long(self.limit)));
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(length);
            if *left == 0 {
                self.release();
            }
        }
        Ok(frame)
    }

    /// Lets the instance live on: its response is complete, and it may have something left to do.
    fn release(&mut self) {
        if let Some(lifeline) = self.lifeline.take() {
            // If nobody is there to be let live, the instance has ended already.
            let _ = lifeline.send(());
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_unread {
            self.release();
        }
    }
}

pub(crate) fn too_long(limit: Size) -> LimitHit {
    LimitHit::new("response_body", limit, "more")
}

/// What a guest has written of its body while nobody was sent anything yet.
#[derive(Default)]
pub(crate) struct Begun {
    pub(crate) frames: VecDeque<Frame<Bytes>>,
    pub(crate) length: u64,
    pub(crate) end: Option<End>,
}

/// How the writing of a body came to its end.
pub(crate) enum End {
    /// The guest finished it, or perished.
    Finished,
    /// The guest gave it up, or broke the promise of its length.
    Broken(wasmtime_wasi_http::Error),
}

impl Begun {
    /// Takes what is there of `body` until it has `enough` bytes, and tells whether anything was.
    pub(crate) fn take_ready(
        &mut self,
        body: &mut HyperOutgoingBody,
        enough: u64,
        context: &mut Context<'_>,
    ) -> bool {
        let mut has_more = false;
        while self.end.is_none() && self.length < enough {
            let Poll::Ready(next) = Pin::new(&mut *body).poll_frame(context) else { break };
            has_more = true;
            match next {
                Some(Ok(frame)) => {
                    self.length += frame.data_ref().map_or(0, |data| data.len() as u64);
                    self.frames.push_back(frame);
                }
                Some(Err(error)) => self.end = Some(End::Broken(error)),
                None => self.end = Some(End::Finished),
            }
        }
        has_more
    }

    /// Tells whether there is nothing but data in it: no trailers.
    pub(crate) fn is_data(&self) -> bool {
        self.frames.iter().all(Frame::is_data)
    }

    /// Returns its data as one piece.
    pub(crate) fn into_whole(mut self) -> Bytes {
        let mut pieces = self.frames.drain(..).filter_map(|frame| frame.into_data().ok());
        let Some(first) = pieces.next() else { return Bytes::new() };
        let Some(second) = pieces.next() else { return first };
        let mut whole = BytesMut::from(first);
        whole.extend_from_slice(&second);
        pieces.for_each(|piece| whole.extend_from_slice(&piece));
        whole.freeze()
    }
}
