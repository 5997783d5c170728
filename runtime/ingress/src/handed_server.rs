//! One handed connection from its first request to its end.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::config::{LAST_REQUEST_TIME, MAX_BUFFER, MAX_HEAD};
use crate::handed::{Handed, HandedAnswer, HandedDoor, NotOurs, Order, answer};
use crate::origin::Origin;
use crate::turnstile::{Pass, Turnstile};

/// The most bytes that are given back with a connection.
const MAX_GIVEN_BACK: usize = 100 << 10;

/// How the service of a handed connection ended.
#[derive(Debug)]
pub enum HandedEnd {
    /// It is closed.
    Closed,
    /// It is for the ingress to go on with.
    GiveBack {
        /// The connection.
        stream: TcpStream,
        /// What was read from it and not answered.
        read: Vec<u8>,
    },
}

/// Serves a connection of `client` in HTTP/1.1 until it ends, or is to be given back.
pub async fn serve_handed<H: Handed>(
    stream: TcpStream,
    client: SocketAddr,
    door: &HandedDoor,
    handed: &H,
) -> HandedEnd {
    // Those of proxies are not handed off, and none has TLS.
    let origin = &Origin::new(client.ip(), false, false);
    let turnstile = Turnstile::new(stream);
    let pass = Arc::clone(&turnstile.pass);
    let activity = Arc::new(Activity::new());
    let service = service_fn(|request: Request<Incoming>| {
        let answering = activity.begin();
        let pass = &pass;
        async move {
            let response = answer(door, handed, origin, pass, request).await?;
            Ok::<_, NotOurs>(response.map(|body| AnswerBody { body, _answering: answering }))
        }
    });
    let mut server = http1::Builder::new();
    // There is one timer for a connection, below, in place of one for each request.
    server.header_read_timeout(None).max_header_size(MAX_HEAD as usize).max_buf_size(MAX_BUFFER);
    let mut connection = server.serve_connection(TokioIo::new(turnstile), service);
    let is_to_return = run(&mut connection, door, &pass, &activity).await;
    if !is_to_return {
        return HandedEnd::Closed;
    }
    let parts = connection.into_parts();
    let read = pass.take();
    // The turnstile lets one head through at a time, so the server holds nothing but a part of that.
    if read.len() > MAX_GIVEN_BACK {
        return HandedEnd::Closed;
    }
    HandedEnd::GiveBack { stream: parts.io.into_inner().stream, read }
}

/// Runs the server; tells whether the connection is to be given back.
async fn run<S, B>(
    connection: &mut http1::Connection<TokioIo<Turnstile>, S>,
    door: &HandedDoor,
    pass: &Pass,
    activity: &Activity,
) -> bool
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>, Error = NotOurs>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut order = Order::Serve;
    let mut idle_time = door.header_timeout;
    let mut idle = pin!(sleep_until(activity.started + door.header_timeout));
    loop {
        let mut ordered = pin!(door.ordered.notified());
        // From here on no order is missed, also without polling.
        ordered.as_mut().enable();
        let mut is_registered = false;
        let event = std::future::poll_fn(|context| {
            if let Poll::Ready(served) = Pin::new(&mut *connection).poll(context) {
                return Poll::Ready(Event::Served(served));
            }
            let now = door.ordered_now();
            let is_idle = || !activity.is_answering() && pass.is_between_requests();
            if now == Order::Leave && is_idle() {
                return Poll::Ready(Event::Left);
            }
            if now != order {
                return Poll::Ready(Event::Ordered(now));
            }
            // Polled once only, to be woken: what was ordered is seen above.
            if !is_registered {
                is_registered = true;
                let _woken = ordered.as_mut().poll(context);
            }
            idle.as_mut().poll(context).map(|()| Event::Idle)
        })
        .await;
        match event {
            Event::Served(Ok(())) => return false,
            Event::Served(Err(error)) => {
                let is_not_ours =
                    std::error::Error::source(&error).is_some_and(|error| error.is::<NotOurs>());
                if !is_not_ours {
                    tracing::debug!(%error, "connection of a client ended");
                }
                return is_not_ours;
            }
            Event::Left => return true,
            Event::Ordered(now) => {
                order = now;
                if now == Order::Drain {
                    // The next response says that it is the last.
                    idle_time = LAST_REQUEST_TIME;
                    idle.as_mut().reset(Instant::now() + idle_time);
                }
            }
            Event::Idle => {
                let until = activity.last() + idle_time;
                if activity.is_answering() {
                    idle.as_mut().reset(Instant::now() + idle_time);
                } else if until <= Instant::now() {
                    return false;
                } else {
                    idle.as_mut().reset(until);
                }
            }
        }
    }
}

enum Event {
    Served(hyper::Result<()>),
    Left,
    Ordered(Order),
    Idle,
}

/// Whether a request is being answered, and since when none is.
#[derive(Debug)]
struct Activity {
    started: Instant,
    is_answering: AtomicBool,
    /// In milliseconds after `started`.
    last: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { started: Instant::now(), is_answering: AtomicBool::new(false), last: AtomicU64::new(0) }
    }

    fn begin(self: &Arc<Self>) -> Answering {
        self.is_answering.store(true, Ordering::Release);
        Answering(Arc::clone(self))
    }

    fn is_answering(&self) -> bool {
        self.is_answering.load(Ordering::Acquire)
    }

    fn last(&self) -> Instant {
        self.started + std::time::Duration::from_millis(self.last.load(Ordering::Acquire))
    }
}

/// Exists from the beginning of a request to the end of its response.
#[derive(Debug)]
struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        let last = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(last, Ordering::Release);
        self.0.is_answering.store(false, Ordering::Release);
    }
}

/// The body of a response; dropped by the server when all of it is written or nobody wants it.
struct AnswerBody<B> {
    body: HandedAnswer<B>,
    _answering: Answering,
}

impl<B> Body for AnswerBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
