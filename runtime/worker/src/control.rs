//! Frames to and from the agent, on threads of the operating system that no guest can starve.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::Context;
use dunlin_protocol::{FromWorker, ToWorker, decode, encode, frame_length};
use tokio::sync::mpsc;

/// How many messages may wait for the agent to read them. Who has one more waits.
const MAX_WAITING: usize = 256;

/// Messages for the agent.
#[derive(Clone)]
pub(crate) struct Agent(mpsc::Sender<FromWorker>);

impl Agent {
    /// Starts the thread that writes messages to `stream`.
    pub(crate) fn start(mut stream: UnixStream) -> std::io::Result<Self> {
        let (sender, mut messages) = mpsc::channel(MAX_WAITING);
        std::thread::Builder::new().name("control-out".to_owned()).spawn(move || {
            while let Some(message) = messages.blocking_recv() {
                if let Err(error) = write(&mut stream, &message) {
                    tracing::debug!(error = format!("{error:#}"), "agent is gone");
                    break;
                }
            }
        })?;
        Ok(Self(sender))
    }

    /// Sends a message. If the agent is gone, this process is about to end as well.
    pub(crate) async fn send(&self, message: FromWorker) {
        if self.0.send(message).await.is_err() {
            tracing::debug!("message to an agent that is gone");
        }
    }
}

fn write(stream: &mut UnixStream, message: &FromWorker) -> anyhow::Result<()> {
    match encode(message) {
        Ok(frame) => Ok(stream.write_all(&frame)?),
        Err(error) => {
            // Everything that a guest can lengthen is bounded far below a frame.
            tracing::error!(error = &error as &dyn std::error::Error, "message to the agent left out");
            Ok(())
        }
    }
}

/// Reads the next message, or nothing if the agent has closed its end.
pub(crate) fn read(stream: &mut UnixStream) -> anyhow::Result<Option<ToWorker>> {
    let mut prefix = [0; 4];
    match stream.read_exact(&mut prefix) {
        Ok(()) => {}
        Err(error) if [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind()) => {
            return Ok(None);
        }
        Err(error) => return Err(error).context("cannot read from the agent"),
    }
    let mut body = vec![0; frame_length(prefix).context("the agent sent no frame")?];
    stream.read_exact(&mut body).context("the agent stopped within a frame")?;
    decode(&body).context("the agent sent an unknown message").map(Some)
}
