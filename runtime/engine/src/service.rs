//! Services: one request, one instance, fresh or used before.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use dunlin_host::{Access, LogSink, Stdin, Stdout, check_headers};
use dunlin_model::{
    AssignedAllocation, Bytes as Size, DurationMs, Fuel, HOPS_HEADER, HostCalls, InstanceId, Instances,
    LimitHit, MAX_HOPS, NodeId, Outcome, WorkloadKind,
};
use http::{HeaderValue, Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::oneshot;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{Error as HttpError, WasiHttpView};

use crate::body::GuestBody;
use crate::code::{Linked, Loaded};
use crate::engine::LoadError;
use crate::exchange::{Asked, Exchange, Head, Running, content_length};
use crate::gate::Permit;
use crate::outcome::trap_text;
use crate::reuse::{Idle, Live};
use crate::sandbox::{Own, Sandbox, Usage, Used};
use crate::wasi03;

/// One allocation of a service.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    sandbox: Arc<Sandbox>,
    name: String,
    loaded: Loaded,
    /// Instances that wait for a request, if they are used again.
    idle: Option<Idle>,
    tells_fuel: bool,
}

/// Room for one request at a service, taken before the request is given away.
pub struct Place {
    service: Service,
    permit: Permit,
}

/// Why a request got no response from the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was not even tried: as many instances live as may.
    Overloaded(LimitHit),
    /// It was not even tried: its body is too long.
    TooLarge(LimitHit),
    /// It was not even tried: its head is too long.
    HeadTooLarge(LimitHit),
    /// It has come through too many services.
    TooManyHops(LimitHit),
    /// The guest's response is more than it may be.
    ResponseTooLarge(LimitHit),
    /// It was not even tried: it is not a request a guest can be given.
    Malformed(String),
    /// The guest ended before it answered; of which instance that was, if there was one.
    Ended(Outcome, Option<InstanceId>),
    /// The guest answered with an error in place of a response, or not at all.
    NoResponse(String),
}

/// What a request used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// By which instance.
    pub instance: InstanceId,
    /// Fuel burned.
    pub fuel: Fuel,
    /// The most memory the instance held.
    pub memory: Size,
    /// How long it took.
    pub wall: DurationMs,
    /// What it asked of the host.
    pub host: HostCalls,
}

impl From<Used> for Spent {
    fn from(used: Used) -> Self {
        Self {
            instance: used.instance,
            fuel: used.fuel,
            memory: used.memory,
            wall: used.wall,
            host: used.host,
        }
    }
}

impl Spent {
    /// Returns the instance and its fuel, as one part of the data path tells another: `a12.3 4711`.
    pub fn account(&self) -> HeaderValue {
        HeaderValue::try_from(format!("{} {}", self.instance, self.fuel.0))
            .expect("ids and numbers have letters, digits and dots, which any header can hold")
    }
}

impl Service {
    /// Returns the service that runs `loaded` as `allocation` says.
    pub async fn new(
        loaded: &Loaded,
        allocation: &AssignedAllocation,
        node: &NodeId,
        sink: Arc<dyn LogSink>,
        access: &Access,
    ) -> Result<Self, LoadError> {
        loaded.looked_at().await?.service()?;
        // What is of WASI 0.3 may go on after its answer, and is not called again.
        let is_reused = allocation.spec.instances == Instances::Reused && !loaded.is_of_wasi_03();
        let idle = is_reused.then(Idle::default);
        Ok(Self(Arc::new(Inner {
            sandbox: Arc::new(Sandbox::new(allocation, node, sink, access)?.dumping(loaded)),
            name: allocation.workload.workload.to_string(),
            loaded: loaded.clone(),
            idle,
            tells_fuel: matches!(&allocation.spec.kind, WorkloadKind::Service(service) if service.fuel_header),
        })))
    }

    /// Tells whether its responses say what they burned.
    pub fn tells_fuel(&self) -> bool {
        self.0.tells_fuel
    }

