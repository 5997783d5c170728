//! Services: one request, one fresh instance.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use dunlin_host::{Guest, LogSink, Stdin, Stdout};
use dunlin_model::{AssignedAllocation, Bytes as Size, LimitHit, NodeId, Outcome};
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinHandle;
use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::{Error as HttpError, WasiHttpView};

use crate::body::GuestBody;
use crate::engine::{LoadError, Loaded};
use crate::limits::{MAX_REQUEST_BODY, MAX_RESPONSE_BODY};
use crate::outcome::trap_text;
use crate::sandbox::{Instance, Own, Sandbox, Usage};

/// One allocation of a service.
#[derive(Clone)]
pub struct Service {
    pre: ProxyPre<Guest>,
    sandbox: Arc<Sandbox>,
    name: String,
    /// Held so that the next allocation of the same component shares the code that is loaded.
    _loaded: Loaded,
}

/// Why a request got no response from the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was not even tried: as many instances live as may.
    Overloaded(LimitHit),
    /// It was not even tried: its body is too long.
    TooLarge(LimitHit),
    /// It was not even tried: it is not a request a guest can be given.
    Malformed(String),
    /// The guest ended before it answered.
    Ended(Outcome),
    /// The guest answered with an error in place of a response, or not at all.
    NoResponse(String),
}

type Answer = Result<Response<HyperOutgoingBody>, ErrorCode>;

impl Service {
    /// Returns the service that runs `loaded` as `allocation` says.
    pub fn new(
        loaded: &Loaded,
        allocation: &AssignedAllocation,
        node: &NodeId,
        sink: Arc<dyn LogSink>,
    ) -> Result<Self, LoadError> {
        let pre = ProxyPre::new((*loaded.0).clone())
            .map_err(|error| LoadError::Refused(format!("the component is not a service: {error:#}")))?;
        let name = allocation.workload.workload.to_string();
        let sandbox = Arc::new(Sandbox::new(allocation, node, sink));
        Ok(Self { pre, sandbox, name, _loaded: loaded.clone() })
    }

    /// Returns what its instances have used so far.
    pub fn usage(&self) -> Usage {
        self.sandbox.usage()
    }

    /// Takes no new request, gives those that run `grace` to end, then ends them.
    pub async fn stop(&self, grace: Duration) {
        self.sandbox.gate.close(grace).await;
    }

    /// Gives `request` to a fresh instance and returns its response, as soon as there is its head. If the returned
    /// future or the response is dropped, the instance is ended.
    pub async fn handle<B>(&self, request: Request<B>) -> Result<Response<GuestBody>, Failure>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        check_length(&request)?;
        let permit = self.sandbox.gate.enter().await.map_err(Failure::Overloaded)?;
        let has_no_body = *request.method() == Method::HEAD;
        let (head_sender, head) = oneshot::channel();
        let (instance, request, answer) = self.prepare(request, head_sender)?;
        let (lifeline, cut) = oneshot::channel();
        let outcome = Arc::new(OnceLock::new());
        let guest = self.spawn(instance, request, answer, cut, outcome.clone(), permit);

