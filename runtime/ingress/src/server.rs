//! Connections of clients from their first byte to their end, and streams from other nodes.
//!
//! HTTP/2 in the clear is recognised by its first three bytes, which no HTTP/1 request has; the bytes are only looked at,
//! so that nothing has to be put back. Over TLS the client has chosen in the handshake. No connection can hold up another, and no error ends the accepting of further ones.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dunlin_model::WorkloadName;
use http::header::{CONNECTION, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::AccessLog;
use crate::config::{HTTP2_WINDOWS, LAST_REQUEST_TIME, MAX_BUFFER, MAX_CONCURRENT_STREAMS, MAX_HEAD};
use crate::doors::{Arrival, Doors, TlsDoor};
use crate::hand_off::{self, MAX_PEEK};
use crate::ingress::Ingress;
use crate::origin::Origin;
use crate::proxy_protocol;
use crate::rewind::Rewind;
use crate::slot::Slot;
use crate::stream::{BoxedStream, HandOff, Stream};
use crate::table::Service;

/// How HTTP/2 begins, and no request of HTTP/1.
const PREFACE: &[u8] = b"PRI";
/// How often it is looked whether all connections have ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What every connection of one listener watches.
#[derive(Clone, Debug)]
pub(crate) struct Shutdown {
    /// The next response is the last.
    pub(crate) leaving: CancellationToken,
    /// Take no further requests.
    pub(crate) draining: CancellationToken,
    /// End, whatever is under way.
    pub(crate) cut: CancellationToken,
}

impl Shutdown {
    /// Waits until a first request that was on its way when the draining began would have come.
    async fn has_waited(&self) {
        self.draining.cancelled().await;
        sleep(LAST_REQUEST_TIME).await;
    }
}

impl Ingress {
    /// Answers clients in HTTP/1.1 and HTTP/2 until `shutdown`. Then every connection gets one more response, if its
    /// client asks for one soon; what is under way after that is waited for by [`Closing::finish`].
    ///
    /// A client that keeps its connection for the next request is told with a response that there will be none; closed
    /// in between, it could be sending one.
    pub async fn serve(&self, doors: Doors, shutdown: impl Future<Output = ()> + Send) -> Closing {
        let connections = self.config().max_connections;
        let slots = Arc::new(Semaphore::new(connections as usize));
        let watch = Shutdown {
            leaving: CancellationToken::new(),
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        self.accept_until(&doors, &slots, &watch, shutdown).await;
        watch.leaving.cancel();
        self.local().drain();
        self.accept_until(&doors, &slots, &watch, all_idle(&slots, connections)).await;
        watch.draining.cancel();
        let (limit, log) = (self.config().drain_timeout, self.config().access_log.clone());
        Closing { slots, watch, connections, limit, log }
    }

    /// Accepts connections until `end`.
    async fn accept_until<T>(
        &self,
        doors: &Doors,
        slots: &Arc<Semaphore>,
        watch: &Shutdown,
        end: impl Future<Output = T> + Send,
    ) -> T {
        let accepting = async {
            // Nobody closes the semaphore.
            while let Ok(permit) = Arc::clone(slots).acquire_owned().await {
                let arrival = doors.accept().await;
                let slot = Slot { permit, ingress: self.clone(), watch: watch.clone(), handed: None };
                tokio::spawn(async move {
                    let cut = slot.watch.cut.clone();
                    tokio::select! {
                        () = cut.cancelled() => {}
                        () = serve_arrival(arrival, slot) => {}
                    }
                });
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            end = end => end,
            never = accepting => never,
        }
    }

    /// Answers what another node's ingress sends on, in HTTP/1.1, until the stream ends. Nothing is sent on again.
    pub async fn serve_peer(&self, stream: BoxedStream) {
        let service = service_fn(|request| async { Ok::<_, Infallible>(self.answer_peer(request).await) });
        let served = http1_server(self.config().header_timeout)
            // The other side takes one stream for each request, so an open one would only be in the way.
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "stream from another node ended");
        }
    }

    /// Answers one call of `service` by a guest of `caller`, in HTTP/1.1, wherever the service runs.
    pub async fn serve_call(&self, stream: BoxedStream, service: &WorkloadName, caller: &WorkloadName) {
        let caller = HeaderValue::try_from(caller.to_string())
            .expect("a name has letters, digits and marks, which any header can hold");
        let service = service_fn(|request| {
            let caller = &caller;
            async move { Ok::<_, Infallible>(self.answer_call(request, service, caller).await) }
        });
        let served = http1_server(self.config().header_timeout)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "call of a guest ended");
        }
    }
}