    /// Returns what its instances have used so far.
    pub fn usage(&self) -> Usage {
        self.0.sandbox.usage()
    }

    /// Takes no new request, gives those that run `grace` to end, then ends them.
    pub async fn stop(&self, grace: Duration) {
        self.0.sandbox.gate.close(grace).await;
        if let Some(idle) = &self.0.idle {
            idle.close();
        }
    }

    /// Gives `request` to an instance and returns its response, as soon as there is its head. If the returned future
    /// or the response is dropped, the instance is ended.
    pub async fn handle<B>(&self, mut request: Request<B>) -> Result<Response<GuestBody>, Failure>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let hops = self.look_at(&mut request).inspect_err(|failure| self.count(failure))?;
        let permit = self.0.sandbox.gate.enter().await;
        let permit = permit.map_err(Failure::Overloaded).inspect_err(|failure| self.count(failure))?;
        self.handle_in(permit, hops, request).await
    }

    /// Takes room for one request, if there is some without waiting.
    pub fn place(&self) -> Option<Place> {
        Some(Place { permit: self.0.sandbox.gate.enter_at_once()?, service: self.clone() })
    }

    /// Returns through how many services a request has come, if it may be given to a guest. The guest is not told.
    fn look_at<B>(&self, request: &mut Request<B>) -> Result<u32, Failure> {
        let limits = &self.0.sandbox.limits;
        let hops = take_hops(request).map_err(Failure::TooManyHops)?;
        check_length(request, limits.request_body)?;
        check_headers(request.headers(), limits).map_err(Failure::HeadTooLarge)?;
        Ok(hops)
    }

    async fn handle_in<B>(
        &self,
        permit: Permit,
        hops: u32,
        request: Request<B>,
    ) -> Result<Response<GuestBody>, Failure>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Inner { sandbox, loaded, idle, .. } = &*self.0;
        let limits = &sandbox.limits;
        let linked = loaded
            .linked()
            .await
            .map_err(|error| Failure::Ended(Outcome::NotStarted { reason: error.to_string() }, None))?;
        let mut live = self.instance(&linked).map_err(not_started)?;
        live.instance.store.data_mut().set_hops(hops);

        let answers_head = *request.method() == Method::HEAD;
        let request = request.map(|body| limited(body, limits.request_body));
        let (asked, head) = match loaded.is_of_wasi_03() {
            false => asked(&mut live, request)?,
            true => asked_of_wasi_03(&mut live, request)?,
        };

        let record = Arc::new(OnceLock::new());
        let running = Running {
            live: Some(live),
            sandbox: sandbox.clone(),
            idle: idle.clone(),
            record: record.clone(),
            _permit: permit,
        };
        let run = running.run(linked, asked);
        let answer = Exchange::new(run, head, record, answers_head, limits.response_body).answer().await;
        let answer = answer.and_then(|response| match check_headers(response.headers(), limits) {
            Ok(()) => Ok(response),
            Err(hit) => Err(Failure::ResponseTooLarge(hit)),
        });
        answer
            .inspect(|response| {
                if response.status().is_server_error() {
                    sandbox.count_bad_answer();
                }
            })
            .inspect_err(|failure| self.count(failure))
    }

    /// Counts a limit that was hit beside any instance, and an instance that did well but for its answer.
    fn count(&self, failure: &Failure) {
        match failure {
            Failure::Overloaded(hit)
            | Failure::TooLarge(hit)
            | Failure::HeadTooLarge(hit)
            | Failure::TooManyHops(hit)
            | Failure::ResponseTooLarge(hit) => self.0.sandbox.count_hit(hit),
            Failure::NoResponse(_) => self.0.sandbox.count_bad_answer(),
            Failure::Malformed(_) | Failure::Ended(..) => {}
        }
    }

    /// Returns an instance for one request: one that waits, or a new one.
    fn instance(&self, linked: &Linked) -> wasmtime::Result<Live> {
        let Inner { sandbox, name, loaded, idle, .. } = &*self.0;
        if let Some(mut live) = idle.as_ref().and_then(Idle::take) {
            sandbox.begin_again(&mut live.instance)?;
            return Ok(live);
        }
        let own = Own {
            arguments: vec![name.clone()],
            environment: Vec::new(),
            stdin: Stdin::Empty,
            stdout: Stdout::Log,
            stderr: Stdout::Log,
        };
        sandbox.begin(linked, loaded.gauge(), own).map(Live::new)
    }
}

