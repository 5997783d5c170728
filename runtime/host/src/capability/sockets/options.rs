//! The options of a socket: wishes as long as it is not connected, and what the system has afterwards.
//!
//! Whatever is asked for is taken as near as the system lets it, as WASI says; who asks again hears what it is.

use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily};

/// What a connection has if nobody has asked for anything else: the defaults of Linux.
const IDLE_TIME: Duration = Duration::from_secs(7200);
const INTERVAL: Duration = Duration::from_secs(75);
const COUNT: u32 = 9;
const HOP_LIMIT: u8 = 64;
const RECEIVE_BUFFER: usize = 64 << 10;
const SEND_BUFFER: usize = 8 << 10;

/// What the system takes at most.
const MAX_TIME: Duration = Duration::from_secs(32_767);
const MAX_COUNT: u32 = 127;
/// The buffers are the system's memory and nobody's limit counts them, so they stay small.
const MAX_BUFFER: usize = 1 << 20;

/// What a socket shall have once it is connected.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    keep_alive: Option<bool>,
    idle_time: Option<Duration>,
    interval: Option<Duration>,
    count: Option<u32>,
    hop_limit: Option<u8>,
    receive_buffer: Option<usize>,
    send_buffer: Option<usize>,
}

impl Wishes {
    /// Asks the system for what was wished. A socket for which it has no room is as good as any other.
    pub(super) fn fulfil(&self, stream: &TcpStream, family: IpAddressFamily) {
        let mut options = Options::Real(stream, family);
        let results = [
            self.keep_alive.map(|value| options.set_keep_alive_enabled(value)),
            self.idle_time.map(|value| options.set_idle_time(value)),
            self.interval.map(|value| options.set_interval(value)),
            self.count.map(|value| options.set_keep_alive_count(value)),
            self.hop_limit.map(|value| options.set_hop_limit(value)),
            self.receive_buffer.map(|value| options.set_receive_buffer(value)),
            self.send_buffer.map(|value| options.set_send_buffer(value)),
        ];
        if results.into_iter().flatten().any(|result| result.is_err()) {
            tracing::debug!("an option of a guest's socket was not set");
        }
    }
}

