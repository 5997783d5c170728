//! The door of a worker: connections of clients that an ingress has handed to it.
//!
//! The rules of HTTP are those of the ingress itself. What is not for this worker ends the service of a connection,
//! and the connection goes back to the ingress with that request untouched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dunlin_model::{AllocationId, NamespaceRoute};
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::Failure;
use crate::config::IngressConfig;
use crate::handed_body::HandedBody;
use crate::handed_routes::HandedRoutes;
use crate::head::{authority, clean_request, clean_response};
use crate::origin::Origin;
use crate::turnstile::Pass;

/// How long the routes by which a connection was handed off are waited for.
const ROUTES_TIME: Duration = Duration::from_secs(1);

/// Who answers requests on handed connections.
pub trait Handed: Send + Sync + 'static {
    /// The bodies of its responses.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static;

    /// Tells whether `allocation` takes requests here.
    fn has(&self, allocation: AllocationId) -> bool;

    /// Has `allocation` answer `request`.
    fn handle(
        &self,
        allocation: AllocationId,
        request: Request<HandedBody>,
    ) -> impl Future<Output = Handling<Self::Body>> + Send;
}

/// What became of a request.
#[derive(Debug)]
pub enum Handling<B> {
    /// It was answered.
    Answered(Response<B>),
    /// There is no answer but this failure.
    Failed(Failure),
    /// The allocation did not take it, for this reason; another one may.
    NotTaken(Failure),
}

/// What is wanted of all handed connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Serve them.
    Serve,
    /// Answer what is under way or comes soon, and close them with that response.
    Drain,
    /// Answer what is under way, and give them back.
    Leave,
}

/// What all handed connections of one namespace share.
#[derive(Debug)]
pub struct HandedDoor {
    routes: watch::Sender<(u64, Arc<HandedRoutes>)>,
    order: AtomicU8,
    pub(crate) ordered: Notify,
    pub(crate) header_timeout: Duration,
}

impl Default for HandedDoor {
    fn default() -> Self {
        Self::new(IngressConfig::default().header_timeout)
    }
}

impl HandedDoor {
    /// Returns a door at which a client may take so long to send the head of a request, and be idle for as long.
    pub fn new(header_timeout: Duration) -> Self {
        let (routes, order, ordered) = (watch::Sender::default(), AtomicU8::new(0), Notify::new());
        Self { routes, order, ordered, header_timeout }
    }

    /// Takes these routes for all requests from now on.
    pub fn set_routes(&self, version: u64, routes: Vec<NamespaceRoute>) {
        self.routes.send_replace((version, Arc::new(HandedRoutes::new(routes))));
    }

    /// Waits for the routes of `version`, or later ones, though not for long.
    pub async fn wait_for_routes(&self, version: u64) {
        let mut routes = self.routes.subscribe();
        let _as_well_without = timeout(ROUTES_TIME, routes.wait_for(|(known, _)| *known >= version)).await;
    }

    /// Gives an order to all handed connections, those to come included.
    pub fn order(&self, order: Order) {
        let order = match order {
            Order::Serve => 0,
            Order::Drain => 1,
            Order::Leave => 2,
        };
        self.order.store(order, Ordering::Release);
        self.ordered.notify_waiters();
    }

    pub(crate) fn ordered_now(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Serve,
            1 => Order::Drain,
            _ => Order::Leave,
        }
    }

    fn routes(&self) -> Arc<HandedRoutes> {
        Arc::clone(&self.routes.borrow().1)
    }
}

/// The request that has begun is not for this worker.
#[derive(Debug, thiserror::Error)]
#[error("the request is for somebody else")]
pub(crate) struct NotOurs;

/// The body of a response on a handed connection.
pub(crate) type HandedAnswer<B> = Either<B, Full<Bytes>>;

/// Answers one request that came on a handed connection.
pub(crate) async fn answer<H: Handed>(
    door: &HandedDoor,
    handed: &H,
    origin: &Origin,
    pass: &Arc<Pass>,
    request: Request<Incoming>,
) -> Result<Response<HandedAnswer<H::Body>>, NotOurs> {
    let is_held = pass.begin();
    if is_held && door.ordered_now() == Order::Leave {
        return give_back(pass).await;
    }
    let host = match authority(&request) {
        Ok(host) => host,
        Err(failure) => return Ok(refuse(pass, request, failure)),
    };
    let routes = door.routes();
    let target = routes.find(host, request.uri().path());
    let found = target.and_then(|target| {
        let allocation = target.allocations().find(|allocation| handed.has(*allocation))?;
        Some((allocation, target.has_others()))
    });
    let Some((allocation, has_others)) = found else {
        if is_held {
            return give_back(pass).await;
        }
        let mut response = refuse(pass, request, lost());
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return Ok(response);
    };
    let (mut parts, incoming) = request.into_parts();
    clean_request(&mut parts.headers);
    origin.mark(&mut parts.headers);
    let (body, unread, follows) = HandedBody::new(incoming, pass);
    let handling = handed.handle(allocation, Request::from_parts(parts, body)).await;
    let mut response = match handling {
        Handling::Answered(mut response) => {
            clean_response(response.headers_mut());
            // What the client is told of the version is up to its own connection.
            *response.version_mut() = Version::HTTP_11;
            response.extensions_mut().clear();
            response.map(Either::Left)
        }
        Handling::Failed(failure) => failure.into_response().map(Either::Right),
        Handling::NotTaken(_) if pass.is_held() && (has_others || !handed.has(allocation)) => {
            return give_back(pass).await;
        }
        Handling::NotTaken(failure) => failure.into_response().map(Either::Right),
    };
    if door.ordered_now() == Order::Drain {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    pass.accept(follows);
    // Only now, so that the server finds what it may read when it sees that nobody wants the body.
    drop(unread);
    Ok(response)
}

/// Ends the service of the connection, once what was answered before has left.
async fn give_back<B>(pass: &Pass) -> Result<Response<B>, NotOurs> {
    std::future::poll_fn(|context| pass.poll_flushed(context)).await;
    Err(NotOurs)
}

fn refuse<B>(pass: &Arc<Pass>, request: Request<Incoming>, failure: Failure) -> Response<HandedAnswer<B>> {
    let (_body, _unread, follows) = HandedBody::new(request.into_body(), pass);
    pass.accept(follows);
    failure.into_response().map(Either::Right)
}

/// Returns what a client is told whose connection should be given back and cannot be.
fn lost() -> Failure {
    let detail = "the request is for another place than those before it on this connection; send it again";
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "other_connection", detail.to_owned()).retry_after(0)
}
