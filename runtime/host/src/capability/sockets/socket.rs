//! One socket of a guest: unconnected, on its way, connected, or at its end.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily};
use wasmtime_wasi::p2::bindings::sockets::tcp::ShutdownType;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, Pollable};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};

use super::super::outbound::{ConnectFailure, Connecting};
use super::Caller;
use super::options::{Options, Wishes};
use super::streams::{Reader, Writer};

/// A connection, counted as open until nobody has it any more.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

/// A connection in the making.
pub(super) struct Dialing {
    task: AbortOnDropJoinHandle<Result<Connection, ErrorCode>>,
    done: Option<Result<Connection, ErrorCode>>,
}

impl Dialing {
    /// Waits, then has `connecting` go on by itself.
    pub(super) fn begin(
        (connecting, wait): (Connecting, Duration),
        caller: Caller,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let task = spawn(async move {
            let connected = timeout(caller.time(), async {
                tokio::time::sleep(wait).await;
                connecting.await
            });
            match connected.await {
                Ok(Ok(stream)) => Ok(Connection { stream, _permit: permit }),
                Ok(Err(failure)) => Err(failed(failure, &caller)),
                Err(_elapsed) => {
                    caller.late();
                    Err(ErrorCode::Timeout)
                }
            }
        });
        Self { task, done: None }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.done.is_none() {
            match Pin::new(&mut self.task).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => self.done = Some(result),
            }
        }
        Poll::Ready(())
    }
}

fn failed(failure: ConnectFailure, caller: &Caller) -> ErrorCode {
    match failure {
        ConnectFailure::Denied(rule) => {
            caller.say(&format!("connection to {} denied: {rule}", caller.destination));
            ErrorCode::AccessDenied
        }
        ConnectFailure::NotResolved(_) | ConnectFailure::Unreachable(_) => ErrorCode::RemoteUnreachable,
        ConnectFailure::NotConnected(_) => ErrorCode::ConnectionRefused,
        ConnectFailure::TimedOut => {
            caller.late();
            ErrorCode::Timeout
        }
        ConnectFailure::LimitHit(hit) => {
            caller.hit(&hit);
            ErrorCode::NewSocketLimit
        }
    }
}

/// A socket as a guest has it.
pub(super) struct Socket {
    family: IpAddressFamily,
    state: State,
    wishes: Wishes,
}

enum State {
    Unconnected(Binding),
    Connecting(Dialing),
    Connected {
        connection: Arc<Connection>,
        reader: Reader,
        writer: Writer,
    },
    /// It could not be connected.
    Failed(ErrorCode),
}

/// How far it is bound, which is to no address and no port of its choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binding {
    Unbound,
    UnderWay,
    Bound,
}

impl Socket {
    pub(super) fn new(family: IpAddressFamily) -> Self {
        Self { family, state: State::Unconnected(Binding::Unbound), wishes: Wishes::default() }
    }

    pub(super) fn family(&self) -> IpAddressFamily {
        self.family
    }

