//! The access log: one line of JSON for each request of a client, in a file of the node at which it came in.
//!
//! A line is told when the last byte of the answer is on its way, or when nobody wants it any more. Who has answered, and what
//! that burned, is said by the worker, which is asked for it with the request. A thread of its own writes, so that no request
//! waits for a disk.

mod file;

use std::fs::OpenOptions;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use dunlin_model::{Timestamp, WorkloadName};
use http::header::{TRAILER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use rustix::fs::Access;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::file::LogFile;
use crate::FAILURE_HEADER;
use crate::body::Answer;
use crate::head::{ACCOUNT_HEADER, FUEL_HEADER, authority, reads_trailers, take_account};
use crate::origin::Origin;

/// How many lines may wait to be written.
const MAX_WAITING: usize = 8192;
/// The status of a request whose client left before there was an answer, as other servers write it.
const CLIENT_LEFT: u16 = 499;
/// How long an end waits for the last lines.
const FLUSH_TIME: Duration = Duration::from_secs(1);
/// The most bytes of what a client says that stand in a line.
const MAX_TEXT: usize = 1 << 10;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// An access log. It is written until it is dropped.
#[derive(Debug)]
pub struct AccessLog {
    lines: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

/// What the thread is told that writes.
#[derive(Debug)]
enum Message {
    Line(Box<Line>),
    /// To answer when all before it is written.
    Flush(oneshot::Sender<()>),
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
    /// Until it is told, which is when this is dropped.
    line: Option<Box<Line>>,
    began: Instant,
    reads_trailers: bool,
    is_head: bool,
}

impl Drop for Logging {
    fn drop(&mut self) {
        if let Some(mut line) = self.line.take() {
            line.duration_ms = self.began.elapsed().as_secs_f64() * 1e3;
            self.log.write(line);
        }
    }
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
            host: authority(request).ok().map(|host| shown(host.as_bytes())),
            path: shown(target.as_bytes()),
            protocol: format!("{:?}", request.version()),
            tls: origin.has_tls(),
            status: CLIENT_LEFT,
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
        let is_head = *request.method() == Method::HEAD;
        let (log, line) = (Arc::clone(log), Some(Box::new(line)));
        Self { log, line, began: Instant::now(), reads_trailers, is_head }
    }

    /// Says for which service it is.
    pub(crate) fn is_for(&mut self, service: &WorkloadName) {
        if let Some(line) = &mut self.line {
            line.service = Some(service.to_string());
        }
    }

    /// Returns the response as it goes to the client; when its body has ended it is told of.
    pub(crate) fn answered(mut self, mut response: Response<Answer>) -> Response<Answer> {
        let account = take_account(response.headers_mut());
        if let Some(line) = &mut self.line {
            line.status = response.status().as_u16();
            let failure = response.headers().get(FAILURE_HEADER);
            line.failure = failure.and_then(|code| code.to_str().ok()).map(str::to_owned);
            account.iter().for_each(|account| line.take_account(account));
        }
        if !self.reads_trailers {
            response.headers_mut().remove(TRAILER);
        }
        response.map(|body| Answer::Logged(Box::new(Logged { body, logging: self, has_ended: false })))
    }
}

/// Returns what a client says, cut.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]).into_owned()
}

/// A body of which is told when it has ended.
pub(crate) struct Logged {
    body: Answer,
    logging: Logging,
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
        if let Some(line) = &mut self.logging.line {
            account.iter().for_each(|account| line.take_account(account));
        }
        if !self.logging.reads_trailers {
            trailers.remove(FUEL_HEADER);
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
                if let Some(line) = &mut self.logging.line {
                    line.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
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
        // Of an answer to HEAD no body is read.
        let complete = self.logging.is_head || self.is_end_stream();
        if let Some(line) = &mut self.logging.line {
            line.complete = complete;
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
        if self.lines.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was told is written, though not for long.
    pub(crate) async fn flush(&self) {
        let (flushed, is_flushed) = oneshot::channel();
        if self.lines.try_send(Message::Flush(flushed)).is_ok() {
            let _late = timeout(FLUSH_TIME, is_flushed).await;
        }
    }

    /// Tells whether a log could be opened in this file, without making it.
    ///
    /// # Errors
    ///
    /// It could not.
    pub fn check(path: &Path) -> io::Result<()> {
        match OpenOptions::new().append(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = folder.unwrap_or(Path::new("."));
                Ok(rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
            }
            opened => opened.map(drop),
        }
    }
}
