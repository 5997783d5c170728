//! The channel to the agent: the connections that this process uses, all of which others have opened.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_descriptors::{Channel, file_in_memory};
use dunlin_model::{AllocationId, InstanceId};
use dunlin_protocol::{ConnectError, Outbound, PassedToAgent, PassedToWorker, decode, encode};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Passes messages and descriptors to the agent, and waits for its answers.
pub(crate) struct Passing {
    channel: Channel,
    asked: Mutex<Asked>,
}

/// The questions for connections that wait for their answers.
#[derive(Default)]
struct Asked {
    last: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
}

type Answer = Result<(TcpStream, SocketAddr), ConnectError>;

impl Passing {
    /// Returns the channel whose one end `descriptor` is. Must be called within a tokio runtime.
    pub(crate) fn new(descriptor: OwnedFd) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { channel: Channel::new(descriptor)?, asked: Mutex::default() }))
    }

    /// Passes `message` to the agent. If the agent is gone, this process is about to end as well.
    pub(crate) async fn send(&self, message: &PassedToAgent, stream: Option<&TcpStream>) -> io::Result<()> {
        let frame = encode(message).map_err(io::Error::other)?;
        // The kernel keeps these messages apart, so they need no length before them.
        self.channel.send(&frame[4..], stream.map(|stream| stream.as_fd())).await
    }

    /// Passes the core dump of an instance to the agent.
    pub(crate) async fn send_dump(&self, instance: InstanceId, bytes: Vec<u8>) -> io::Result<()> {
        let file = tokio::task::spawn_blocking(move || file_in_memory(&bytes)).await??;
        let frame = encode(&PassedToAgent::CoreDump { instance }).map_err(io::Error::other)?;
        self.channel.send(&frame[4..], Some(file.as_fd())).await
    }

    /// Asks for a connection to `host` on behalf of a guest of `allocation`, and returns it with its address.
    pub(crate) async fn connect(
        &self,
        allocation: AllocationId,
        using: Outbound,
        host: String,
        port: u16,
    ) -> Answer {
        let (answer, answered) = oneshot::channel();
        let request = {
            let mut asked = self.asked();
            asked.last += 1;
            let request = asked.last;
            asked.waiting.insert(request, answer);
            request
        };
        let _forget = Forget(self, request);
        let gone = || ConnectError::NotConnected("the agent is gone".to_owned());
        let question = PassedToAgent::Connect { request, allocation, using, host, port };
        self.send(&question, None).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an answer to who waits for it.
    fn answer(&self, request: u64, result: Result<SocketAddr, ConnectError>, stream: Option<OwnedFd>) {
        let Some(waiting) = self.asked().waiting.remove(&request) else { return };
        let answer = result.and_then(|address| match stream.map(tcp) {
            Some(Ok(stream)) => Ok((stream, address)),
            Some(Err(error)) => Err(ConnectError::NotConnected(error.to_string())),
            None => Err(ConnectError::NotConnected("this worker has too many open files".to_owned())),
        });
        let _gone = waiting.send(answer);
    }

    /// Returns the next message of the agent that is no answer; nothing once the agent is gone.
    pub(crate) async fn next(&self) -> io::Result<Option<(PassedToWorker, Option<OwnedFd>)>> {
        while let Some(message) = self.channel.receive().await? {
            match decode(&message.bytes).map_err(io::Error::other)? {
                PassedToWorker::Connected { request, result } => {
                    self.answer(request, result, message.descriptor);
                }
                other => return Ok(Some((other, message.descriptor))),
            }
        }
        Ok(None)
    }
}

/// Forgets a question when its asker is gone.
struct Forget<'a>(&'a Passing, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.asked().waiting.remove(&self.1);
    }
}

/// Returns a descriptor which the agent has opened as the connection that it is.
pub(crate) fn tcp(descriptor: OwnedFd) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::from(descriptor);
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}