    /// Tells whether it is a connection, or will be one soon.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Connecting(_) | State::Connected { .. })
    }

    /// Binds it to whatever address and port it will have; there is no choice.
    pub(super) fn start_bind(&mut self, local: SocketAddr) -> Result<(), ErrorCode> {
        match self.state {
            State::Unconnected(Binding::Unbound) => {}
            State::Unconnected(Binding::UnderWay) => return Err(ErrorCode::ConcurrencyConflict),
            _ => return Err(ErrorCode::InvalidState),
        }
        self.check(local.ip())?;
        if local != self.any() {
            return Err(ErrorCode::AccessDenied);
        }
        self.state = State::Unconnected(Binding::UnderWay);
        Ok(())
    }

    pub(super) fn finish_bind(&mut self) -> Result<(), ErrorCode> {
        let State::Unconnected(binding @ Binding::UnderWay) = &mut self.state else {
            return Err(ErrorCode::NotInProgress);
        };
        *binding = Binding::Bound;
        Ok(())
    }

    /// Returns why it cannot listen.
    pub(super) fn may_listen(&self) -> ErrorCode {
        match self.state {
            State::Unconnected(Binding::Bound) => ErrorCode::AccessDenied,
            State::Unconnected(Binding::UnderWay) | State::Connecting(_) => ErrorCode::ConcurrencyConflict,
            _ => ErrorCode::InvalidState,
        }
    }

    /// Takes note of nothing: it is a hint for who listens.
    pub(super) fn set_listen_backlog_size(&self, value: u64) -> Result<(), ErrorCode> {
        match self.state {
            _ if value == 0 => Err(ErrorCode::InvalidArgument),
            State::Unconnected(_) => Ok(()),
            _ => Err(ErrorCode::InvalidState),
        }
    }

    /// Tells whether it could be connected to `remote` as it is, whoever that is.
    pub(super) fn may_connect(&self, remote: SocketAddr) -> Result<(), ErrorCode> {
        match self.state {
            State::Unconnected(Binding::Unbound | Binding::Bound) => {}
            State::Unconnected(Binding::UnderWay) | State::Connecting(_) => {
                return Err(ErrorCode::ConcurrencyConflict);
            }
            _ => return Err(ErrorCode::InvalidState),
        }
        self.check(remote.ip())?;
        if remote.ip().is_unspecified() || remote.port() == 0 {
            return Err(ErrorCode::InvalidArgument);
        }
        match remote {
            // Which of the node's interfaces it is cannot be said to who connects.
            SocketAddr::V6(remote) if remote.scope_id() != 0 => Err(ErrorCode::NotSupported),
            _ => Ok(()),
        }
    }

    pub(super) fn connect(&mut self, dialing: Dialing) {
        self.state = State::Connecting(dialing);
    }

    /// Returns its streams, once it is connected.
    pub(super) fn finish_connect(&mut self) -> Result<(DynInputStream, DynOutputStream), ErrorCode> {
        let State::Connecting(dialing) = &mut self.state else { return Err(ErrorCode::NotInProgress) };
        let Poll::Ready(()) = dialing.poll(&mut Context::from_waker(Waker::noop())) else {
            return Err(ErrorCode::WouldBlock);
        };
        match dialing.done.take() {
            Some(Ok(connection)) => {
                self.wishes.fulfil(&connection.stream, self.family);
                let connection = Arc::new(connection);
                let (reader, writer) =
                    (Reader::new(Arc::clone(&connection)), Writer::new(Arc::clone(&connection)));
                let streams = (Box::new(reader.clone()) as _, Box::new(writer.clone()) as _);
                self.state = State::Connected { connection, reader, writer };
                Ok(streams)
            }
            Some(Err(code)) => {
                self.state = State::Failed(code);
                Err(code)
            }
            None => Err(ErrorCode::NotInProgress),
        }
    }

    pub(super) fn local_address(&self) -> Result<SocketAddr, ErrorCode> {
        match &self.state {
            // The port is chosen when it is connected.
            State::Unconnected(Binding::Bound) => Ok(self.any()),
            State::Connected { connection, .. } => of_family(connection.stream.local_addr()),
            State::Failed(code) => Err(*code),
            State::Unconnected(_) | State::Connecting(_) => Err(ErrorCode::InvalidState),
        }
    }

    pub(super) fn remote_address(&self) -> Result<SocketAddr, ErrorCode> {
        match &self.state {
            State::Connected { connection, .. } => of_family(connection.stream.peer_addr()),
            State::Failed(code) => Err(*code),
            State::Unconnected(_) | State::Connecting(_) => Err(ErrorCode::InvalidState),
        }
    }

    /// Returns its options: those of the connection, or what they shall be.
    pub(super) fn options(&mut self) -> Result<Options<'_>, ErrorCode> {
        match &self.state {
            State::Unconnected(_) => Ok(Options::Wished(&mut self.wishes)),
            State::Connected { connection, .. } => Ok(Options::Real(&connection.stream, self.family)),
            State::Connecting(_) => Err(ErrorCode::InvalidState),
            State::Failed(code) => Err(*code),
        }
    }

    pub(super) fn shutdown(&mut self, how: ShutdownType) -> Result<(), ErrorCode> {
        let State::Connected { reader, writer, .. } = &self.state else {
            return Err(ErrorCode::InvalidState);
        };
        if matches!(how, ShutdownType::Receive | ShutdownType::Both) {
            reader.shut_down();
        }
        if matches!(how, ShutdownType::Send | ShutdownType::Both) {
            writer.shut_down();
        }
        Ok(())
    }

    /// Any address and any port.
    fn any(&self) -> SocketAddr {
        match self.family {
            IpAddressFamily::Ipv4 => SocketAddr::from(([0, 0, 0, 0], 0)),
            IpAddressFamily::Ipv6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        }
    }

    /// Tells whether `address` could be at an end of this socket.
    fn check(&self, address: IpAddr) -> Result<(), ErrorCode> {
        let is_fit = match (self.family, address) {
            (IpAddressFamily::Ipv4, IpAddr::V4(address)) => {
                !address.is_multicast() && !address.is_broadcast()
            }
            // An IPv4 address in another coat is none of this family.
            (IpAddressFamily::Ipv6, IpAddr::V6(address)) => {
                let is_compatible =
                    address.segments()[..6] == [0; 6] && !address.is_unspecified() && !address.is_loopback();
                !address.is_multicast() && address.to_ipv4_mapped().is_none() && !is_compatible
            }
            _ => false,
        };
        if is_fit { Ok(()) } else { Err(ErrorCode::InvalidArgument) }
    }
}

fn of_family(address: io::Result<SocketAddr>) -> Result<SocketAddr, ErrorCode> {
    address.map_err(|error| ErrorCode::from(&error))
}

#[async_trait]
impl Pollable for Socket {
    async fn ready(&mut self) {
        if let State::Connecting(dialing) = &mut self.state {
            std::future::poll_fn(|context| dialing.poll(context)).await;
        }
    }
}
