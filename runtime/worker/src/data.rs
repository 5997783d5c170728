//! Requests which the agent sends on: HTTP/1.1 in, a service by the request's header, its response out.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_engine::{AccountNames, Failure as EngineFailure, GuestBody};
use dunlin_ingress::{ACCOUNT_HEADER, ALLOCATION_HEADER, CLIENT_READS_TRAILERS, FUEL_HEADER, Failure};
use dunlin_model::AllocationId;
use http::header::{TE, TRAILER};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;

use crate::allocations::Allocations;
use crate::failure;

/// What only Dunlin may say of a response.
const OWN_HEADERS: &str = "dunlin-";
/// N2: how long the head of a request may take.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// G12: how many headers a request may have, and how many bytes.
const MAX_HEADERS: usize = 200;
const MAX_HEAD: usize = 64 << 10;

type Body = Either<GuestBody, Full<Bytes>>;

/// Serves one connection of the agent until it is closed.
pub(crate) async fn serve(stream: UnixStream, allocations: Arc<Allocations>) {
    let service = service_fn(|request| {
        let allocations = allocations.clone();
        async move { Ok::<_, Infallible>(answer(request, &allocations).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(error = &error as &dyn std::error::Error, "connection ended early");
    }
}

async fn answer(request: Request<Incoming>, allocations: &Allocations) -> Response<Body> {
    let is_asked = request.headers().contains_key(ACCOUNT_HEADER);
    match try_answer(request, allocations).await {
        Ok(response) => response.map(Either::Left),
        Err(failure) => {
            let instance = failure.of_instance().filter(|_| is_asked);
            let mut response = failure.into_response().map(Either::Right);
            if let Some(instance) = instance.and_then(|it| HeaderValue::try_from(it.to_string()).ok()) {
                response.headers_mut().insert(ACCOUNT_HEADER, instance);
            }
            response
        }
    }
}

async fn try_answer(
    mut request: Request<Incoming>,
    allocations: &Allocations,
) -> Result<Response<GuestBody>, Failure> {
    let header = request.headers_mut().remove(ALLOCATION_HEADER);
    let Some(allocation) = header.as_ref().and_then(|header| header.to_str().ok()) else {
        return Err(failure::no_allocation("the request names no allocation".to_owned()));
    };
    let allocation: AllocationId =
        allocation.parse().map_err(|error| failure::no_allocation(format!("no allocation: {error}")))?;
    match respond(allocations, allocation, request).await {
        Answer::Response(response) => Ok(response),
        Answer::Failed(failure) | Answer::NotTaken(failure) => Err(failure),
    }
}

/// What is to be said of what a request burned, and to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tells {
    /// The client, as its service's spec says.
    pub(crate) fuel: bool,
    /// The ingress that asks, which keeps it from the client.
    pub(crate) account: bool,
    /// Whether whoever asks reads trailers.
    pub(crate) trailers: bool,
    /// Whether the client does.
    pub(crate) client_reads_trailers: bool,
}

/// What became of a request.
pub(crate) enum Answer {
    Response(Response<GuestBody>),
    Failed(Failure),
    /// It was not even tried; another allocation may take it.
    NotTaken(Failure),
}

/// Has an allocation answer a request, by whatever way it came.
pub(crate) async fn respond<B>(
    allocations: &Allocations,
    allocation: AllocationId,
    mut request: Request<B>,
) -> Answer
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Some(service) = allocations.service(allocation) else {
        let detail = format!("allocation {allocation} is not served here");
        return Answer::NotTaken(failure::no_allocation(detail));
    };
    let headers = request.headers_mut();
    // One is of the connection, and says that there may be a trailer; the other is for us.
    let (trailers, asked) = (headers.remove(TE).is_some(), headers.remove(ACCOUNT_HEADER));
    let client_reads_trailers = asked.as_ref().map_or(trailers, |asked| asked == CLIENT_READS_TRAILERS);
    let (fuel, account) = (service.tells_fuel(), asked.is_some());
    let tells = Tells { fuel, account, trailers, client_reads_trailers };
    match service.handle(request).await {
        Ok(response) => Answer::Response(told(response, tells)),
        // It closes, and has not begun what waited in it.
        Err(EngineFailure::Overloaded(_)) if !allocations.serves(allocation) => {
            let detail = format!("allocation {allocation} is being stopped");
            Answer::NotTaken(failure::no_allocation(detail))
        }
        Err(overloaded @ EngineFailure::Overloaded(_)) => Answer::NotTaken(failure::of(overloaded)),
        Err(failure) => Answer::Failed(failure::of(failure)),
    }
}

/// Returns a guest's response with what Dunlin says of it, and nothing that the guest says in its place.
pub(crate) fn told(mut response: Response<GuestBody>, tells: Tells) -> Response<GuestBody> {
    remove_own_headers(response.headers_mut());
    if tells.fuel || tells.account {
        tell_spent(&mut response, tells);
    }
    response
}

/// Says what a request burned: in a header if that is known, after the body if it is still being made.
fn tell_spent(response: &mut Response<GuestBody>, tells: Tells) {
    let names = AccountNames {
        fuel: tells.fuel.then_some(FUEL_HEADER),
        account: tells.account.then_some(ACCOUNT_HEADER),
    };
    if let Some(spent) = response.body().spent() {
        if let Some(name) = names.fuel {
            response.headers_mut().insert(name, spent.fuel.0.into());
        }
        if let Some(name) = names.account {
            response.headers_mut().insert(name, spent.account());
        }
        return;
    }
    // A body waits for its guest where a client is to hear of it, and for a log alone it does not.
    let names = AccountNames { fuel: names.fuel.filter(|_| tells.client_reads_trailers), ..names };
    let is_wanted = names.fuel.is_some() || names.account.is_some();
    if tells.trailers && is_wanted && response.body_mut().end_with_account(names.clone()) {
        let headers = response.headers_mut();
        for name in names.fuel.into_iter().chain(names.account) {
            headers.append(TRAILER, name.into());
        }
    }
}

/// A guest must not speak as Dunlin does: an ingress acts on such headers, and on what is said to follow.
fn remove_own_headers(headers: &mut HeaderMap) {
    headers.remove(TRAILER);
    if !headers.keys().any(|name| name.as_str().starts_with(OWN_HEADERS)) {
        return;
    }
    let own = headers.keys().filter(|name| name.as_str().starts_with(OWN_HEADERS)).cloned();
    for name in own.collect::<Vec<_>>() {
        headers.remove(name);
    }
}
