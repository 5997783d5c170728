//! The body of a guest's response, on its way to the client.
//!
//! It is tied to its instance in both directions: when the client goes away the instance is ended, and when the
//! instance fails half-way the client must see a broken response, never one that looks complete.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use dunlin_model::{Bytes as Size, LimitHit, Outcome};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::limits::MAX_RESPONSE_BODY;

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
pub struct GuestBody {
    inner: HyperOutgoingBody,
    outcome: Arc<OnceLock<Outcome>>,
    /// Ends the instance when it is dropped unused.
    lifeline: Option<oneshot::Sender<()>>,
    sent: u64,
    /// How many bytes are still to come, where the head says how many there are.
    left: Option<u64>,
    /// Whether nobody will read it: the answer to HEAD has none.
    is_unread: bool,
}

impl GuestBody {
    pub(crate) fn new(
        inner: HyperOutgoingBody,
        length: Option<u64>,
        is_unread: bool,
        outcome: Arc<OnceLock<Outcome>>,
        lifeline: oneshot::Sender<()>,
    ) -> Self {
        Self { inner, outcome, lifeline: Some(lifeline), sent: 0, left: length, is_unread }
    }

    /// Lets the instance live on: its response is complete, and it may have something left to do.
    fn release(&mut self) {
        if let Some(lifeline) = self.lifeline.take() {
            // If nobody is there to be let live, the instance has ended already.
            let _ = lifeline.send(());
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
        let this = &mut *self;
        match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.sent += length;
                if this.sent > MAX_RESPONSE_BODY {
                    this.lifeline = None;
                    let hit = LimitHit::new("response body", Size(MAX_RESPONSE_BODY), "more");
                    return Poll::Ready(Some(Err(BodyError::TooLong(hit))));
                }
                if let Some(left) = &mut this.left {
                    *left = left.saturating_sub(length);
                    if *left == 0 {
                        this.release();
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(BodyError::Broken(error)))),
            // wasmtime ends the stream in the same way whether the guest finished it or perished. The outcome is
            // set before the instance is taken down, so whoever perished has one.
            None => match this.outcome.get() {
                Some(outcome) if !outcome.is_completed() && this.left != Some(0) => {
                    Poll::Ready(Some(Err(BodyError::Ended(outcome.clone()))))
                }
                _ => {
                    this.release();
                    Poll::Ready(None)
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        if self.is_unread {
            self.release();
        }
    }
}