impl Place {
    /// Tells whether responses say what they burned.
    pub fn tells_fuel(&self) -> bool {
        self.service.tells_fuel()
    }

    /// Does what [`Service::handle`] does, in this place.
    pub async fn handle<B>(self, mut request: Request<B>) -> Result<Response<GuestBody>, Failure>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Self { service, permit } = self;
        let hops = service.look_at(&mut request).inspect_err(|failure| service.count(failure))?;
        service.handle_in(permit, hops, request).await
    }
}

/// Hands `request` to an instance, and returns what it is to be called with and where its answer comes from.
fn asked<B>(live: &mut Live, request: Request<B>) -> Result<(Asked, Head), Failure>
where
    B: Body<Data = Bytes, Error = HttpError> + Send + 'static,
{
    let (answer, head) = oneshot::channel();
    let mut http = live.instance.store.data_mut().http();
    let request = http
        .new_incoming_request(Scheme::Http, request)
        .map_err(|error| Failure::Malformed(format!("{error:#}")))?;
    let answer = http.new_response_outparam(answer).map_err(not_started)?;
    Ok((Asked::Wasi02(request, answer), Head::Wasi02(head)))
}

/// The same for an instance of WASI 0.3.
fn asked_of_wasi_03<B>(live: &mut Live, request: Request<B>) -> Result<(Asked, Head), Failure>
where
    B: Body<Data = Bytes, Error = HttpError> + Send + 'static,
{
    let (answer, head) = oneshot::channel();
    let asked = wasi03::Asked::new(&mut live.instance.store, request, answer).ok_or_else(|| {
        Failure::Malformed("the request has no authority, neither in its target nor in `host`".to_owned())
    })?;
    Ok((Asked::Wasi03(Box::new(asked)), Head::Wasi03(head)))
}

fn not_started(error: wasmtime::Error) -> Failure {
    Failure::Ended(Outcome::NotStarted { reason: trap_text(&error) }, None)
}

/// Returns how many services a request has come through, and takes the word of it from the request: a guest could only
/// pass it on, which the host does.
fn take_hops<B>(request: &mut Request<B>) -> Result<u32, LimitHit> {
    let headers = request.headers_mut();
    // Most have none, and to look over a few names is sooner done than to look for this one twice.
    if !headers.keys().any(|name| name.as_str() == HOPS_HEADER) {
        return Ok(0);
    }
    let hops = dunlin_model::hops(headers.get_all(HOPS_HEADER).iter().map(HeaderValue::as_bytes));
    headers.remove(HOPS_HEADER);
    if hops >= MAX_HOPS { Err(LimitHit::new("hops", MAX_HOPS, hops)) } else { Ok(hops) }
}

fn check_length<B>(request: &Request<B>, limit: Size) -> Result<(), Failure> {
    match content_length(request.headers()) {
        Some(length) if length > limit.0 => {
            Err(Failure::TooLarge(LimitHit::new("request_body", limit, Size(length))))
        }
        _ => Ok(()),
    }
}

/// Returns the body as the guest gets it: an error where it becomes too long.
fn limited<B>(body: B, limit: Size) -> impl Body<Data = Bytes, Error = HttpError> + Send + 'static
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Limited::new(body, usize::try_from(limit.0).unwrap_or(usize::MAX)).map_err(move |error| {
        if error.is::<LengthLimitError>() {
            HttpError::HttpRequestBodySize(Some(limit.0))
        } else {
            HttpError::InternalError(Some(error.to_string()))
        }
    })
}