        match head.await {
            Ok(Ok(response)) => Ok(into_response(response, has_no_body, outcome, lifeline)),
            Ok(Err(code)) => {
                let _ = lifeline.send(());
                Err(Failure::NoResponse(format!("the guest answered with the error {code}")))
            }
            // The guest threw away its means to answer, mostly by ending; how, it says itself.
            Err(_dropped) => {
                if guest.await.is_err() {
                    outcome.get_or_init(host_panicked);
                }
                drop(lifeline);
                match outcome.get() {
                    Some(Outcome::Completed) | None => {
                        Err(Failure::NoResponse("the guest returned without a response".to_owned()))
                    }
                    Some(outcome) => Err(Failure::Ended(outcome.clone())),
                }
            }
        }
    }

    fn prepare<B>(
        &self,
        request: Request<B>,
        head: oneshot::Sender<Answer>,
    ) -> Result<(Instance, Resource<HostIncomingRequest>, Resource<HostResponseOutparam>), Failure>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let own = Own {
            arguments: vec![self.name.clone()],
            environment: Vec::new(),
            stdin: Stdin::Empty,
            stdout: Stdout::Log,
        };
        let not_started =
            |error: wasmtime::Error| Failure::Ended(Outcome::NotStarted { reason: trap_text(&error) });
        let mut instance = self.sandbox.begin(self.pre.engine(), own).map_err(not_started)?;
        let request = request.map(limited);
        let mut http = instance.store.data_mut().http();
        let request = http
            .new_incoming_request(Scheme::Http, request)
            .map_err(|error| Failure::Malformed(format!("{error:#}")))?;
        let answer = http.new_response_outparam(head).map_err(not_started)?;
        Ok((instance, request, answer))
    }

    /// Runs the guest in a task of its own, so that it can go on after the head of its response, and so that a
    /// panic in the host's code ends nothing but this instance.
    fn spawn(
        &self,
        instance: Instance,
        request: Resource<HostIncomingRequest>,
        answer: Resource<HostResponseOutparam>,
        cut: oneshot::Receiver<()>,
        outcome: Arc<OnceLock<Outcome>>,
        permit: OwnedSemaphorePermit,
    ) -> JoinHandle<()> {
        let (pre, sandbox) = (self.pre.clone(), self.sandbox.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let mut instance = instance;
            // Dropped before the instance, also in a panic: see `GuestBody`.
            let on_panic = SetOnDrop(&outcome);
            let ending = {
                let call = async {
                    let proxy = pre.instantiate_async(&mut instance.store).await?;
                    proxy.wasi_http_incoming_handler().call_handle(&mut instance.store, request, answer).await
                };
                // A sender that is dropped means that nobody wants the response; one that was used, that it is
                // complete.
                let cancelled = async {
                    if cut.await.is_ok() {
                        std::future::pending::<()>().await;
                    }
                };
                sandbox.until_end(call, cancelled).await
            };
            let (ended, _) = sandbox.end("request", &instance, &ending, |()| Outcome::Completed);
            on_panic.0.get_or_init(|| ended);
        })
    }
}

struct SetOnDrop<'a>(&'a OnceLock<Outcome>);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.get_or_init(host_panicked);
    }
}

fn host_panicked() -> Outcome {
    Outcome::Trapped {
        reason: "the host panicked while the guest called it; this is a bug of Dunlin".to_owned(),
    }
}

fn check_length<B>(request: &Request<B>) -> Result<(), Failure> {
    match content_length(request.headers()) {
        Some(length) if length > MAX_REQUEST_BODY => {
            Err(Failure::TooLarge(LimitHit::new("request body", Size(MAX_REQUEST_BODY), Size(length))))
        }
        _ => Ok(()),
    }
}

fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Returns the body as the guest gets it: an error where it becomes too long.
fn limited<B>(body: B) -> impl Body<Data = Bytes, Error = HttpError> + Send + 'static
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limit = usize::try_from(MAX_REQUEST_BODY).unwrap_or(usize::MAX);
    Limited::new(body, limit).map_err(|error| {
        if error.is::<LengthLimitError>() {
            HttpError::HttpRequestBodySize(Some(MAX_REQUEST_BODY))
        } else {
            HttpError::InternalError(Some(error.to_string()))
        }
    })
}

fn into_response(
    response: Response<HyperOutgoingBody>,
    answers_head: bool,
    outcome: Arc<OnceLock<Outcome>>,
    lifeline: oneshot::Sender<()>,
) -> Response<GuestBody> {
    let (parts, body) = response.into_parts();
    let bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&parts.status);
    let length = content_length(&parts.headers).filter(|length| *length <= MAX_RESPONSE_BODY);
    let is_unread = answers_head || bodiless || length == Some(0);
    Response::from_parts(parts, GuestBody::new(body, length, is_unread, outcome, lifeline))
}