/// The end of an ingress: it accepts no clients any more, and some of them still wait for responses.
#[must_use = "until it is finished, clients are cut off"]
#[derive(Debug)]
pub struct Closing {
    slots: Arc<Semaphore>,
    watch: Shutdown,
    connections: u32,
    limit: Duration,
    log: Option<Arc<AccessLog>>,
}

impl Closing {
    /// Waits for the requests under way, and cuts off those that take too long.
    pub async fn finish(self) {
        // All slots are free again when the last connection has ended.
        if timeout(self.limit, self.slots.acquire_many(self.connections)).await.is_err() {
            tracing::warn!("requests were cut off by the shutdown");
            self.watch.cut.cancel();
        }
        if let Some(log) = &self.log {
            log.flush().await;
        }
    }
}

/// Waits until no connection is open, though not for long. One place may be that of who comes next.
async fn all_idle(slots: &Semaphore, connections: u32) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let idle = async {
        while slots.available_permits() + 1 < connections as usize {
            looks.tick().await;
        }
    };
    let _not_all = timeout(LAST_REQUEST_TIME, idle).await;
}

/// Serves one client until it goes away, or its current request is answered while draining; or hands it to a worker.
async fn serve_arrival(Arrival { mut stream, client, tls }: Arrival, slot: Slot) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "could not set nodelay");
    }
    let Some(client) = told_client(&mut stream, client, &slot).await else { return };
    match tls {
        None => serve_plain(stream, client, slot).await,
        Some(acceptor) => serve_tls(stream, client, &acceptor, &slot).await,
    }
}

/// Returns who the client is, by the word of a balancer where the connection comes from one; nothing if it does not say.
async fn told_client(stream: &mut TcpStream, from: SocketAddr, slot: &Slot) -> Option<SocketAddr> {
    let config = slot.ingress.config();
    if !config.expects_proxy_protocol(from.ip()) {
        return Some(from);
    }
    let told = tokio::select! {
        () = slot.watch.has_waited() => return None,
        told = timeout(config.header_timeout, proxy_protocol::read(stream)) => told,
    };
    let error = match told {
        Ok(Ok(client)) => return Some(client.unwrap_or(from)),
        Ok(Err(error)) => error,
        Err(_late) => io::ErrorKind::TimedOut.into(),
    };
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return None;
    }
    if slot.ingress.silent_balancers().is_due(std::time::Instant::now()) {
        tracing::warn!(
            %from, %error,
            "a connection from an address in `[ingress] proxy_protocol` does not begin with a header of the PROXY \
             protocol, so it is closed, as are others that do not; let the balancer send one, or take it off that list"
        );
    }
    None
}

async fn serve_plain(mut stream: TcpStream, client: SocketAddr, mut slot: Slot) {
    let limit = slot.ingress.config().header_timeout;
    let peeking = async {
        loop {
            stream.readable().await?;
            match peek(&stream, &slot.ingress, client) {
                // There was nothing after all, which the stream has now noticed, so this does not spin.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                peeked => return peeked,
            }
        }
    };
    let watch = slot.watch.clone();
    let peeked = tokio::select! {
        () = watch.has_waited() => return,
        peeked = timeout(limit, peeking) => peeked,
    };
    let Ok(Ok(beginning)) = peeked else { return };
    let ingress = slot.ingress.clone();
    let served = match beginning {
        Beginning::End => return,
        Beginning::Http2 => serve_http2(&ingress, stream, &ingress.origin(client, false), &slot.watch).await,
        Beginning::Http1 => serve_http1(&ingress, stream, &ingress.origin(client, false), &slot.watch).await,
        Beginning::For(service, routes) => {
            let namespace = service.workload.namespace.clone();
            slot.handed = Some(service.handed.begin());
            let hand_off = HandOff { stream, client, namespace, routes, slot };
            let Err(refused) = ingress.local().hand_off(hand_off) else {
                service.take_turn();
                return;
            };
            (stream, slot) = (refused.stream, refused.slot);
            slot.handed = None;
            serve_http1(&ingress, stream, &ingress.origin(client, false), &slot.watch).await
        }
    };
    drop(slot);
    log_end(served);
}

async fn serve_tls(stream: TcpStream, client: SocketAddr, acceptor: &TlsAcceptor, slot: &Slot) {
    let (ingress, watch) = (&slot.ingress, &slot.watch);
    let opened = tokio::select! {
        () = watch.has_waited() => return,
        opened = timeout(ingress.config().header_timeout, acceptor.accept(stream)) => opened,
    };
    let stream = match opened {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%client, %error, "a client's TLS did not begin"),
        Err(_late) => return tracing::debug!(%client, "a client's TLS did not begin in time"),
    };
    let origin = ingress.origin(client, true);
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(TlsDoor::HTTP2);
    let served = if is_http2 {
        serve_http2(ingress, stream, &origin, watch).await
    } else {
        serve_http1(ingress, stream, &origin, watch).await
    };
    log_end(served);
}

