//! Running what is of WASI 0.3: a guest that may go on after it has answered, and does several things at a time.
//!
//! Its calls run in the event loop of its store. Whoever polls that loop polls all of the guest, so fuel, time, deadline
//! and cancelling are as for any other: to drop the future is to end the instance.

use std::pin::Pin;

use bytes::Bytes;
use dunlin_host::Guest;
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{Request, Response};
use http_body::Body;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Accessor;
use wasmtime_wasi::p3::bindings::CommandPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::{Request as GuestRequest, Response as GuestResponse};
use wasmtime_wasi_http::{Error, FieldMap, WasiBody, WasiHttpView as _};

/// What a guest answers: a response, or an error in its place.
pub(crate) type Answer = Result<Response<WasiBody>, ErrorCode>;

/// A request, and where its answer goes.
pub(crate) struct Asked {
    request: GuestRequest,
    /// How the guest got on with the body of the request: known once it is done with it.
    received: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>,
    answer: oneshot::Sender<Answer>,
}

impl Asked {
    /// Returns `request` as the guest in `store` gets it; nothing if it does not say to whom it goes.
    pub(crate) fn new<B>(
        store: &mut Store<Guest>,
        request: Request<B>,
        answer: oneshot::Sender<Answer>,
    ) -> Option<Self>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        let (parts, body) = request.into_parts();
        let uri = parts.uri.into_parts();
        let host = || Authority::try_from(parts.headers.get(HOST)?.as_bytes()).ok();
        let authority = uri.authority.or_else(host)?;
        let headers = FieldMap::new_immutable(store.data_mut().http().hooks, parts.headers);
        let (request, received) = GuestRequest::new(
            parts.method,
            Some(Scheme::HTTP),
            Some(authority),
            uri.path_and_query,
            headers,
            None,
            body,
        );
        Some(Self { request, received: Box::pin(received), answer })
    }
}

/// Instantiates `service` in `store`, has it answer, and returns when all that it began is done.
pub(crate) async fn answer(
    store: &mut Store<Guest>,
    service: &ServicePre<Guest>,
    asked: Asked,
) -> wasmtime::Result<()> {
    let Asked { request, received, answer } = asked;
    let service = service.instantiate_async(&mut *store).await?;
    let run = async |accessor: &Accessor<Guest>| {
        let answered = match service.handle(accessor, request).await? {
            Err(code) => Err(code),
            Ok(response) => Ok(accessor.with(|store| into_http(response, store, received))?),
        };
        // If nobody wants it any more, this future is about to be dropped.
        let _unwanted = answer.send(answered);
        all_done(accessor).await;
        wasmtime::error::Ok(())
    };
    store.run_concurrent(run).await?
}

fn into_http(
    response: GuestResponse,
    store: impl wasmtime::AsContextMut<Data = Guest>,
    received: impl Future<Output = Result<(), Error>> + Send + 'static,
) -> wasmtime::Result<Response<WasiBody>> {
    response.into_http(store, received)
}

/// Instantiates `command` in `store`, runs it, and returns its result when all that it began is done.
pub(crate) async fn run(
    store: &mut Store<Guest>,
    command: &CommandPre<Guest>,
) -> wasmtime::Result<Result<(), ()>> {
    let command = command.instantiate_async(&mut *store).await?;
    let run = async |accessor: &Accessor<Guest>| {
        let result = command.wasi_cli_run().call_run(accessor).await?;
        all_done(accessor).await;
        wasmtime::error::Ok(result)
    };
    store.run_concurrent(run).await?
}

/// Waits for the tasks of a guest, which may go on after it has returned.
async fn all_done(accessor: &Accessor<Guest>) {
    std::future::poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
}
