//! Messages of HTTP, from the host's form into that of the crate `http` and back, with their bodies as streams.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode, Uri, response};
use wasip2::exports::http::incoming_handler::ResponseOutparam;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    self, Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse,
    RequestOptions,
};
use wasip2::io::poll::Pollable;
use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wstd::runtime::{AsyncPollable, spawn};

use crate::body::Inner;
use crate::body_length::{self, Length};
use crate::log_level::Level;
use crate::{Body, Context, Error, Request, Response, Result, bail};

/// The most bytes that are read at once.
const PIECE: u64 = 64 << 10;

/// Headers that are about one connection. A guest has none in its hands, and the host refuses a message with them; a
/// guest that passes on what it was sent would have them nevertheless.
const OF_A_CONNECTION: [HeaderName; 9] = [
    header::CONNECTION,
    header::HOST,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

async fn ready(pollable: Pollable) {
    AsyncPollable::new(pollable).wait_for().await;
}

/// Runs a future to its end.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    wstd::runtime::block_on(future)
}

/// A body that comes in. The stream is first, since it must be dropped before the body it belongs to.
pub(crate) struct Incoming {
    stream: InputStream,
    body: IncomingBody,
}

impl Incoming {
    /// Takes what the host says when it is asked for a body.
    fn new(body: Result<IncomingBody, ()>) -> Result<Self> {
        let incoming = body.and_then(|body| Ok(Self { stream: body.stream()?, body }));
        incoming.ok().context("the body is taken already")
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.stream.read(PIECE) {
                Ok(bytes) if bytes.is_empty() => ready(self.stream.subscribe()).await,
                Ok(bytes) => return Ok(Some(bytes.into())),
                Err(StreamError::Closed) => return Ok(None),
                Err(error) => return Err(broken(&error, "cannot read the body")),
            }
        }
    }

    /// Lets the host move all that is left, and returns what trailers follow.
    async fn move_to(mut self, out: &OutputStream) -> Result<Option<Fields>> {
        loop {
            ready(self.stream.subscribe()).await;
            ready(out.subscribe()).await;
            match out.splice(&self.stream, PIECE) {
                Ok(_) => {}
                Err(StreamError::Closed) => break,
                Err(error) => return Err(broken(&error, "cannot pass the body on")),
            }
        }
        // Either of the two is closed. The other side may close as soon as it has all, so that alone is no mistake.
        if out.check_write().is_err() && self.next().await?.is_some() {
            bail!("the body was not passed on to its end: the other side has closed the connection");
        }
        drop(self.stream);
        let trailers = IncomingBody::finish(self.body);
        ready(trailers.subscribe()).await;
        match trailers.get() {
            Some(Ok(Ok(trailers))) => Ok(trailers),
            // Which of the codes it is would bring the names of all of them into each service.
            Some(Ok(Err(_))) => bail!("cannot read the trailers"),
            Some(Err(())) | None => Ok(None),
        }
    }
}

fn broken(error: &StreamError, what: &str) -> Error {
    match error {
        StreamError::Closed => Error::msg("the other side has closed the connection"),
        StreamError::LastOperationFailed(error) => Error::msg(error.to_debug_string()),
    }
    .context(what)
}

/// Writes a body to its end. If this fails, `out` is dropped unfinished, by which the message is broken off.
async fn write(mut body: Body, out: OutgoingBody) -> Result<()> {
    let stream = out.write().ok().context("the body is written already")?;
    let trailers = match body.0 {
        Inner::Incoming(incoming) => incoming.move_to(&stream).await?,
        Inner::Whole(_) | Inner::Pieces(_) => {
            while let Some(piece) = body.next().await? {
                write_piece(&piece, &stream).await?;
            }
            None
        }
    };
    drop(stream);
    OutgoingBody::finish(out, trailers)
        .ok()
        .context("the host does not take the end of the body: is `content-length` right?")
}

async fn write_piece(mut piece: &[u8], stream: &OutputStream) -> Result<()> {
    while !piece.is_empty() {
        let room = stream.check_write().map_err(|error| broken(&error, "cannot write the body"))?;
        if room == 0 {
            ready(stream.subscribe()).await;
            continue;
        }
        let (now, later) = piece.split_at(usize::try_from(room).unwrap_or(usize::MAX).min(piece.len()));
        stream.write(now).map_err(|error| broken(&error, "cannot write the body"))?;
        piece = later;
    }
    Ok(())
}

