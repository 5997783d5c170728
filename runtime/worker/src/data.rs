//! The data socket: HTTP/1.1 in, a service by the request's header, its response out.

use std::convert::Infallible;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_engine::GuestBody;
use dunlin_ingress::{ALLOCATION_HEADER, Failure};
use dunlin_model::AllocationId;
use http::{HeaderMap, Request, Response};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::allocations::Allocations;
use crate::failure;

/// What only Dunlin may say of a response.
const OWN_HEADERS: &str = "dunlin-";
/// How many connections the agent may have open.
const MAX_CONNECTIONS: usize = 4096;
/// N2: how long the head of a request may take.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// G12: how many headers a request may have, and how many bytes.
const MAX_HEADERS: usize = 200;
const MAX_HEAD: usize = 64 << 10;
/// How long to wait after a connection could not be accepted, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Body = Either<GuestBody, Full<Bytes>>;

/// Returns the data socket, on which only this user can connect.
pub(crate) fn listen(path: &Path) -> std::io::Result<UnixListener> {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves connections for ever.
pub(crate) async fn serve(listener: UnixListener, allocations: Arc<Allocations>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let allocations = allocations.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    serve_connection(stream, allocations).await;
                });
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: UnixStream, allocations: Arc<Allocations>) {
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
    match try_answer(request, allocations).await {
        Ok(response) => response.map(Either::Left),
        Err(failure) => failure.into_response().map(Either::Right),
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
    let Some(service) = allocations.service(allocation) else {
        return Err(failure::no_allocation(format!("allocation {allocation} is not served here")));
    };
    let mut response = service.handle(request).await.map_err(failure::of)?;
    remove_own_headers(response.headers_mut());
    Ok(response)
}

/// A guest must not speak as Dunlin does: an ingress acts on such headers.
fn remove_own_headers(headers: &mut HeaderMap) {
    let own = headers.keys().filter(|name| name.as_str().starts_with(OWN_HEADERS)).cloned();
    for name in own.collect::<Vec<_>>() {
        headers.remove(name);
    }
}