/// The options of one socket.
pub(super) enum Options<'a> {
    Wished(&'a mut Wishes),
    Real(&'a TcpStream, IpAddressFamily),
}

type Result<T> = std::result::Result<T, ErrorCode>;

fn code(errno: Errno) -> ErrorCode {
    ErrorCode::from(std::io::Error::from(errno))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns a time that the system can count, in whole seconds and not zero; an error if it is zero.
fn time(nanoseconds: u64) -> Result<Duration> {
    match nanoseconds {
        0 => Err(ErrorCode::InvalidArgument),
        nanoseconds => {
            let seconds = Duration::from_secs(Duration::from_nanos(nanoseconds).as_secs());
            Ok(seconds.clamp(Duration::from_secs(1), MAX_TIME))
        }
    }
}

fn buffer(bytes: u64) -> Result<usize> {
    match bytes {
        0 => Err(ErrorCode::InvalidArgument),
        bytes => Ok(usize::try_from(bytes).unwrap_or(MAX_BUFFER).min(MAX_BUFFER)),
    }
}

impl Options<'_> {
    pub(super) fn keep_alive_enabled(&self) -> Result<bool> {
        match self {
            Self::Wished(wishes) => Ok(wishes.keep_alive.unwrap_or(false)),
            Self::Real(stream, _) => sockopt::socket_keepalive(stream).map_err(code),
        }
    }

    pub(super) fn set_keep_alive_enabled(&mut self, value: bool) -> Result<()> {
        match self {
            Self::Wished(wishes) => wishes.keep_alive = Some(value),
            Self::Real(stream, _) => sockopt::set_socket_keepalive(stream, value).map_err(code)?,
        }
        Ok(())
    }

    pub(super) fn keep_alive_idle_time(&self) -> Result<u64> {
        match self {
            Self::Wished(wishes) => Ok(nanoseconds(wishes.idle_time.unwrap_or(IDLE_TIME))),
            Self::Real(stream, _) => sockopt::tcp_keepidle(stream).map(nanoseconds).map_err(code),
        }
    }

    pub(super) fn set_keep_alive_idle_time(&mut self, value: u64) -> Result<()> {
        self.set_idle_time(time(value)?)
    }

    fn set_idle_time(&mut self, value: Duration) -> Result<()> {
        match self {
            Self::Wished(wishes) => wishes.idle_time = Some(value),
            Self::Real(stream, _) => sockopt::set_tcp_keepidle(stream, value).map_err(code)?,
        }
        Ok(())
    }

    pub(super) fn keep_alive_interval(&self) -> Result<u64> {
        match self {
            Self::Wished(wishes) => Ok(nanoseconds(wishes.interval.unwrap_or(INTERVAL))),
            Self::Real(stream, _) => sockopt::tcp_keepintvl(stream).map(nanoseconds).map_err(code),
        }
    }

    pub(super) fn set_keep_alive_interval(&mut self, value: u64) -> Result<()> {
        self.set_interval(time(value)?)
    }

    fn set_interval(&mut self, value: Duration) -> Result<()> {
        match self {
            Self::Wished(wishes) => wishes.interval = Some(value),
            Self::Real(stream, _) => sockopt::set_tcp_keepintvl(stream, value).map_err(code)?,
        }
        Ok(())
    }

    pub(super) fn keep_alive_count(&self) -> Result<u32> {
        match self {
            Self::Wished(wishes) => Ok(wishes.count.unwrap_or(COUNT)),
            Self::Real(stream, _) => sockopt::tcp_keepcnt(stream).map_err(code),
        }
    }

    pub(super) fn set_keep_alive_count(&mut self, value: u32) -> Result<()> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument);
        }
        let value = value.min(MAX_COUNT);
        match self {
            Self::Wished(wishes) => wishes.count = Some(value),
            Self::Real(stream, _) => sockopt::set_tcp_keepcnt(stream, value).map_err(code)?,
        }
        Ok(())
    }

    pub(super) fn hop_limit(&self) -> Result<u8> {
        match self {
            Self::Wished(wishes) => Ok(wishes.hop_limit.unwrap_or(HOP_LIMIT)),
            Self::Real(stream, IpAddressFamily::Ipv4) => {
                let limit = sockopt::ip_ttl(stream).map_err(code)?;
                Ok(u8::try_from(limit).unwrap_or(u8::MAX))
            }
            Self::Real(stream, IpAddressFamily::Ipv6) => sockopt::ipv6_unicast_hops(stream).map_err(code),
        }
    }

    pub(super) fn set_hop_limit(&mut self, value: u8) -> Result<()> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument);
        }
        match self {
            Self::Wished(wishes) => wishes.hop_limit = Some(value),
            Self::Real(stream, IpAddressFamily::Ipv4) => {
                sockopt::set_ip_ttl(stream, u32::from(value)).map_err(code)?;
            }
            Self::Real(stream, IpAddressFamily::Ipv6) => {
                sockopt::set_ipv6_unicast_hops(stream, Some(value)).map_err(code)?;
            }
        }
        Ok(())
    }

    // Linux sets buffers twice as large as it is asked for, since half of them is for its own use, and says so.

    pub(super) fn receive_buffer_size(&self) -> Result<u64> {
        match self {
            Self::Wished(wishes) => Ok(wishes.receive_buffer.unwrap_or(RECEIVE_BUFFER) as u64),
            Self::Real(stream, _) => {
                sockopt::socket_recv_buffer_size(stream).map(|size| size as u64 / 2).map_err(code)
            }
        }
    }

    pub(super) fn set_receive_buffer_size(&mut self, value: u64) -> Result<()> {
        self.set_receive_buffer(buffer(value)?)
    }

    fn set_receive_buffer(&mut self, value: usize) -> Result<()> {
        match self {
            Self::Wished(wishes) => wishes.receive_buffer = Some(value),
            Self::Real(stream, _) => sockopt::set_socket_recv_buffer_size(stream, value).map_err(code)?,
        }
        Ok(())
    }

    pub(super) fn send_buffer_size(&self) -> Result<u64> {
        match self {
            Self::Wished(wishes) => Ok(wishes.send_buffer.unwrap_or(SEND_BUFFER) as u64),
            Self::Real(stream, _) => {
                sockopt::socket_send_buffer_size(stream).map(|size| size as u64 / 2).map_err(code)
            }
        }
    }

    pub(super) fn set_send_buffer_size(&mut self, value: u64) -> Result<()> {
        self.set_send_buffer(buffer(value)?)
    }

    fn set_send_buffer(&mut self, value: usize) -> Result<()> {
        match self {
            Self::Wished(wishes) => wishes.send_buffer = Some(value),
            Self::Real(stream, _) => sockopt::set_socket_send_buffer_size(stream, value).map_err(code)?,
        }
        Ok(())
    }
}
