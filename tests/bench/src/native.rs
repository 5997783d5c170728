//! The peer without a sandbox: a hyper server that answers the same bytes, as a process of its own.
//!
//! It shows what the machine, the kernel and the load generator allow at most. The process is this program again,
//! with a hidden subcommand; it reads what to answer from its standard input, says where it listens on its standard
//! output, and ends with its standard input.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use anyhow::Context as _;
use bytes::Bytes;
use http::Response;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// The hidden subcommand.
pub(crate) const SUBCOMMAND: &str = "serve-native";

/// What every request is answered with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The body.
    pub(crate) text: String,
    /// Whether the head tells the body's length; otherwise it comes in chunks.
    pub(crate) has_length: bool,
}

/// The process, seen from the bench.
pub(crate) struct Native {
    address: SocketAddr,
    _child: Child,
}

impl Native {
    /// Starts it.
    pub(crate) async fn start(answer: &Answer) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("could not start the native server")?;
        let mut line = serde_json::to_string(answer)?;
        line.push('\n');
        child.stdin.as_mut().context("its input is a pipe")?.write_all(line.as_bytes()).await?;
        let mut said = String::new();
        BufReader::new(child.stdout.take().context("its output is a pipe")?).read_line(&mut said).await?;
        let address = said.trim().parse().context("the native server did not say where it listens")?;
        Ok(Self { address, _child: child })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The whole of the process.
pub(crate) fn serve() -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let answer: Answer = serde_json::from_str(&line).context("standard input does not say what to answer")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    runtime.spawn(accept(listener, answer));
    let _ends_with_its_parent = std::io::stdin().read_to_end(&mut Vec::new())?;
    runtime.shutdown_background();
    Ok(())
}

async fn accept(listener: TcpListener, answer: Answer) -> std::io::Result<Infallible> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve_connection(stream, answer.clone()));
    }
}

async fn serve_connection(stream: TcpStream, answer: Answer) {
    let Answer { text, has_length } = answer;
    let text = Bytes::from(text);
    let service = service_fn(|_request: http::Request<Incoming>| {
        let body = Once { text: Some(text.clone()), has_length };
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    // A client that goes away is the end of a round.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

struct Once {
    text: Option<Bytes>,
    has_length: bool,
}

impl Body for Once {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.text.take().map(|text| Ok(Frame::data(text))))
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.text.as_ref().map_or(0, |text| text.len() as u64);
        if self.has_length { SizeHint::with_exact(length) } else { SizeHint::default() }
    }
}