/// Returns the request that the host hands over.
pub(crate) fn request(incoming: IncomingRequest) -> Result<Request> {
    let mut uri = uri::Parts::default();
    uri.path_and_query = Some(match incoming.path_with_query() {
        Some(path) => PathAndQuery::try_from(path)?,
        None => PathAndQuery::from_static("/"),
    });
    if let Some(authority) = incoming.authority() {
        uri.authority = Some(Authority::try_from(authority)?);
        // Beside an authority there must be a scheme.
        uri.scheme = Some(match incoming.scheme() {
            Some(types::Scheme::Https) => Scheme::HTTPS,
            _ => Scheme::HTTP,
        });
    }
    let headers = headers(&incoming.headers())?;
    let method = method(incoming.method())?;
    let mut request = Request::new(Body(Inner::Incoming(Incoming::new(incoming.consume())?)));
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(uri)?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Sends a response to a request of this method to its end. One that the host does not take is an error for the client,
/// too.
pub(crate) async fn respond(method: &Method, response: Response, out: ResponseOutparam) -> Result<()> {
    let (parts, body) = response.into_parts();
    let (length, has_body) = body_length::fit_response(method, &parts, &body);
    let made = outgoing(&parts, length).and_then(|response| {
        // Of a body that is not taken the host does not ask whether it is as long as the head says.
        let taken = if has_body { Some(response.body()) } else { None };
        let taken = taken.transpose().ok().context("the body is taken already")?;
        Ok((response, taken))
    });
    match made {
        Ok((response, taken)) => {
            ResponseOutparam::set(out, Ok(response));
            match taken {
                Some(outgoing_body) => write(body, outgoing_body).await,
                None => Ok(()),
            }
        }
        Err(error) => {
            ResponseOutparam::set(out, Err(types::ErrorCode::InternalError(None)));
            Err(error)
        }
    }
}

fn outgoing(parts: &response::Parts, length: Length) -> Result<OutgoingResponse> {
    let response = OutgoingResponse::new(fields(&parts.headers, length)?);
    response.set_status_code(parts.status.as_u16()).ok().context("the host does not take the status")?;
    Ok(response)
}

/// Sends a request. `patience` is how long to wait for a connection, for the first byte, and between two of them.
pub(crate) async fn send(request: Request, patience: Option<Duration>) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let (length, body) = body_length::fit_request(&parts, body).await?;
    let outgoing = OutgoingRequest::new(fields(&parts.headers, length)?);
    let scheme = match parts.uri.scheme_str() {
        Some("http") => types::Scheme::Http,
        Some("https") | None => types::Scheme::Https,
        Some(other) => bail!("there is no `{other}` here, only `http` and `https`"),
    };
    let is_set = outgoing
        .set_method(&wasi_method(&parts.method))
        .and_then(|()| outgoing.set_scheme(Some(&scheme)))
        .and_then(|()| outgoing.set_authority(parts.uri.authority().map(|authority| authority.as_str())))
        .and_then(|()| outgoing.set_path_with_query(parts.uri.path_and_query().map(|path| path.as_str())));
    is_set.ok().context("the host does not take this method or URI")?;
    let outgoing_body = outgoing.body().ok().context("the body is taken already")?;
    let coming = outgoing_handler::handle(outgoing, patience.map(options).transpose()?)?;
    // The response may come before the request's body has gone out, and both may depend on each other.
    spawn(async move {
        if let Err(error) = write(body, outgoing_body).await {
            super::log(Level::Warn, "dunlin-guest", &format!("a request was not sent to its end: {error:#}"));
        }
    })
    .detach();
    ready(coming.subscribe()).await;
    let response = match coming.get() {
        Some(Ok(response)) => response?,
        Some(Err(())) | None => bail!("the host gives no response"),
    };
    let (status, headers) = (StatusCode::from_u16(response.status())?, headers(&response.headers())?);
    let mut answer = Response::new(Body(Inner::Incoming(Incoming::new(response.consume())?)));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Ok(answer)
}

fn options(patience: Duration) -> Result<RequestOptions> {
    let nanoseconds = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
    let options = RequestOptions::new();
    let is_set = options
        .set_connect_timeout(Some(nanoseconds))
        .and_then(|()| options.set_first_byte_timeout(Some(nanoseconds)))
        .and_then(|()| options.set_between_bytes_timeout(Some(nanoseconds)));
    is_set.ok().context("the host knows no patience")?;
    Ok(options)
}

/// Returns the method that the host names.
pub(crate) fn method(method: types::Method) -> Result<Method> {
    Ok(match method {
        types::Method::Get => Method::GET,
        types::Method::Head => Method::HEAD,
        types::Method::Post => Method::POST,
        types::Method::Put => Method::PUT,
        types::Method::Delete => Method::DELETE,
        types::Method::Connect => Method::CONNECT,
        types::Method::Options => Method::OPTIONS,
        types::Method::Trace => Method::TRACE,
        types::Method::Patch => Method::PATCH,
        types::Method::Other(other) => Method::from_bytes(other.as_bytes())?,
    })
}

fn wasi_method(method: &Method) -> types::Method {
    match *method {
        Method::GET => types::Method::Get,
        Method::HEAD => types::Method::Head,
        Method::POST => types::Method::Post,
        Method::PUT => types::Method::Put,
        Method::DELETE => types::Method::Delete,
        Method::CONNECT => types::Method::Connect,
        Method::OPTIONS => types::Method::Options,
        Method::TRACE => types::Method::Trace,
        Method::PATCH => types::Method::Patch,
        ref other => types::Method::Other(other.to_string()),
    }
}

fn headers(fields: &Fields) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields.entries() {
        headers.append(
            HeaderName::from_bytes(name.as_bytes())?,
            HeaderValue::from_maybe_shared(Bytes::from(value))?,
        );
    }
    Ok(headers)
}

fn fields(headers: &HeaderMap, length: Length) -> Result<Fields> {
    let fields = Fields::new();
    let append = |name: &HeaderName, value: &[u8]| {
        let appended = fields.append(name.as_str(), value);
        appended.ok().with_context(|| format!("the host does not take the header `{name}`"))
    };
    for (name, value) in headers {
        if !OF_A_CONNECTION.contains(name) && (name != header::CONTENT_LENGTH || length == Length::AsSaid) {
            append(name, value.as_bytes())?;
        }
    }
    if let Length::Of(length) = length {
        append(&header::CONTENT_LENGTH, length.to_string().as_bytes())?;
    }
    Ok(fields)
}
