//! Outbound HTTP: HTTP/1.1 on connections which somebody else has made, to where the manifest says.
//!
//! What is checked is what is connected: the authority of the request is read once, and the connection, the name in
//! the server's certificate and the header `Host` all come from that reading. Redirects are answers like any other,
//! bodies are passed as they are, and a connection serves one request.
//!
//! A guest whose request is refused hears `HTTP-request-denied`, and its log says which line would allow it.

mod call;

use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use dunlin_model::{HOPS_HEADER, Host, InstanceId, host_and_port};
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, timeout};
use tokio_rustls::TlsConnector;
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use self::call::Patient;
pub use self::call::{Answering, CallBody, Callee, Calling, call_body};

use super::outbound::{ConnectFailure, Counted, GrantedOutbound, Outbound, OutboundLimits, Using, Wanted};
use crate::limits::MAX_WRITE;
use crate::logs::Logs;

/// The smallest buffer which hyper takes for the head of a response.
const MIN_HEAD_BUFFER: usize = 8192;

/// The outbound HTTP of one instance.
pub(crate) struct OutboundHttp {
    pub(super) outbound: Arc<Outbound>,
    pub(super) instance: InstanceId,
    pub(super) logs: Arc<Logs>,
    /// How many services the request has come through that the instance answers.
    hops: u32,
    /// Made with the first request or socket: most instances make none.
    counted: Option<Counted>,
}

/// Where one request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Destination {
    is_tls: bool,
    host: Host,
    port: u16,
}

/// How a destination is reached.
enum Way {
    /// On a connection of its own.
    Connection(TcpStream),
    /// It is a service, and has a place for the request in this process.
    Callee(Box<dyn Callee>),
    /// It is a service, and the agent takes the request on this stream.
    Agent(UnixStream),
}

type Ended = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Ended), Error>;

impl OutboundHttp {
    pub(crate) fn new(outbound: Arc<Outbound>, instance: InstanceId, logs: Arc<Logs>) -> Self {
        Self { outbound, instance, logs, hops: 0, counted: None }
    }

    /// Belongs to the next request of a reused instance from now on. What is open stays counted.
    pub(crate) fn begin_again(&mut self, instance: InstanceId) {
        self.instance = instance;
    }

    /// From now on its requests tell of one service more than these.
    pub(crate) fn set_hops(&mut self, hops: u32) {
        self.hops = hops;
    }

    pub(super) fn counted(&mut self) -> Counted {
        self.counted.get_or_insert_with(|| Counted::new(&self.outbound.limits)).clone()
    }
}

impl WasiHttpHooks for OutboundHttp {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let exchange = Exchange {
            outbound: Arc::clone(&self.outbound),
            counted: self.counted(),
            instance: self.instance,
            logs: Arc::clone(&self.logs),
            hops: self.hops.saturating_add(1),
            options: options.unwrap_or_default(),
        };
        Box::new(exchange.run(request))
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        MAX_WRITE
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        MAX_WRITE
    }
}

/// One request and its answer.
struct Exchange {
    outbound: Arc<Outbound>,
    counted: Counted,
    instance: InstanceId,
    logs: Arc<Logs>,
    hops: u32,
    options: RequestOptions,
}

impl Exchange {
    async fn run(self, request: Request<WasiBody>) -> Sent {
        // Whoever ends the request early, be it a refusal, a server that answers before it has read or a connection that
        // is closed: the guest hears that, and not that nobody reads what it writes.
        let (parts, body) = request.map(Patient::of).into_parts();
        match self.connect(&parts).await {
            Ok((destination, way, permit)) => {
                let mut request = Request::from_parts(parts, body);
                if let (Way::Callee(_) | Way::Agent(_), Some(granted)) = (&way, &self.outbound.granted) {
                    call::sign(request.headers_mut(), &granted.workload)?;
                }
                let request = prepared(request, &destination, self.hops)?;
                match way {
                    Way::Callee(callee) => self.ask(callee, request, permit).await,
                    Way::Agent(stream) => self.send(request, stream, permit).await,
                    Way::Connection(stream) if destination.is_tls => {
                        let stream = self.greet(&destination.host, stream).await?;
                        self.send(request, stream, permit).await
                    }
                    Way::Connection(stream) => self.send(request, stream, permit).await,
                }
            }
            Err(error) => Err(error),
        }
    }

    fn connect_time(&self) -> Duration {
        bounded(self.options.connect_timeout, self.outbound.limits.connect.into())
    }

    /// How long the head of the answer may take, and each piece of its body.
    fn answer_times(&self) -> (Duration, Duration) {
        let OutboundLimits { first_byte, between_bytes, .. } = self.outbound.limits;
        (
            bounded(self.options.first_byte_timeout, first_byte.into()),
            bounded(self.options.between_bytes_timeout, between_bytes.into()),
        )
    }