fn log_end(served: Result<(), hyper::Error>) {
    if let Err(error) = served {
        tracing::debug!(%error, "connection of a client ended");
    }
}

/// Goes on with a connection that a worker has given back.
pub(crate) async fn serve_returned(ingress: &Ingress, rewind: Rewind, origin: &Origin, watch: &Shutdown) {
    log_end(serve_http1(ingress, rewind, origin, watch).await);
}

/// What the first bytes of a connection say.
enum Beginning {
    End,
    Http2,
    Http1,
    /// The worker of this service may take it, by the routes of this version.
    For(Arc<Service>, u64),
}

/// Looks at the first bytes, which are there and stay there.
fn peek(stream: &TcpStream, ingress: &Ingress, client: SocketAddr) -> io::Result<Beginning> {
    let mut bytes = [0; MAX_PEEK];
    let may_hand_off = ingress.may_hand_off(client.ip());
    let wanted = if may_hand_off { MAX_PEEK } else { PREFACE.len() };
    let length = stream.try_io(Interest::READABLE, || {
        let (_, length) = rustix::net::recv(stream, &mut bytes[..wanted], RecvFlags::PEEK)?;
        Ok(length)
    })?;
    let bytes = &bytes[..length];
    if bytes.is_empty() {
        return Ok(Beginning::End);
    }
    if bytes.starts_with(PREFACE) {
        return Ok(Beginning::Http2);
    }
    if !may_hand_off {
        return Ok(Beginning::Http1);
    }
    let table = ingress.table();
    let decided = hand_off::decide(bytes, &table, ingress.suspects());
    let Some(service) = decided else { return Ok(Beginning::Http1) };
    let namespace = &service.workload.namespace;
    let Some((version, _)) = table.namespaces.get(namespace) else { return Ok(Beginning::Http1) };
    Ok(Beginning::For(Arc::clone(service), *version))
}

async fn serve_http1(
    ingress: &Ingress,
    stream: impl Stream,
    origin: &Origin,
    watch: &Shutdown,
) -> Result<(), hyper::Error> {
    let is_asked = AtomicBool::new(false);
    let service = service_fn(|request| async {
        is_asked.store(true, Ordering::Relaxed);
        let mut response = ingress.answer(request, origin).await;
        if watch.leaving.is_cancelled() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok::<_, Infallible>(response)
    });
    let server = http1_server(ingress.config().header_timeout);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        served = &mut connection => return served,
        () = watch.draining.cancelled() => {}
    }
    if !is_asked.load(Ordering::Relaxed) {
        tokio::select! {
            served = &mut connection => return served,
            () = watch.has_waited() => {}
        }
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

async fn serve_http2(
    ingress: &Ingress,
    stream: impl Stream + 'static,
    origin: &Origin,
    Shutdown { leaving, .. }: &Shutdown,
) -> Result<(), hyper::Error> {
    let limit = ingress.config().header_timeout;
    let (asked, origin) = (Notify::new(), Arc::new(origin.clone()));
    let service = service_fn(|request| {
        asked.notify_one();
        // Requests of one connection run as tasks of their own, so each needs its own.
        let (ingress, origin) = (ingress.clone(), Arc::clone(&origin));
        async move { Ok::<_, Infallible>(ingress.answer(request, &origin).await) }
    });
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .initial_stream_window_size(HTTP2_WINDOWS.0)
        .initial_connection_window_size(HTTP2_WINDOWS.1)
        .keep_alive_interval(limit)
        .keep_alive_timeout(limit);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    // The keep-alive begins after the handshake, for which hyper itself has no limit; and a shutdown before it would
    // leave a first request that is on its way without an answer.
    let silent = async {
        tokio::select! {
            () = sleep(limit) => {}
            () = leaving.cancelled() => sleep(LAST_REQUEST_TIME).await,
        }
    };
    tokio::select! {
        served = &mut connection => return served,
        () = asked.notified() => {}
        () = silent => return Ok(()),
    }
    tokio::select! {
        served = &mut connection => return served,
        () = leaving.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

fn http1_server(header_timeout: Duration) -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_header_size(MAX_HEAD as usize)
        .max_buf_size(MAX_BUFFER);
    server
}
