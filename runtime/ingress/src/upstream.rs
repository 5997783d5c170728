//! Connections to workers and nodes: HTTP/1.1 on any stream, kept alive where the other side is a worker.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_model::Name;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::body::{Answer, Outgoing, Streamed};
use crate::head::clean_response;
use crate::outbound::Outbound;
use crate::stream::{BoxedStream, Local};
use crate::table::Place;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// Nothing of the request has left.
    #[error("could not open a connection")]
    NotSent(#[source] io::Error),
    /// The request, or a part of it, has left.
    #[error("the connection broke before the response")]
    Broken(#[source] hyper::Error),
    /// The request has left and there is still no response.
    #[error("there was no response in time")]
    TimedOut,
    /// Too much of the body has gone elsewhere.
    #[error("the body cannot be sent again")]
    Spent,
}

/// One connection. It is closed when this is dropped, also in the middle of a request.
#[derive(Debug)]
pub(crate) struct Upstream {
    sender: SendRequest<Outgoing>,
    task: AbortHandle,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Begins HTTP/1.1 on the stream that `opening` gives.
    pub(crate) async fn open(
        opening: impl Future<Output = io::Result<BoxedStream>>,
        limit: Duration,
    ) -> Result<Self, SendError> {
        let stream = timeout(limit, opening)
            .await
            .map_err(|_| SendError::NotSent(io::ErrorKind::TimedOut.into()))?
            .map_err(SendError::NotSent)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| SendError::NotSent(io::Error::other(error)))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "upstream connection ended");
            }
        });
        Ok(Self { sender, task: task.abort_handle() })
    }

    /// Sends `request` and returns the response, whose body holds the connection.
    pub(crate) async fn send(
        mut self,
        request: Request<Outgoing>,
        until: Instant,
        pool: Option<&Arc<Pool>>,
    ) -> Result<Response<Answer>, SendError> {
        let sending = timeout_at(until, self.sender.try_send_request(request)).await;
        match sending.map_err(|_| SendError::TimedOut)? {
            Ok(response) => Ok(self.answer(response, pool)),
            Err(mut error) => {
                let is_unsent = error.take_message().is_some();
                let error = error.into_error();
                Err(if is_unsent {
                    SendError::NotSent(io::Error::other(error))
                } else {
                    SendError::Broken(error)
                })
            }
        }
    }

    fn answer(self, response: Response<Incoming>, pool: Option<&Arc<Pool>>) -> Response<Answer> {
        let (mut parts, incoming) = response.into_parts();
        clean_response(&mut parts.headers);
        // What the client is told of the version is up to its own connection.
        parts.version = http::Version::HTTP_11;
        parts.extensions.clear();
        Response::from_parts(parts, Answer::Streamed(Streamed::new(incoming, self, pool.cloned())))
    }
}

/// The idle connections to the worker of one namespace.
#[derive(Debug)]
pub(crate) struct Pool {
    namespace: Name,
    idle: Mutex<Vec<Upstream>>,
}

/// What a pool needs to open a connection.
#[derive(Clone, Copy)]
pub(crate) struct Opener<'a> {
    pub(crate) local: &'a dyn Local,
    pub(crate) limit: Duration,
}

impl Pool {
    pub(crate) fn new(namespace: Name) -> Self {
        Self { namespace, idle: Mutex::default() }
    }

    /// Returns whose worker it is.
    pub(crate) fn namespace(&self) -> &Name {
        &self.namespace
    }

    /// Sends a request to the worker, on an idle connection if there is one.
    pub(crate) async fn send(
        self: &Arc<Self>,
        opener: Opener<'_>,
        outbound: &mut Outbound,
        place: &Place,
        until: Instant,
    ) -> Result<Response<Answer>, SendError> {
        if let Some(upstream) = self.take() {
            let request = outbound.attempt(place).ok_or(SendError::Spent)?;
            match upstream.send(request, until, Some(self)).await {
                // The worker may close an idle connection just as it is used; that says nothing of the worker.
                Err(SendError::NotSent(_)) => {}
                Err(SendError::Broken(_)) if outbound.is_repeatable() => {}
                result => return result,
            }
        }
        let upstream = Upstream::open(opener.local.connect(&self.namespace), opener.limit).await?;
        let request = outbound.attempt(place).ok_or(SendError::Spent)?;
        upstream.send(request, until, Some(self)).await
    }

    /// Returns the connection that was used last, which is the likeliest to be alive.
    fn take(&self) -> Option<Upstream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for index in (0..idle.len()).rev() {
            if idle[index].sender.is_closed() {
                idle.swap_remove(index);
            } else if idle[index].sender.is_ready() {
                return Some(idle.swap_remove(index));
            }
        }
        None
    }

    pub(crate) fn give_back(&self, upstream: Upstream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !upstream.sender.is_closed() && idle.len() < crate::config::MAX_IDLE {
            idle.push(upstream);
        }
    }
}
