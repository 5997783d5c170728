//! The load generator: a closed loop over kept-alive HTTP/1.1 connections.
//!
//! Each connection has one request under way and sends the next when it has the whole answer, so the rate is what the
//! server makes of it. All connections share the thread of the caller: under many of them a latency holds the time
//! that an answer lay there unread as well, for each peer alike.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// How long after the end of a round a request may still be without its answer. Beyond it the server hangs.
const STALLED: Duration = Duration::from_secs(20);
/// How many characters of an unexpected answer are told.
const SHOWN: usize = 200;

/// What every request of a round asks.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    host: String,
    method: Method,
    path: &'static str,
    body: Bytes,
}

impl Ask {
    /// `GET /`
    pub(crate) fn get(host: &str) -> Self {
        Self { host: host.to_owned(), method: Method::GET, path: "/", body: Bytes::new() }
    }

    /// `POST path` with a body.
    pub(crate) fn post(host: &str, path: &'static str, body: Bytes) -> Self {
        Self { host: host.to_owned(), method: Method::POST, path, body }
    }
}

/// One kept-alive connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    ask: Ask,
}

impl Connection {
    /// Connects to `address`, to ask so.
    pub(crate) async fn open(address: SocketAddr, ask: &Ask) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its errors come to whoever sends.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, ask: ask.clone() })
    }

    /// Sends the request and returns the answer when all of it is there.
    pub(crate) async fn ask(&mut self) -> anyhow::Result<Response<Bytes>> {
        let Ask { host, method, path, body } = &self.ask;
        let request = Request::builder().method(method).uri(*path).header(HOST, host);
        let request = request.body(Full::new(body.clone()))?;
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }
}

/// What one round of load saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Answers per second of the round.
    pub(crate) rate: f64,
    /// The time from request to whole answer of each request, in microseconds, in ascending order.
    pub(crate) latencies: Vec<u32>,
    /// What came in place of a 200, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
}

/// One connection's part of [`Seen`].
#[derive(Default)]
struct Part {
    in_time: u64,
    latencies: Vec<u32>,
    failures: BTreeMap<String, u64>,
}

/// Loads `address` with what `ask` says over this many connections for `duration`. They are open before the time begins.
pub(crate) async fn load(
    address: SocketAddr,
    ask: &Ask,
    connections: usize,
    duration: Duration,
) -> anyhow::Result<Seen> {
    let mut open = Vec::with_capacity(connections);
    for number in 0..connections {
        let connection = Connection::open(address, ask).await;
        open.push(connection.with_context(|| format!("could not open connection {number} to {address}"))?);
    }
    let until = Instant::now() + duration;
    let mut parts: JoinSet<Part> =
        open.into_iter().map(|connection| keep_asking(connection, until)).collect();
    let mut seen = Seen::default();
    let mut in_time = 0;
    loop {
        let joined = timeout_at(until + STALLED, parts.join_next()).await;
        let joined =
            joined.with_context(|| format!("{} requests have no answer {STALLED:?} later", parts.len()))?;
        let Some(part) = joined else { break };
        let part = part?;
        in_time += part.in_time;
        seen.latencies.extend(part.latencies);
        for (failure, count) in part.failures {
            *seen.failures.entry(failure).or_default() += count;
        }
    }
    seen.latencies.sort_unstable();
    // What is answered after the end would make a round of many connections look faster than it is.
    seen.rate = f64::from(u32::try_from(in_time)?) / duration.as_secs_f64();
    Ok(seen)
}

async fn keep_asking(mut connection: Connection, until: Instant) -> Part {
    let mut part = Part::default();
    loop {
        let begun = Instant::now();
        if begun >= until {
            return part;
        }
        let failure = match connection.ask().await {
            Ok(answer) if answer.status() == StatusCode::OK => None,
            Ok(answer) => Some(format!("{}: {}", answer.status(), String::from_utf8_lossy(answer.body()))),
            Err(error) => Some(format!("{error:#}")),
        };
        let ended = Instant::now();
        let micros = u32::try_from((ended - begun).as_micros()).unwrap_or(u32::MAX);
        part.latencies.push(micros);
        match failure {
            None => part.in_time += u64::from(ended <= until),
            Some(text) => {
                *part.failures.entry(text.chars().take(SHOWN).collect()).or_default() += 1;
                if connection.sender.is_closed() {
                    return part;
                }
            }
        }
    }
}
