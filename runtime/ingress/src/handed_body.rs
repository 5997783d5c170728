//! The bodies of requests on a handed connection: not read before somebody wants them.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::turnstile::{Follows, Pass};

/// The body of a request that came on a handed connection. As long as nothing of it was read, the request can be
/// given back.
#[derive(Debug)]
pub struct HandedBody(Option<Arc<Unread>>);

/// A body and the connection it comes from. Who may yet give it back holds it as well.
#[derive(Debug)]
pub(crate) struct Unread {
    incoming: Mutex<Incoming>,
    length: SizeHint,
    pass: Arc<Pass>,
    has_ended: AtomicBool,
}

impl HandedBody {
    /// Returns the body and what follows the head of its request.
    pub(crate) fn new(incoming: Incoming, pass: &Arc<Pass>) -> (Self, Option<Arc<Unread>>, Follows) {
        if incoming.is_end_stream() {
            return (Self(None), None, Follows::Nothing);
        }
        let length = incoming.size_hint();
        let unread = Arc::new(Unread {
            incoming: Mutex::new(incoming),
            length,
            pass: Arc::clone(pass),
            has_ended: AtomicBool::new(false),
        });
        let follows = unread.follows();
        (Self(Some(Arc::clone(&unread))), Some(unread), follows)
    }
}

impl Unread {
    fn follows(&self) -> Follows {
        self.length.exact().map_or(Follows::Chunks, Follows::Bytes)
    }

    fn end(&self, is_whole: bool) {
        if !self.has_ended.swap(true, Ordering::AcqRel) && self.follows() == Follows::Chunks {
            self.pass.end_chunks(is_whole);
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Body for HandedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(unread) = &self.0 else { return Poll::Ready(None) };
        unread.pass.accept(unread.follows());
        let mut incoming = unread.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = ready!(Pin::new(&mut *incoming).poll_frame(context));
        match &frame {
            None => unread.end(true),
            Some(Err(_)) => unread.end(false),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let Some(unread) = &self.0 else { return true };
        unread.incoming.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            None => SizeHint::with_exact(0),
            Some(unread) => unread.incoming.lock().unwrap_or_else(PoisonError::into_inner).size_hint(),
        }
    }
}
