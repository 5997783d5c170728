//! The access log: one line of JSON for each request of a client, in a file of the node at which it came in.
//!
//! A line is told when the last byte of the answer is on its way, or when nobody wants it any more. Who has answered, and what
//! that burned, is said by the worker, which is asked for it with the request. A thread of its own writes, so that no request
//! waits for a disk.

mod file;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use dunlin_model::{Timestamp, WorkloadName};
use http::header::{TRAILER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use serde::Serialize;

use self::file::LogFile;
use crate::FAILURE_HEADER;
use crate::body::Answer;
use crate::head::{ACCOUNT_HEADER, FUEL_HEADER, authority, reads_trailers, take_account};
use crate::origin::Origin;

/// How many lines may wait to be written.
const MAX_WAITING: usize = 8192;
/// The most bytes of what a client says that stand in a line.
const MAX_TEXT: usize = 1 << 10;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// An access log. It is written until it is dropped.
#[derive(Debug)]
pub struct AccessLog {
    lines: SyncSender<Box<Line>>,
    dropped: Arc<AtomicU64>,
}

/// One request and its answer.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    /// When the head of the request had come.
    time: String,
    client: IpAddr,
    method: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// With the query.
    path: String,
    protocol: String,
    tls: bool,
    status: u16,
    /// Of the body.
    bytes: u64,
    /// Until the last byte of the answer was on its way.
    duration_ms: f64,
    /// Whether the answer has come to its end.
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    /// Who has answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel: Option<u64>,
    /// The code of the failure, where the answer is none of a guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
}

impl Line {
    fn take_account(&mut self, account: &HeaderValue) {
        // Of an instance that ended badly no fuel is said.
        let mut parts = account.to_str().unwrap_or_default().split(' ');
        self.instance = parts.next().map(str::to_owned);
        self.fuel = parts.next().and_then(|fuel| fuel.parse().ok());
    }
}

/// A request that is being answered, as the log will tell of it.
pub(crate) struct Logging {
    log: Arc<AccessLog>,
    line: Box<Line>,
    began: Instant,
    reads_trailers: bool,
}

impl Logging {
    /// Takes note of a request that has come.
    pub(crate) fn begin<B>(
        log: &Arc<AccessLog>,
        request: &Request<B>,
        origin: &Origin,
        client: IpAddr,
    ) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let headers = request.headers();
        let told = |name| headers.get(name).map(|value: &HeaderValue| shown(value.as_bytes()));
        let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let line = Line {
            time: Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)).rfc3339(),
            client,
            method: shown(request.method().as_str().as_bytes()),
            host: authority(request).ok().map(str::to_owned),
            path: shown(target.as_bytes()),
            protocol: format!("{:?}", request.version()),
            tls: origin.has_tls(),
            status: 0,
            bytes: 0,
            duration_ms: 0.0,
            complete: false,
            service: None,
            instance: None,
            fuel: None,
            failure: None,
            trace: told(TRACEPARENT).and_then(|parent| parent.split('-').nth(1).map(str::to_owned)),
            user_agent: told(USER_AGENT),
        };
        let reads_trailers = reads_trailers(headers);
        Self { log: Arc::clone(log), line: Box::new(line), began: Instant::now(), reads_trailers }
    }

    /// Says for which service it is.
    pub(crate) fn is_for(&mut self, service: &WorkloadName) {
        self.line.service = Some(service.to_string());
    }

    /// Returns the response as it goes to the client; when its body has ended it is told of.
    pub(crate) fn answered(mut self, mut response: Response<Answer>) -> Response<Answer> {
        self.line.status = response.status().as_u16();
        let failure = response.headers().get(FAILURE_HEADER);
        self.line.failure = failure.and_then(|code| code.to_str().ok()).map(str::to_owned);
        if let Some(account) = take_account(response.headers_mut()) {
            self.line.take_account(&account);
        }
        if !self.reads_trailers {
            response.headers_mut().remove(TRAILER);
        }
        response.map(|body| Answer::Logged(Box::new(Logged { body, logging: Some(self), has_ended: false })))
    }
}

/// Returns what a client says, cut.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]).into_owned()
}

/// A body of which is told when it has ended.
pub(crate) struct Logged {
    body: Answer,
    /// Until it is told.
    logging: Option<Logging>,
    has_ended: bool,
}

impl std::fmt::Debug for Logged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logged").field("body", &self.body).finish_non_exhaustive()
    }
}

impl Logged {
    /// Takes out of the trailers what is for the log alone; returns what is left, if anything is.
    fn take_trailers(&mut self, mut trailers: HeaderMap) -> Option<HeaderMap> {
        let account = trailers.remove(ACCOUNT_HEADER);
        if let Some(logging) = &mut self.logging {
            account.iter().for_each(|account| logging.line.take_account(account));
            if !logging.reads_trailers {
                trailers.remove(FUEL_HEADER);
            }
        }
        (!trailers.is_empty()).then_some(trailers)
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            end => {
                self.has_ended = end.is_none();
                return Poll::Ready(end);
            }
        };
        Poll::Ready(match frame.into_trailers() {
            Ok(trailers) => {
                self.has_ended = true;
                self.take_trailers(trailers).map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Err(frame) => {
                if let Some(logging) = &mut self.logging {
                    logging.line.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                }
                Some(Ok(frame))
            }
        })
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let complete = self.is_end_stream();
        if let Some(Logging { log, mut line, began, .. }) = self.logging.take() {
            line.complete = complete;
            line.duration_ms = began.elapsed().as_secs_f64() * 1e3;
            log.write(line);
        }
    }
}

impl AccessLog {
    /// Opens the log in this file, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// The file cannot be had.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = LogFile::open(path)?;
        let (lines, waiting) = sync_channel(MAX_WAITING);
        let dropped = Arc::<AtomicU64>::default();
        let missing = Arc::clone(&dropped);
        let write = move || file::write(file, &waiting, &missing);
        std::thread::Builder::new().name("access log".to_owned()).spawn(write)?;
        Ok(Self { lines, dropped })
    }

    fn write(&self, line: Box<Line>) {
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