    async fn connect(
        &self,
        request: &http::request::Parts,
    ) -> Result<(Destination, Way, OwnedSemaphorePermit), Error> {
        if request.method == Method::CONNECT {
            return Err(Error::HttpRequestMethodInvalid);
        }
        let destination = destination(&request.uri)?;
        let granted = self.outbound.granted.as_ref().filter(|granted| {
            granted.capabilities.grants_http(destination.is_tls, &destination.host, destination.port)
        });
        let Some(granted) = granted else {
            let rule = format!("egress_denied: no `outbound_http` grant matches {destination}");
            return Err(self.denied(&destination, &rule));
        };
        let open = Arc::clone(&self.counted.open);
        let permit = open
            .try_acquire_owned()
            .map_err(|_| self.limit_hit(&destination, "connections", self.outbound.limits.open))?;
        let wait = self.counted.pace.lock().unwrap_or_else(PoisonError::into_inner).take();
        let time = self.connect_time();
        if wait >= time {
            return Err(self.limit_hit(&destination, "connection_rate", self.outbound.limits.rate));
        }
        match timeout(time, self.way(granted, &destination, wait)).await {
            Ok(Ok(way)) => Ok((destination, way, permit)),
            Ok(Err(failure)) => Err(self.not_connected(&destination, failure)),
            Err(_elapsed) => Err(self.late("connect_timeout", time, Error::ConnectionTimeout)),
        }
    }

    /// Opens the way to a destination, after this `wait`.
    async fn way(
        &self,
        granted: &GrantedOutbound,
        destination: &Destination,
        wait: Duration,
    ) -> Result<Way, ConnectFailure> {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let allocation = self.outbound.allocation;
        if let Some(service) = destination.service(&granted.workload) {
            if let Some(callee) = granted.connector.callee(&service) {
                return Ok(Way::Callee(callee));
            }
            let called = granted.connector.call(allocation, service.clone()).await;
            if let Err(ConnectFailure::NotResolved(_)) = &called {
                self.not_there(&service);
            }
            return called.map(Way::Agent);
        }
        let wanted = Wanted {
            allocation,
            using: if destination.is_tls { Using::Https } else { Using::Http },
            host: destination.host.to_string(),
            port: destination.port,
            address: None,
        };
        granted.connector.connect(wanted).await.map(Way::Connection)
    }

    /// Counts that something took as long as it may, unless the guest itself wanted it faster.
    fn late(&self, limit: &'static str, waited: Duration, error: Error) -> Error {
        self.outbound.late(limit, waited);
        error
    }

    fn not_connected(&self, destination: &Destination, failure: ConnectFailure) -> Error {
        match failure {
            ConnectFailure::Denied(rule) => self.denied(destination, &rule),
            ConnectFailure::NotResolved(_) => Error::DnsError { rcode: None, info_code: None },
            ConnectFailure::NotConnected(_) | ConnectFailure::Unreachable(_) => Error::ConnectionRefused,
            ConnectFailure::TimedOut => {
                self.late("connect_timeout", self.connect_time(), Error::ConnectionTimeout)
            }
            ConnectFailure::LimitHit(hit) => {
                let text = format!("no connection to {destination}: {hit}");
                self.outbound.notice(&self.logs, self.instance, &destination.to_string(), &text);
                self.outbound.hits.count("connection_rate");
                Error::ConnectionLimitReached
            }
        }
    }

    fn denied(&self, destination: &Destination, rule: &str) -> Error {
        let mut text = format!("outbound request denied: {rule}");
        if self.outbound.granted.is_none() || rule.contains("no `outbound_http` grant") {
            text.push_str(&format!(
                "; to allow it, write `outbound_http = [\"{destination}\"]` in the workload's `capabilities`"
            ));
        }
        self.outbound.notice(&self.logs, self.instance, &destination.to_string(), &text);
        Error::HttpRequestDenied
    }

    fn limit_hit(&self, destination: &Destination, limit: &'static str, value: u32) -> Error {
        self.outbound.hits.count(limit);
        let text = format!("no connection to {destination}: limit `{limit}` is {value}, observed more");
        self.outbound.notice(&self.logs, self.instance, &format!("limit {limit}"), &text);
        Error::ConnectionLimitReached
    }

