//! The sockets at which a node is reached: those it was given when it was started, or new ones.
//!
//! They are given as systemd does it: by `sd_listen_fds(3)`, so a unit of type `.socket` works, and so does an agent that
//! starts itself again: who connects meanwhile waits for a moment and is not refused.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use anyhow::Context as _;
use listenfd::ListenFd;

use crate::Config;
use crate::settings::TlsSettings;

/// How many clients may wait to be accepted; the kernel's own limit is lower on some machines.
const MAX_WAITING: u32 = 4096;

/// What was there before the agent was started.
#[derive(Debug, Default)]
pub struct Inherited {
    ingress: Option<TcpListener>,
    ingress_tls: Option<TcpListener>,
    endpoint: Option<UdpSocket>,
    former_workers: Vec<i32>,
    /// Whether this process was an agent before.
    is_own: bool,
}

impl Inherited {
    /// The variable that names the processes of workers which outlived the program that this process was before, with
    /// commas.
    pub const FORMER_WORKERS: &str = "DUNLIN_FORMER_WORKERS";

    /// Takes what the environment tells of, each by its kind. To be called once, before the process has threads: what was
    /// taken stands there no more.
    ///
    /// # Errors
    ///
    /// Something else was given, or more than one of a kind.
    pub fn take() -> io::Result<Self> {
        let (mut given, mut inherited) = (ListenFd::from_env(), Self::default());
        let former = std::env::var(Self::FORMER_WORKERS);
        inherited.is_own = former.is_ok();
        let former = former.unwrap_or_default();
        inherited.former_workers = former.split(',').filter_map(|process| process.parse().ok()).collect();
        for index in 0..given.len() {
            match (given.take_tcp_listener(index), given.take_udp_socket(index)) {
                (Ok(Some(listener)), _) if inherited.ingress.is_none() => inherited.ingress = Some(listener),
                // As in the files of a unit, the order tells which is which.
                (Ok(Some(listener)), _) if inherited.ingress_tls.is_none() => {
                    inherited.ingress_tls = Some(listener);
                }
                (_, Ok(Some(socket))) if inherited.endpoint.is_none() => inherited.endpoint = Some(socket),
                _ => {
                    let number = index + 1;
                    let what = format!(
                        "socket {number} of those in LISTEN_FDS is none that an agent can use: it takes one that \
                         listens on TCP, for requests, then perhaps one more, for requests over TLS, and one of UDP, \
                         for its coordinator and other nodes"
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
                }
            }
        }
        Ok(inherited)
    }

    /// Takes the workers that outlived the program before.
    pub(crate) fn former_workers(&self) -> Vec<i32> {
        self.former_workers.clone()
    }

    /// Tells whether clients may wait already.
    pub(crate) fn has_clients(&self) -> bool {
        self.ingress.is_some()
    }
}

/// The sockets of an agent. Clients that come while nobody accepts them wait in the first one.
#[derive(Debug)]
pub struct Sockets {
    /// For requests (TCP).
    pub ingress: TcpListener,
    /// For requests over TLS (TCP), if the node's config file wants it.
    pub ingress_tls: Option<TcpListener>,
    /// For the coordinator and other nodes (UDP).
    pub endpoint: UdpSocket,
}

impl Sockets {
    /// Returns those that were inherited, and for the others new ones at the addresses of `config`.
    pub(crate) fn open(inherited: Inherited, config: &Config) -> anyhow::Result<Self> {
        let endpoint = inherited.endpoint.map_or_else(|| UdpSocket::bind(config.endpoint), Ok);
        let endpoint = endpoint
            .with_context(|| format!("could not listen for other nodes on {} (UDP)", config.endpoint))?;
        let ingress = inherited.ingress.map_or_else(|| listen(config.ingress), Ok);
        let ingress =
            ingress.with_context(|| format!("could not listen for requests on {} (TCP)", config.ingress))?;
        ingress.set_nonblocking(true)?;
        let ingress_tls = match &config.settings.ingress.tls {
            None => None,
            Some(TlsSettings { listen: address, .. }) => {
                let is_own = inherited.is_own;
                let kept = inherited.ingress_tls.filter(|kept| !is_own || is_at(kept, *address));
                let opened = kept.map_or_else(|| listen(*address), Ok);
                let opened = opened
                    .with_context(|| format!("could not listen for requests over TLS on {address} (TCP)"));
                match opened {
                    Ok(listener) => {
                        listener.set_nonblocking(true)?;
                        Some(listener)
                    }
                    // Those who wait at the other socket are served all the same.
                    Err(error) if is_own => {
                        tracing::error!("{error:#}; nobody is served over TLS until the agent starts again");
                        None
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        Ok(Self { ingress, ingress_tls, endpoint })
    }

    /// Returns the same sockets once more.
    pub(crate) fn again(&self) -> io::Result<Self> {
        let ingress_tls = self.ingress_tls.as_ref().map(TcpListener::try_clone).transpose()?;
        Ok(Self { ingress: self.ingress.try_clone()?, ingress_tls, endpoint: self.endpoint.try_clone()? })
    }
}

/// Tells whether a socket is where it should be; any port will do where none is wanted.
fn is_at(listener: &TcpListener, wanted: SocketAddr) -> bool {
    let is_port = |address: SocketAddr| wanted.port() == 0 || address.port() == wanted.port();
    listener.local_addr().is_ok_and(|address| address.ip() == wanted.ip() && is_port(address))
}

/// Listens as tokio does: with the address free again at once after the end, and room for many who wait.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(MAX_WAITING)?.into_std()
}
