//! Calls of services of the guest's own namespace: in this process where one has room, else by the agent, which knows
//! where others run. There is no name to look up and no address to judge.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use dunlin_model::{CALLER_HEADER, WorkloadName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use wasmtime_wasi::runtime::spawn;
use wasmtime_wasi_http::{Error, WasiBody};

use super::{Destination, Ended, Exchange, Sent, Timed};
use crate::capability::outbound::{ConnectFailure, OutboundLimits};

/// All headers of Dunlin begin so. None of them is a guest's to write.
const OWN_HEADERS: &str = "dunlin-";

/// The body of a call, and of the answer to it.
pub type CallBody = WasiBody;

/// A response in the making. Dropping it gives up, and ends the instance that makes it.
pub type Answering = Pin<Box<dyn Future<Output = Response<CallBody>> + Send>>;

/// A way to a service in the making. Dropping it gives up.
pub type Calling = Pin<Box<dyn Future<Output = Result<UnixStream, ConnectFailure>> + Send>>;

/// A place for one request at a service in this process.
pub trait Callee: Send + Sync {
    /// Has the service answer `request`.
    fn answer(self: Box<Self>, request: Request<CallBody>) -> Answering;
}

/// Returns `body` as that of an answer to a call.
pub fn call_body<B>(body: B) -> CallBody
where
    B: Body<Data = Bytes, Error: std::fmt::Display> + Send + 'static,
{
    body.map_err(|error| Error::InternalError(Some(error.to_string()))).boxed_unsync()
}

impl Destination {
    /// Returns which service of the guest's namespace it is, if it is one.
    pub(super) fn service(&self, caller: &WorkloadName) -> Option<WorkloadName> {
        if self.is_tls { None } else { self.host.service(self.port, &caller.namespace) }
    }
}

/// Says in the head of a call who calls, whatever the guest has said.
pub(super) fn sign(headers: &mut HeaderMap, caller: &WorkloadName) -> Result<(), Error> {
    let own = headers.keys().filter(|name| name.as_str().starts_with(OWN_HEADERS)).cloned();
    for name in own.collect::<Vec<_>>() {
        headers.remove(name);
    }
    let caller = HeaderValue::try_from(caller.to_string()).map_err(|_| Error::InternalError(None))?;
    headers.insert(CALLER_HEADER, caller);
    Ok(())
}

/// A body that is read to its end also if nobody wants the rest: a guest that still writes it would hear of a broken stream
/// in place of the answer. The body ends with the guest.
pub(super) struct Patient(Option<CallBody>);

impl Patient {
    /// Returns `body` as one that is read to its end.
    pub(super) fn of(body: CallBody) -> CallBody {
        Self(Some(body)).boxed_unsync()
    }
}

impl Body for Patient {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        // Without a runtime there is no guest any more either.
        if let (Some(mut body), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
        }
    }
}

impl Exchange {
    /// Has a service in this process answer.
    pub(super) async fn ask(
        self,
        callee: Box<dyn Callee>,
        mut request: Request<WasiBody>,
        permit: OwnedSemaphorePermit,
    ) -> Sent {
        let OutboundLimits { headers, header_bytes, .. } = self.outbound.limits;
        let (first_byte, between_bytes) = self.answer_times();
        // There is no connection of which it could speak.
        request.headers_mut().remove(header::CONNECTION);
        let wants_no_body = *request.method() == Method::HEAD;
        // In a task of its own: the caller's instance may be in the middle of a step right here.
        let answering = spawn(callee.answer(request));
        let mut response = match timeout(first_byte, answering).await {
            Ok(response) => response,
            Err(_elapsed) => {
                return Err(self.late("first_byte_timeout", first_byte, Error::ConnectionReadTimeout));
            }
        };
        let lines = response.headers().iter();
        let bytes: usize = lines.map(|(name, value)| name.as_str().len() + value.len()).sum();
        let is_long = response.headers().len() > usize::try_from(headers).unwrap_or(usize::MAX);
        if is_long || u64::try_from(bytes).unwrap_or(u64::MAX) > header_bytes {
            self.outbound.hits.count(if is_long { "headers" } else { "header_bytes" });
            return Err(Error::HttpResponseHeaderSectionSize(u32::try_from(header_bytes).ok()));
        }
        if wants_no_body || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&response.status()) {
            *response.body_mut() = call_body(Empty::new());
        }
        let response = response.map(|body| {
            // The call counts as a connection until its answer is read or nobody wants it.
            Timed::new(body, between_bytes, self.outbound, Some(permit)).boxed_unsync()
        });
        let ended: Ended = Box::new(async { Ok(()) });
        Ok((response, ended))
    }

    /// Tells the owner of a guest that it calls what is not there.
    pub(super) fn not_there(&self, service: &WorkloadName) {
        let text =
            format!("there is no service `{service}`, which the guest calls; `dunlin status` lists all");
        self.outbound.notice(&self.logs, self.instance, &service.to_string(), &text);
    }
}