    /// Begins TLS, by which the server shows that it is `host`.
    async fn greet(
        &self,
        host: &Host,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Error> {
        let Some(granted) = &self.outbound.granted else { return Err(Error::HttpRequestDenied) };
        let config = granted.tls.config().map_err(|reason| {
            self.outbound.notice(
                &self.logs,
                self.instance,
                "tls",
                &format!("no https on this node: {reason}"),
            );
            Error::ConfigurationError
        })?;
        let name = match host {
            Host::Address(address) => ServerName::from(*address),
            Host::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|_| Error::HttpRequestUriInvalid)?
            }
        };
        let connecting = TlsConnector::from(config).connect(name, stream);
        match timeout(self.connect_time(), connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) if is_about_certificate(&error) => Err(Error::TlsCertificateError),
            Ok(Err(_)) => Err(Error::TlsProtocolError),
            Err(_elapsed) => Err(self.late("connect_timeout", self.connect_time(), Error::ConnectionTimeout)),
        }
    }

    async fn send<S>(self, request: Request<WasiBody>, stream: S, permit: OwnedSemaphorePermit) -> Sent
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let OutboundLimits { headers, header_bytes, .. } = self.outbound.limits;
        let (first_byte, between_bytes) = self.answer_times();
        let buffer = usize::try_from(header_bytes).unwrap_or(usize::MAX).max(MIN_HEAD_BUFFER);
        let (mut sender, connection) = http1::Builder::new()
            .max_headers(usize::try_from(headers).unwrap_or(usize::MAX))
            .max_buf_size(buffer)
            .handshake(TokioIo::new(stream))
            .await?;
        let connection: AbortOnDropJoinHandle<_> = spawn(connection);
        let response = match timeout(first_byte, sender.send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_parse_too_large() => {
                self.outbound.hits.count("header_bytes");
                return Err(Error::HttpResponseHeaderSectionSize(u32::try_from(header_bytes).ok()));
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_elapsed) => {
                return Err(self.late("first_byte_timeout", first_byte, Error::ConnectionReadTimeout));
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::HttpUpgradeFailed);
        }
        let outbound = Arc::clone(&self.outbound);
        let response = response.map(|body| Timed::new(body, between_bytes, outbound, None).boxed_unsync());
        let ended: Ended = Box::new(async move {
            let result = connection.await;
            // The connection counts as open until here.
            drop((sender, permit));
            result.map_err(Error::from)
        });
        Ok((response, ended))
    }
}

/// The shorter of what the guest wants and what it may have.
fn bounded(wanted: Option<Duration>, most: Duration) -> Duration {
    wanted.map_or(most, |wanted| wanted.min(most))
}

fn is_about_certificate(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl Destination {
    /// Returns it as it stands in the header `Host`.
    fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => self.host.to_string(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

/// Returns where a request goes, read from nothing but its scheme and authority.
fn destination(uri: &Uri) -> Result<Destination, Error> {
    let is_tls = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        _ => return Err(Error::HttpProtocolError),
    };
    let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
    let (host, port) = host_and_port(authority.as_str()).map_err(|_| Error::HttpRequestUriInvalid)?;
    let port = port.unwrap_or(if is_tls { 443 } else { 80 });
    Ok(Destination { is_tls, host, port })
}

/// Returns the request as it goes over the wire: origin form, and the host's word for where it goes.
fn prepared(
    request: Request<WasiBody>,
    destination: &Destination,
    hops: u32,
) -> Result<Request<WasiBody>, Error> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('?') { format!("/{path}") } else { path.to_owned() };
    if !path.starts_with('/') {
        return Err(Error::HttpRequestUriInvalid);
    }
    parts.uri = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    let authority =
        HeaderValue::from_str(&destination.authority()).map_err(|_| Error::HttpRequestUriInvalid)?;
    for name in [header::UPGRADE, header::PROXY_AUTHORIZATION, header::TE] {
        parts.headers.remove(name);
    }
    parts.headers.insert(header::HOST, authority);
    // Whatever the guest has set: its own count would be no count.
    parts.headers.insert(HOPS_HEADER, hops.into());
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(Request::from_parts(parts, body))
}

/// A body of which no piece may take too long.
struct Timed<B> {
    inner: B,
    most: Duration,
    late: Pin<Box<Sleep>>,
    outbound: Arc<Outbound>,
    /// What counts as open until the body ends, if that is not the connection.
    _permit: Option<OwnedSemaphorePermit>,
}

impl<B> Timed<B> {
    fn new(inner: B, most: Duration, outbound: Arc<Outbound>, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { inner, most, late: Box::pin(tokio::time::sleep(most)), outbound, _permit: permit }
    }
}

impl<B> Body for Timed<B>
where
    B: Body<Data = Bytes, Error: Into<Error>> + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(frame) => {
                let most = self.most;
                self.late.as_mut().reset(Instant::now() + most);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                ready!(self.late.as_mut().poll(context));
                self.outbound.late("between_bytes_timeout", self.most);
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests;
