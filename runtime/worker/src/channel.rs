//! The channel to the agent: the connections that this process uses, all of which others have opened.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_descriptors::{Channel, file_in_memory};
use dunlin_model::{AllocationId, InstanceId, WorkloadName};
use dunlin_protocol::{ConnectError, Outbound, PassedToAgent, PassedToWorker, decode, encode};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;

/// Passes messages and descriptors to the agent, and waits for its answers.
pub(crate) struct Passing {
    channel: Channel,
    asked: Mutex<Asked>,
}

/// The questions that wait for their answers.
#[derive(Default)]
struct Asked {
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
}

/// Who waits for an answer.
enum Waiting {
    Connection(oneshot::Sender<Connection>),
    Addresses(oneshot::Sender<Addresses>),
    Call(oneshot::Sender<Call>),
}

type Connection = Result<(TcpStream, SocketAddr), ConnectError>;
type Addresses = Result<Vec<IpAddr>, ConnectError>;
type Call = Result<UnixStream, ConnectError>;

/// Where a connection is wanted to, on behalf of a guest.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) allocation: AllocationId,
    pub(crate) using: Outbound,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) address: Option<IpAddr>,
}

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

    /// Asks for a connection, and returns it with its address.
    pub(crate) async fn connect(&self, wanted: Wanted) -> Connection {
        let (answer, answered) = oneshot::channel();
        let question = self.question(Waiting::Connection(answer));
        let Wanted { allocation, using, host, port, address } = wanted;
        let message =
            PassedToAgent::Connect { request: question.request, allocation, using, host, port, address };
        self.send(&message, None).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Asks for the addresses of `name` on behalf of a guest of `allocation`.
    pub(crate) async fn resolve(&self, allocation: AllocationId, name: String) -> Addresses {
        let (answer, answered) = oneshot::channel();
        let question = self.question(Waiting::Addresses(answer));
        let message = PassedToAgent::Resolve { request: question.request, allocation, name };
        self.send(&message, None).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Asks for a way to send one request of a guest of `allocation` to `service`.
    pub(crate) async fn call(&self, allocation: AllocationId, service: WorkloadName) -> Call {
        let (answer, answered) = oneshot::channel();
        let question = self.question(Waiting::Call(answer));
        let message = PassedToAgent::Call { request: question.request, allocation, service };
        self.send(&message, None).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    fn question(&self, waiting: Waiting) -> Question<'_> {
        let mut asked = self.asked();
        asked.last += 1;
        let request = asked.last;
        asked.waiting.insert(request, waiting);
        Question { passing: self, request }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a connection to who waits for it.
    fn connected(&self, request: u64, result: Result<SocketAddr, ConnectError>, stream: Option<OwnedFd>) {
        let Some(Waiting::Connection(waiting)) = self.asked().waiting.remove(&request) else { return };
        let answer = result.and_then(|address| match stream.map(tcp) {
            Some(Ok(stream)) => Ok((stream, address)),
            Some(Err(error)) => Err(ConnectError::NotConnected(error.to_string())),
            None => Err(too_many_files()),
        });
        let _gone = waiting.send(answer);
    }

    /// Gives addresses to who waits for them.
    fn resolved(&self, request: u64, result: Addresses) {
        let Some(Waiting::Addresses(waiting)) = self.asked().waiting.remove(&request) else { return };
        let _gone = waiting.send(result);
    }

    /// Gives the way for a call to who waits for it.
    fn called(&self, request: u64, result: Result<(), ConnectError>, stream: Option<OwnedFd>) {
        let Some(Waiting::Call(waiting)) = self.asked().waiting.remove(&request) else { return };
        let answer = result.and_then(|()| match stream.map(unix) {
            Some(Ok(stream)) => Ok(stream),
            Some(Err(error)) => Err(ConnectError::NotConnected(error.to_string())),
            None => Err(too_many_files()),
        });
        let _gone = waiting.send(answer);
    }

    /// Returns the next message of the agent that is no answer; nothing once the agent is gone.
    pub(crate) async fn next(&self) -> io::Result<Option<(PassedToWorker, Option<OwnedFd>)>> {
        while let Some(message) = self.channel.receive().await? {
            match decode(&message.bytes).map_err(io::Error::other)? {
                PassedToWorker::Connected { request, result } => {
                    self.connected(request, result, message.descriptor);
                }
                PassedToWorker::Resolved { request, result } => self.resolved(request, result),
                PassedToWorker::Called { request, result } => {
                    self.called(request, result, message.descriptor);
                }
                other => return Ok(Some((other, message.descriptor))),
            }
        }
        Ok(None)
    }
}

/// A question under way, which is forgotten when its asker is gone.
struct Question<'a> {
    passing: &'a Passing,
    request: u64,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.passing.asked().waiting.remove(&self.request);
    }
}

fn too_many_files() -> ConnectError {
    ConnectError::NotConnected("this worker has too many open files".to_owned())
}

fn gone() -> ConnectError {
    ConnectError::NotConnected("the agent is gone".to_owned())
}

/// Returns a descriptor which the agent has opened as the connection that it is.
pub(crate) fn tcp(descriptor: OwnedFd) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::from(descriptor);
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// The same of one end of a pair of sockets.
pub(crate) fn unix(descriptor: OwnedFd) -> io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(descriptor);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
