//! The limits of an ingress. Each default is a documented constant.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::AddressRange;

use crate::AccessLog;

/// The most bytes of a request's head.
pub(crate) const MAX_HEAD: u32 = 32 << 10;
/// The most bytes that one connection buffers before it stops reading.
pub(crate) const MAX_BUFFER: usize = 64 << 10;
/// The most requests at the same time on one HTTP/2 connection.
pub(crate) const MAX_CONCURRENT_STREAMS: u32 = 128;
/// The flow-control windows of one HTTP/2 stream and of one HTTP/2 connection.
pub(crate) const HTTP2_WINDOWS: (u32, u32) = (256 << 10, 1 << 20);
/// How many endpoints one request may try.
pub(crate) const MAX_TRIES: usize = 3;
/// How many bytes of a request's body are kept for another try.
pub(crate) const MAX_REPLAY: usize = 64 << 10;
/// The most idle connections kept to one worker.
pub(crate) const MAX_IDLE: usize = 256;
/// How long a client whose connection is to end may take to send the request that gets the last response.
pub(crate) const LAST_REQUEST_TIME: Duration = Duration::from_secs(1);
/// How long a request waits for a node that says it is about to be back, if no other can answer,
pub(crate) const BACK_TIME: Duration = Duration::from_secs(20);
/// and how long from one try to the next.
pub(crate) const BACK_PAUSE: Duration = Duration::from_millis(50);
/// How long a request waits where all that should answer say that they are not there: others may be known in a moment.
pub(crate) const ROUTES_TIME: Duration = Duration::from_secs(1);
/// How long an endpoint that failed is tried last.
pub(crate) const SUSPECT_FOR: Duration = Duration::from_secs(2);

/// What an operator or a test may set.
#[derive(Clone, Debug)]
pub struct IngressConfig {
    /// How long a client may take to send the head of a request, and how long it may be idle.
    pub header_timeout: Duration,
    /// How long opening a connection to a worker or a node may take.
    pub connect_timeout: Duration,
    /// How long the head of another node's response is waited for, all tries together.
    pub peer_timeout: Duration,
    /// How long the head of a worker's response is waited for; above the longest deadline of a request.
    pub local_timeout: Duration,
    /// How long requests may take to end after the shutdown.
    pub drain_timeout: Duration,
    /// The most connections of clients at the same time; further ones wait to be accepted.
    pub max_connections: u32,
    /// Whether connections are handed to workers.
    pub hand_off: bool,
    /// The addresses of proxies, whose word on where a request comes from is believed.
    pub trusted_proxies: Vec<AddressRange>,
    /// The addresses of balancers that say by the `PROXY` protocol for whom a connection is.
    pub proxy_protocol: Vec<AddressRange>,
    /// Where it is told of each request of a client; nowhere if absent.
    pub access_log: Option<Arc<AccessLog>>,
    /// Where clients in the clear are sent to, if they are not served: the port at which they are served over TLS.
    pub redirect_port: Option<u16>,
}

impl IngressConfig {
    /// Tells whether what this client says of where requests come from is believed.
    pub(crate) fn trusts(&self, client: IpAddr) -> bool {
        contain(&self.trusted_proxies, client)
    }

    /// Tells whether connections from there begin with a header of the `PROXY` protocol.
    pub(crate) fn expects_proxy_protocol(&self, from: IpAddr) -> bool {
        contain(&self.proxy_protocol, from)
    }
}

fn contain(ranges: &[AddressRange], address: IpAddr) -> bool {
    // An IPv4 address of a socket for both kinds.
    let address = address.to_canonical();
    ranges.iter().any(|range| range.contains(address))
}

impl Default for IngressConfig {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            peer_timeout: Duration::from_secs(60),
            local_timeout: Duration::from_secs(610),
            drain_timeout: Duration::from_secs(10),
            max_connections: 8192,
            hand_off: true,
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            access_log: None,
            redirect_port: None,
        }
    }
}
